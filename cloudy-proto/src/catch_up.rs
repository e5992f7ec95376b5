//! The retained part of the result, for those who miss some of it (`protocol.md` §7).

use std::collections::VecDeque;

use crate::id::Index;
use crate::io::Entry;
use crate::limits::FETCH_BYTES_MAX;
use crate::read_back::Stored;

/// The newest entries of the result, up to a number of bytes of memory.
#[derive(Debug)]
pub(crate) struct Retained {
    entries: VecDeque<Entry>,
    bytes: u64,
    bytes_max: u64,
}

/// What a fetch gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// These, and more may follow after the last of them.
    Entries(Vec<Entry>),
    /// The wanted index is gone; this is the first that is not.
    Truncated(Index),
}

impl Retained {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max }
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
        self.entries.front().map(|entry| entry.first_index)
    }

    /// Keeps an entry, and lets the oldest go where that exceeds the bound; the newest always stays.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += entry.kept_bytes();
        self.entries.push_back(entry);
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            if let Some(gone) = self.entries.pop_front() {
                self.bytes -= gone.kept_bytes();
            }
        }
    }

    /// The entries from an index on, as many as fit into one answer, one at least.
    pub(crate) fn part_from(&self, from: Index) -> Part {
        let first = self.entries.front().map_or(from, |entry| entry.first_index);
        if from < first {
            return Part::Truncated(first);
        }
        let start = self.entries.partition_point(|entry| entry.last_index() < from);
        let mut bytes = 0;
        let mut part = Vec::new();
        for entry in self.entries.range(start..) {
            bytes += entry.batch.body.len();
            if bytes > FETCH_BYTES_MAX && !part.is_empty() {
                break;
            }
            part.push(entry.clone().beginning_at(from));
        }
        Part::Entries(part)
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
    fn a_part_begins_at_the_wanted_index_and_the_oldest_goes_first() {
        let bytes_max = 2 * entry(1, 4).kept_bytes();
        let mut retained = Retained::new(bytes_max);
        retained.push(entry(1, 4));
        retained.push(entry(5, 4));
        let Part::Entries(part) = retained.part_from(Index(3)) else { panic!("retained") };
        assert_eq!((part[0].first_index, part[0].batch.first_seq, part[0].batch.count), (Index(3), Seq(3), 2));
        assert_eq!(part[1], entry(5, 4));
        assert_eq!(retained.part_from(Index(9)), Part::Entries(vec![]));
        retained.push(entry(9, 4));
        assert_eq!(retained.part_from(Index(3)), Part::Truncated(Index(5)));
        assert_eq!(retained.bytes, bytes_max);
    }
}
