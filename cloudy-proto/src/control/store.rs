//! The log as the consensus library reads it back: in memory, its older entries gone. What is to outlive the process is
//! given out beside it.

use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::id::ConsensusId;

/// What a voter must not forget while it lives.
#[derive(Debug)]
pub(crate) struct LogStore {
    /// The position and term of the last entry that is not kept; zeroes while all are.
    base: (u64, u64),
    /// The one after that first.
    entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
    /// For those who miss entries that are not kept.
    snapshot: Option<Snapshot>,
    /// Somebody does, for whom it is not good enough.
    snapshot_wanted: Cell<bool>,
}

impl LogStore {
    /// Every voter begins with the founding configuration: the entries that change it come later.
    pub(crate) fn new() -> Self {
        let conf_state = ConfState { voters: vec![ConsensusId::FOUNDER.0], ..ConfState::default() };
        Self::after((0, 0), conf_state)
    }

    /// One whose first entries are not kept.
    pub(crate) fn after(base: (u64, u64), conf_state: ConfState) -> Self {
        let (entries, hard_state) = (Vec::new(), HardState::default());
        Self { base, entries, hard_state, conf_state, snapshot: None, snapshot_wanted: Cell::new(false) }
    }

    /// Takes entries; what stood at their positions and after goes.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.entries.truncate(self.at(first.index));
        debug_assert_eq!(self.last() + 1, first.index, "the log has no gap");
        self.entries.extend_from_slice(entries);
    }

    /// Takes what stands for a log of another voter, in place of the own one.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.base = (metadata.index, metadata.term);
        self.entries.clear();
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = Some(snapshot);
    }

    /// Gives up the entries up to a position, which is applied.
    pub(crate) fn compact(&mut self, index: u64) {
        let Ok(term) = self.term(index) else { return };
        self.entries.drain(..self.at(index + 1));
        self.base = (index, term);
    }

    /// What stands for the log up to a position, which is the last one applied.
    pub(crate) fn offer(&mut self, index: u64, data: bytes::Bytes) {
        let Ok(term) = self.term(index) else { return };
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(self.conf_state.clone());
        self.snapshot = Some(snapshot);
        self.snapshot_wanted.set(false);
    }

    /// A voter needs one that is newer.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.snapshot_wanted.get()
    }

    /// The first position that is kept, or comes next.
    pub(crate) fn first(&self) -> u64 {
        self.base.0 + 1
    }

    /// The last position.
    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Where an entry is; where the first one is for those that are not kept.
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
