//! The kickstart of a session, and the end of its periods (`protocol.md` §9).

use crate::command::{Command, SessionPlan};
use crate::id::{NodeId, ViewId};
use crate::io::Event;
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::timers::{Timer, Timers};
use crate::outputs::Outputs;
use crate::session::{Begins, PeriodEnd, Session};
use crate::view::View;

/// Leads a session from one phase to the next.
pub(super) struct PhaseHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) plane: &'a mut DataPlane,
    pub(super) session: &'a mut Option<Session>,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

/// The open work of a new coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    Nothing,
    /// The last view is in force, and reports are awaited.
    LastView,
    /// The last view change has begun.
    LastChange,
    /// The group has to be closed.
    Close,
}

impl PhaseHandler<'_> {
    /// Coordinator: notes that a member's links to all others are up. A member may know a view before the coordinator,
    /// whose disk is slower. True if that holds for all members by this.
    pub(super) fn on_ready(&mut self, node: NodeId, of: ViewId) -> bool {
        let is_listed = self.log.state().incarnation(node).is_some();
        let is_new = self.coordinating.as_mut().is_some_and(|it| is_listed && it.on_ready(node, of));
        is_new && self.report_all_ready(node)
    }

    /// Notifies the application if all members of the view in force are ready, and the node is one of them.
    pub(super) fn report_all_ready(&mut self, node: NodeId) -> bool {
        let ready = |view: &View| view.rank_of(node).is_some() && self.are_ready(view);
        let all_ready = self.log.state().view().is_some_and(|view| ready(view));
        if all_ready {
            self.outputs.event(Event::AllReady);
        }
        all_ready
    }

    fn are_ready(&self, view: &View) -> bool {
        self.coordinating.as_ref().is_some_and(|coordinating| coordinating.are_all_ready(view))
    }

    /// Coordinator: kicks a session off once all members reach each other, and the intended nodes vote: from then on it
    /// continues without any single node.
    pub(super) fn try_kickstart(&mut self) {
        let all_ready = self.log.state().view().is_some_and(|view| self.are_ready(view));
        let awaits = self.session.as_ref().is_some_and(Session::awaits_kickstart);
        let plan = self.log.state().session().filter(|_| all_ready && awaits);
        if let Some(plan) = plan
            && self.coordinating.as_mut().is_some_and(Coordinating::propose_kickstart)
        {
            self.log.propose(&Command::Kickstart(plan));
        }
    }

    /// Handles a view of a session.
    pub(super) fn on_view(&mut self, view: &View) {
        if view.parameters.session {
            self.session.get_or_insert_default();
        }
    }

    pub(super) fn on_kickstart(&mut self, plan: SessionPlan) {
        let (me, incarnation) = (self.identity.me, self.identity.incarnation);
        let stream = self.plane.member().and_then(|_| self.log.state().stream(me, incarnation));
        let Some(begins) = self.session.get_or_insert_default().on_kickstart(plan, stream) else { return };
        self.begin_period(begins);
        if let Some(member) = self.plane.member_mut() {
            member.open();
        }
    }

    fn begin_period(&mut self, (event, lasts): Begins) {
        if let Some(lasts) = lasts {
            self.timers.set(Timer::Period, self.timers.now() + lasts);
        }
        self.outputs.event(event);
    }

    /// Ends a period: for a member by its own timer, for all by the coordinator's command. True if the coordinator has
    /// to close the group.
    pub(super) fn on_period_over(&mut self) -> bool {
        match self.session.as_ref().and_then(Session::on_period_over) {
            Some(PeriodEnd::Send) => {
                self.propose_grace();
                self.enter_grace();
                false
            }
            Some(PeriodEnd::Grace) => true,
            None => false,
        }
    }

    fn propose_grace(&mut self) {
        if self.coordinating.is_some() {
            self.log.propose(&Command::Grace);
        }
    }

    pub(super) fn enter_grace(&mut self) {
        if let Some(begins) = self.session.as_mut().and_then(Session::on_grace) {
            self.begin_period(begins);
        }
    }

    /// New coordinator: finishes a phase that its predecessor may have begun. Returns the rest.
    pub(super) fn take_over(&mut self) -> Unfinished {
        if self.log.state().view().is_some_and(|view| view.last) {
            return Unfinished::LastView;
        }
        let in_grace = self.session.as_ref().is_some_and(Session::is_in_grace);
        let period_is_over = in_grace && !self.timers.is_set(Timer::Period);
        if in_grace {
            self.propose_grace();
        }
        if self.closing.is_stopping() {
            Unfinished::LastChange
        } else if period_is_over || self.closing.is_wanted() {
            Unfinished::Close
        } else {
            Unfinished::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::Output;
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, drain, pair};

    const VIEW: ViewId = ViewId(1);

    fn events(machine: &mut Machine) -> Vec<Event> {
        let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
        drain(machine).into_iter().filter_map(event).collect()
    }

    #[test]
    fn all_members_are_ready_once_each_has_reported_for_the_view_in_force() {
        let (mut coordinator, _) = pair(Parameters::default());
        let mut phases = coordinator.phases();
        phases.on_ready(COORDINATOR, VIEW);
        assert!(!phases.on_ready(NodeId([9; 32]), VIEW) && !phases.on_ready(MEMBER, ViewId(2)));
        assert!(phases.on_ready(MEMBER, VIEW) && !phases.on_ready(MEMBER, VIEW), "news once");
        assert_eq!(events(&mut coordinator), [Event::AllReady]);
    }

    #[test]
    fn a_group_without_a_session_has_no_phases() {
        let (mut coordinator, _) = pair(Parameters::default());
        let mut phases = coordinator.phases();
        phases.enter_grace();
        phases.try_kickstart();
        assert!(!phases.on_period_over() && phases.session.is_none());
        assert!(events(&mut coordinator).is_empty());
    }

    #[test]
    fn a_new_coordinator_closes_a_group_that_has_to_be_closed() {
        let (mut coordinator, mut member) = pair(Parameters::default());
        assert_eq!(coordinator.phases().take_over(), Unfinished::Nothing);
        coordinator.closing.want();
        assert_eq!(coordinator.phases().take_over(), Unfinished::Close);
        member.close().enter_stop();
        assert_eq!(member.phases().take_over(), Unfinished::LastChange);
    }
}
