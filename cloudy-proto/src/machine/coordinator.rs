//! The search for the coordinator, and the actions of a node while none is in reach (`protocol.md` §6.1, §6.6).

use core::time::Duration;
use std::collections::BTreeSet;

use crate::command::Command;
use crate::id::{LogIndex, NodeId};
use crate::io::{Event, MissingVoters, VotesLost};
use crate::machine::arrival::Arrival;
use crate::machine::control_log::ControlLog;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::{Claim, CoordinatorTracking};
use crate::outputs::Outputs;
use crate::rules::Rule;
use crate::time::Time;
use crate::wire::ControlFrame;

/// The time between two requests for the end of the log, while no coordinator is linked.
const SEEK_EVERY: Duration = Duration::from_millis(100);
/// The number of coordinator timeouts for which a node that joins the group, or observes it, waits for a coordinator.
const JOINER_PATIENCE: u32 = 5;

/// Finds the coordinator, and reports if none is in reach.
pub(super) struct CoordinatorHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    /// Whether this node coordinates.
    pub(super) coordinates: bool,
    pub(super) tracking: &'a mut CoordinatorTracking,
    pub(super) arrival: &'a Arrival,
    pub(super) peers: &'a Peers,
    pub(super) storage: &'a Storage,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

impl CoordinatorHandler<'_> {
    /// Handles a node's claim to coordinate. True if this node has to send to it everything that it may not know.
    pub(super) fn on_claim(&mut self, from: NodeId, term: u64) -> bool {
        if !self.tracking.is_known(from, self.log) {
            // A node that knows no view, or was away for long, may know no node that is still in the group. Without a
            // coordinator in reach it relies on the claim.
            self.tracking.keep_claim(from, term);
            return false;
        }
        let claim = self.tracking.on_claim(from, term);
        // A node that still leads learns from the consensus library that it does not, and reports to the coordinator
        // then.
        if claim == Claim::Outdated || self.coordinates {
            return false;
        }
        if claim == Claim::New {
            self.tracking.on_new_reported();
            self.outputs.event(Event::Coordinator { node: from });
        }
        true
    }

    /// Notes that this node coordinates in a term, and proposes its own place in the log.
    pub(super) fn on_lead(&mut self, term: u64) {
        let me = self.identity.me;
        self.tracking.on_lead(me, term);
        self.on_in_reach();
        if self.log.state().creator().is_none() && self.arrival.creation().is_some() {
            self.log.propose(&Command::Created { creator: me });
        }
        self.outputs.event(Event::Coordinator { node: me });
        if self.arrival.joins_ring() && !self.log.state().is_latest_run(me, self.identity.run) {
            // A restarted process may lead the voters before it has a place on the ring.
            self.log.propose(&Command::Incarnate { node: me, run: self.identity.run });
        }
    }

    /// Answers a request for the log from an entry on with the known entries, at a node that does not coordinate.
    pub(super) fn on_follow(&mut self, from: NodeId, next: LogIndex) {
        let mut first = next;
        let frames = self.log.frames_after(&mut first);
        frames.into_iter().for_each(|frame| send_control(self.peers, self.outputs, from, frame));
        send_control(self.peers, self.outputs, from, ControlFrame::Resigned);
        if next > self.log.state().next() && self.identity.rules.holds(Rule::ShorterLogRequestsBack) {
            // A node that requests these entries knows more. It need not be on the ring: a former member may not know
            // yet that the log continues without a voter that is gone.
            self.send_follow(from);
        }
    }

    /// Handles a kept claim again, because more of the log is known. True if this node has to report to its node.
    pub(super) fn on_log(&mut self) -> bool {
        let claim = self.tracking.take_claim(|node| self.log.lists(node));
        claim.is_some_and(|(term, node)| self.on_claim(node, term))
    }

    /// Notes that a node does not coordinate.
    pub(super) fn on_resign(&mut self, from: NodeId) {
        if self.tracking.on_resign(from) {
            self.on_lost();
        }
    }

    /// Notes that a coordinator is in reach.
    pub(super) fn on_in_reach(&mut self) {
        let node = self.tracking.node();
        if self.tracking.on_found() {
            self.outputs.event(Event::Coordinator { node });
        }
        self.log.on_coordinator_found();
        self.timers.stop(Timer::Seek);
    }

    /// Notes that no coordinator is in reach: others may know more of the log.
    pub(super) fn on_lost(&mut self) {
        // A node that receives repeated answers that there is none continues to search all the same.
        if !self.log.state().is_closed()
            && (self.tracking.on_lost(self.timers.now()) || !self.identity.rules.holds(Rule::SeekContinues))
        {
            self.timers.set(Timer::Seek, self.timers.now() + SEEK_EVERY);
        }
    }

    /// Requests the end of the log from one linked node after the other, and reports once that the coordinator has been
    /// gone for long.
    pub(super) fn seek(&mut self) {
        let Some(lost) = self.tracking.lost_for(self.timers.now()) else { return };
        self.timers.set(Timer::Seek, self.timers.now() + SEEK_EVERY);
        let timeouts = Timeouts::new(self.identity, self.log, self.peers, self.storage, self.timers.now());
        let timeout = timeouts.coordinator_loss_max();
        // A joiner in the middle of a view change waits longer.
        let timeout = if self.arrival.is_joining() { timeout * JOINER_PATIENCE } else { timeout };
        if lost >= timeout {
            if self.tracking.report_loss() {
                let node = self.tracking.node();
                self.outputs.event(Event::CoordinatorLost { node });
            }
            self.report_votes_lost();
        }
        let members = self.log.state().view().into_iter().flat_map(|view| view.ring.iter().map(|member| member.node));
        let claimant = self.tracking.claimant();
        let voters = self.log.state().electors().map(|(_, node, _)| node);
        let sources: BTreeSet<NodeId> = members.chain(claimant).chain(voters).collect();
        let linked: Vec<NodeId> = sources.into_iter().filter(|node| self.peers.is_linked(*node)).collect();
        if !linked.is_empty() {
            let turn = lost.as_millis() as usize / SEEK_EVERY.as_millis() as usize;
            self.send_follow(linked[turn % linked.len()]);
        }
    }

    /// Requests the log from the first missing entry on.
    pub(super) fn send_follow(&mut self, to: NodeId) {
        send_control(
            self.peers,
            self.outputs,
            to,
            self.log.follow_frame(self.identity.incarnation, self.identity.level_max),
        );
    }

    /// Notifies a linked peer of this group that this node coordinates it in a term.
    pub(super) fn announce(&mut self, peer: NodeId, term: u64) {
        let belongs = self.log.lists(peer) || self.peers.is_observer(peer);
        if belongs || self.arrival.has_invited(peer) {
            send_control(self.peers, self.outputs, peer, ControlFrame::Coordinates { term });
        }
    }

    /// Reports that most voters returned without their votes: no node can coordinate the group.
    fn report_votes_lost(&mut self) {
        let lost = votes_lost(self.identity, self.log, self.is_in_reach());
        if let Some(lost) = lost.filter(|lost| self.log.report_loss(lost)) {
            self.outputs.event(Event::VotesLost(lost));
        }
    }

    /// Whether a coordinator is known, and linked unless it is this node.
    fn is_in_reach(&self) -> bool {
        self.coordinates || self.tracking.linked(self.identity.me, self.peers).is_some()
    }
}

