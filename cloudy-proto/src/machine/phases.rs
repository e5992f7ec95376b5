//! A session's phases: START, SEND, GRACE, STOP (`protocol.md` §9).

use crate::command::{Command, SessionPlan};
use crate::id::{NodeId, ViewId};
use crate::io::{Event, Phase};
use crate::machine::Machine;
use crate::machine::timers::Timer;

impl Machine {
    /// Coordinator: a member's links to all others are up. Once that holds for all, a session is kicked off.
    pub(super) fn is_ready(&mut self, node: NodeId, of: ViewId) {
        let Some(view) = self.state.view().filter(|view| view.id == of && view.rank_of(node).is_some()).cloned() else {
            return;
        };
        let fresh = self.is_coordinator() && self.ready.insert(node);
        if fresh && self.ready.len() == view.members() {
            self.event(Event::AllReady);
            if let Some(plan) = self.founding.as_mut().and_then(|founding| founding.session.take()) {
                self.propose(&Command::Kickstart(plan));
            }
        }
    }

    pub(super) fn kickstarted(&mut self, plan: SessionPlan) {
        if self.phase != Phase::Start {
            return;
        }
        self.phase = Phase::Send;
        self.plan = Some(plan);
        self.set_timer(Timer::Phase, plan.send);
        let stream = self.member.as_ref().map(|member| u64::from(member.rank.0));
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
        if self.is_coordinator() {
            self.set_timer(Timer::Phase, plan.grace);
        }
    }

    /// Somebody here wants the session to end now.
    pub(super) fn end(&mut self) {
        if self.is_coordinator() {
            self.begin_stop();
        } else {
            let to = self.coordinator;
            self.send_control(to, crate::wire::ControlFrame::End);
        }
    }

    pub(super) fn asked_to_end(&mut self, from: NodeId) {
        let is_member = self.state.view().is_some_and(|view| view.rank_of(from).is_some());
        if self.is_coordinator() && is_member {
            self.begin_stop();
        }
    }
}
