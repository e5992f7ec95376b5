//! Start and end of a coordinator's term: the duties of every owner, in order (`protocol.md` §6.1, §6.6).

use crate::id::NodeId;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::electorate::Reconfigured;
use crate::machine::phases::Unfinished;
use crate::machine::timers::Timer;
use crate::view::View;
use crate::wire::ControlFrame;

impl Machine {
    /// Starts to coordinate, because this node leads the voters, and takes over its predecessor's work.
    pub(in crate::machine) fn begin_coordinating(&mut self, term: u64) {
        self.coordinating = Some(Coordinating::new(term));
        self.plane.forget_ready_report();
        self.coordinator().on_lead(term);
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|peer| self.announce(peer));
        if let Some(mut creation) = self.creation() {
            creation.start();
        }
        self.take_over_phase();
        self.view_change().report_suspects();
        self.close().send_report();
        self.send_rejoin();
        self.ask_to_leave();
    }

    /// Finishes a phase that a predecessor may have begun.
    fn take_over_phase(&mut self) {
        match self.phases().take_over() {
            Unfinished::LastView => return self.close().on_last_view(),
            Unfinished::LastChange => self.view_change().start(true),
            Unfinished::Close => self.begin_close(),
            Unfinished::Nothing => {}
        }
        self.view_change().replace_stale();
    }

    /// Stops to coordinate, because another voter leads, or none.
    pub(in crate::machine) fn end_coordinating(&mut self) {
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
    pub(in crate::machine) fn announce(&mut self, peer: NodeId) {
        if let Some(term) = self.coordinating.as_ref().map(Coordinating::term) {
            self.coordinator().announce(peer, term);
        }
    }

    /// Handles a node's claim to coordinate.
    pub(in crate::machine) fn on_claim(&mut self, from: NodeId, term: u64) {
        if self.coordinator().on_claim(from, term) {
            self.greet_coordinator();
        }
    }

    /// Handles a kept claim again, because more of the log is known.
    pub(in crate::machine) fn retry_claim(&mut self) {
        if self.coordinator().on_log() {
            self.greet_coordinator();
        }
    }

    /// Sends everything to the coordinator that it may not know, on a new link or in a new term.
    pub(in crate::machine) fn greet_coordinator(&mut self) {
        if !self.has_coordinator() {
            return self.coordinator().on_lost();
        }
        self.coordinator().on_in_reach();
        let coordinator = self.tracking.node();
        self.coordinator().send_follow(coordinator);
        self.plane.forget_ready_report();
        self.close().send_report();
        self.view_change().report_suspects();
        self.send_rejoin();
        if self.closing.is_wanted() {
            self.send_control(self.tracking.node(), ControlFrame::End);
        }
        self.ask_to_leave();
    }

    /// Coordinator: notes that a member's links to all others are up. Once that holds for all, a session may begin.
    pub(in crate::machine) fn on_ready(&mut self, node: NodeId, of: crate::id::ViewId) {
        if self.phases().on_ready(node, of) {
            self.reconfigure();
        }
    }

    /// Coordinator: handles reports about a view from before it was in force here.
    pub(in crate::machine) fn on_early_reports(&mut self, view: &View) {
        let Some(coordinating) = &mut self.coordinating else { return };
        let (ready, suspicions) = coordinating.on_view(view.id);
        if let Some(node) = ready
            && self.phases().report_all_ready(node)
        {
            self.reconfigure();
        }
        for (from, (of, wedged)) in suspicions {
            self.view_change().on_suspect(from, of, wedged);
        }
    }

    /// Coordinator: makes the next change of the voters, if one is due.
    pub(in crate::machine) fn reconfigure(&mut self) {
        let ends = self.closing.is_stopping() || self.change().is_some();
        // Reports and links from before this process was stopped do not show which voters live.
        if ends || self.peers.has_just_woken(self.timers.now()) {
            return;
        }
        match self.electorate().map_or(Reconfigured::Nothing, |mut electorate| electorate.reconfigure()) {
            Reconfigured::Proposed => self.run_consensus(),
            Reconfigured::Settled => self.phases().try_kickstart(),
            Reconfigured::Nothing => {}
        }
    }
}