/// The voters that this node misses, once no coordinator was in reach for the coordinator timeout; none if they are a
/// minority.
pub(super) fn missing_voters(
    identity: &Identity,
    log: &ControlLog,
    peers: &Peers,
    tracking: &CoordinatorTracking,
    now: Time,
) -> Option<MissingVoters> {
    let timeout = log.state().view()?.parameters.coordinator_timeout;
    if tracking.lost_for(now)? < timeout || log.state().is_closed() {
        return None;
    }
    let (voters, missing) = log.voters_out_of_reach(|node| node == identity.me || peers.is_linked(node));
    let needed = (voters / 2 + 1).saturating_sub(voters - missing.len());
    let ring = log.state().view().map_or(&[][..], |view| &view.ring);
    let address = |node: NodeId| ring.iter().find(|member| member.node == node)?.addresses.first().copied();
    let missing = missing.into_iter().map(|node| (node, address(node))).collect();
    (needed > 0).then_some(MissingVoters { missing, needed, durability: identity.durability })
}

/// The lost votes, if no node can coordinate the group without them.
pub(super) fn votes_lost(identity: &Identity, log: &ControlLog, has_coordinator: bool) -> Option<VotesLost> {
    let may_be_stuck = !has_coordinator && !log.state().is_closed();
    let (lost, voters) = log.lost_majority().filter(|_| may_be_stuck)?;
    let durability = identity.durability;
    identity.rules.holds(Rule::LostVotesAreReported).then_some(VotesLost { lost, voters, durability })
}
