//! Back-pressure: a group slows down for a node that cannot keep up, if its parameters require that (`protocol.md`
//! §7.10).
//!
//! The node reports its rates to the coordinator. The coordinator sends all members a limit, again and again; the limit
//! of a coordinator that is gone expires.

use core::time::Duration;

use crate::config::CatchUpPolicy;
use crate::id::NodeId;
use crate::io::{Event, SlowDownEnd};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::slow_learners::InForce;
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::time::Time;
use crate::wire::{ControlFrame, Rates};

/// The time after which a limit expires unless it is repeated.
const LIMIT_MAX: Duration = Duration::from_secs(3);

/// Slows this member down for a node that cannot keep up, and at the coordinator the others.
pub(super) struct SlowDownHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) now: Time,
}

impl SlowDownHandler<'_> {
    /// Coordinator: handles the rates of a node off the ring; none if it keeps up.
    pub(super) fn on_rates(&mut self, node: NodeId, slower: Option<Rates>) {
        let (Some(coordinating), Some(rates)) = (self.coordinating.as_mut(), slower) else { return };
        let Some(view) = self.log.state().view().filter(|view| view.rank_of(node).is_none()) else { return };
        let slows_down = view.parameters.catch_up == CatchUpPolicy::SlowDown && !self.closing.is_stopping();
        if !slows_down || self.log.state().incarnation(node).is_none() {
            return;
        }
        coordinating.slow_learners.on_report(node, rates, self.now);
        let Some((node, bytes_per_second)) = coordinating.slow_learners.limit_due(&view.parameters, self.now) else {
            return;
        };
        let members: Vec<NodeId> = view.ring.iter().map(|member| member.node).collect();
        for member in members {
            if member == self.identity.me {
                self.set_limit(node, bytes_per_second);
            } else {
                let frame = ControlFrame::SlowDown { node, bytes_per_second };
                send_control(self.peers, self.outputs, member, frame);
            }
        }
    }

    /// Handles the coordinator's limit.
    pub(super) fn on_limit(&mut self, from: NodeId, node: NodeId, bytes_per_second: u64) {
        if from == self.tracking.node() && self.coordinating.is_none() {
            self.set_limit(node, bytes_per_second);
        }
    }

    fn set_limit(&mut self, node: NodeId, bytes_per_second: u64) {
        if bytes_per_second == 0 {
            if self.plane.slow_down.in_force.as_ref().is_some_and(|limit| limit.node == node) {
                self.finish(SlowDownEnd::TimeExpired);
            }
            return;
        }
        let policy = self.log.state().view().map(|view| (view.parameters.catch_up, view.rank_of(node).is_some()));
        if policy != Some((CatchUpPolicy::SlowDown, false)) {
            return;
        }
        let until = self.now + LIMIT_MAX;
        let before = self.plane.slow_down.in_force.replace(InForce { node, until });
        self.plane.outbox_mut().throttle_mut().limit(Some(bytes_per_second));
        if before.is_none_or(|before| before.node != node) {
            self.outputs.event(Event::SlowDown { node, bytes_per_second });
        }
    }

    /// Ends a limit that is not needed, or was not repeated.
    pub(super) fn check(&mut self) {
        let Some(InForce { node, until }) = self.plane.slow_down.in_force else { return };
        if self.log.state().view().is_some_and(|view| view.rank_of(node).is_some()) {
            self.finish(SlowDownEnd::Joined);
        } else if self.now >= until {
            self.finish(SlowDownEnd::Gone);
        }
    }

    fn finish(&mut self, end: SlowDownEnd) {
        self.plane.outbox_mut().throttle_mut().limit(None);
        if let Some(InForce { node, .. }) = self.plane.slow_down.in_force.take() {
            self.outputs.event(Event::SlowDownEnded { node, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::Output;
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, JOINER, MEMBER, drain, pair};

    const RATES: Rates = Rates { fetched: 1_000_000, grown: 2_000_000 };

    fn events(machine: &mut Machine) -> Vec<Event> {
        let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
        drain(machine).into_iter().filter_map(event).collect()
    }

    fn group() -> (Machine, Machine) {
        pair(Parameters { catch_up: CatchUpPolicy::SlowDown, ..Parameters::default() })
    }

    #[test]
    fn a_limit_counts_from_the_coordinator_for_a_node_off_the_ring() {
        let (_, mut member) = group();
        member.slow_down().on_limit(JOINER, JOINER, 9);
        member.slow_down().on_limit(COORDINATOR, MEMBER, 9);
        assert_eq!(events(&mut member), [], "a stranger's limit, and one for a member");
        member.slow_down().on_limit(COORDINATOR, JOINER, 9);
        assert_eq!(events(&mut member), [Event::SlowDown { node: JOINER, bytes_per_second: 9 }]);
        member.slow_down().on_limit(COORDINATOR, JOINER, 8);
        assert_eq!(events(&mut member), [], "the same node");
        member.slow_down().on_limit(COORDINATOR, JOINER, 0);
        assert_eq!(events(&mut member), [Event::SlowDownEnded { node: JOINER, end: SlowDownEnd::TimeExpired }]);
    }

    #[test]
    fn a_limit_that_is_not_repeated_ends() {
        let (_, mut member) = group();
        member.slow_down().on_limit(COORDINATOR, JOINER, 9);
        member.slow_down().check();
        events(&mut member);
        let mut handler = member.slow_down();
        handler.now = handler.now + LIMIT_MAX;
        handler.check();
        assert_eq!(events(&mut member), [Event::SlowDownEnded { node: JOINER, end: SlowDownEnd::Gone }]);
    }

    #[test]
    fn rates_of_a_node_that_the_log_does_not_list_are_ignored() {
        let (mut coordinator, mut member) = group();
        coordinator.slow_down().on_rates(JOINER, Some(RATES));
        coordinator.slow_down().on_rates(MEMBER, Some(RATES));
        member.slow_down().on_rates(JOINER, Some(RATES));
        assert_eq!((events(&mut coordinator), events(&mut member)), (Vec::new(), Vec::new()));
    }
}
