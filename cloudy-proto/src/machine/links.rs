//! Links come and go, and nothing is lost (`protocol.md` §4).

use core::time::Duration;
use std::collections::BTreeSet;

use crate::id::NodeId;
use crate::io::{Event, Frame};
use crate::limits::CONSENSUS_TICK;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::peers::Contact;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::View;
use crate::wire::{ControlFrame, Heartbeat, Stream, TallyFrame};

impl Machine {
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(super) fn link_up(&mut self, peer: NodeId, contact: Contact) {
        self.outputs.on_link_changed(peer);
        self.peers.on_link_up(peer, contact, self.timers.now());
        if let Some(coordinating) = &mut self.coordinating {
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
        if self.is_coordinator() {
            if let Some(mut creation) = self.creation() {
                creation.send_invite(peer);
            }
            self.announce(peer);
        } else if peer == self.tracking.node() {
            self.greet_coordinator();
            // The creator may be another process without the group: only an answer shows that.
            if self.arrival.has_accepted() && self.log.state().view().is_none() {
                self.accept_invitation(peer);
            }
        }
        self.greet(peer);
        self.probe_peers();
        self.fetch().on_link_up(peer);
    }

    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(super) fn link_down(&mut self, peer: NodeId) {
        self.outputs.on_link_changed(peer);
        let is_member = self.log.state().view().is_some_and(|view| view.rank_of(peer).is_some());
        self.peers.on_link_down(peer, is_member);
        self.log.on_link_down(peer);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_link_changed(peer);
        }
        self.peers.evictions.on_not_ready(peer);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_observer_gone(peer);
        }
        if let Some(joining) = self.arrival.joining_mut() {
            joining.on_link_down(peer);
        }
        if let Some(member) = self.plane.member_mut()
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_down(rank);
        }
        if !self.is_coordinator() && peer == self.tracking.node() {
            self.coordinator().on_lost();
        }
        self.catch_up.transfers.on_link_down(peer);
        self.fetch().on_link_down(peer);
        self.view_change().on_link_down(peer);
        self.try_close();
    }

    /// Handles a new link: a joining node requests a place, and a node of the group notifies a former member that the
    /// group runs.
    fn greet(&mut self, peer: NodeId) {
        if let Some(mut join) = self.join() {
            join.on_link_up(peer);
        }
        if self.log.state().is_closed() && self.knows(peer) {
            return self.say_ended(peer);
        }
        let runs = self.log.state().view().is_some() && !self.closing.is_final();
        if let Some(running) = self.running().filter(|_| runs && self.log.state().was_member(peer)) {
            self.send_control(peer, running);
        }
    }

    /// Reports once in each view that the links to all other members are up.
    pub(super) fn say_ready(&mut self) {
        let Some(view) = self.plane.unreported_ready() else { return };
        if self.is_coordinator() {
            self.plane.note_ready_reported(view);
            self.on_ready(self.identity.me, view);
        } else if self.has_coordinator() {
            self.plane.note_ready_reported(view);
            self.send_control(self.tracking.node(), ControlFrame::Ready { view });
        }
    }

    /// Sends every peer this node's heartbeat.
    pub(super) fn beat(&mut self) {
        let Some(view) = self.log.state().view().cloned() else { return };
        self.probe_peers();
        let heartbeat = self.heartbeat();
        if let Some(member) = self.plane.member_mut() {
            member.beat(heartbeat, &mut self.outputs, &self.due);
            for to in self.observers(&view) {
                let stream = Stream::Tally { view: view.id };
                let frame = Frame::Tally(TallyFrame::Heartbeat(heartbeat));
                self.outputs.send(to, stream, frame);
            }
        }
        if !view.last {
            self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
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

    /// Handles a member's heartbeat.
    // Apart from the hot paths, which would pay for its stack frame.
    #[inline(never)]
    pub(super) fn heard_of(&mut self, node: NodeId, heartbeat: Heartbeat) {
        let Some(view) = self.log.state().view() else { return };
        if self.peers.on_heartbeat(node, heartbeat, &view.parameters, self.timers.now()) {
            self.let_go();
        }
        if self.is_coordinator() || !self.plane.is_member() {
            self.event(Event::Progress { node, index: heartbeat.index });
        }
        self.divergence().compare(node, heartbeat);
    }

    /// Notes the members of a view: checkpoints of others do not count, and its joiners have to fetch before they are
    /// complete.
    pub(super) fn note_members(&mut self, view: &View) {
        self.peers.checkpoints.forget(view);
        self.peers.on_view(view);
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.slow_learners.on_view(view);
        }
        self.probe_peers();
    }

    /// Measures the paths to the members, the voters and the coordinator, if the group's timeouts adapt.
    pub(super) fn probe_peers(&mut self) {
        let Some(view) = self.log.state().view().filter(|view| view.parameters.adapts()).cloned() else { return };
        let members = view.ring.iter().map(|member| member.node);
        let voters = self.log.state().electors().map(|(_, node, _)| node);
        let peers: BTreeSet<NodeId> = members.chain(voters).chain([self.tracking.node()]).collect();
        for peer in peers {
            if peer != self.identity.me && self.peers.is_linked(peer) && self.peers.start_probe(peer, self.timers.now())
            {
                self.send_control(peer, ControlFrame::Probe { sent_us: self.timers.now().0 });
            }
        }
    }

    /// Answers a peer's probe of the path to this node.
    pub(super) fn take_probe(&mut self, from: NodeId, sent_us: u64) {
        self.hear(from);
        self.send_control(from, ControlFrame::Echo { sent_us });
    }

    pub(super) fn take_echo(&mut self, from: NodeId, sent_us: u64) {
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

    /// Handles a process that was itself late by more than a heartbeat: it has received nothing meanwhile.
    #[inline]
    pub(super) fn notice_sleep(&mut self, now: Time) {
        let passed = now.since(self.timers.now());
        if let Some(view) = self.log.state().view()
            && passed > view.parameters.heartbeat
        {
            let heartbeat = view.parameters.heartbeat;
            self.notice_late(now, passed, heartbeat);
        }
    }

    /// Handles an input that comes later than a heartbeat after the one before it: this process was stopped, unless no
    /// timer was due.
    #[cold]
    fn notice_late(&mut self, now: Time, passed: Duration, heartbeat: Duration) {
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
    use crate::machine::tests::alone;

    #[test]
    fn peers_that_come_and_go_leave_nothing_behind() {
        let mut machine = alone(Parameters::default());
        for at in 1..=1_000_u64 {
            let mut peer = NodeId([7; 32]);
            peer.0[..8].copy_from_slice(&at.to_be_bytes());
            machine.link_up(peer, Contact::default());
            machine.follow(peer, crate::id::LogIndex(1), ConsensusId(0), crate::wire::WIRE_VERSION);
            machine.link_down(peer);
        }
        assert_eq!(machine.peers.counts(), (0, 0));
        assert_eq!(machine.coordinating.as_ref().map(|coordinating| coordinating.followers().count()), Some(0));
    }
}
