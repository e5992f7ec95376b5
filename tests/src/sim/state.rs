//! A toy application's state, which the result makes: nodes have equal states only if they have applied the same
//! messages in the same order.

use bytes::Bytes;
use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Entry, Incarnation, NodeId, Seq};

/// Maximum of copies in a snapshot.
const COPIES_MAX: u64 = 12;

/// A state: how many messages it knows, and a number that comes of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last index that it knows.
    pub index: u64,
    /// The sum of all messages up to there.
    pub sum: u64,
}

impl State {
    /// The state after one more message.
    #[must_use]
    pub fn after(self, origin: NodeId, incarnation: Incarnation, seq: Seq, payload: &[u8]) -> Self {
        // FNV-1a.
        let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let numbers = [self.sum, incarnation.0, seq.0, payload.len() as u64].map(u64::to_le_bytes);
        let sum = numbers.as_flattened().iter().chain(&origin.0).chain(payload).fold(0xcbf2_9ce4_8422_2325, add);
        Self { index: self.index + 1, sum }
    }

    /// Applies an entry.
    pub fn apply(&mut self, entry: &Entry) {
        for (at, payload) in payload_slices(&entry.batch.body).enumerate() {
            let seq = Seq(entry.batch.first_seq.0 + at as u64);
            *self = self.after(entry.origin, entry.incarnation, seq, payload);
        }
    }

    /// A snapshot of it: some copies, so that it has several parts.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let copies = 1 + (self.sum % COPIES_MAX) as usize;
        [self.index, self.sum].map(u64::to_le_bytes).as_flattened().repeat(copies).into()
    }

    /// The state that a snapshot holds; none if it is none.
    #[must_use]
    pub fn restored(snapshot: &[u8]) -> Option<Self> {
        let (index, rest) = snapshot.split_first_chunk::<8>()?;
        let sum = rest.first_chunk::<8>()?;
        let state = Self { index: u64::from_le_bytes(*index), sum: u64::from_le_bytes(*sum) };
        (state.snapshot() == snapshot).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_depends_on_every_message_and_on_their_order_and_survives_a_snapshot() {
        let after = |state: State, seq, payload: &[u8]| state.after(NodeId([1; 32]), Incarnation(2), Seq(seq), payload);
        let state = after(after(State::default(), 1, b"one"), 2, b"two");
        assert_eq!(State::restored(&state.snapshot()), Some(state));
        assert_eq!(State::restored(b"none"), None);
        let others = [
            after(after(State::default(), 2, b"two"), 1, b"one"),
            after(after(State::default(), 1, b"one"), 2, b"twp"),
            after(after(State::default(), 1, b"onet"), 2, b"wo"),
            State::default().after(NodeId([2; 32]), Incarnation(2), Seq(2), b"two"),
        ];
        others.into_iter().for_each(|other| assert_ne!(other.sum, state.sum));
    }
}
