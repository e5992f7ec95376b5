//! The end of a group: a last view change, reports of the final result, and what a closed group tells nodes that were away
//! (`protocol.md` §6.9, §9).

use bytes::Bytes;

use crate::command::Command;
use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::Event;
use crate::limits::{LINGER, REPORT_BYTES_MAX};
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::session::Session;
use crate::wire::ControlFrame;

/// For how many coordinator timeouts no node gives anything of the final result before that is reported.
const FINAL_PATIENCE: u32 = 5;

/// How far the end of the group has come at this node.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// The application wants the group to end.
    is_wanted: bool,
    /// A last view change has begun.
    is_stopping: bool,
    final_result: Option<Checkpoint>,
    /// What the application says of the final result.
    report: Option<Bytes>,
    /// The group is closed, and the application is notified once the result is final here.
    is_delayed: bool,
    /// The last peer that said that the group is closed.
    told_by: Option<NodeId>,
}

impl Closing {
    /// The application wants the group to end.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// A last view change begins. True the first time.
    fn on_stop(&mut self) -> bool {
        !core::mem::replace(&mut self.is_stopping, true)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    pub(super) fn final_result(&self) -> Option<Checkpoint> {
        self.final_result
    }

    pub(super) fn is_final(&self) -> bool {
        self.final_result.is_some()
    }

    /// The group is closed. True if the application is notified at once, and not when the result is final.
    fn on_closed(&mut self, is_fetching: bool) -> bool {
        self.is_delayed = is_fetching && self.final_result.is_none();
        !self.is_delayed
    }

    /// The result is final. True if the application is to be notified that the group is closed.
    fn take_delayed(&mut self) -> bool {
        core::mem::take(&mut self.is_delayed)
    }

    /// The last peer that said that the group is closed.
    pub(super) fn told_by(&self) -> Option<NodeId> {
        self.told_by
    }
}

impl Machine {
    /// The group is closed here, as the control log says.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.log.state().is_closed()
    }

    /// The final result, once it is complete here.
    #[must_use]
    pub fn final_result(&self) -> Option<Checkpoint> {
        self.closing.final_result()
    }

    /// A node has, or had, a part in this group, as far as the control log says.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.log.state().founder() == Some(node)
            || self.log.state().incarnation(node).is_some()
            || self.log.state().was_member(node)
    }

    /// What this node says of the group to a node that asks for it by its name; none before its log begins.
    #[must_use]
    pub fn running(&self) -> Option<ControlFrame> {
        let (name, durability) = (self.identity.name.clone(), self.identity.durability);
        self.log.state().founder().map(|founder| ControlFrame::Running { name, founder, durability })
    }

    /// Gives up the memory that holds the result for other nodes. They get it from the disk, if the group is on disk.
    pub fn forget_retained(&mut self) {
        self.result.forget_retained();
    }

    /// The bytes of the result that are in memory for other nodes.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.result.retained().bytes()
    }

    /// Nothing is agreed on: this node only answers.
    pub(super) fn retire(&mut self) {
        if self.log.state().is_closed() && (self.log.voter().is_some() || self.is_coordinator()) {
            self.log.stop_voting();
            self.coordinating = None;
            self.timers.stop_all_but_fetch();
        }
    }

    /// A peer of a closed group speaks of what is over.
    pub(super) fn say_ended(&mut self, to: NodeId) {
        if self.identity.rules.holds(Rule::EndIsTold) {
            self.send_control(to, ControlFrame::Ended);
        }
    }

    /// A peer says that the group is closed: it is asked for the rest of the log, or for the final result.
    pub(super) fn take_ended(&mut self, from: NodeId) {
        self.closing.told_by = Some(from);
        if !self.log.state().is_closed() {
            return self.coordinator().send_follow(from);
        }
        if let Some(fetching) = &mut self.catch_up.fetching {
            fetching.add_source(from);
            self.fetch_if_idle();
        }
    }

    /// The group is closed, and nobody in reach gives what is missing of the final result.
    pub(super) fn miss_final(&mut self) {
        let Some(view) = self.log.state().view().filter(|_| self.log.state().is_closed()) else { return };
        let patience = view.parameters.coordinator_timeout * FINAL_PATIENCE;
        let now = self.timers.now();
        let Some(fetching) = self.catch_up.fetching.as_mut() else { return };
        let since = *fetching.stands_since.get_or_insert(now);
        if now.since(since) >= patience && !core::mem::replace(&mut fetching.missed, true) {
            let sources = fetching.sources.clone();
            self.event(Event::FinalResultMissing { sources });
        }
    }

    /// Coordinator: ends the group by a last view change; one that is in progress is waited for.
    pub(super) fn begin_stop(&mut self) {
        if !self.is_coordinator() || self.closing.is_stopping() {
            return;
        }
        if self.log.state().view().is_none() {
            // Nothing was founded: the nodes that accepted are told.
            return self.propose(&Command::Close);
        }
        self.timers.stop(Timer::Period);
        self.enter_stop();
        self.view_change().start(true);
    }

    pub(super) fn enter_stop(&mut self) {
        if self.closing.on_stop() {
            self.session.iter_mut().for_each(Session::on_stop);
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
        let result = if self.identity.reads_all { self.result.checkpoint() } else { theirs };
        self.final_at(result);
    }

    fn final_at(&mut self, result: Checkpoint) {
        self.closing.final_result = Some(result);
        self.divergence().compare_final();
        if self.outputs.is_halted() {
            return;
        }
        let approved = self.last_approved();
        if self.plane.outbox().last_seq() > approved {
            self.event(Event::Rejected { from: approved.next() });
        }
        self.event(Event::Final { result });
        if self.arrival.observes() {
            self.say_report();
        }
        if self.closing.take_delayed() {
            self.event(Event::Closed);
        }
    }

    /// The application has said what it has to say of the final result.
    pub(super) fn take_report(&mut self, mut report: Bytes) {
        report.truncate(REPORT_BYTES_MAX);
        self.closing.report = Some(report);
        self.say_report();
    }

    /// Tells the coordinator of the final result; again on every fresh link.
    pub(super) fn say_report(&mut self) {
        let (result, report) = match self.arrival.joining() {
            // It says no more than that nobody need wait for it.
            Some(joining) if joining.observes() => {
                let ended = self.log.state().view().is_some_and(|view| view.last);
                let seen = self.closing.final_result.or_else(|| (!joining.reads()).then(Checkpoint::default));
                (seen.filter(|_| ended), Some(Bytes::new()))
            }
            _ => (self.closing.final_result, self.closing.report.clone()),
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
        if self.peers.is_observer(node) {
            coordinating.on_observer_finished(node);
            return self.try_close();
        }
        if !self.log.state().has_reported(node) && coordinating.propose_report(node) {
            self.propose(&Command::Report { node, result, report });
        }
    }

    /// Coordinator: closes the group once everybody has reported who can be expected to.
    pub(super) fn try_close(&mut self) {
        let lingers = self.timers.is_set(Timer::Linger);
        // Observers fetch the last of it: that takes less than the linger, or they are not waited for.
        let Some(coordinating) = &self.coordinating else { return };
        let observed = self.peers.observers().iter().any(|node| !coordinating.has_finished(*node));
        if lingers && !observed && !self.log.state().unreported().any(|node| self.timeouts().seems_alive(node)) {
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
        if self.closing.on_closed(self.catch_up.fetching.is_some()) {
            self.event(Event::Closed);
        }
    }
}
