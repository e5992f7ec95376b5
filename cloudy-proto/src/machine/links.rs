//! Links come and go; nothing is lost by it (`protocol.md` §4).

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;
use crate::io::{Event, Frame};
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::timers::Timer;
use crate::path::Path;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::View;
use crate::wire::{ControlFrame, Heartbeat, Stream, TallyFrame};

/// What is known of other nodes: members of the view, and all that are linked.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// When each was last heard of, and what it said.
    pub(super) heard: BTreeMap<NodeId, (Time, Heartbeat)>,
    /// What is measured of the path to each.
    pub(super) paths: BTreeMap<NodeId, Path>,
    /// When this process ran again after it had been stopped for longer than a heartbeat.
    pub(super) woke_at: Option<Time>,
    /// Linked observers.
    pub(super) observers: BTreeSet<NodeId>,
    /// Members that came onto the ring as joiners and have not reported that they are complete.
    pub(super) incomplete: BTreeSet<NodeId>,
}

impl Machine {
    pub(super) fn link_up(&mut self, peer: NodeId, addresses: Vec<SocketAddr>) {
        self.outputs.on_link_changed(peer);
        self.links.insert(peer, addresses);
        self.peers.heard.entry(peer).or_default().0 = self.now;
        self.peers.paths.entry(peer).or_default().link_up();
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_link_changed(peer);
        }
        if let Some(member) = &mut self.member
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_up(rank);
            if member.view.parameters.adapts() {
                // Both ends have said hello; the first heartbeat follows after the path's time.
                member.heard(rank, self.now);
            }
        }
        if self.is_coordinator() {
            self.say_invite(peer);
            self.announce(peer);
        } else if peer == self.tracking.node() {
            self.greet_coordinator();
            self.accept_again(peer);
        }
        self.greet(peer);
        self.probe_peers();
        self.fetch_over_new_link(peer);
    }

    pub(super) fn link_down(&mut self, peer: NodeId) {
        self.outputs.on_link_changed(peer);
        self.links.remove(&peer);
        self.electors_quiet.retain(|id| self.state.elector(*id).is_some());
        let voters = self.state.electors().filter(|(_, node, _)| *node == peer);
        self.electors_quiet.extend(voters.map(|(id, ..)| id));
        if let Some(coordinating) = &mut self.coordinating {
            coordinating.on_link_changed(peer);
        }
        self.evictions.part(peer);
        if self.state.view().is_none_or(|view| view.rank_of(peer).is_none()) {
            self.peers.heard.remove(&peer);
            self.peers.paths.remove(&peer);
        }
        self.part(peer);
        if let Some(member) = &mut self.member
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_down(rank);
        }
        if !self.is_coordinator() && peer == self.tracking.node() {
            self.lose_coordinator();
        }
        self.fetch_without_link(peer);
        let counts_reach = self.identity.rules.holds(Rule::AnswerIsInReach);
        if let Some(change) = self.change_mut().filter(|_| counts_reach) {
            change.part(peer);
        }
        self.try_cut();
        self.try_close();
    }

    /// Forgets what nodes said that are neither members of the view nor linked.
    pub(super) fn forget_others(&mut self, view: &View) {
        self.checkpoints.forget(view);
        let stays = |node: &NodeId| view.rank_of(*node).is_some() || self.links.contains_key(node);
        self.peers.heard.retain(|node, _| stays(node));
        self.peers.paths.retain(|node, _| stays(node));
    }

    /// Says once in each view that the links to all other members are up.
    pub(super) fn say_ready(&mut self) {
        let Some(member) = &self.member else { return };
        let view = member.view.id;
        if self.ready_said == view || !member.all_linked() {
            return;
        }
        if self.is_coordinator() {
            self.ready_said = view;
            self.is_ready(self.identity.me, view);
        } else if self.has_coordinator() {
            self.ready_said = view;
            self.send_control(self.tracking.node(), ControlFrame::Ready { view });
        }
    }

    /// Says to every peer that this node lives, and how far it is.
    pub(super) fn beat(&mut self) {
        let Some(view) = self.state.view().cloned() else { return };
        self.probe_peers();
        let heartbeat = self.heartbeat();
        if let Some(member) = &mut self.member {
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

    /// Linked nodes that watch the group from outside its ring: the founder, the coordinator, and who follows it here.
    fn observers(&self, view: &View) -> BTreeSet<NodeId> {
        let named = self.state.founder().into_iter().chain([self.tracking.node()]);
        let followers = self.coordinating.iter().flat_map(Coordinating::followers);
        let all = named.chain(followers).chain(self.peers.observers.iter().copied());
        all.filter(|node| view.rank_of(*node).is_none() && self.links.contains_key(node)).collect()
    }

    /// A member said that it lives.
    pub(super) fn heard_of(&mut self, node: NodeId, heartbeat: Heartbeat) {
        self.peers.heard.insert(node, (self.now, heartbeat));
        if let Some(view) = self.state.view().filter(|view| view.parameters.adapts()) {
            self.peers.paths.entry(node).or_default().heartbeat(view.parameters.heartbeat, self.now);
        }
        if heartbeat.complete && self.peers.incomplete.remove(&node) {
            self.let_go();
        }
        if self.is_coordinator() || self.member.is_none() {
            self.event(Event::Progress { node, index: heartbeat.index });
        }
        self.compare(node, heartbeat);
    }

    /// A member is linked and was heard of within the time that a living one may be silent.
    pub(super) fn seems_alive(&self, node: NodeId) -> bool {
        if node == self.identity.me {
            return true;
        }
        if self.state.view().is_none() || !self.links.contains_key(&node) {
            return false;
        }
        let heard_at = self.peers.heard.get(&node).map(|(at, _)| *at);
        heard_at.is_some_and(|at| self.now.since(at) <= self.silence_max(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::id::ConsensusId;
    use crate::limits::MEMBERS_MAX;
    use crate::machine::tests::alone;

    #[test]
    fn peers_that_come_and_go_leave_nothing_behind() {
        let mut machine = alone(Parameters::default());
        for at in 1..=1_000_u64 {
            let mut peer = NodeId([7; 32]);
            peer.0[..8].copy_from_slice(&at.to_be_bytes());
            machine.link_up(peer, Vec::new());
            machine.follow(peer, crate::id::LogIndex(1), ConsensusId(0));
            machine.hear_elector(ConsensusId(at + 1), peer);
            machine.link_down(peer);
        }
        assert_eq!((machine.peers.heard.len(), machine.peers.paths.len()), (0, 0));
        assert_eq!(machine.coordinating.as_ref().map(|coordinating| coordinating.followers().count()), Some(0));
        assert!(machine.electors_heard.len() <= 2 * MEMBERS_MAX);
        assert!(machine.electors_heard.contains_key(&ConsensusId(1_001)), "the newest is known");
    }
}
