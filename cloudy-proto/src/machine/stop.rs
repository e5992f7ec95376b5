//! STOP: after a last view change every member reports its result (`protocol.md` §9).

use bytes::Bytes;

use crate::command::Command;
use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::{Event, Phase};
use crate::limits::{LINGER, REPORT_BYTES_MAX};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::wire::ControlFrame;

impl Machine {
    /// Coordinator: ends the group by a last view change; one that is under way is waited for.
    pub(super) fn begin_stop(&mut self) {
        if !self.is_coordinator() || self.phase >= Phase::Stop {
            return;
        }
        if self.state.view().is_none() {
            // Nothing was founded: whoever accepted is told.
            return self.propose(&Command::Close);
        }
        self.timers.stop(Timer::Phase);
        self.enter_stop();
        self.begin_change(true);
    }

    pub(super) fn enter_stop(&mut self) {
        if self.phase < Phase::Stop {
            self.phase = Phase::Stop;
            self.event(Event::Stop);
        }
    }

    /// The last view is in force: members report from here on, for a while.
    pub(super) fn last_installed(&mut self) {
        self.enter_stop();
        if self.is_coordinator() {
            self.set_timer(Timer::Linger, LINGER);
        }
    }

    /// The result is complete.
    pub(super) fn finish(&mut self) {
        let result = self.result.checkpoint();
        self.final_at(result);
    }

    /// The result is complete, as another node says. Of a result that begins after index 1 here only that node knows the
    /// digest, and of one that ends before that index also the length.
    pub(super) fn finish_with(&mut self, theirs: Checkpoint) {
        let result = if self.reads_all { self.result.checkpoint() } else { theirs };
        self.final_at(result);
    }

    fn final_at(&mut self, result: Checkpoint) {
        self.final_result = Some(result);
        self.phase = Phase::Done;
        self.compare_final();
        if self.halted {
            return;
        }
        let approved = self.last_approved();
        if self.outbox.last_seq() > approved {
            self.event(Event::Rejected { from: approved.next() });
        }
        self.event(Event::Final { result });
        if self.observes() {
            self.say_report();
        }
        if core::mem::take(&mut self.closing.delayed) {
            self.event(Event::Closed);
        }
    }

    /// The application has said what it has to say of the final result.
    pub(super) fn take_report(&mut self, mut report: Bytes) {
        report.truncate(REPORT_BYTES_MAX);
        self.report = Some(report);
        self.say_report();
    }

    /// Tells the coordinator of the final result; again on every fresh link.
    pub(super) fn say_report(&mut self) {
        let (result, report) = match &self.joining {
            // It says no more than that nobody need wait for it.
            Some(joining) if joining.observes() => {
                let ended = self.state.view().is_some_and(|view| view.last);
                let seen = self.final_result.or_else(|| (!joining.reads()).then(Checkpoint::default));
                (seen.filter(|_| ended), Some(Bytes::new()))
            }
            _ => (self.final_result, self.report.clone()),
        };
        let (Some(result), Some(report)) = (result, report) else { return };
        if self.is_coordinator() {
            self.reported(self.identity.me, result, report);
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), ControlFrame::Final { result, report });
        }
    }

    pub(super) fn reported(&mut self, node: NodeId, result: Checkpoint, report: Bytes) {
        let Some(coordinating) = &mut self.coordinating else { return };
        if self.peers.observers.contains(&node) {
            coordinating.on_observer_finished(node);
            return self.try_close();
        }
        if !self.state.has_reported(node) && coordinating.propose_report(node) {
            self.propose(&Command::Report { node, result, report });
        }
    }

    /// Coordinator: closes the group once everybody has reported who can be expected to.
    pub(super) fn try_close(&mut self) {
        let lingers = self.timers.is_set(Timer::Linger);
        // Observers fetch the last of it: that takes less than the linger, or they are not waited for.
        let Some(coordinating) = &self.coordinating else { return };
        let observed = self.peers.observers.iter().any(|node| !coordinating.has_finished(*node));
        if lingers && !observed && !self.state.unreported().any(|node| self.seems_alive(node)) {
            self.close();
        }
    }

    pub(super) fn linger_over(&mut self) {
        self.close();
    }

    fn close(&mut self) {
        self.timers.stop(Timer::Linger);
        self.propose(&Command::Close);
    }

    /// The log ends here. A node that still fetches the final result goes on with that.
    pub(super) fn closed(&mut self) {
        for timer in [Timer::Heartbeat, Timer::Seek, Timer::Join, Timer::Rejoin, Timer::Leave] {
            self.timers.stop(timer);
        }
        self.tracking.on_closed();
        self.try_go();
        self.closing.delayed = self.fetching.is_some() && self.final_result.is_none();
        if !self.closing.delayed {
            self.event(Event::Closed);
        }
    }
}
