//! The entries of the control log that are kept for nodes that follow it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::LogIndex;

/// The newest entries, and what replaces the older ones.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// How many entries precede those that are kept.
    before: u64,
    kept: VecDeque<Bytes>,
    /// The encoded state after the log up to a position, for nodes that lack more than is kept.
    compacted: Option<(LogIndex, Bytes)>,
}

impl Entries {
    /// A log that begins with the state after a position.
    pub(super) fn after(index: LogIndex, state: Bytes) -> Self {
        Self { before: index.0, kept: VecDeque::new(), compacted: Some((index, state)) }
    }

    /// The position that is applied next.
    pub(super) fn next(&self) -> LogIndex {
        LogIndex(self.before + self.kept.len() as u64 + 1)
    }

    /// Entries from a position on; none if one of them is not kept.
    pub(super) fn tail(&self, next: LogIndex) -> Option<impl Iterator<Item = &Bytes>> {
        let from = next.0.max(1).checked_sub(self.before + 1)?;
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Some(self.kept.range(from.min(self.kept.len())..))
    }

    /// How many entries are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn compacted(&self) -> Option<&(LogIndex, Bytes)> {
        self.compacted.as_ref()
    }

    pub(super) fn push(&mut self, entry: Bytes) {
        self.kept.push_back(entry);
    }

    /// Puts the encoded state after the log in place of all entries but the last few.
    pub(super) fn compact(&mut self, state: Bytes, keep: usize) {
        self.compacted = Some((LogIndex(self.next().0 - 1), state));
        let surplus = self.kept.len().saturating_sub(keep);
        self.kept.drain(..surplus);
        self.before += surplus as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_keeps_the_positions_of_the_entries_that_stay() {
        let mut entries = Entries::default();
        (1..=5_u8).for_each(|entry| entries.push(Bytes::copy_from_slice(&[entry])));
        entries.compact(Bytes::from_static(b"state"), 2);
        assert_eq!((entries.next(), entries.len()), (LogIndex(6), 2));
        assert_eq!(entries.compacted().map(|(index, _)| *index), Some(LogIndex(5)));
        assert!(entries.tail(LogIndex(3)).is_none(), "entry 3 is gone");
        let tail = |from| entries.tail(LogIndex(from)).map(|tail| tail.map(|entry| entry[0]).collect::<Vec<_>>());
        assert_eq!([tail(4), tail(5), tail(9)], [Some(vec![4, 5]), Some(vec![5]), Some(vec![])]);
    }
}
