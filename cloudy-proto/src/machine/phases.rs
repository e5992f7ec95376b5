//! A session's phases: START, SEND, GRACE, STOP (`protocol.md` §9).

use crate::command::{Command, SessionPlan};
use crate::id::{NodeId, ViewId};
use crate::io::{Event, Phase};
use crate::machine::Machine;
use crate::machine::timers::Timer;

impl Machine {
    /// Coordinator: a member's links to all others are up. Once that holds for all, a session may begin.
    pub(super) fn is_ready(&mut self, node: NodeId, of: ViewId) {
        let Some(view) = self.state.view().filter(|view| view.id == of && view.rank_of(node).is_some()).cloned() else {
            return;
        };
        let fresh = self.is_coordinator() && self.ready.insert(node);
        if fresh && self.ready.len() == view.members() {
            self.event(Event::AllReady);
            self.reconfigure();
        }
    }

    /// Coordinator: kicks a session off once all members reach each other, and those vote who should: from then on no
    /// single node is needed for it to go on.
    pub(super) fn try_kickstart(&mut self) {
        let all_ready = self.state.view().is_some_and(|view| self.ready.len() == view.members());
        let plan = self.state.session().filter(|_| all_ready && self.phase == Phase::Start && !self.kickstart_proposed);
        if let Some(plan) = plan {
            self.kickstart_proposed = true;
            self.propose(&Command::Kickstart(plan));
        }
    }

    pub(super) fn kickstarted(&mut self, plan: SessionPlan) {
        if self.phase != Phase::Start {
            return;
        }
        self.phase = Phase::Send;
        self.plan = Some(plan);
        self.set_timer(Timer::Phase, plan.send);
        let stream = self.member.as_ref().and_then(|_| self.state.stream(self.me, self.delivery.incarnation));
        self.stream_told = stream.is_some();
        self.event(Event::Send { plan, stream });
        if let Some(member) = &mut self.member {
            member.open = true;
        }
    }

    /// A period is over: for a member by its own timer, for all by the coordinator's command.
    pub(super) fn phase_over(&mut self) {
        match self.phase {
            Phase::Send => {
                self.propose(&Command::Grace);
                self.enter_grace();
            }
            Phase::Grace => self.begin_stop(),
            Phase::Start | Phase::Stop | Phase::Done => {}
        }
    }

    pub(super) fn enter_grace(&mut self) {
        let Some(plan) = self.plan.filter(|_| self.phase == Phase::Send) else { return };
        self.phase = Phase::Grace;
        self.event(Event::Grace);
        self.set_timer(Timer::Phase, plan.grace);
    }

    /// Somebody here wants the session to end now.
    pub(super) fn end(&mut self) {
        self.wants_end = true;
        if self.is_coordinator() {
            self.begin_stop();
        } else if self.has_coordinator() {
            self.send_control(self.coordinator, crate::wire::ControlFrame::End);
        }
    }

    pub(super) fn asked_to_end(&mut self, from: NodeId) {
        let observes = self.newcomers.observers.contains(&from);
        if self.is_coordinator() && (observes || self.is_of_the_group(from)) {
            self.begin_stop();
        }
    }
}
