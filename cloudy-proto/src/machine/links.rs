//! Links come and go; nothing is lost by it (`protocol.md` §4).

use core::net::SocketAddr;

use crate::id::NodeId;
use crate::io::{Event, Frame, Output, Phase};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::wire::{ControlFrame, Heartbeat, Stream, TallyFrame};

impl Machine {
    pub(super) fn link_up(&mut self, peer: NodeId, addresses: Vec<SocketAddr>) {
        self.unsend(peer);
        self.links.insert(peer, addresses);
        self.heard.entry(peer).or_default().0 = self.now;
        self.followers.remove(&peer);
        if let Some(member) = &mut self.member
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_up(rank);
        }
        if self.is_coordinator() {
            self.say_invite(peer);
        } else if peer == self.coordinator {
            self.timers.stop(Timer::Coordinator);
            self.say_accept();
            self.ready_said = crate::id::ViewId(0);
            self.say_report();
            self.say_suspect();
            self.say_rejoin();
        }
        if self.fetching.is_some() {
            self.fetch();
        }
    }

    pub(super) fn link_down(&mut self, peer: NodeId) {
        self.unsend(peer);
        self.links.remove(&peer);
        self.followers.remove(&peer);
        if let Some(member) = &mut self.member
            && let Some(rank) = member.view.rank_of(peer)
        {
            member.link_down(rank);
        }
        if !self.is_coordinator() && peer == self.coordinator && self.phase != Phase::Done {
            let timeout = self.state.view().map_or_else(
                || crate::config::Parameters::default().coordinator_timeout,
                |view| view.parameters.coordinator_timeout,
            );
            self.set_timer(Timer::Coordinator, timeout);
        }
        if self.fetching.as_ref().is_some_and(|fetching| fetching.asked == Some(peer)) {
            self.fetch();
        }
        self.try_cut();
        self.try_close();
    }

    /// What was said on a link and not taken yet goes with it: on the next, it would come before what it builds on.
    fn unsend(&mut self, peer: NodeId) {
        self.delivery.outputs.retain(|output| !matches!(output, Output::Send { to, .. } if *to == peer));
    }

    pub(super) fn coordinator_lost(&mut self) {
        let node = self.coordinator;
        self.event(Event::CoordinatorLost { node });
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
            self.is_ready(self.me, view);
        } else if self.links.contains_key(&self.coordinator) {
            self.ready_said = view;
            self.send_control(self.coordinator, ControlFrame::Ready { view });
        }
    }

    /// Says to every peer that this node lives, and how far it is.
    pub(super) fn beat(&mut self) {
        let Some(view) = self.state.view().cloned() else { return };
        let heartbeat = self.heartbeat();
        if let Some(member) = &mut self.member {
            member.beat(heartbeat, &mut self.delivery);
            let observer = view.rank_of(self.coordinator).is_none();
            if observer && self.links.contains_key(&self.coordinator) {
                self.delivery.outputs.push_back(Output::Send {
                    to: self.coordinator,
                    stream: Stream::Tally { view: view.id },
                    frame: Frame::Tally(TallyFrame::Heartbeat(heartbeat)),
                });
            }
        }
        if !view.last {
            self.set_timer(Timer::Heartbeat, view.parameters.heartbeat);
        }
    }

    /// A member said that it lives.
    pub(super) fn heard_of(&mut self, node: NodeId, heartbeat: Heartbeat) {
        self.heard.insert(node, (self.now, heartbeat));
        if self.is_coordinator() {
            self.event(Event::Progress { node, index: heartbeat.index });
        }
        self.compare_checkpoint(node, heartbeat.checkpoint);
    }

    /// A member is linked and was heard of within the failure timeout.
    pub(super) fn seems_alive(&self, node: NodeId) -> bool {
        if node == self.me {
            return true;
        }
        let Some(view) = self.state.view().filter(|_| self.links.contains_key(&node)) else { return false };
        let heard_at = self.heard.get(&node).map(|(at, _)| *at);
        heard_at.is_some_and(|at| self.now.since(at) <= view.parameters.failure_timeout)
    }
}
