//! The complete state of a voter that decides its next actions, as text: two voters with equal texts behave alike. The
//! library's hidden state follows from it here: a leader's heartbeat is due at each tick, and nothing is limited by
//! size.

use core::fmt;

use super::Voter;

impl fmt::Debug for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raft = &self.raft.raft;
        let log = &raft.raft_log;
        let mut followers: Vec<_> = raft.prs().iter().collect();
        followers.sort_by_key(|(id, _)| **id);
        // The library does not list the votes: a second vote of the same voter changes nothing.
        let tally = raft.prs().tally_votes();
        let has_voted = |id: u64| {
            let mut progress = raft.prs().clone();
            progress.record_vote(id, false);
            progress.tally_votes() == tally
        };
        let voted: Vec<u64> = followers.iter().map(|(id, _)| **id).filter(|id| has_voted(*id)).collect();
        f.debug_struct("Voter")
            .field("id", &(raft.id, raft.term, raft.vote, raft.leader_id, raft.lead_transferee))
            .field("state", &(raft.state, raft.election_elapsed, raft.promotable(), raft.pending_conf_index))
            .field("log", &(&log.store, log.committed, log.persisted, log.applied, &log.unstable.entries))
            .field("conf", raft.prs().conf())
            .field("votes", &(tally, voted))
            .field("followers", &followers)
            .field("messages", &raft.msgs)
            .field("waits", &(&self.unsynced, &self.outputs, &self.proposals))
            .field("role", &(self.roles, self.role))
            .finish()
    }
}
