//! `Disk`: what a voter says once its state is synced (`protocol.md` §6).

use raft::eraftpb::Message;

use super::Voter;

/// What follows once the consensus state so far is synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    pub(super) number: u64,
    /// It waits for a sync of its own; otherwise only for those before it.
    pub(super) waits: bool,
    pub(super) messages: Vec<Message>,
}

impl Voter {
    /// The newest state that was given out to be stored and is not synced, if there is one.
    pub(crate) fn unsynced(&self) -> Option<u64> {
        self.unsynced.iter().rev().find(|unsynced| unsynced.waits).map(|unsynced| unsynced.number)
    }

    /// All state up to this number is synced: what waited for that follows.
    pub(crate) fn persisted(&mut self, number: u64) {
        self.release(number);
        self.stepped();
    }

    pub(super) fn release(&mut self, number: u64) {
        let due = |front: &Unsynced| front.number <= number || !front.waits;
        while self.unsynced.front().is_some_and(due) {
            let Some(front) = self.unsynced.pop_front() else { break };
            self.raft.on_persist_ready(front.number);
            if self.skipped.take_if(|number| *number <= front.number).is_some() {
                self.raft.advance_apply();
            }
            self.send(front.messages);
        }
    }
}
