//! The retained part of the result, for those who miss some of it (`protocol.md` §7).

use std::collections::VecDeque;

use crate::id::Index;
use crate::io::Entry;
use crate::limits::{FETCH_PART_BYTES, FETCH_PART_COST_BYTES};
use crate::read_back::Stored;

/// The newest entries of the result, up to a number of bytes of memory.
#[derive(Debug)]
pub(crate) struct Retained {
    /// Each with what it costs to give all before it, since some time.
    entries: VecDeque<(Entry, u64)>,
    /// What it costs to give all.
    cost: u64,
    bytes: u64,
    bytes_max: u64,
    /// What a transfer is yet to give begins here.
    needed: Option<Index>,
}

/// What is retained at an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// This entry, which begins there.
    Entry(Entry),
    /// The result does not reach as far.
    End,
    /// Something that is not retained.
    Truncated,
}

/// What an entry costs a fetch, towards its credit.
fn cost_of(entry: &Entry) -> u64 {
    let bytes = entry.batch.body.len();
    bytes as u64 + bytes.div_ceil(FETCH_PART_BYTES) as u64 * FETCH_PART_COST_BYTES
}

impl Retained {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { entries: VecDeque::new(), cost: 0, bytes: 0, bytes_max, needed: None }
    }

    /// Forgets everything: what comes next follows something else.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// The memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first index that is kept, if there is any.
    pub(crate) fn first(&self) -> Option<Index> {
        self.entries.front().map(|(entry, _)| entry.first_index)
    }

    /// Transfers are yet to give what is kept from an index on: up to as much again is kept for them.
    pub(crate) fn need(&mut self, from: Option<Index>) {
        self.needed = from;
    }

    /// Keeps an entry, and lets the oldest go where that exceeds the bound; the newest always stays.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.kept_bytes();
        let before = self.cost;
        self.cost += cost_of(&entry);
        self.entries.push_back((entry, before));
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            let Some((oldest, _)) = self.entries.front() else { break };
            let is_needed = self.needed.is_some_and(|from| oldest.last_index() >= from);
            if is_needed && self.bytes <= self.bytes_max.saturating_mul(2) {
                break;
            }
            self.bytes -= oldest.kept_bytes();
            self.entries.pop_front();
        }
    }

    /// The entry at an index, from there on.
    pub(crate) fn entry_from(&self, from: Index) -> Part {
        let Some(first) = self.first() else { return Part::End };
        if from < first {
            return Part::Truncated;
        }
        let at = self.position(from);
        self.entries.get(at).map_or(Part::End, |(entry, _)| Part::Entry(entry.clone().beginning_at(from)))
    }

    /// What it costs to give the result from an index on, to its end or up to another index; none if it is not all retained.
    pub(crate) fn cost_between(&self, from: Index, before: Option<Index>) -> Option<u64> {
        let cost_before = |index| self.entries.get(self.position(index)).map_or(self.cost, |(_, before)| *before);
        let end = before.map_or(self.cost, cost_before);
        (from >= self.first()?).then(|| end.saturating_sub(cost_before(from)))
    }

    /// Where the entry with an index is.
    fn position(&self, index: Index) -> usize {
        self.entries.partition_point(|(entry, _)| entry.last_index() < index)
    }
}

impl Stored {
    /// The stored result from an index on, as [`Input::ResultRead`](crate::Input::ResultRead) takes it: at most so many bytes
    /// of slot bodies, one entry at least.
    #[must_use]
    pub fn part_from(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        let start = self.result.partition_point(|(entry, _)| entry.last_index() < from);
        let mut bytes = 0;
        let entries = self.result.range(start..).take_while(|(entry, batch)| {
            let begins = bytes > 0 || entry.first_index <= from;
            bytes += batch.body.len();
            begins && (bytes <= bytes_max || bytes == batch.body.len())
        });
        entries.map(|(entry, batch)| Entry::of_stored(entry, batch.clone()).beginning_at(from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::id::{Incarnation, NodeId, Seq, ViewId};
    use crate::slot::{Batch, push_payload};

    fn entry(first: u64, count: u32) -> Entry {
        let mut body = BytesMut::new();
        (0..count).for_each(|at| push_payload(&mut body, &[at as u8; 20]));
        Entry {
            first_index: Index(first),
            view: ViewId(1),
            origin: NodeId([1; 32]),
            incarnation: Incarnation(1),
            batch: Batch { first_seq: Seq(first), count, body: body.freeze() },
        }
    }

    #[test]
    fn an_entry_begins_at_the_wanted_index_and_the_oldest_goes_first() {
        let bytes_max = 2 * entry(1, 4).kept_bytes();
        let mut retained = Retained::new(bytes_max);
        retained.push(entry(1, 4));
        retained.push(entry(5, 4));
        let Part::Entry(part) = retained.entry_from(Index(3)) else { panic!("retained") };
        assert_eq!((part.first_index, part.batch.first_seq, part.batch.count), (Index(3), Seq(3), 2));
        assert_eq!(retained.entry_from(Index(5)), Part::Entry(entry(5, 4)));
        assert_eq!(retained.entry_from(Index(9)), Part::End);
        let cost = cost_of(&entry(5, 4));
        assert_eq!(retained.cost_between(Index(1), None), Some(2 * cost));
        assert_eq!(retained.cost_between(Index(1), Some(Index(5))), Some(cost));
        assert_eq!(retained.cost_between(Index(9), None), Some(0));
        retained.push(entry(9, 4));
        assert_eq!(retained.entry_from(Index(3)), Part::Truncated);
        assert_eq!(
            (retained.cost_between(Index(3), None), retained.cost_between(Index(5), None)),
            (None, Some(2 * cost))
        );
        assert_eq!(retained.bytes, bytes_max);
    }

    #[test]
    fn what_a_transfer_needs_is_kept_up_to_twice_the_bound() {
        let mut retained = Retained::new(2 * entry(1, 4).kept_bytes());
        let first_after = |retained: &mut Retained, first| {
            retained.push(entry(first, 4));
            retained.first()
        };
        retained.need(Some(Index(5)));
        let firsts = [1, 5, 9, 13, 17, 21].map(|first| first_after(&mut retained, first));
        assert_eq!(firsts.map(Option::unwrap).map(|first| first.0), [1, 1, 5, 5, 5, 9]);
        retained.need(None);
        assert_eq!(first_after(&mut retained, 25), Some(Index(21)));
    }
}
