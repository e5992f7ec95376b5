//! Messages of the consensus library, and what this node's voter stores (`protocol.md` §6).

use crate::control::{ConsensusError, Voter};
use crate::id::{ConsensusId, LogIndex, NodeId};
use crate::io::{Event, StaleDisk};
use crate::limits::CONSENSUS_TICK;
use crate::machine::control_log::ControlLog;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::timers::{Timer, Timers};
use crate::outputs::Outputs;
use crate::rules::Rule;
use crate::stored::{Record, Vote};
use crate::wire::{CommandError, ConsensusMessage, ControlFrame};

/// Carries messages between this node's voter and the others.
pub(super) struct ConsensusHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) peers: &'a Peers,
    pub(super) storage: &'a mut Storage,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

/// The consequences of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// The voter has something to do.
    Moved,
    /// The voter has given up its name: its disk has forgotten what it confirmed.
    GaveUp,
    /// A state of the log does not decode.
    Unreadable(LogIndex, CommandError),
}

impl ConsensusHandler<'_> {
    /// Another voter has sent a message. A node that is sent entries under its own name becomes a voter.
    pub(super) fn on_message(&mut self, from: NodeId, message: ConsensusMessage) -> Step {
        if self.log.state().elector(message.from).is_some_and(|known| known != from) {
            self.outputs.close_link(from, "it speaks for another voter".to_owned());
            return Step::Nothing;
        }
        self.log.on_voter_spoke(message.from);
        let own = ConsensusId(self.identity.incarnation.0);
        let votes = self.log.votes(self.identity.incarnation);
        if !votes && message.to == own && own.0 > 0 && self.log.voter_as(own).is_none() {
            self.log.begin_voting(Voter::new(own, self.identity.durability));
            self.storage.syncs.forget_consensus();
            self.timers.set(Timer::Consensus, self.timers.now() + CONSENSUS_TICK);
        }
        if self.log.voter_as(message.to).is_some() {
            self.log.keep_name(message.from, from);
        }
        // A message to an earlier incarnation of this node has no receiver.
        let Some(voter) = self.log.voter_mut().filter(|voter| voter.id() == message.to) else { return Step::Nothing };
        let index = message.index;
        let checks = self.identity.rules.holds(Rule::ConsensusIsChecked);
        match if checks { voter.take(message) } else { voter.take_checked(message) } {
            Ok(()) => Step::Moved,
            Err(ConsensusError::State(error)) => Step::Unreadable(index, error),
            // The name is that of an earlier incarnation: it is the disk that has forgotten.
            Err(ConsensusError::Forgotten) if !self.identity.rules.holds(Rule::ForgottenVoteIsGivenUp) => Step::Nothing,
            Err(ConsensusError::Forgotten) if self.identity.is_restored && voter.id() != own => {
                self.give_up();
                Step::GaveUp
            }
            Err(error) => {
                self.outputs.close_link(from, error.to_string());
                Step::Nothing
            }
        }
    }

    /// Gives up the vote: what this voter has confirmed is not on its disk, so no other voter may count on its id. It
    /// becomes another voter, like one that lost its disk.
    fn give_up(&mut self) {
        self.log.stop_voting();
        // After another restart no node has to report so again.
        self.storage.records.keep(Record::Vote(Vote::default()));
        self.storage.syncs.forget_consensus();
        self.outputs.event(Event::StaleDisk(StaleDisk::Log));
    }

    /// The voter sends a message.
    pub(super) fn send(&mut self, message: ConsensusMessage) {
        if let Some(to) = self.log.node_of(message.to) {
            send_control(self.peers, self.outputs, to, ControlFrame::Consensus(message));
        }
    }

    /// The voter stores a record.
    pub(super) fn keep(&mut self, record: Record) {
        self.storage.records.keep(record);
        let is_late = self.identity.rules.holds(Rule::VoteIsSynced);
        if let Some(voter) = self.log.voter_mut().filter(|_| !is_late) {
            voter.persisted(u64::MAX);
        }
    }

    /// Time has passed for the voter.
    pub(super) fn on_tick(&mut self) {
        let stands_down = self.log.knows_of_removal(self.identity.incarnation);
        let now = self.timers.now();
        let timeouts = Timeouts::new(self.identity, self.log, self.peers, self.storage, now);
        let (every, patience) = (timeouts.consensus_tick_every(), timeouts.voter_patience());
        if let Some(voter) = self.log.voter_mut() {
            if !stands_down {
                voter.tick(patience);
            }
            self.timers.set(Timer::Consensus, now + every);
        }
    }
}
