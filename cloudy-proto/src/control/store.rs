//! The log as the consensus library reads it back: in memory, from its first entry. What is to outlive the process is
//! given out beside it.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::id::ConsensusId;

/// What a voter must not forget while it lives.
#[derive(Debug)]
pub(crate) struct LogStore {
    /// The one at position 1 first.
    entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
    pub(crate) conf_state: ConfState,
}

impl LogStore {
    /// Every voter begins with the founding configuration: the entries that change it come later.
    pub(crate) fn new() -> Self {
        let conf_state = ConfState { voters: vec![ConsensusId::FOUNDER.0], ..ConfState::default() };
        Self { entries: Vec::new(), hard_state: HardState::default(), conf_state }
    }

    /// Takes entries; what stood at their positions and after goes.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        self.entries.truncate(at(first.index));
        debug_assert_eq!(self.entries.len(), at(first.index), "the log has no gap");
        self.entries.extend_from_slice(entries);
    }

    /// The last position.
    pub(crate) fn last(&self) -> u64 {
        self.entries.len() as u64
    }
}

fn at(index: u64) -> usize {
    usize::try_from(index.saturating_sub(1)).unwrap_or(usize::MAX)
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
        let wanted = self.entries.get(at(low)..at(high)).ok_or(Error::Store(StorageError::Unavailable))?;
        let mut entries = wanted.to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        let entry = self.entries.get(at(index)).ok_or(Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> Result<Snapshot> {
        // The log is kept from its first entry on, so nobody needs one.
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
