//! The log for the consensus library: in memory, without its older entries. Records for the disk are output beside it.

use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::id::ConsensusId;

/// The state that a voter must keep while it lives.
#[derive(Debug)]
pub(crate) struct LogStore {
    /// The position and term of the last dropped entry; zeroes while all are kept.
    base: (u64, u64),
    /// The first one follows `base`.
    entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
    /// For followers that lack dropped entries.
    snapshot: Option<Snapshot>,
    /// Whether a follower needs a newer snapshot.
    snapshot_wanted: Cell<bool>,
}

impl LogStore {
    /// A log with the first configuration: the entries that change it follow.
    pub(crate) fn new() -> Self {
        let conf_state = ConfState { voters: vec![ConsensusId::CREATOR.0], ..ConfState::default() };
        Self::after((0, 0), conf_state)
    }

    /// A log without its first entries.
    pub(crate) fn after(base: (u64, u64), conf_state: ConfState) -> Self {
        let (entries, hard_state) = (Vec::new(), HardState::default());
        Self { base, entries, hard_state, conf_state, snapshot: None, snapshot_wanted: Cell::new(false) }
    }

    /// Adds entries; they replace those at their positions and after.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.entries.truncate(self.at(first.index));
        debug_assert_eq!(self.last() + 1, first.index, "the log has no gap");
        self.entries.extend_from_slice(entries);
    }

    /// Replaces the log by a snapshot of another voter.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.base = (metadata.index, metadata.term);
        self.entries.clear();
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = Some(snapshot);
    }

    /// Drops the entries up to a position, which is applied.
    pub(crate) fn compact(&mut self, index: u64) {
        let Ok(term) = self.term(index) else { return };
        self.entries.drain(..self.at(index + 1));
        self.base = (index, term);
    }

    /// Sets the snapshot of the log up to the last applied position.
    pub(crate) fn offer(&mut self, index: u64, data: bytes::Bytes) {
        let Ok(term) = self.term(index) else { return };
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(self.conf_state.clone());
        self.snapshot = Some(snapshot);
        self.snapshot_wanted.set(false);
    }

    /// Whether a voter needs a newer snapshot.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.snapshot_wanted.get()
    }

    /// The first kept position, or the next one.
    pub(crate) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    /// The last position.
    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// The offset of an entry; that of the first one for dropped entries.
    fn at(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.base.0 + 1)).unwrap_or(usize::MAX)
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let wanted = self.entries.get(self.at(low)..self.at(high)).ok_or(Error::Store(StorageError::Unavailable))?;
        let mut entries = wanted.to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get(self.at(index)).ok_or(Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let knows = |conf: &ConfState| conf.voters.contains(&to) || conf.learners.contains(&to);
        let fits = |snapshot: &&Snapshot| {
            let metadata = snapshot.get_metadata();
            metadata.index >= request_index.max(self.base.0) && knows(metadata.get_conf_state())
        };
        let snapshot = self.snapshot.as_ref().filter(fits).cloned();
        self.snapshot_wanted.set(snapshot.is_none());
        snapshot.ok_or(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
