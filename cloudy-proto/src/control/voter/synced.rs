//! `Disk`: outputs of a voter that wait for the sync of its state (`protocol.md` §6).

use raft::eraftpb::{Message, MessageType};

use super::Voter;

/// Outputs that follow once the consensus state so far is synced.
#[derive(Debug)]
pub(super) struct Unsynced {
    pub(super) number: u64,
    /// The term that is stored with it.
    pub(super) term: u64,
    /// Whether it waits for a sync of its own; otherwise only for those before it.
    pub(super) waits: bool,
    pub(super) messages: Vec<Message>,
}

impl Voter {
    /// The number of the newest stored state without a sync, if there is one.
    pub(crate) fn unsynced(&self) -> Option<u64> {
        self.unsynced.iter().rev().find(|unsynced| unsynced.waits).map(|unsynced| unsynced.number)
    }

    /// Notes that all state up to this number is synced: outputs that waited for it follow.
    pub(crate) fn persisted(&mut self, number: u64) {
        self.release(number);
        self.stepped();
    }

    /// Sends answers to a leader's heartbeat. They depend on the voter's term alone: once that is synced they wait for
    /// no entry, or a leader would take followers with slow disks for failed. Returns the other messages.
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
