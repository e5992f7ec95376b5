//! The close of a group: a last view change, reports of the final result, and answers of a closed group to nodes that
//! were away (`protocol.md` §6.9, §9).

use bytes::Bytes;

use crate::command::Command;
use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::Event;
use crate::limits::{LINGER, REPORT_BYTES_MAX};
use crate::machine::Machine;
use crate::machine::departure::Departure;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::session::Session;
use crate::wire::ControlFrame;

/// How far the end of the group has come at this node, and the end of this node's own part in it.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// Notes the application's request to close the group.
    is_wanted: bool,
    /// Whether a last view change has begun.
    is_stopping: bool,
    final_result: Option<Checkpoint>,
    /// The application's report on the final result.
    report: Option<Bytes>,
    /// Whether the group is closed, and the application is notified once the result is final here.
    is_delayed: bool,
    /// The last peer that reported that the group is closed.
    told_by: Option<NodeId>,
    /// The end of this node's part in the group.
    departure: Departure,
}

impl Closing {
    pub(super) fn departure(&self) -> &Departure {
        &self.departure
    }

    pub(super) fn departure_mut(&mut self) -> &mut Departure {
        &mut self.departure
    }

    /// Notes the application's request to close the group.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Notes that a last view change begins. True the first time.
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

    /// Notes that the group is closed. True if the application is notified at once, and not when the result is final.
    fn on_closed(&mut self, is_fetching: bool) -> bool {
        self.is_delayed = is_fetching && self.final_result.is_none();
        !self.is_delayed
    }

    /// Notes that the result is final. True if the application has to be notified that the group is closed.
    fn take_delayed(&mut self) -> bool {
        core::mem::take(&mut self.is_delayed)
    }

    /// The last peer that reported that the group is closed.
    pub(super) fn told_by(&self) -> Option<NodeId> {
        self.told_by
    }
}

impl Machine {
    /// Whether the group is closed in the control log here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.log.state().is_closed()
    }

    /// The final result, once it is complete here.
    #[must_use]
    pub fn final_result(&self) -> Option<Checkpoint> {
        self.closing.final_result()
    }

    /// Whether the control log lists a node as part of this group, at present or earlier.
    #[must_use]
    pub fn knows(&self, node: NodeId) -> bool {
        self.log.state().creator() == Some(node)
            || self.log.state().incarnation(node).is_some()
            || self.log.state().was_member(node)
    }

    /// The answer to a node that requests the group by its name; none before the group's log begins.
    #[must_use]
    pub fn running(&self) -> Option<ControlFrame> {
        let (name, durability) = (self.identity.name.clone(), self.identity.durability);
        self.log.state().creator().map(|creator| ControlFrame::Running { name, creator, durability })
    }

    /// Releases the memory of the result for other nodes. They receive it from the disk, if the group is on disk.
    pub fn forget_retained(&mut self) {
        self.result.forget_retained();
    }

    /// Bytes of the result in memory for other nodes.
    #[must_use]
    pub fn retained_bytes(&self) -> u64 {
        self.result.retained().bytes()
    }

    /// Makes this node only answer: nothing else is agreed on.
    pub(super) fn retire(&mut self) {
        if self.log.state().is_closed() && (self.log.voter().is_some() || self.is_coordinator()) {
            self.log.stop_voting();
            self.coordinating = None;
            self.timers.stop_all_but_fetch();
        }
    }

    /// Answers a peer of a closed group.
    pub(super) fn say_ended(&mut self, to: NodeId) {
        if self.identity.rules.holds(Rule::EndIsTold) {
            self.send_control(to, ControlFrame::Ended);
        }
    }

    /// Handles a peer's report that the group is closed: requests the rest of the log, or the final result.
    pub(super) fn take_ended(&mut self, from: NodeId) {
        self.closing.told_by = Some(from);
        if !self.log.state().is_closed() {
            return self.coordinator().send_follow(from);
        }
        self.fetch().on_source(from);
    }

    /// Coordinator: closes the group by a last view change, after one in progress.
    pub(super) fn begin_stop(&mut self) {
        if !self.is_coordinator() || self.closing.is_stopping() {
            return;
        }
        if self.log.state().view().is_none() {
            // The group was not created: the nodes that accepted are notified.
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

    /// Notes that the last view is in force: members report from then on, for a while.
    pub(super) fn last_installed(&mut self) {
        self.enter_stop();
        if self.is_coordinator() {
            self.set_timer(Timer::Linger, LINGER);
        }
    }

    /// Finishes a complete result.
    pub(super) fn finish(&mut self) {
        let result = self.result.checkpoint();
        self.final_at(result);
    }

    /// Finishes a result that is complete by another node's report. If the result begins after index 1 here, only that
    /// node knows the digest, and if it ends before that index also the length.
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

    /// Takes the application's report on the final result.
    pub(super) fn take_report(&mut self, mut report: Bytes) {
        report.truncate(REPORT_BYTES_MAX);
        self.closing.report = Some(report);
        self.say_report();
    }

    /// Sends the final result to the coordinator; repeated on every new link.
    pub(super) fn say_report(&mut self) {
        let (result, report) = match self.arrival.joining() {
            // It only tells the coordinator not to wait for this node.
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

    /// Coordinator: closes the group once all expected members have reported.
    pub(super) fn try_close(&mut self) {
        let lingers = self.timers.is_set(Timer::Linger);
        // Observers fetch the rest within the linger, or are not awaited.
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

    /// Ends the log. A node that still fetches the final result continues to do so.
    pub(super) fn closed(&mut self) {
        for timer in [Timer::Heartbeat, Timer::Seek, Timer::Join, Timer::Rejoin, Timer::Leave] {
            self.timers.stop(timer);
        }
        self.tracking.on_closed();
        self.leaving().try_finish();
        if self.closing.on_closed(self.catch_up.fetches.is_fetching()) {
            self.event(Event::Closed);
        }
    }
}
