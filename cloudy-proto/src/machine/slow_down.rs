//! Back-pressure: a group slows down for a node that cannot keep up, if its parameters say so (`protocol.md` §7.10).
//!
//! The node reports its rates to the coordinator. The coordinator sends all members a limit, again and again; the limit of a
//! coordinator that is gone expires.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::config::{CatchUpPolicy, Parameters};
use crate::id::NodeId;
use crate::io::{Event, SlowDownEnd};
use crate::machine::Machine;
use crate::time::Time;
use crate::view::View;
use crate::wire::{ControlFrame, Rates};

/// The group may send this part of what the node fetches, so that the node comes nearer.
const RATE_PART: u64 = 2;
/// A node that has not reported for longer is gone.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// Between two repetitions of the same limit.
const REPEAT_EVERY: Duration = Duration::from_millis(500);
/// A limit that was not repeated for longer ends.
const LIMIT_MAX: Duration = Duration::from_secs(3);

/// What the coordinator knows of a node that cannot keep up.
#[derive(Debug)]
struct SlowLearner {
    rates: Rates,
    reported_at: Time,
    /// The group has slowed down for it since then.
    since: Time,
    /// The time for that has expired.
    is_expired: bool,
}

/// The nodes that cannot keep up, at the coordinator.
#[derive(Debug, Default)]
pub(super) struct SlowLearners {
    learners: BTreeMap<NodeId, SlowLearner>,
    /// The latest limit, the node that it is for, and when it was sent.
    sent: Option<(NodeId, u64, Time)>,
}

impl SlowLearners {
    fn on_report(&mut self, node: NodeId, rates: Rates, now: Time) {
        let known =
            self.learners.entry(node).or_insert(SlowLearner { rates, reported_at: now, since: now, is_expired: false });
        (known.rates, known.reported_at) = (rates, now);
    }

    /// A node on the ring does not need to fetch. If it is evicted and cannot keep up again, its time begins again.
    pub(super) fn on_view(&mut self, view: &View) {
        self.learners.retain(|node, _| view.rank_of(*node).is_none());
    }

    /// The limit to send at a time, if one is due, and the node that it is for: the slowest one that reports. A limit of zero
    /// says that the time for a node has expired.
    fn limit_due(&mut self, parameters: &Parameters, now: Time) -> Option<(NodeId, u64)> {
        let reports = |learner: &SlowLearner| !learner.is_expired && now.since(learner.reported_at) < REPORT_MAX;
        let (node, learner) = self
            .learners
            .iter_mut()
            .filter(|(_, learner)| reports(learner))
            .min_by_key(|(_, learner)| learner.rates.fetched)?;
        let limit = if now.since(learner.since) >= parameters.slow_down_max {
            learner.is_expired = true;
            0
        } else {
            (learner.rates.fetched / RATE_PART).max(parameters.slow_down_bytes_min)
        };
        let is_same =
            |(of, sent, at): (NodeId, u64, Time)| (of, sent) == (*node, limit) && now.since(at) < REPEAT_EVERY;
        if self.sent.is_some_and(is_same) {
            return None;
        }
        self.sent = Some((*node, limit, now));
        Some((*node, limit))
    }
}

/// The limit that is in force at a member.
#[derive(Debug)]
struct InForce {
    node: NodeId,
    until: Time,
}

/// Whether this member sends less.
#[derive(Debug, Default)]
pub(super) struct SlowDown {
    in_force: Option<InForce>,
}

impl Machine {
    /// Coordinator: a node off the ring reports whether it cannot keep up.
    pub(super) fn on_slow_learner(&mut self, node: NodeId, slower: Option<Rates>) {
        let now = self.timers.now();
        let (Some(coordinating), Some(rates)) = (&mut self.coordinating, slower) else { return };
        let Some(view) = self.log.state().view().filter(|view| view.rank_of(node).is_none()) else { return };
        let slows_down = view.parameters.catch_up == CatchUpPolicy::SlowDown && !self.closing.is_stopping();
        if !slows_down || self.log.state().incarnation(node).is_none() {
            return;
        }
        coordinating.slow_learners.on_report(node, rates, now);
        let Some((node, bytes_per_second)) = coordinating.slow_learners.limit_due(&view.parameters, now) else {
            return;
        };
        let members: Vec<NodeId> = view.ring.iter().map(|member| member.node).collect();
        for member in members {
            if member == self.identity.me {
                self.slow_down(node, bytes_per_second);
            } else {
                self.send_control(member, ControlFrame::SlowDown { node, bytes_per_second });
            }
        }
    }

