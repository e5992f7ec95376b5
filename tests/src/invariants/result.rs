//! The ghost result: the longest result of any node so far. Every other result must be a prefix of it, payload by
//! payload, and every payload in it was broadcast by its origin, once and in that order (`protocol.md` P2, P3, P4).

use bytes::Bytes;
use cloudy_proto::slot::{Batch, Payloads, Slot, push_payload};
use cloudy_proto::{Checkpoint, Entry, Incarnation, Index, InstalledView, NodeId, ResultDigest, Seq, ViewId};

use super::Broken;
use crate::sim::state::State;

/// A message has a higher index than every message that was known as approved, at any node, when its broadcast began.
pub const REAL_TIME: &str = "what is broadcast later comes later";

/// One payload of the ghost result.
#[derive(Debug)]
struct Placed {
    view: ViewId,
    node: NodeId,
    incarnation: Incarnation,
    origin: usize,
    seq: u64,
}

/// The ghost result.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    payloads: Vec<Placed>,
    /// By node: its broadcasts, in order.
    broadcast: Vec<Vec<Bytes>>,
    /// By node, and for each of these: the last index that any result had when its broadcast began.
    known_before: Vec<Vec<u64>>,
    /// The last index that any result has had, whether this is right or not.
    known: u64,
    /// By origin: the last payload in the result.
    through: Vec<u64>,
    /// By index: the state that the messages up to there make.
    states: Vec<State>,
    /// View and place of the last slot.
    place: Option<(u64, (u64, usize))>,
    /// The first final result: no other may differ.
    sealed: Option<Checkpoint>,
}

impl Ghost {
    /// One more process may broadcast.
    pub(super) fn started(&mut self) {
        self.broadcast.push(Vec::new());
        self.known_before.push(Vec::new());
        self.through.push(0);
    }

    /// A process sends only its own broadcasts, and none of an earlier run.
    pub(super) fn is_of_this_run(&self, place: usize, slot: &Slot) -> Result<(), Broken> {
        for (at, payload) in Payloads::of(slot.batch.body.clone()).enumerate() {
            let seq = slot.batch.first_seq.0 + at as u64;
            if self.broadcast[place].get(seq as usize - 1) != Some(&payload) {
                return Err(("a process sends what it broadcast in this run", format!("payload {seq} is another's")));
            }
        }
        Ok(())
    }

    pub(super) fn broadcast(&mut self, node: usize, payload: Bytes) {
        self.broadcast[node].push(payload);
        self.known_before[node].push(self.known);
    }

    /// Messages up to an index are known as approved: from here on no broadcast may come before them.
    pub(super) fn is_known(&mut self, index: u64) {
        self.known = self.known.max(index);
    }

    /// A message comes after every message that any result had when its broadcast began (real-time order).
    pub(super) fn follows_what_was_known(
        &self,
        origin: usize,
        (first_seq, count): (Seq, u32),
        first_index: Index,
    ) -> Result<(), Broken> {
        for at in 0..u64::from(count) {
            let known = self.known_before[origin].get((first_seq.0 + at) as usize - 1).copied().unwrap_or_default();
            let index = first_index.0 + at;
            if index <= known {
                let seq = first_seq.0 + at;
                let what = format!("payload {seq} of node {origin}: index {index}, and index {known} was known before");
                return Err((REAL_TIME, what));
            }
        }
        Ok(())
    }

    /// Its length.
    pub(super) fn index(&self) -> u64 {
        self.payloads.len() as u64
    }

    /// The state that its messages up to an index make; none beyond its end.
    pub(super) fn state_at(&self, index: u64) -> Option<State> {
        index.checked_sub(1).map_or(Some(State::default()), |at| self.states.get(at as usize).copied())
    }

    /// The place of its last slot, if that is of a view.
    pub(super) fn place(&self, of: ViewId) -> Option<(u64, usize)> {
        self.place.filter(|(view, _)| *view == of.0).map(|(_, place)| place)
    }

    /// The last payload of a process in it; zero for none.
    pub(super) fn through_of(&self, place: usize) -> u64 {
        self.through[place]
    }

    /// By rank: the last payload in it.
    pub(super) fn through(&self, ring: &[usize]) -> Vec<u64> {
        ring.iter().map(|&node| self.through[node]).collect()
    }

    /// By rank: the last payload that entered in a view.
    pub(super) fn through_in(&self, view: ViewId, ring: &[usize]) -> Vec<u64> {
        let mut through = vec![0; ring.len()];
        for placed in self.payloads.iter().rev().skip_while(|placed| placed.view > view) {
            if placed.view < view {
                break;
            }
            if let Some(rank) = ring.iter().position(|&node| node == placed.origin) {
                through[rank] = through[rank].max(placed.seq);
            }
        }
        through
    }

    /// By rank: the last payload in a result of a length.
    pub(super) fn through_at(&self, index: u64, ring: &[usize]) -> Vec<u64> {
        let mut through = self.through(ring);
        for placed in &self.payloads[(index as usize).min(self.payloads.len())..] {
            if let Some(rank) = ring.iter().position(|&node| node == placed.origin) {
                through[rank] = through[rank].min(placed.seq - 1);
            }
        }
        through
    }

