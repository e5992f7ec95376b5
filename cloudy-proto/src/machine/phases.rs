//! The kickstart of a session, and the end of its periods (`protocol.md` §9).

use crate::command::{Command, SessionPlan};
use crate::id::{NodeId, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::coordinating::Coordinating;
use crate::machine::timers::Timer;
use crate::session::{Begins, PeriodEnd, Session};
use crate::view::View;

impl Machine {
    /// Coordinator: notes that a member's links to all others are up. Once that holds for all, a session may begin. A
    /// member may know a view before the coordinator, whose disk is slower.
    pub(super) fn on_ready(&mut self, node: NodeId, of: ViewId) {
        if let Some(coordinating) = &mut self.coordinating
            && self.log.state().incarnation(node).is_some()
            && coordinating.on_ready(node, of)
        {
            self.all_ready(node);
        }
    }

    /// Coordinator: handles reports about a view from before it was in force here.
    pub(super) fn heard_early(&mut self, view: &View) {
        let Some(coordinating) = &mut self.coordinating else { return };
        let (ready, suspicions) = coordinating.on_view(view.id);
        if let Some(node) = ready {
            self.all_ready(node);
        }
        for (from, (of, wedged)) in suspicions {
            self.view_change().on_suspect(from, of, wedged);
        }
    }

    fn all_ready(&mut self, node: NodeId) {
        let ready = |view: &View| view.rank_of(node).is_some() && self.are_ready(view);
        if self.log.state().view().is_some_and(|view| ready(view)) {
            self.event(Event::AllReady);
            self.reconfigure();
        }
    }

    fn are_ready(&self, view: &View) -> bool {
        self.coordinating.as_ref().is_some_and(|coordinating| coordinating.are_all_ready(view))
    }

    /// Coordinator: kicks a session off once all members reach each other, and the intended nodes vote: from then on it
    /// continues without any single node.
    pub(super) fn try_kickstart(&mut self) {
        let all_ready = self.log.state().view().is_some_and(|view| self.are_ready(view));
        let plan = self
            .log
            .state()
            .session()
            .filter(|_| all_ready && self.session.as_ref().is_some_and(Session::awaits_kickstart));
        if let Some(plan) = plan
            && self.coordinating.as_mut().is_some_and(Coordinating::propose_kickstart)
        {
            self.propose(&Command::Kickstart(plan));
        }
    }

    /// Handles a view of a session.
    pub(super) fn note_session(&mut self, view: &View) {
        if view.parameters.session {
            self.session.get_or_insert_default();
        }
    }

    pub(super) fn kickstarted(&mut self, plan: SessionPlan) {
        let stream =
            self.plane.member().and_then(|_| self.log.state().stream(self.identity.me, self.identity.incarnation));
        let Some(begins) = self.session.get_or_insert_default().on_kickstart(plan, stream) else { return };
        self.begin_period(begins);
        if let Some(member) = self.plane.member_mut() {
            member.open();
        }
    }

    fn begin_period(&mut self, (event, lasts): Begins) {
        if let Some(lasts) = lasts {
            self.set_timer(Timer::Period, lasts);
        }
        self.event(event);
    }

    /// Ends a period: for a member by its own timer, for all by the coordinator's command.
    pub(super) fn period_over(&mut self) {
        match self.session.as_ref().and_then(Session::on_period_over) {
            Some(PeriodEnd::Send) => {
                self.propose(&Command::Grace);
                self.enter_grace();
            }
            Some(PeriodEnd::Grace) => self.begin_stop(),
            None => {}
        }
    }

    pub(super) fn enter_grace(&mut self) {
        if let Some(begins) = self.session.as_mut().and_then(Session::on_grace) {
            self.begin_period(begins);
        }
    }

    /// Handles a request of this node to end the session.
    pub(super) fn end(&mut self) {
        self.closing.want();
        if self.is_coordinator() {
            self.begin_stop();
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), crate::wire::ControlFrame::End);
        }
    }

    pub(super) fn asked_to_end(&mut self, from: NodeId) {
        let observes = self.peers.is_observer(from);
        // The node sends its request to the next coordinator as well.
        if self.is_coordinator()
            && !self.closing.departure().hands_over(self.identity.me, &self.log)
            && (observes || self.tracking.is_known(from, &self.log))
        {
            self.begin_stop();
        }
    }
}
