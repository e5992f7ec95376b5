//! STOP: a last view change fixes the cut, and every member reports its result (`protocol.md` §6.2, §6.3, §9).

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{Command, InstallView};
use crate::digest::{Checkpoint, Digest};
use crate::id::{Index, NodeId, ViewId};
use crate::io::{Event, Phase};
use crate::limits::{LINGER, REPORT_BYTES_MAX};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::view::{Origin, RingMember};
use crate::view_change::{LastChange, cut_of};
use crate::wire::{ControlFrame, Wedged};

impl Machine {
    /// Coordinator: wedges every member.
    pub(super) fn begin_stop(&mut self) {
        if !self.is_coordinator() || self.change.is_some() {
            return;
        }
        let Some(view) = self.state.view().cloned() else {
            // Nothing was founded: whoever accepted is told.
            return self.propose(&Command::Close);
        };
        self.phase = Phase::Stop;
        self.event(Event::Stop);
        self.set_timer(Timer::Wedge, view.parameters.wedge_timeout);
        self.timers.stop(Timer::Phase);
        self.change = Some(LastChange::new(Arc::clone(&view), self.now));
        self.flush_log();
        view.ring.iter().for_each(|member| self.say_wedge(member.node));
        if let Some(wedged) = self.wedge(view.id) {
            self.take_wedged(self.me, wedged);
        }
    }

    /// Asks a member that has not answered to wedge. It must have been sent the log so far, or it would not know the
    /// view; who does not follow yet is asked once it does.
    pub(super) fn say_wedge(&mut self, node: NodeId) {
        let Some(change) = self.change.as_ref().filter(|change| !change.proposed) else { return };
        let view = change.view.id;
        let unanswered = change.view.rank_of(node).is_some_and(|rank| change.answers[rank.at()].is_none());
        if unanswered && self.followers.contains_key(&node) {
            self.send_control(node, ControlFrame::Wedge { view });
        }
    }

    /// A member freezes the view, for good, and says what it holds.
    pub(super) fn take_wedge(&mut self, from: NodeId, view: ViewId) {
        if from != self.coordinator {
            return self.breach(from, "it wedges a view, but does not coordinate the group".to_owned());
        }
        if let Some(wedged) = self.wedge(view) {
            self.send_control(from, ControlFrame::Wedged(wedged));
        }
    }

    fn wedge(&mut self, view: ViewId) -> Option<Wedged> {
        let incarnation = self.delivery.incarnation;
        let member = self.member.as_mut().filter(|member| member.view.id == view)?;
        let frontiers = member.wedge();
        let first = member.first;
        if self.phase < Phase::Stop {
            self.phase = Phase::Stop;
            if !self.is_coordinator() {
                self.event(Event::Stop);
            }
        }
        let digest = self.delivery.result.digest_at(Index(first.0 - 1)).unwrap_or(Digest(0));
        Some(Wedged { view, incarnation, frontiers, complete: true, first, digest })
    }

    pub(super) fn take_wedged(&mut self, from: NodeId, wedged: Wedged) {
        let Some(change) = &mut self.change else { return };
        if let Err(error) = change.answer(from, wedged) {
            return self.breach(from, error.to_string());
        }
        self.try_cut();
    }

    pub(super) fn wedge_over(&mut self) {
        self.try_cut();
        if let Some(change) = self.change.as_ref().filter(|change| !change.proposed) {
            let again = change.view.parameters.wedge_timeout;
            self.set_timer(Timer::Wedge, again);
        }
    }

    /// Coordinator: fixes the cut once all have answered, or the time for it is over and a complete member has.
    pub(super) fn try_cut(&mut self) {
        let Some(change) = self.change.as_mut().filter(|change| !change.proposed) else { return };
        if !change.all_answered() && self.now < change.wedge_ends_at {
            return;
        }
        let Some(cut) = cut_of(&change.view, &change.answers, self.rules) else { return };
        change.proposed = true;
        let survivor = |rank| RingMember { origin: Origin::Survivor, ..change.view.member(rank).clone() };
        let install = InstallView {
            from: change.view.id,
            ring: cut.survivors.iter().map(|&rank| survivor(rank)).collect(),
            parameters: change.view.parameters.clone(),
            cut: cut.rounds,
            last: true,
        };
        let silent = change.silent();
        silent.into_iter().for_each(|node| self.event(Event::Silent { node }));
        self.propose(&Command::InstallView(install));
    }

    /// The last view is in force: members report from here on, for a while.
    pub(super) fn last_installed(&mut self) {
        self.phase = Phase::Stop;
        self.timers.stop(Timer::Wedge);
        if let Some(change) = &mut self.change {
            change.linger_ends_at = Some(self.now + LINGER);
            self.timers.set(Timer::Linger, self.now + LINGER);
        }
    }

    /// The result is complete.
    pub(super) fn finish(&mut self) {
        let result = self.delivery.result.checkpoint();
        self.final_result = Some(result);
        self.phase = Phase::Done;
        let approved = self.last_approved();
        if self.outbox.last_seq() > approved {
            self.event(Event::Rejected { from: approved.next() });
        }
        self.event(Event::Final { result });
    }

    /// The application has said what it has to say of the final result.
    pub(super) fn take_report(&mut self, mut report: Bytes) {
        report.truncate(REPORT_BYTES_MAX);
        self.report = Some(report);
        self.say_report();
    }

    /// Tells the coordinator of the final result; again on every fresh link.
    pub(super) fn say_report(&mut self) {
        let (Some(result), Some(report)) = (self.final_result, self.report.clone()) else { return };
        if self.is_coordinator() {
            self.reported(self.me, result, report);
        } else {
            let to = self.coordinator;
            self.send_control(to, ControlFrame::Final { result, report });
        }
    }

    pub(super) fn reported(&mut self, node: NodeId, result: Checkpoint, report: Bytes) {
        if self.change.as_mut().is_some_and(|change| change.report(node)) {
            self.event(Event::Reported { node, result, report });
            self.try_close();
        }
    }

    /// Coordinator: closes the group once everybody has reported who can be expected to.
    pub(super) fn try_close(&mut self) {
        let Some(change) = self.change.as_ref().filter(|change| change.linger_ends_at.is_some()) else { return };
        let awaited = change.unreported().any(|rank| {
            let answered = change.answers[rank.at()].is_some();
            answered || self.seems_alive(change.view.member(rank).node)
        });
        if change.all_reported() || !awaited {
            self.close();
        }
    }

    pub(super) fn linger_over(&mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.timers.stop(Timer::Linger);
        if let Some(change) = &mut self.change {
            change.linger_ends_at = None;
            self.propose(&Command::Close);
        }
    }

    /// Who still fetches goes on: its source may not have reached the cut when it was asked.
    pub(super) fn closed(&mut self) {
        self.timers.stop(Timer::Heartbeat);
        self.event(Event::Closed);
    }
}
