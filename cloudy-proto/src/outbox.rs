//! Own payloads that wait for a round.

use std::collections::VecDeque;

use crate::id::Seq;
use crate::slot::Batch;
use crate::throttle::Throttle;
use crate::time::Time;

/// A queue of batches, each of which becomes one slot. Sequence numbers are consecutive.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    batches: VecDeque<Batch>,
    payloads: u64,
    bytes: u64,
    last: Seq,
    /// The cost of the first payload that waits at the driver until it gets a slot at once.
    outside: Option<u64>,
    /// A limit on what leaves it.
    throttle: Throttle,
}

impl Outbox {
    /// The limit on what leaves it.
    pub(crate) fn throttle_mut(&mut self) -> &mut Throttle {
        &mut self.throttle
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.throttle.is_limited()
    }

    /// The next slot's payloads, unless the limit holds them back.
    pub(crate) fn peek_due(&self, now: Time) -> Option<&Batch> {
        self.batches.front().filter(|_| self.throttle.allows(now))
    }

    /// Payloads wait that may be sent. A member that has none skips, even if its limit holds payloads back.
    pub(crate) fn has_due(&self, now: Time) -> bool {
        self.peek_due(now).is_some()
    }

    /// When payloads may be sent that the limit holds back.
    pub(crate) fn due_at(&self) -> Option<Time> {
        self.throttle.free_at().filter(|_| !self.batches.is_empty() || self.outside.is_some())
    }

    /// Whether the limit holds nothing back.
    pub(crate) fn allows(&self, now: Time) -> bool {
        self.throttle.allows(now)
    }

    /// Notes the first payload that waits at the driver.
    pub(crate) fn set_outside(&mut self, cost_bytes: Option<u64>) {
        self.outside = cost_bytes;
    }

    /// The cost of the first payload that waits at the driver, if the limit does not hold it back.
    pub(crate) fn outside_due(&self, now: Time) -> Option<u64> {
        self.outside.filter(|_| self.throttle.allows(now))
    }

    /// Whether payloads that may be sent wait here or at the driver.
    pub(crate) fn reports_due(&self, now: Time) -> bool {
        self.has_due(now) || self.outside_due(now).is_some()
    }

    /// The next slot's payloads are sent.
    #[inline]
    pub(crate) fn pop_sent(&mut self, now: Time) -> Option<Batch> {
        let batch = self.pop()?;
        self.throttle.sent(batch.fetch_bytes(), now);
        Some(batch)
    }

    /// Adds broadcasts of the application. Their numbers continue those of the batch before.
    pub(crate) fn push(&mut self, batch: Batch) {
        debug_assert_eq!(batch.first_seq, self.last.next(), "numbers are given without gaps");
        self.last = batch.last_seq();
        self.payloads += u64::from(batch.count);
        self.bytes += batch.cost_bytes();
        self.batches.push_back(batch);
    }

    /// Puts back batches that a view change excluded, at the head, with their old numbers.
    pub(crate) fn put_back(&mut self, batches: Vec<Batch>) {
        for batch in batches.into_iter().rev() {
            debug_assert!(self.batches.front().is_none_or(|next| batch.last_seq().next() == next.first_seq));
            self.payloads += u64::from(batch.count);
            self.bytes += batch.cost_bytes();
            self.batches.push_front(batch);
        }
    }

    /// Breaks [`Rule::PutBackAtHead`](crate::Rule): puts them behind batches that were never sent.
    pub(crate) fn put_behind(&mut self, batches: Vec<Batch>) {
        for batch in batches {
            self.payloads += u64::from(batch.count);
            self.bytes += batch.cost_bytes();
            self.batches.push_back(batch);
        }
    }

    /// Removes messages that are in the result already, up to a sequence number.
    pub(crate) fn leave_out(&mut self, approved: Seq) {
        while let Some(batch) = self.batches.front().filter(|batch| batch.first_seq <= approved).cloned() {
            self.pop();
            if batch.last_seq() > approved {
                let known = (approved.0 - batch.first_seq.0 + 1) as u32;
                self.put_back(vec![batch.without_first(known)]);
                return;
            }
        }
    }

    /// Removes the payloads of the next slot.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.payloads -= u64::from(batch.count);
        self.bytes -= batch.cost_bytes();
        Some(batch)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn payloads(&self) -> u64 {
        self.payloads
    }

    /// The sequence number of the last payload that was added; zero before the first.
    pub(crate) fn last_seq(&self) -> Seq {
        self.last
    }
}