    /// A view begins at an index: all entries below it are of earlier views, and no other entry is.
    pub(super) fn begins_at(&self, view: ViewId, first: u64) -> Result<(), Broken> {
        let before = self.payloads.get((first as usize).wrapping_sub(2)).filter(|placed| placed.view >= view);
        let after = self.payloads.get(first as usize - 1).filter(|placed| placed.view < view);
        match (before, after) {
            (None, None) => Ok(()),
            wrong => Err(("nothing lies beyond the cut", format!("view {view} begins at {first}, but {wrong:?}"))),
        }
    }

    /// It has all of an entry.
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        entry.last_index().0 <= self.index()
    }

    /// Checks that an entry equals the one at its index.
    pub(super) fn compare(&self, origin: usize, entry: &Entry) -> Result<(), Broken> {
        let first = entry.first_index.0;
        for (at, payload) in Payloads::of(entry.batch.body.clone()).enumerate() {
            let index = first + at as u64;
            let placed = &self.payloads[index as usize - 1];
            let seq = entry.batch.first_seq.0 + at as u64;
            let here = (entry.view, entry.incarnation, origin, seq);
            if (placed.view, placed.incarnation, placed.origin, placed.seq) != here {
                return Err(("all results are prefixes of one", format!("index {index}: {placed:?}, here {here:?}")));
            }
            self.check_payload(origin, seq, &payload)?;
        }
        Ok(())
    }

    fn check_payload(&self, origin: usize, seq: u64, payload: &Bytes) -> Result<(), Broken> {
        match self.broadcast[origin].get(seq as usize - 1) {
            Some(broadcast) if broadcast == payload => Ok(()),
            Some(_) => Err(("what enters was broadcast", format!("payload {seq} of node {origin} has changed"))),
            None => Err(("what enters was broadcast", format!("node {origin} broadcast no payload {seq}"))),
        }
    }

    /// An entry makes it longer; part of it may be there.
    pub(super) fn extend(&mut self, origin: usize, entry: &Entry, place: Option<(u64, usize)>) -> Result<(), Broken> {
        if let Some(sealed) = self.sealed {
            return Err(("a final result does not grow", format!("index {} after {sealed:?}", entry.last_index())));
        }
        if entry.first_index.0 != self.index() + 1 {
            let what = format!("index {} where the longest result has {}", entry.first_index, self.index());
            return Err(("results differ only between entries", what));
        }
        let place = place.map(|place| (entry.view.0, place));
        if place.is_some() && place <= self.place {
            return Err(("the result goes by (round, rank)", format!("{place:?} after {:?}", self.place)));
        }
        if self.payloads.last().is_some_and(|last| last.view > entry.view) {
            return Err(("views enter one after the other", format!("view {} after {:?}", entry.view, self.place)));
        }
        for (at, payload) in Payloads::of(entry.batch.body.clone()).enumerate() {
            let seq = entry.batch.first_seq.0 + at as u64;
            if seq != self.through[origin] + 1 {
                let what = format!("payload {seq} of node {origin} after {}", self.through[origin]);
                return Err(("an origin's payloads enter in order, once", what));
            }
            self.check_payload(origin, seq, &payload)?;
            self.through[origin] = seq;
            let before = self.states.last().copied().unwrap_or_default();
            self.states.push(before.after(entry.origin, entry.incarnation, Seq(seq), &payload));
            let (view, incarnation) = (entry.view, entry.incarnation);
            self.payloads.push(Placed { view, node: entry.origin, incarnation, origin, seq });
        }
        self.place = place.or(self.place);
        Ok(())
    }

    /// A node's result is final: it is the ghost's, by length and digest.
    pub(super) fn is_final(&mut self, result: &Checkpoint, views: &[InstalledView]) -> Result<(), Broken> {
        let sealed = *self.sealed.get_or_insert_with(|| digest(&self.payloads, &self.broadcast, views));
        if sealed == *result {
            Ok(())
        } else {
            Err(("all final results are equal", format!("{result:?}, the longest result is {sealed:?}")))
        }
    }
}

/// The checkpoint of a result, payload by payload.
fn digest(payloads: &[Placed], broadcast: &[Vec<Bytes>], views: &[InstalledView]) -> Checkpoint {
    let mut digest = ResultDigest::default();
    let mut views = views.iter().peekable();
    for (index, placed) in (1..).zip(payloads) {
        while let Some(begins) = views.next_if(|view| view.first.0 <= index) {
            digest.begin_view(&begins.view);
        }
        let mut body = bytes::BytesMut::new();
        push_payload(&mut body, &broadcast[placed.origin][placed.seq as usize - 1]);
        let batch = Batch { first_seq: Seq(placed.seq), count: 1, body: body.freeze() };
        digest.append(placed.node, placed.incarnation, &batch);
    }
    digest.checkpoint()
}
