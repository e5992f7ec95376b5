//! The close of a group: a last view change, reports of the final result, and answers of a closed group to nodes that
//! were away (`protocol.md` §6.9, §9).

use bytes::Bytes;

use crate::command::Command;
use crate::digest::Checkpoint;
use crate::id::NodeId;
use crate::io::Event;
use crate::limits::REPORT_BYTES_MAX;
use crate::machine::arrival::Arrival;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::departure::Departure;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
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

    /// Notes a peer that reported that the group is closed.
    pub(super) fn on_told(&mut self, by: NodeId) {
        self.told_by = Some(by);
    }

    /// The last peer that reported that the group is closed.
    pub(super) fn told_by(&self) -> Option<NodeId> {
        self.told_by
    }
}

/// Closes the group: the last view change, and reports of the final result.
pub(super) struct CloseHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a mut CoordinatorTracking,
    pub(super) arrival: &'a Arrival,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a Storage,
    pub(super) session: &'a mut Option<Session>,
    pub(super) closing: &'a mut Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

/// The last view change.
impl CloseHandler<'_> {
    /// Handles the application's request to close the group. True if this node coordinates and has to begin.
    pub(super) fn on_request(&mut self) -> bool {
        self.closing.want();
        if let Some(coordinator) = self.tracking.linked(self.identity.me, self.peers)
            && self.coordinating.is_none()
        {
            send_control(self.peers, self.outputs, coordinator, ControlFrame::End);
        }
        self.coordinating.is_some()
    }

    /// Handles another node's request to close the group. True if this node has to begin.
    pub(super) fn on_peer_request(&mut self, from: NodeId) -> bool {
        let belongs = self.peers.is_observer(from) || self.tracking.is_known(from, self.log);
        // The node sends its request to the next coordinator as well.
        let hands_over = self.closing.departure().hands_over(self.identity.me, self.log);
        self.coordinating.is_some() && !hands_over && belongs
    }

    /// Coordinator: begins to close the group. True if the last view change has to start, after one in progress.
    pub(super) fn begin(&mut self) -> bool {
        if self.coordinating.is_none() || self.closing.is_stopping() {
            return false;
        }
        if self.log.state().view().is_none() {
            // The group was not created: the nodes that accepted are notified.
            self.log.propose(&Command::Close);
            return false;
        }
        self.timers.stop(Timer::Period);
        self.enter_stop();
        true
    }

    pub(super) fn enter_stop(&mut self) {
        if self.closing.on_stop() {
            self.session.iter_mut().for_each(Session::on_stop);
            self.outputs.event(Event::Stop);
        }
    }

    /// Notes that the last view is in force: members report from then on, for a while.
    pub(super) fn on_last_view(&mut self) {
        self.enter_stop();
        if self.coordinating.is_some()
            && let Some(view) = self.log.state().view()
        {
            let now = self.timers.now();
            let linger = Timeouts::new(self.identity, self.log, self.peers, self.storage, now).linger(view);
            self.timers.set(Timer::Linger, now + linger);
        }
    }
}

/// The final result.
impl CloseHandler<'_> {
    /// Notes that the result is final here. `theirs` is another node's report: if the result begins after index 1 here,
    /// only that node knows the digest, and if it ends before that index also the length.
    pub(super) fn on_final(&mut self, theirs: Option<Checkpoint>) {
        let result = match theirs {
            Some(theirs) if !self.identity.reads_all => theirs,
            _ => self.result.checkpoint(),
        };
        self.closing.final_result = Some(result);
    }

    /// Notifies the application that the result is final here.
    pub(super) fn report_final(&mut self) {
        let Some(result) = self.closing.final_result else { return };
        let approved = self.result.state().last_seq(self.identity.me, self.identity.incarnation);
        if self.plane.outbox().last_seq() > approved {
            self.outputs.event(Event::Rejected { from: approved.next() });
        }
        self.outputs.event(Event::Final { result });
        if self.arrival.observes() {
            self.send_report();
        }
        if self.closing.take_delayed() {
            self.outputs.event(Event::Closed);
        }
    }

    /// Takes the application's report on the final result.
    pub(super) fn on_own_report(&mut self, mut report: Bytes) {
        report.truncate(REPORT_BYTES_MAX);
        self.closing.report = Some(report);
        self.send_report();
    }

    /// Sends the final result to the coordinator; repeated on every new link.
    pub(super) fn send_report(&mut self) {
        let (result, report) = match self.arrival.joining() {
            // It only notifies the coordinator not to wait for this node.
            Some(joining) if joining.observes() => {
                let is_last = self.log.state().view().is_some_and(|view| view.last);
                let seen = self.closing.final_result.or_else(|| (!joining.reads()).then(Checkpoint::default));
                (seen.filter(|_| is_last), Some(Bytes::new()))
            }
            _ => (self.closing.final_result, self.closing.report.clone()),
        };
        let (Some(result), Some(report)) = (result, report) else { return };
        if self.coordinating.is_some() {
            self.on_report(self.identity.me, result, report);
        } else if let Some(coordinator) = self.tracking.linked(self.identity.me, self.peers) {
            send_control(self.peers, self.outputs, coordinator, ControlFrame::Final { result, report });
        }
    }

    /// Coordinator: handles a node's final result.
    pub(super) fn on_report(&mut self, node: NodeId, result: Checkpoint, report: Bytes) {
        let Some(coordinating) = self.coordinating else { return };
        if self.peers.is_observer(node) {
            coordinating.on_observer_finished(node);
            return self.try_close();
        }
        if !self.log.state().has_reported(node) && coordinating.propose_report(node) {
            self.log.propose(&Command::Report { node, result, report });
        }
    }

    /// Coordinator: closes the group once all expected members have reported.
    pub(super) fn try_close(&mut self) {
        let lingers = self.timers.is_set(Timer::Linger);
        // Observers fetch the rest within the linger, or are not awaited.
        let Some(coordinating) = self.coordinating else { return };
        let timeouts = Timeouts::new(self.identity, self.log, self.peers, self.storage, self.timers.now());
        let observed = self.peers.observers().iter().any(|node| !coordinating.has_finished(*node));
        if lingers && !observed && !self.log.state().unreported().any(|node| timeouts.seems_alive(node)) {
            self.close();
        }
    }

    /// Closes the log, at the coordinator.
    pub(super) fn close(&mut self) {
        self.timers.stop(Timer::Linger);
        if self.coordinating.is_some() {
            self.log.propose(&Command::Close);
        }
    }
}

