//! What a voter makes of a message before the library sees it.

use raft::StateRole;

use super::{ConsensusError, Voter};
use crate::wire::{ConsensusKind, ConsensusMessage};

impl Voter {
    /// What the library takes for granted of its peers, and would stop the process for.
    pub(super) fn check(&self, message: &ConsensusMessage) -> Result<(), ConsensusError> {
        let log = &self.raft.raft.raft_log;
        if message.term == 0 || message.from == self.id() || message.from.0 == 0 {
            return Err(ConsensusError::Nobody);
        }
        let current = message.term >= self.raft.raft.term;
        let mut before = (message.index.0, message.log_term);
        for entry in &message.entries {
            if entry.index.0 != before.0 + 1 || entry.term < before.1 || entry.term > message.term {
                return Err(ConsensusError::Entries);
            }
            let known = log.term(entry.index.0).unwrap_or_default();
            let kept = entry.index.0 >= log.first_index();
            // What an earlier leader could not get committed may still be under way.
            if current && kept && entry.index.0 <= log.committed && known != entry.term {
                return Err(ConsensusError::Committed);
            }
            before = (entry.index.0, entry.term);
        }
        let reached = match message.kind {
            ConsensusKind::Heartbeat => message.commit.0,
            // To an earlier run that led it may speak of more than the disk kept; who does not lead passes it over.
            ConsensusKind::AppendResponse if !message.reject && self.raft.raft.state == StateRole::Leader => {
                message.index.0
            }
            _ => 0,
        };
        if current && reached > log.last_index() {
            let told = message.kind == ConsensusKind::Heartbeat;
            return Err(if told { ConsensusError::Forgotten } else { ConsensusError::Position });
        }
        Ok(())
    }
}
