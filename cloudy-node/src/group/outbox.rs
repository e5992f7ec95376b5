//! The open slot: broadcasts wait here until the machine takes them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use cloudy_proto::Seq;
use cloudy_proto::slot::{Batch, push_payload};

/// Maximum bytes that are reserved in advance: the capacity of several slots that share one allocation.
const OPEN_BYTES: usize = 64 << 10;
/// Number of slots for which one allocation is made.
const SHARED_BY: usize = 4;
/// A smaller slot is copied out of a shared allocation, because the result retains its slots for long.
const SHARED_BYTES_MIN: usize = 4 << 10;

/// Broadcast payloads that the machine has not taken yet, laid out as slots.
#[derive(Debug)]
pub(crate) struct Outbox {
    slot_bytes_max: usize,
    slot_payloads_max: u32,
    bytes_max: usize,
    open: BytesMut,
    open_count: u32,
    sealed: VecDeque<Batch>,
    bytes: usize,
    last: Seq,
    /// The last sequence number that the machine has put into a slot.
    taken: Seq,
}

impl Outbox {
    pub(crate) fn new(slot_bytes_max: usize, slot_payloads_max: u32, bytes_max: usize) -> Self {
        Self {
            slot_bytes_max,
            slot_payloads_max,
            // A single payload of any size is accepted.
            bytes_max: bytes_max.max(1),
            open: BytesMut::new(),
            open_count: 0,
            sealed: VecDeque::new(),
            bytes: 0,
            last: Seq(0),
            taken: Seq(0),
        }
    }

    /// Whether another payload has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether no payload waits for the machine.
    pub(crate) fn is_empty(&self) -> bool {
        self.open_count == 0 && self.sealed.is_empty()
    }

    /// Appends a payload and returns its sequence number. If any capacity is left, a payload of any size is accepted.
    pub(crate) fn push(&mut self, payload: &[u8]) -> Seq {
        if self.open_count > 0 && self.open.len() + payload.len() >= self.slot_bytes_max {
            self.seal();
        }
        if self.open.is_empty() {
            self.open_slot(payload.len() + 5);
        }
        let before = self.open.len();
        push_payload(&mut self.open, payload);
        self.bytes += self.open.len() - before;
        self.open_count += 1;
        self.last = self.last.next();
        if self.open_count >= self.slot_payloads_max || self.open.len() >= self.slot_bytes_max {
            self.seal();
        }
        self.last
    }

    /// Whether a payload fits into the slot that the next one is put into; the first payload of a slot has any size.
    pub(crate) fn fits_in_slot(&self, bytes: usize) -> bool {
        self.sealed.is_empty() && (self.open_count == 0 || self.open.len() + bytes < self.slot_bytes_max)
    }

    /// Reserves capacity for a slot of payloads of this size, and for some slots after it.
    fn open_slot(&mut self, payload_bytes: usize) {
        let full = payload_bytes.saturating_mul(self.slot_payloads_max as usize).min(self.slot_bytes_max);
        let slot_bytes = full.max(payload_bytes);
        if self.open.capacity() < slot_bytes {
            let shared = SHARED_BY * slot_bytes <= OPEN_BYTES && slot_bytes >= SHARED_BYTES_MIN;
            self.open = BytesMut::with_capacity(if shared { SHARED_BY * slot_bytes } else { slot_bytes });
        }
    }

    /// Takes the payloads of the next slot.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.sealed.is_empty() {
            self.seal();
        }
        let batch = self.sealed.pop_front()?;
        self.bytes -= batch.body.len();
        Some(batch)
    }

    fn seal(&mut self) {
        if self.open_count > 0 {
            let first_seq = Seq(self.last.0 - u64::from(self.open_count) + 1);
            let body = self.take_body();
            self.sealed.push_back(Batch { first_seq, count: self.open_count, body });
            self.open_count = 0;
        }
    }

    fn take_body(&mut self) -> Bytes {
        if self.open.len() < SHARED_BYTES_MIN {
            let body = Bytes::copy_from_slice(&self.open);
            self.open.clear();
            body
        } else {
            self.open.split().freeze()
        }
    }

    /// The sequence number of the last broadcast.
    pub(crate) fn last(&self) -> Seq {
        self.last
    }

    /// Notes that the machine has put all payloads up to this number into slots. Returns whether that is new.
    pub(crate) fn set_taken(&mut self, taken: Seq) -> bool {
        let moved = taken > self.taken;
        self.taken = self.taken.max(taken);
        moved
    }

    /// Bytes of the payloads that the machine has not taken.
    #[cfg(feature = "admin")]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of payloads without a slot.
    pub(crate) fn waiting(&self) -> u64 {
        self.last.0 - self.taken.0
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::slot::check_body;

    use super::*;

    #[test]
    fn slots_are_closed_by_bytes_and_by_payloads_and_numbers_have_no_gap() {
        let mut outbox = Outbox::new(32, 3, 1_000);
        (0..7).for_each(|at| assert_eq!(outbox.push(b"12345"), Seq(at + 1)));
        outbox.push(&[0; 100]);
        let batches: Vec<Batch> = std::iter::from_fn(|| outbox.take()).collect();
        let counts: Vec<_> = batches.iter().map(|batch| (batch.first_seq.0, batch.count)).collect();
        assert_eq!(counts, [(1, 3), (4, 3), (7, 1), (8, 1)]);
        batches.iter().for_each(|batch| assert_eq!(check_body(&batch.body, batch.count), Ok(())));
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn a_slot_of_few_payloads_keeps_no_more_than_they_need() {
        let mut outbox = Outbox::new(16 << 10, 4_096, 1 << 20);
        outbox.push(&[1; 100]);
        let small = outbox.take().unwrap().body;
        let buffer = outbox.open.as_ptr();
        outbox.push(&[2; 100]);
        assert_eq!(outbox.open.as_ptr(), buffer, "the buffer is used again");
        assert_eq!((small.len(), small[1]), (101, 1), "and what was in it is not");
        assert_eq!(small.try_into_mut().unwrap().capacity(), 101);
    }

    #[test]
    fn one_payload_is_accepted_at_any_bound() {
        let mut outbox = Outbox::new(64, 100, 0);
        for payload in [&[][..], &[1; 100]] {
            assert!(!outbox.is_full());
            outbox.push(payload);
            assert!(outbox.is_full());
            outbox.take();
        }
    }

    #[test]
    fn it_is_full_at_its_bound() {
        let mut outbox = Outbox::new(64, 100, 20);
        outbox.push(&[0; 10]);
        assert!(!outbox.is_full());
        outbox.push(&[0; 10]);
        assert!(outbox.is_full());
        outbox.take();
        assert!(!outbox.is_full());
        assert_eq!(outbox.waiting(), 2);
        assert!(outbox.set_taken(Seq(2)));
        assert_eq!(outbox.waiting(), 0);
    }
}
