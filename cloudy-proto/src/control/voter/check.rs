//! Checks of messages before the consensus library receives them.

use raft::StateRole;

use super::{ConsensusError, Voter};
use crate::wire::{ConsensusKind, ConsensusMessage};

impl Voter {
    /// Checks the assumptions of the library on its peers: it would stop the process if they fail.
    pub(super) fn check(&self, message: &ConsensusMessage) -> Result<(), ConsensusError> {
        let log = &self.raft.raft.raft_log;
        if message.term == 0 || message.from == self.id() || message.from.0 == 0 {
            return Err(ConsensusError::NoSender);
        }
        let current = message.term >= self.raft.raft.term;
        let mut before = (message.index.0, message.log_term);
        for entry in &message.entries {
            if entry.index.0 != before.0 + 1 || entry.term < before.1 || entry.term > message.term {
                return Err(ConsensusError::Entries);
            }
            let known = log.term(entry.index.0).unwrap_or_default();
            let kept = entry.index.0 >= log.first_index();
            // Entries that an earlier leader could not commit may still be in flight.
            if current && kept && entry.index.0 <= log.committed && known != entry.term {
                return Err(ConsensusError::Committed);
            }
            before = (entry.index.0, entry.term);
        }
        // To an earlier incarnation as the leader it may refer to more than the disk kept; a node that does not lead
        // ignores it. One that leads was elected by what its disk has forgotten.
        let leads = self.raft.raft.state == StateRole::Leader;
        let confirmed = leads && message.kind == ConsensusKind::AppendResponse && !message.reject;
        if current && confirmed && message.index.0 > log.last_index() {
            return Err(ConsensusError::Forgotten);
        }
        if current && message.kind == ConsensusKind::Heartbeat && !self.holds_committed(message) {
            return Err(ConsensusError::Forgotten);
        }
        Ok(())
    }

    /// Whether this log has what a heartbeat refers to: it names the committed position, up to what its receiver
    /// confirmed to this leader. If that is missing here, or is another entry, this node confirmed and forgot it: its
    /// disk is an older copy.
    fn holds_committed(&self, message: &ConsensusMessage) -> bool {
        let log = &self.raft.raft.raft_log;
        let commit = message.commit.0;
        let known = || log.term(commit).is_ok_and(|known| known == message.commit_term || message.commit_term == 0);
        commit <= log.committed || (commit <= log.last_index() && known())
    }

    /// Of a heartbeat without the term of the committed entry, only the sign of life counts.
    pub(super) fn believe_named(&self, message: &mut ConsensusMessage) {
        if message.kind == ConsensusKind::Heartbeat && message.commit_term == 0 {
            message.commit.0 = message.commit.0.min(self.raft.raft.raft_log.committed);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Patience, VoterOutput};
    use super::*;
    use crate::command::VoterRole;
    use crate::config::Durability;
    use crate::id::{ConsensusId, LogIndex};
    use crate::rules::Rules;
    use crate::stored::{LogBase, Vote};
    use crate::wire::ConsensusEntry;

    const FOLLOWER: ConsensusId = ConsensusId(2);

    /// A voter whose disk has a committed first entry, and a second of term 1 that was not committed when it was
    /// written.
    fn restarted() -> Voter {
        let electors = vec![(ConsensusId::CREATOR, VoterRole::Voter), (FOLLOWER, VoterRole::Voter)];
        let base = LogBase { index: LogIndex(1), term: 1, electors };
        let second =
            ConsensusEntry { term: 1, index: LogIndex(2), change: None, command: Bytes::from_static(b"second") };
        let vote = Vote { voter: FOLLOWER, term: 2, voted_for: ConsensusId::CREATOR, commit: LogIndex(1) };
        let mut voter = Voter::restored(vote, Some(base), vec![second], Durability::Disk);
        while voter.poll_output().is_some() {}
        voter
    }

    fn sign_of_life(commit: u64, commit_term: u64) -> ConsensusMessage {
        ConsensusMessage {
            kind: ConsensusKind::Heartbeat,
            to: FOLLOWER,
            from: ConsensusId::CREATOR,
            term: 2,
            log_term: 0,
            index: LogIndex(0),
            entries: Vec::new(),
            commit: LogIndex(commit),
            commit_term,
            reject: false,
            reject_hint: LogIndex(0),
            context: Bytes::new(),
            snapshot: Bytes::new(),
        }
    }

    fn committed(voter: &Voter) -> u64 {
        voter.raft.raft.raft_log.committed
    }

    #[test]
    fn a_sign_of_life_commits_the_entry_that_it_names_and_no_other() {
        let mut voter = restarted();
        assert_eq!(voter.take(sign_of_life(2, 2)), Err(ConsensusError::Forgotten), "the entry was replaced");
        assert_eq!(voter.take(sign_of_life(3, 1)), Err(ConsensusError::Forgotten), "there is none");
        assert_eq!((voter.take(sign_of_life(2, 0)), committed(&voter)), (Ok(()), 1), "it does not say which");
        assert_eq!((voter.take(sign_of_life(2, 1)), committed(&voter)), (Ok(()), 2));
    }

    #[test]
    fn a_leader_whose_disk_has_forgotten_confirmed_entries_learns_that_from_the_confirmation() {
        let mut leader = Voter::creator(Durability::Memory);
        leader.tick(Patience::default());
        while leader.poll_output().is_some() {}
        assert_eq!(leader.leads(Rules::default()), Some(1));
        let last = leader.raft.raft.raft_log.last_index();
        let confirms = |index| ConsensusMessage {
            kind: ConsensusKind::AppendResponse,
            to: ConsensusId::CREATOR,
            from: FOLLOWER,
            term: 1,
            index: LogIndex(index),
            ..sign_of_life(0, 0)
        };
        assert_eq!(leader.check(&confirms(last)), Ok(()));
        assert_eq!(leader.check(&confirms(last + 1)), Err(ConsensusError::Forgotten));
    }

    #[test]
    fn a_leader_names_the_term_of_its_commit_index() {
        let mut leader = Voter::creator(Durability::Memory);
        let mut follower = Voter::new(FOLLOWER, Durability::Memory);
        leader.propose_change(FOLLOWER, VoterRole::Voter, Bytes::new());
        let mut named = None;
        for _ in 0..100 {
            leader.tick(Patience::default());
            while let Some(output) = leader.poll_output() {
                let VoterOutput::Send(message) = output else { continue };
                if message.kind == ConsensusKind::Heartbeat {
                    named = Some((message.commit, message.commit_term));
                }
                assert_eq!(follower.take(message), Ok(()));
            }
            while let Some(output) = follower.poll_output() {
                let VoterOutput::Send(message) = output else { continue };
                assert_eq!(leader.take(message), Ok(()));
            }
        }
        assert_eq!(leader.leads(Rules::default()), Some(1));
        assert_eq!(named, Some((LogIndex(committed(&follower)), 1)));
    }
}