    /// The coordinator limits what members send.
    pub(super) fn on_slow_down(&mut self, from: NodeId, node: NodeId, bytes_per_second: u64) {
        if from == self.tracking.node() && !self.is_coordinator() {
            self.slow_down(node, bytes_per_second);
        }
    }

    fn slow_down(&mut self, node: NodeId, bytes_per_second: u64) {
        if bytes_per_second == 0 {
            if self.slow_down.in_force.as_ref().is_some_and(|limit| limit.node == node) {
                self.end_slow_down(SlowDownEnd::TimeExpired);
            }
            return;
        }
        let policy = self.log.state().view().map(|view| (view.parameters.catch_up, view.rank_of(node).is_some()));
        if policy != Some((CatchUpPolicy::SlowDown, false)) {
            return;
        }
        let until = self.timers.now() + LIMIT_MAX;
        let before = self.slow_down.in_force.replace(InForce { node, until });
        self.plane.outbox_mut().throttle_mut().limit(Some(bytes_per_second));
        if before.is_none_or(|before| before.node != node) {
            self.event(Event::SlowDown { node, bytes_per_second });
        }
    }

    /// Ends a limit that is not needed, or was not repeated.
    pub(super) fn check_slow_down(&mut self) {
        let Some(InForce { node, until }) = self.slow_down.in_force else { return };
        if self.log.state().view().is_some_and(|view| view.rank_of(node).is_some()) {
            self.end_slow_down(SlowDownEnd::Joined);
        } else if self.timers.now() >= until {
            self.end_slow_down(SlowDownEnd::Gone);
        }
    }

    fn end_slow_down(&mut self, end: SlowDownEnd) {
        self.plane.outbox_mut().throttle_mut().limit(None);
        if let Some(InForce { node, .. }) = self.slow_down.in_force.take() {
            self.event(Event::SlowDownEnded { node, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: NodeId = NodeId([7; 32]);
    const SLOWER: NodeId = NodeId([8; 32]);

    fn rates(fetched: u64) -> Rates {
        Rates { fetched, grown: 2 * fetched }
    }

    #[test]
    fn the_slowest_node_sets_the_limit_down_to_a_bound_and_for_a_time() {
        let parameters = Parameters::default().slow_down_bytes_min(1_000).slow_down_max(Duration::from_secs(10));
        let mut learners = SlowLearners::default();
        let at = |ms: u64| Time(1) + Duration::from_millis(ms);
        learners.on_report(SLOW, rates(50_000), at(0));
        assert_eq!(learners.limit_due(&parameters, at(0)), Some((SLOW, 25_000)));
        assert_eq!(learners.limit_due(&parameters, at(100)), None, "it is repeated, and not at each report");
        assert_eq!(learners.limit_due(&parameters, at(500)), Some((SLOW, 25_000)));
        learners.on_report(SLOWER, rates(500), at(600));
        assert_eq!(learners.limit_due(&parameters, at(600)), Some((SLOWER, 1_000)), "never below the bound");
        learners.on_report(SLOW, rates(60_000), at(5_000));
        assert_eq!(learners.limit_due(&parameters, at(5_000)), Some((SLOW, 30_000)), "the other one is gone");
        learners.on_report(SLOW, rates(60_000), at(10_000));
        assert_eq!(learners.limit_due(&parameters, at(10_000)), Some((SLOW, 0)), "its time has expired");
        learners.on_report(SLOW, rates(60_000), at(20_000));
        assert_eq!(learners.limit_due(&parameters, at(20_000)), None, "and does not begin again");
    }
}
