//! Dropping a voter's older entries, and the state that replaces them (`protocol.md` §6).

use bytes::Bytes;
use raft::{ProgressState, Ready, SnapshotStatus};

use super::{ConsensusError, Voter, VoterOutput};
use crate::command::VoterRole;
use crate::config::Durability;
use crate::id::{ConsensusId, LogIndex};
use crate::limits::ELECTION_TICKS_MAX;
use crate::stored::{LogBase, Record};
use crate::wire::{ConsensusKind, ConsensusMessage, decode_log_state};

impl Voter {
    /// The last entry that is applied.
    pub(crate) fn applied(&self) -> LogIndex {
        LogIndex(self.raft.raft.raft_log.applied)
    }

    /// Number of applied entries that it keeps.
    pub(crate) fn kept(&self) -> u64 {
        (self.applied().0 + 1).saturating_sub(self.raft.store().first())
    }

    /// Drops all applied entries but the last few; `state` replaces them.
    pub(crate) fn compact(&mut self, state: Bytes, keep: u64) {
        self.moved = true;
        let index = self.applied();
        self.offer_state(state);
        let Ok(term) = raft::Storage::term(self.raft.store(), index.0) else { return };
        let base = LogBase { index, term, electors: self.electors() };
        self.raft.mut_store().compact(index.0.saturating_sub(keep));
        if self.durability == Durability::Disk {
            self.outputs.push_back(VoterOutput::Keep(Record::Base { base, alone: false }));
        }
    }

    /// Leader: whether another voter needs the state after the last applied entry.
    pub(crate) fn wants_state(&self) -> bool {
        self.raft.store().wants_snapshot()
    }

    /// Sets the state after the last applied entry.
    pub(crate) fn offer_state(&mut self, state: Bytes) {
        let index = self.applied().0;
        self.raft.mut_store().offer(index, state);
    }

    /// The electors after the applied entries.
    fn electors(&self) -> Vec<(ConsensusId, VoterRole)> {
        let conf = &self.raft.store().conf_state;
        let all = |ids: &[u64], role| ids.iter().map(move |&id| (ConsensusId(id), role)).collect::<Vec<_>>();
        [all(&conf.voters, VoterRole::Voter), all(&conf.learners, VoterRole::Learner)].concat()
    }

    /// Checks a message that may contain a state with its electors.
    pub(super) fn check_state(
        &self,
        message: &ConsensusMessage,
    ) -> Result<Vec<(ConsensusId, VoterRole)>, ConsensusError> {
        if message.kind != ConsensusKind::Snapshot {
            return Ok(Vec::new());
        }
        if message.index.0 == 0 || message.log_term == 0 || message.log_term > message.term {
            return Err(ConsensusError::Position);
        }
        let state = decode_log_state(&message.snapshot).map_err(ConsensusError::State)?;
        let electors: Vec<_> = state.electors.iter().map(|(id, _, role)| (*id, *role)).collect();
        let votes = electors.iter().any(|(_, role)| *role == VoterRole::Voter);
        votes.then_some(electors).ok_or(ConsensusError::NoVoters)
    }

    /// The leader does not keep entries that this voter lacks: its own log is replaced.
    pub(super) fn skip(&mut self, ready: &Ready) {
        let snapshot = ready.snapshot();
        let metadata = snapshot.get_metadata();
        let (index, term) = (LogIndex(metadata.index), metadata.term);
        self.skipped = Some(ready.number());
        self.raft.mut_store().restore(snapshot.clone());
        self.outputs.push_back(VoterOutput::Skipped { index, term, state: snapshot.data.clone() });
        if self.durability == Durability::Disk {
            let base = LogBase { index, term, electors: self.electors() };
            self.outputs.push_back(VoterOutput::Keep(Record::Base { base, alone: true }));
        }
    }

    /// Leader: a voter that was sent such a state and does not confirm it may not have received it. The library would
    /// wait for ever.
    pub(super) fn resend_skipped(&mut self) {
        self.resend_ticks += 1;
        if self.resend_ticks < ELECTION_TICKS_MAX {
            return;
        }
        self.resend_ticks = 0;
        let followers = self.raft.raft.prs().iter();
        let waiting: Vec<u64> =
            followers.filter(|(_, progress)| progress.state == ProgressState::Snapshot).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.raft.report_snapshot(id, SnapshotStatus::Failure));
    }
}
