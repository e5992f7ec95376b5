//! Links to other nodes, heartbeats and measurements of paths (`protocol.md` §4, §6.1).

use core::time::Duration;
use std::collections::BTreeSet;

use crate::due::Due;
use crate::id::{Index, NodeId, ViewId};
use crate::io::{Event, Frame};
use crate::limits::CONSENSUS_TICK;
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::{Contact, Peers};
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::View;
use crate::wire::{ControlFrame, Heartbeat, Stream, TallyFrame};

/// Notes links and signs of life of other nodes, and sends this node's own.
pub(super) struct LinkHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a mut Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a ResultLog,
    pub(super) storage: &'a Storage,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
    pub(super) due: &'a Due,
}

/// Links.
impl LinkHandler<'_> {
    /// Notes a new link.
    pub(super) fn on_up(&mut self, peer: NodeId, contact: Contact) {
        self.outputs.on_link_changed(peer);
        self.peers.on_link_up(peer, contact, self.timers.now());
        if let Some(coordinating) = self.coordinating {
            coordinating.on_link_changed(peer);
        }
        if let Some(member) = self.plane.member_mut()
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_up(rank);
            if member.view.parameters.adapts() {
                // Both ends have sent their hello; the first heartbeat follows after the path's delay.
                member.heard(rank, self.timers.now());
            }
        }
    }

    /// Notes a lost link.
    pub(super) fn on_down(&mut self, peer: NodeId) {
        self.outputs.on_link_changed(peer);
        let is_member = self.log.state().view().is_some_and(|view| view.rank_of(peer).is_some());
        self.peers.on_link_down(peer, is_member);
        self.log.on_link_down(peer);
        self.peers.evictions.on_not_ready(peer);
        if let Some(coordinating) = self.coordinating {
            coordinating.on_link_changed(peer);
            coordinating.on_observer_gone(peer);
        }
        if let Some(member) = self.plane.member_mut()
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_down(rank);
        }
    }

    /// Notifies a newly linked peer that the group is closed, or a former member that it runs.
    pub(super) fn send_state(&mut self, peer: NodeId) {
        if self.log.state().is_closed() && self.log.knows(peer) {
            return self.send_ended(peer);
        }
        let runs = self.log.state().view().is_some() && !self.closing.is_final();
        let running = self.log.running_frame(self.identity);
        if let Some(running) = running.filter(|_| runs && self.log.state().was_member(peer)) {
            self.send(peer, running);
        }
    }

    /// Notifies a peer that the group is closed.
    pub(super) fn send_ended(&mut self, to: NodeId) {
        if self.identity.rules.holds(Rule::CloseIsReported) {
            self.send(to, ControlFrame::Ended);
        }
    }

    /// Reports once in each view that the links to all other members are up. Returns the view if this node coordinates.
    pub(super) fn report_ready(&mut self) -> Option<ViewId> {
        let view = self.plane.unreported_ready()?;
        if self.coordinating.is_some() {
            self.plane.note_ready_reported(view);
            return Some(view);
        }
        if let Some(coordinator) = self.tracking.linked(self.identity.me, self.peers) {
            self.plane.note_ready_reported(view);
            self.send(coordinator, ControlFrame::Ready { view });
        }
        None
    }

    fn send(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(self.peers, self.outputs, to, frame);
    }
}

/// Heartbeats.
impl LinkHandler<'_> {
    /// Sends this node's heartbeat to all peers.
    pub(super) fn beat(&mut self) {
        let Some(view) = self.log.state().view().cloned() else { return };
        self.probe();
        let now = self.timers.now();
        let heartbeat = self.plane.heartbeat(self.result, self.storage.syncs.slowest_ms(now), now);
        let observers = self.observers(&view);
        if let Some(member) = self.plane.member_mut() {
            member.beat(heartbeat, self.outputs, self.due);
            for to in observers {
                let stream = Stream::Tally { view: view.id };
                let frame = Frame::Tally(TallyFrame::Heartbeat(heartbeat));
                self.outputs.send(to, stream, frame);
            }
        }
        if !view.last {
            self.timers.set(Timer::Heartbeat, now + view.parameters.heartbeat);
        }
    }

    /// Linked nodes that follow the group from outside its ring: the creator, the coordinator, and this node's
    /// followers.
    fn observers(&self, view: &View) -> BTreeSet<NodeId> {
        let named = self.log.state().creator().into_iter().chain([self.tracking.node()]);
        let followers = self.coordinating.iter().flat_map(Coordinating::followers);
        let all = named.chain(followers).chain(self.peers.observers().iter().copied());
        all.filter(|node| view.rank_of(*node).is_none() && self.peers.is_linked(*node)).collect()
    }

    /// Notes a member's heartbeat; none without a view. True if it is a joiner that has just become complete.
    pub(super) fn on_heartbeat(&mut self, node: NodeId, heartbeat: Heartbeat) -> Option<bool> {
        let view = self.log.state().view()?;
        Some(self.peers.on_heartbeat(node, heartbeat, &view.parameters, self.timers.now()))
    }

    /// Reports a member's progress to the application.
    pub(super) fn report_progress(&mut self, node: NodeId, index: Index) {
        if self.coordinating.is_some() || !self.plane.is_member() {
            self.outputs.event(Event::Progress { node, index });
        }
    }

    /// Notes the members of a view: checkpoints of others do not count, and its joiners have to fetch before they are
    /// complete.
    pub(super) fn on_view(&mut self, view: &View) {
        self.peers.checkpoints.forget(view);
        self.peers.on_view(view);
        if let Some(coordinating) = self.coordinating {
            coordinating.slow_learners.on_view(view);
        }
        self.probe();
    }
}

