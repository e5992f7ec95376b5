//! The return of an evicted node to the ring (`protocol.md` §6.5).

use core::time::Duration;

use crate::id::{Incarnation, NodeId, ViewId};
use crate::io::Event;
use crate::machine::arrival::Arrival;
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::fetching::Fetches;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::wire::{ControlFrame, Rates};

/// The time between two reports of an evicted node.
const REJOIN_EVERY: Duration = Duration::from_millis(100);

/// Reports that this evicted node lives.
pub(super) struct RejoinHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    /// Whether this node coordinates.
    pub(super) coordinates: bool,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) arrival: &'a Arrival,
    pub(super) peers: &'a mut Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) fetches: &'a Fetches,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

/// The report of an evicted node that coordinates, to itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnReport {
    pub(super) view: ViewId,
    pub(super) ready: bool,
    pub(super) slower: Option<Rates>,
}

impl RejoinHandler<'_> {
    /// Reports to the coordinator that this evicted node lives, and whether it is ready to return. Returns the report if
    /// this node coordinates.
    pub(super) fn report(&mut self) -> Option<OwnReport> {
        let view = self.log.state().view().filter(|_| self.is_evicted())?;
        let reaches = |node: NodeId| node == self.identity.me || self.peers.is_linked(node);
        let coordinator = self.tracking.linked(self.identity.me, self.peers);
        let has_coordinator = self.coordinates || coordinator.is_some();
        let linked = has_coordinator && view.ring.iter().all(|member| reaches(member.node));
        let (view, ready, slower) = (view.id, linked && self.fetches.is_near(), self.fetches.slower());
        self.timers.set(Timer::Rejoin, self.timers.now() + REJOIN_EVERY);
        if self.coordinates {
            return Some(OwnReport { view, ready, slower });
        }
        if let Some(coordinator) = coordinator {
            let frame = ControlFrame::Rejoin { view, ready, slower };
            send_control(self.peers, self.outputs, coordinator, frame);
        }
        None
    }

    /// Notes that the log does not remember this node's incarnation: the coordinator would not accept it as a joiner.
    pub(super) fn notice_forgotten(&mut self) {
        let was_listed =
            self.identity.incarnation > Incarnation(0) && self.log.state().incarnation(self.identity.me).is_none();
        if was_listed && !self.closing.is_final() && self.peers.evictions.on_forgotten() {
            self.outputs.event(Event::Forgotten);
        }
    }

    fn is_evicted(&self) -> bool {
        let listed = self.identity.incarnation > Incarnation(0) && !self.arrival.observes();
        let is_closed = self.closing.is_final() || self.log.state().is_closed();
        let follows = self.fetches.is_fetching() && !self.plane.is_member() && !is_closed;
        listed && follows && !self.closing.departure().is_wanted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::{Frame, Output};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, drain, pair};
    use crate::time::Time;

    fn reports(machine: &mut Machine) -> usize {
        let is_report = |output: &Output| {
            matches!(output, Output::Send { to: COORDINATOR, frame: Frame::Control(ControlFrame::Rejoin { .. }), .. })
        };
        drain(machine).iter().filter(|output| is_report(output)).count()
    }

    #[test]
    fn an_evicted_node_reports_to_a_linked_coordinator_and_a_member_does_not() {
        let (_, mut member) = pair(Parameters::default());
        assert_eq!((member.rejoin().report(), reports(&mut member)), (None, 0), "it is on the ring");
        let view = member.log.state().view().cloned().expect("it is a member");
        member.plane.leave();
        member.fetch().start(&view);
        drain(&mut member);
        assert_eq!((member.rejoin().report(), reports(&mut member)), (None, 1));
        member.peers.on_link_down(COORDINATOR, true);
        assert_eq!((member.rejoin().report(), reports(&mut member)), (None, 0), "no coordinator is linked");
        member.closing.departure_mut().want(Time(0));
        assert!(!member.rejoin().is_evicted(), "it leaves");
    }

    #[test]
    fn an_evicted_coordinator_reports_to_itself() {
        let (mut coordinator, _) = pair(Parameters::default());
        let view = coordinator.log.state().view().cloned().expect("it is a member");
        coordinator.plane.leave();
        coordinator.fetch().start(&view);
        let report = coordinator.rejoin().report();
        assert_eq!(report, Some(OwnReport { view: view.id, ready: false, slower: None }));
    }
}