/// The closed log.
impl CloseHandler<'_> {
    /// Notes that the log is closed. A node that still fetches the final result continues to do so.
    pub(super) fn on_closed(&mut self) {
        for timer in [Timer::Heartbeat, Timer::Seek, Timer::Join, Timer::Rejoin, Timer::Leave] {
            self.timers.stop(timer);
        }
        self.tracking.on_closed();
    }

    /// Notifies the application that the group is closed, at once or when the result is final.
    pub(super) fn report_closed(&mut self, is_fetching: bool) {
        if self.closing.on_closed(is_fetching) {
            self.outputs.event(Event::Closed);
        }
    }

    /// Makes this node only answer: nothing else is agreed on.
    pub(super) fn retire(&mut self) {
        if self.log.state().is_closed() && (self.log.voter().is_some() || self.coordinating.is_some()) {
            self.log.stop_voting();
            *self.coordinating = None;
            self.timers.stop_all_but_fetch();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::config::Parameters;
    use crate::io::{Frame, Output};
    use crate::limits::LINGER;
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, drain, pair};
    use crate::time::Time;

    const STRANGER: NodeId = NodeId([9; 32]);

    fn events(machine: &mut Machine) -> Vec<Event> {
        let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
        drain(machine).into_iter().filter_map(event).collect()
    }

    #[test]
    fn a_group_is_closed_once_by_its_coordinator_for_a_node_of_the_group() {
        let (mut coordinator, mut member) = pair(Parameters::default());
        assert!(coordinator.close().on_peer_request(MEMBER) && !coordinator.close().on_peer_request(STRANGER));
        assert!(!member.close().on_peer_request(COORDINATOR) && !member.close().begin(), "it does not coordinate");
        assert!(coordinator.close().begin() && !coordinator.close().begin(), "it has begun");
        assert_eq!(events(&mut coordinator), [Event::Stop]);
    }

    #[test]
    fn a_member_requests_the_close_from_a_linked_coordinator() {
        let (mut coordinator, mut member) = pair(Parameters::default());
        assert!(coordinator.close().on_request() && !member.close().on_request());
        let request = |output: &Output| {
            matches!(output, Output::Send { to: COORDINATOR, frame: Frame::Control(ControlFrame::End), .. })
        };
        assert_eq!(drain(&mut member).iter().filter(|output| request(output)).count(), 1);
        member.peers.on_link_down(COORDINATOR, true);
        member.close().on_request();
        assert!(member.closing.is_wanted() && !drain(&mut member).iter().any(request));
    }

    #[test]
    fn only_a_node_that_started_late_accepts_a_final_result_from_another() {
        let (mut coordinator, _) = pair(Parameters::default());
        let theirs = Checkpoint { index: crate::id::Index(9), digest: crate::digest::Digest(7) };
        coordinator.close().on_final(Some(theirs));
        assert_ne!(coordinator.closing.final_result(), Some(theirs));
        coordinator.identity.reads_all = false;
        coordinator.close().on_final(Some(theirs));
        assert_eq!(coordinator.closing.final_result(), Some(theirs));
        coordinator.close().report_final();
        assert_eq!(events(&mut coordinator), [Event::Final { result: theirs }]);
    }

    #[test]
    fn the_close_is_reported_when_the_result_is_final() {
        let (mut coordinator, _) = pair(Parameters::default());
        coordinator.close().report_closed(true);
        assert_eq!(events(&mut coordinator), [], "it still fetches");
        coordinator.close().on_final(None);
        coordinator.close().report_final();
        assert_eq!(events(&mut coordinator).last(), Some(&Event::Closed));
    }

    /// The linger of a coordinator whose path to the other member has this round trip.
    fn linger(round_trip: Duration, parameters: Parameters) -> Duration {
        let (mut coordinator, _) = pair(parameters);
        for sent_at in (1..20).map(|number| Time(number * 20_000_000)) {
            assert!(coordinator.peers.start_probe(MEMBER, sent_at));
            coordinator.peers.on_echo(MEMBER, sent_at, sent_at + round_trip);
        }
        let last = |machine: &Machine| machine.log.state().view().map(|view| machine.timeouts().linger(view));
        last(&coordinator).expect("a view")
    }

    #[test]
    fn a_finished_session_serves_members_on_long_paths_for_longer() {
        let ms = Duration::from_millis;
        assert_eq!(linger(ms(1), Parameters::default()), LINGER);
        assert!(linger(ms(600), Parameters::default()) >= ms(3_000));
        assert_eq!(linger(ms(9_000), Parameters::default()), Parameters::default().timeout_max);
        let fixed = Parameters::default().timeout_max(Duration::ZERO);
        assert_eq!(linger(ms(600), fixed), LINGER);
    }
}