/// Paths.
impl LinkHandler<'_> {
    /// Measures the paths to the members, the voters and the coordinator, if the group's timeouts adapt.
    pub(super) fn probe(&mut self) {
        let Some(view) = self.log.state().view().filter(|view| view.parameters.adapts()).cloned() else { return };
        let members = view.ring.iter().map(|member| member.node);
        let voters = self.log.state().electors().map(|(_, node, _)| node);
        let peers: BTreeSet<NodeId> = members.chain(voters).chain([self.tracking.node()]).collect();
        for peer in peers {
            if peer != self.identity.me && self.peers.is_linked(peer) && self.peers.start_probe(peer, self.timers.now())
            {
                self.send(peer, ControlFrame::Probe { sent_us: self.timers.now().0 });
            }
        }
    }

    /// Answers a peer's probe of the path to this node.
    pub(super) fn on_probe(&mut self, from: NodeId, sent_us: u64) {
        self.hear(from);
        self.send(from, ControlFrame::Echo { sent_us });
    }

    pub(super) fn on_echo(&mut self, from: NodeId, sent_us: u64) {
        self.hear(from);
        self.peers.on_echo(from, Time(sent_us), self.timers.now());
    }

    /// Notes that a peer lives, in any view.
    fn hear(&mut self, from: NodeId) {
        if let Some(member) = self.plane.member_mut()
            && let Some(rank) = member.view.rank_of(from)
        {
            member.heard(rank, self.timers.now());
        }
    }

    /// Handles an input that comes later than a heartbeat after the one before it: this process was stopped and has
    /// received nothing meanwhile, unless no timer was due.
    #[cold]
    pub(super) fn on_late(&mut self, now: Time, passed: Duration, heartbeat: Duration) {
        let slept = self.timers.next().map_or(Duration::ZERO, |due| now.since(due)).min(passed);
        if slept <= heartbeat {
            return;
        }
        self.peers.on_slept(slept);
        if self.identity.rules.holds(Rule::SleeperWaits) {
            self.peers.on_wake(now);
            if let Some(change) = self.coordinating.as_mut().and_then(Coordinating::change_mut) {
                let until = now + CONSENSUS_TICK;
                change.wait_until(until);
                self.timers.set(Timer::Wedge, until);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::id::ConsensusId;
    use crate::io::Output;
    use crate::machine::tests::{COORDINATOR, MEMBER, alone, drain, pair};

    #[test]
    fn departed_peers_leave_no_state() {
        let mut machine = alone(Parameters::default());
        for at in 1..=1_000_u64 {
            let mut peer = NodeId([7; 32]);
            peer.0[..8].copy_from_slice(&at.to_be_bytes());
            machine.on_link_up(peer, Contact::default());
            machine.on_follow(peer, crate::id::LogIndex(1), ConsensusId(0), crate::wire::WIRE_VERSION);
            machine.on_link_down(peer);
        }
        assert_eq!(machine.peers.counts(), (0, 0));
        assert_eq!(machine.coordinating.as_ref().map(|coordinating| coordinating.followers().count()), Some(0));
    }
    #[test]
    fn a_member_reports_once_that_it_is_ready_and_the_coordinator_to_itself() {
        let (mut coordinator, mut member) = pair(Parameters::default());
        for machine in [&mut coordinator, &mut member] {
            machine.plane.forget_ready_report();
        }
        assert_eq!(coordinator.links().report_ready(), Some(ViewId(1)));
        assert_eq!(coordinator.links().report_ready(), None, "it has reported");
        assert_eq!(member.links().report_ready(), None);
        let ready = |output: &Output| {
            matches!(output, Output::Send { to: COORDINATOR, frame: Frame::Control(ControlFrame::Ready { .. }), .. })
        };
        assert_eq!(drain(&mut member).iter().filter(|output| ready(output)).count(), 1);
    }

    #[test]
    fn a_former_member_learns_that_the_group_runs_and_a_stranger_learns_nothing() {
        let (mut coordinator, _) = pair(Parameters::default());
        coordinator.links().send_state(NodeId([9; 32]));
        assert!(drain(&mut coordinator).is_empty());
        coordinator.links().send_state(MEMBER);
        let sent = drain(&mut coordinator);
        let runs = |output: &Output| {
            matches!(output, Output::Send { to: MEMBER, frame: Frame::Control(ControlFrame::Running { .. }), .. })
        };
        assert!(sent.iter().all(runs) && sent.len() == 1, "{sent:?}");
    }

    #[test]
    fn a_process_that_was_stopped_decides_on_nothing_for_a_tick() {
        let (mut coordinator, _) = pair(Parameters::default());
        let (due, heartbeat) = (coordinator.timers.next().expect("it beats"), Duration::from_millis(10));
        let in_time = due + heartbeat;
        coordinator.links().on_late(in_time, heartbeat * 2, heartbeat);
        assert!(!coordinator.peers.has_just_woken(in_time));
        let late = in_time + heartbeat;
        coordinator.links().on_late(late, heartbeat * 3, heartbeat);
        assert!(coordinator.peers.has_just_woken(late));
    }
}
