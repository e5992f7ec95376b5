//! Evicted nodes: the time for which each is excluded, and the nodes that are ready to return (`protocol.md` §6.5).

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::Time;

/// The time for which an evicted node is excluded at first; it doubles with each eviction, so that repeated evictions
/// cost less.
const KEPT_OUT_MIN: Duration = Duration::from_millis(250);
/// The longest exclusion.
const KEPT_OUT_MAX: Duration = Duration::from_secs(30);
/// Each such period after a return offsets one eviction.
const EVICTION_COUNTS_FOR: Duration = Duration::from_secs(60);
/// Maximum of counted evictions of one node: the number that leads to the longest exclusion.
const EVICTIONS_COUNTED_MAX: u32 = 8;

/// The coordinator's state of evicted nodes.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// Evictions that still count.
    evicted: BTreeMap<NodeId, Evicted>,
    /// The nodes that are ready to return, with the time of the last report of each.
    ready: BTreeMap<NodeId, Time>,
    /// Whether the log does not remember this node's incarnation, and the application knows.
    forgotten: bool,
}

/// The evictions of one node.
#[derive(Clone, Copy, Debug)]
struct Evicted {
    /// The number that counted at the last one, itself included.
    times: u32,
    /// The end of the exclusion.
    until: Time,
}

impl Evicted {
    /// The number that counts at a time.
    fn counted_at(self, now: Time) -> u32 {
        let made_up = now.since(self.until).as_micros() / EVICTION_COUNTS_FOR.as_micros();
        self.times.saturating_sub(u32::try_from(made_up).unwrap_or(u32::MAX))
    }
}

impl Evictions {
    /// Notes an eviction. Evictions that do not count are dropped.
    pub(super) fn evict(&mut self, node: NodeId, now: Time) {
        self.evicted.retain(|_, evicted| evicted.counted_at(now) > 0);
        let counted = self.evicted.get(&node).map_or(0, |evicted| evicted.counted_at(now));
        let kept_out = KEPT_OUT_MIN.saturating_mul(1 << counted).min(KEPT_OUT_MAX);
        let times = (counted + 1).min(EVICTIONS_COUNTED_MAX);
        self.evicted.insert(node, Evicted { times, until: now + kept_out });
        self.ready.remove(&node);
    }

    pub(super) fn keeps_out(&self, node: NodeId, now: Time) -> bool {
        self.evicted.get(&node).is_some_and(|evicted| now < evicted.until)
    }

    /// Notes that a node is ready to return.
    pub(super) fn on_ready(&mut self, node: NodeId, now: Time) {
        self.ready.insert(node, now);
    }

    /// Notes that a node is not ready to return, or its link is gone.
    pub(super) fn on_not_ready(&mut self, node: NodeId) {
        self.ready.remove(&node);
    }

    /// The nodes that are ready to return, each with the time of its last report.
    pub(super) fn ready(&self) -> impl Iterator<Item = (NodeId, Time)> + '_ {
        self.ready.iter().map(|(node, at)| (*node, *at))
    }

    /// Notes that the log does not remember this node's incarnation. True the first time.
    pub(super) fn on_forgotten(&mut self) -> bool {
        !core::mem::replace(&mut self.forgotten, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    /// The exclusions of a node that is evicted repeatedly, each time this long after its return.
    fn kept_out(let_back_for: Duration, times: usize) -> Vec<Duration> {
        let (mut evictions, mut now) = (Evictions::default(), Time(1));
        let evict = |_| {
            evictions.evict(NODE, now);
            let until = evictions.evicted[&NODE].until;
            let kept_out = until.since(now);
            now = until + let_back_for;
            kept_out
        };
        (0..times).map(evict).collect()
    }

    #[test]
    fn a_node_that_flaps_is_kept_out_for_ever_longer_up_to_a_bound() {
        let kept_out = kept_out(Duration::from_secs(1), 20);
        assert_eq!(kept_out[..3], [KEPT_OUT_MIN, KEPT_OUT_MIN * 2, KEPT_OUT_MIN * 4]);
        assert_eq!(kept_out[19], KEPT_OUT_MAX);
    }

    #[test]
    fn evictions_of_long_ago_do_not_count() {
        assert_eq!(kept_out(EVICTION_COUNTS_FOR, 20), [KEPT_OUT_MIN; 20], "one made up for each");
        let mut evictions = Evictions::default();
        (0..20).for_each(|_| evictions.evict(NODE, Time(1)));
        let later = Time(1) + KEPT_OUT_MAX + EVICTION_COUNTS_FOR * 3;
        evictions.evict(NODE, later);
        assert_eq!(evictions.evicted[&NODE].until.since(later), KEPT_OUT_MIN * 32, "eight, and three made up");
    }

    #[test]
    fn a_node_whose_evictions_no_longer_count_is_forgotten() {
        let mut evictions = Evictions::default();
        for at in 0..1_000_u64 {
            let mut node = [0; 32];
            node[..8].copy_from_slice(&at.to_be_bytes());
            evictions.evict(NodeId(node), Time(at * 10_000_000));
        }
        assert!(evictions.evicted.len() <= 8, "{} nodes, one evicted each 10 s", evictions.evicted.len());
    }
}
