//! `Disk`: what a voter says once its state is synced (`protocol.md` §6).

use raft::eraftpb::{Message, MessageType};

use super::Voter;

/// What follows once the consensus state so far is synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    pub(super) number: u64,
    /// The term that is stored with it.
    pub(super) term: u64,
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

    /// An answer to a leader's heartbeat rests on the voter's term alone: once that is synced it waits for no entry, or a
    /// leader whose followers' disks are slow would take them for gone. Gives back the other messages.
    pub(super) fn send_signs_of_life(&mut self, messages: Vec<Message>, term: u64) -> Vec<Message> {
        if !self.patience.answers_early || term != self.synced_term {
            return messages;
        }
        let is_sign = |message: &Message| message.get_msg_type() == MessageType::MsgHeartbeatResponse;
        let (signs, others) = messages.into_iter().partition(is_sign);
        self.send(signs);
        others
    }

    pub(super) fn release(&mut self, number: u64) {
        let due = |front: &Unsynced| front.number <= number || !front.waits;
        while self.unsynced.front().is_some_and(due) {
            let Some(front) = self.unsynced.pop_front() else { break };
            self.raft.on_persist_ready(front.number);
            self.synced_term = self.synced_term.max(front.term);
            if self.skipped.take_if(|number| *number <= front.number).is_some() {
                self.raft.advance_apply();
            }
            self.send(front.messages);
        }
    }
}
