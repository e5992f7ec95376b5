//! Start and end of a coordinator's term: the duties of every owner, in order (`protocol.md` §6.1, §6.6).

use crate::command::Command;
use crate::id::NodeId;
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::electorate::Reconfigured;
use crate::machine::timers::Timer;
use crate::session::Session;
use crate::wire::ControlFrame;

impl Machine {
    /// Starts to coordinate, because this node leads the voters, and takes over its predecessor's work.
    pub(super) fn begin_coordinating(&mut self, term: u64) {
        self.coordinating = Some(Coordinating::new(term));
        self.tracking.on_lead(self.identity.me, term);
        self.plane.forget_ready_report();
        self.coordinator().on_in_reach();
        if self.log.state().creator().is_none() && self.arrival.creation().is_some() {
            self.propose(&Command::Created { creator: self.identity.me });
        }
        self.event(Event::Coordinator { node: self.identity.me });
        if self.arrival.joins_ring() && !self.log.state().is_latest_run(self.identity.me, self.identity.run) {
            // A restarted process may lead the voters before it has a place on the ring.
            self.propose(&Command::Incarnate { node: self.identity.me, run: self.identity.run });
        }
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|peer| self.announce(peer));
        if let Some(mut creation) = self.creation() {
            creation.start();
        }
        self.take_over_phase();
        self.view_change().report_suspects();
        self.say_report();
        self.send_rejoin();
        self.ask_to_leave();
    }

    /// Finishes a phase that a predecessor may have begun.
    fn take_over_phase(&mut self) {
        if self.log.state().view().is_some_and(|view| view.last) {
            return self.last_installed();
        }
        let in_grace = self.session.as_ref().is_some_and(Session::is_in_grace);
        let period_is_over = in_grace && !self.timers.is_set(Timer::Period);
        if in_grace {
            self.propose(&Command::Grace);
        }
        if self.closing.is_stopping() {
            self.view_change().start(true);
        } else if period_is_over || self.closing.is_wanted() {
            self.begin_stop();
        }
        self.view_change().replace_stale();
    }

    /// Stops to coordinate, because another voter leads, or none.
    pub(super) fn end_coordinating(&mut self) {
        self.timers.stop(Timer::Wedge);
        self.timers.stop(Timer::Linger);
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|peer| self.send_control(peer, ControlFrame::Resigned));
        if self.tracking.node() == self.identity.me {
            self.coordinator().on_lost();
        } else {
            self.greet_coordinator();
        }
    }

    /// Notifies a linked peer of this group that this node coordinates it, if it does.
    pub(super) fn announce(&mut self, peer: NodeId) {
        if let Some(term) = self.coordinating.as_ref().map(Coordinating::term) {
            self.coordinator().announce(peer, term);
        }
    }

    /// Handles a node's claim to coordinate.
    pub(super) fn on_claim(&mut self, from: NodeId, term: u64) {
        if self.coordinator().on_claim(from, term) {
            self.greet_coordinator();
        }
    }

    /// Handles a kept claim again, because more of the log is known.
    pub(super) fn retry_claim(&mut self) {
        if self.coordinator().on_log() {
            self.greet_coordinator();
        }
    }

    /// Sends everything to the coordinator that it may not know, on a new link or in a new term.
    pub(super) fn greet_coordinator(&mut self) {
        if !self.has_coordinator() {
            return self.coordinator().on_lost();
        }
        self.coordinator().on_in_reach();
        let coordinator = self.tracking.node();
        self.coordinator().send_follow(coordinator);
        self.plane.forget_ready_report();
        self.say_report();
        self.view_change().report_suspects();
        self.send_rejoin();
        if self.closing.is_wanted() {
            self.send_control(self.tracking.node(), ControlFrame::End);
        }
        self.ask_to_leave();
    }

    /// Whether a coordinator is known, and linked unless it is this node.
    pub(super) fn has_coordinator(&self) -> bool {
        let is_linked = || self.peers.is_linked(self.tracking.node());
        self.is_coordinator() || (self.tracking.is_elsewhere(self.identity.me) && is_linked())
    }

    /// Coordinator: makes the next change of the voters, if one is due.
    pub(super) fn reconfigure(&mut self) {
        let ends = self.closing.is_stopping() || self.change().is_some();
        // Reports and links from before this process was stopped do not show which voters live.
        if ends || self.peers.has_just_woken(self.timers.now()) {
            return;
        }
        match self.electorate().map_or(Reconfigured::Nothing, |mut electorate| electorate.reconfigure()) {
            Reconfigured::Proposed => self.run_consensus(),
            Reconfigured::Settled => self.try_kickstart(),
            Reconfigured::Nothing => {}
        }
    }
}
