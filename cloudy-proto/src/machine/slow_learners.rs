//! Nodes that cannot keep up, at the coordinator, and the limit that is in force at a member (`protocol.md` §7.10).

use core::time::Duration;
use std::collections::BTreeMap;

use crate::config::Parameters;
use crate::id::NodeId;
use crate::time::Time;
use crate::view::View;
use crate::wire::Rates;

/// The group may send this part of what the node fetches, so that the node comes nearer.
const RATE_PART: u64 = 2;
/// The time after which a node is gone that does not report.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// The time between two repetitions of the same limit.
const REPEAT_EVERY: Duration = Duration::from_millis(500);

/// A node that cannot keep up, as the coordinator knows it.
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
    pub(super) fn on_report(&mut self, node: NodeId, rates: Rates, now: Time) {
        let known =
            self.learners.entry(node).or_insert(SlowLearner { rates, reported_at: now, since: now, is_expired: false });
        (known.rates, known.reported_at) = (rates, now);
    }

    /// A node on the ring does not need to fetch. If it is evicted and cannot keep up again, its time begins again.
    pub(super) fn on_view(&mut self, view: &View) {
        self.learners.retain(|node, _| view.rank_of(*node).is_none());
    }

    /// The limit to send at a time, if one is due, and the node that it is for: the slowest one that reports. A limit
    /// of zero reports that the time for a node has expired.
    pub(super) fn limit_due(&mut self, parameters: &Parameters, now: Time) -> Option<(NodeId, u64)> {
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
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce {
    pub(super) node: NodeId,
    pub(super) until: Time,
}

/// Whether this member sends less.
#[derive(Debug, Default)]
pub(super) struct SlowDown {
    pub(super) in_force: Option<InForce>,
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
