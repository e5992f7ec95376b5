//! Broadcasts that expire: they wait here, without sequence numbers, until the machine puts them into a slot at once.

use core::fmt;
use std::collections::VecDeque;

use bytes::Bytes;
use cloudy_proto::limits::PAYLOAD_COST_BYTES_MIN;
use cloudy_proto::{MessageId, Seq};
use tokio::time::Instant;

use crate::group::outbox::Outbox;

/// The handling of the id of a payload that has a slot, before the payload is sent. False if its caller is gone.
pub(crate) type OnId = Box<dyn FnOnce(MessageId) -> bool + Send>;

/// A payload that is in no slot, and the caller that waits for its id.
struct Waiting {
    ticket: u64,
    payload: Bytes,
    expires_at: Instant,
    on_id: OnId,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// The broadcasts that expire, in the order of their calls.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    waiting: VecDeque<Waiting>,
    /// The number of calls so far.
    tickets: u64,
}

/// The place of a plain broadcast among those that expire: it waits for the ones that were called before it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn(Option<u64>);

/// A payload that has its sequence number, and the caller to notify.
pub(crate) type Admitted = (Seq, OnId);

impl Expiring {
    /// Adds a payload. Returns its ticket.
    pub(crate) fn push(&mut self, payload: Bytes, expires_at: Instant, on_id: OnId) -> u64 {
        self.tickets += 1;
        self.waiting.push_back(Waiting { ticket: self.tickets, payload, expires_at, on_id });
        self.tickets
    }

    /// Removes a payload. False if it does not wait: it has a slot, or was withdrawn.
    pub(crate) fn withdraw(&mut self, ticket: u64) -> bool {
        let at = self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket);
        at.is_ok_and(|at| self.waiting.remove(at).is_some())
    }

    /// Withdraws all payloads, because this node broadcasts nothing else. Their callers see the reason in the state.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Whether a plain broadcast has to wait for payloads that were called before it.
    pub(crate) fn delays(&self, turn: &mut Turn) -> bool {
        let behind = *turn.0.get_or_insert(self.tickets);
        self.waiting.front().is_some_and(|waiting| waiting.ticket <= behind)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first payload that has not expired. The expired ones before it are withdrawn.
    fn first(&mut self, now: Instant) -> Option<&Waiting> {
        while self.waiting.front().is_some_and(|waiting| waiting.expires_at <= now) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }

    /// The cost of the first payload that has not expired.
    pub(crate) fn first_cost_bytes(&mut self, now: Instant) -> Option<u64> {
        self.first(now).map(|waiting| cost_bytes(waiting.payload.len(), 1))
    }

    /// Moves the payloads of one slot into an empty outbox, as far as `takes` accepts the slot's cost.
    pub(crate) fn admit(&mut self, now: Instant, outbox: &mut Outbox, takes: impl Fn(u64) -> bool) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        let mut body_bytes = 0;
        while let Some(waiting) = self.first(now) {
            let bytes = waiting.payload.len();
            let cost = cost_bytes(body_bytes + bytes, admitted.len() + 1);
            if !outbox.fits_in_slot(bytes) || !takes(cost) {
                break;
            }
            let Some(Waiting { payload, on_id, .. }) = self.waiting.pop_front() else { break };
            admitted.push((outbox.push(&payload), on_id));
            body_bytes += bytes + LENGTH_BYTES_MAX;
        }
        admitted
    }
}

/// The bytes of a payload's length in a slot's body, at most.
const LENGTH_BYTES_MAX: usize = 5;

/// The cost of a slot, or a little more.
fn cost_bytes(payload_bytes: usize, count: usize) -> u64 {
    ((payload_bytes + LENGTH_BYTES_MAX) as u64).max(count as u64 * PAYLOAD_COST_BYTES_MIN)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    fn waiting(payloads: &[usize]) -> (Expiring, Vec<oneshot::Receiver<MessageId>>, Instant) {
        let (mut expiring, start) = (Expiring::default(), Instant::now());
        let push = |&bytes: &usize| {
            let (reply, receipt) = oneshot::channel();
            let on_id = Box::new(|id| reply.send(id).is_ok());
            expiring.push(vec![0; bytes].into(), start + Duration::from_secs(1), on_id);
            receipt
        };
        let receipts = payloads.iter().map(push).collect();
        (expiring, receipts, start)
    }

    #[test]
    fn one_slot_is_admitted_at_a_time_and_no_more_than_the_machine_takes() {
        let (mut expiring, _receipts, now) = waiting(&[10, 10, 10, 10, 100]);
        let mut outbox = Outbox::new(40, 100, 1_000);
        assert!(expiring.admit(now, &mut outbox, |_| false).is_empty());
        assert_eq!(expiring.admit(now, &mut outbox, |cost| cost < 40).len(), 2);
        assert_eq!(outbox.take().unwrap().count, 2);
        let admitted = expiring.admit(now, &mut outbox, |_| true);
        assert_eq!(admitted.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [Seq(3), Seq(4)]);
        assert_eq!(outbox.take().unwrap().count, 2, "the large one has a slot of its own");
        assert_eq!(expiring.admit(now, &mut outbox, |_| true).len(), 1);
        assert!(expiring.is_empty());
    }

    #[test]
    fn an_expired_payload_is_withdrawn_and_its_caller_notified() {
        let (mut expiring, mut receipts, start) = waiting(&[0, 100]);
        assert_eq!(expiring.first_cost_bytes(start), Some(PAYLOAD_COST_BYTES_MIN));
        assert!(expiring.withdraw(1) && !expiring.withdraw(1));
        assert_eq!(expiring.first_cost_bytes(start), Some(105));
        assert_eq!(expiring.first_cost_bytes(start + Duration::from_secs(1)), None);
        assert!(receipts.iter_mut().all(|receipt| receipt.try_recv() == Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn a_plain_broadcast_waits_for_those_before_it_only() {
        let (mut expiring, _receipts, start) = waiting(&[1, 1]);
        let mut turn = Turn::default();
        assert!(expiring.delays(&mut turn));
        expiring.push(Bytes::new(), start, Box::new(|_| true));
        expiring.withdraw(1);
        assert!(expiring.delays(&mut turn));
        expiring.withdraw(2);
        assert!(!expiring.delays(&mut turn) && expiring.delays(&mut Turn::default()));
    }
}
