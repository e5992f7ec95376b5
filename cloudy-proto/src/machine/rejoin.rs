//! Coming onto the ring: after an eviction, or for the first time in this run (`protocol.md` §6.5, §7.1, §7.2).

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::{Incarnation, NodeId, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::{RingMember, View};
use crate::wire::ControlFrame;

/// How long an evicted node is kept out at first; it doubles with each eviction, so that flapping costs ever less.
const KEPT_OUT_MIN: Duration = Duration::from_millis(250);
/// How long at most.
const KEPT_OUT_MAX: Duration = Duration::from_secs(30);
/// Each such period after a node was let back makes up for one eviction.
const EVICTION_COUNTS_FOR: Duration = Duration::from_secs(60);
/// Evictions of one node that count at most: as many as it takes to keep it out for the longest time.
const EVICTIONS_COUNTED_MAX: u32 = 8;
/// Between two signs of life of an evicted node.
const REJOIN_EVERY: Duration = Duration::from_millis(100);

/// What the coordinator knows of those it evicted.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    /// Those that still count.
    evicted: BTreeMap<NodeId, Evicted>,
    /// Who would come back, and when it last said so.
    ready: BTreeMap<NodeId, Time>,
    /// The log does not remember this node's incarnation, and the application knows.
    forgotten: bool,
}

/// The evictions of one node.
#[derive(Clone, Copy, Debug)]
struct Evicted {
    /// How many counted at the last one, itself included.
    times: u32,
    /// Until then the node is kept out.
    until: Time,
}

impl Evicted {
    /// How many count at a time.
    fn counted_at(self, now: Time) -> u32 {
        let made_up = now.since(self.until).as_micros() / EVICTION_COUNTS_FOR.as_micros();
        self.times.saturating_sub(u32::try_from(made_up).unwrap_or(u32::MAX))
    }
}

impl Evictions {
    /// A node is evicted at a time. Evictions that no longer count are forgotten.
    fn evict(&mut self, node: NodeId, now: Time) {
        self.evicted.retain(|_, evicted| evicted.counted_at(now) > 0);
        let counted = self.evicted.get(&node).map_or(0, |evicted| evicted.counted_at(now));
        let kept_out = KEPT_OUT_MIN.saturating_mul(1 << counted).min(KEPT_OUT_MAX);
        let times = (counted + 1).min(EVICTIONS_COUNTED_MAX);
        self.evicted.insert(node, Evicted { times, until: now + kept_out });
        self.ready.remove(&node);
    }

    fn keeps_out(&self, node: NodeId, now: Time) -> bool {
        self.evicted.get(&node).is_some_and(|evicted| now < evicted.until)
    }

    /// The link to a node is gone.
    pub(super) fn part(&mut self, node: NodeId) {
        self.ready.remove(&node);
    }
}

impl Machine {
    /// Coordinator: a node is dropped by a view change.
    pub(super) fn evicted_at(&mut self, node: NodeId) {
        self.peers.evictions.evict(node, self.timers.now());
    }

    /// An evicted node says that it lives, and whether it could come back.
    pub(super) fn say_rejoin(&mut self) {
        let Some(view) = self.log.state().view().filter(|_| self.is_evicted()).cloned() else { return };
        let reaches = |node: NodeId| node == self.identity.me || self.peers.is_linked(node);
        let linked = self.has_coordinator() && view.ring.iter().all(|member| reaches(member.node));
        let ready = linked && self.is_near();
        self.set_timer(Timer::Rejoin, REJOIN_EVERY);
        if self.is_coordinator() {
            self.would_rejoin(self.identity.me, view.id, ready);
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), ControlFrame::Rejoin { view: view.id, ready });
        }
    }

    /// The log does not remember this node's incarnation: the coordinator would not accept it as a joiner.
    pub(super) fn notice_forgotten(&mut self) {
        let was_listed =
            self.identity.incarnation > Incarnation(0) && self.log.state().incarnation(self.identity.me).is_none();
        if was_listed
            && self.closing.final_result().is_none()
            && !core::mem::replace(&mut self.peers.evictions.forgotten, true)
        {
            self.event(Event::Forgotten);
        }
    }

    fn is_evicted(&self) -> bool {
        let listed = self.identity.incarnation > Incarnation(0) && !self.observes();
        let ended = self.closing.final_result().is_some() || self.log.state().is_closed();
        let follows = self.catch_up.fetching.is_some() && !self.plane.is_member() && !ended;
        listed && follows && !self.departure.is_wanted()
    }

    /// Coordinator: an evicted node lives, and may be ready to come back.
    pub(super) fn would_rejoin(&mut self, from: NodeId, of: ViewId, ready: bool) {
        if self.log.state().incarnation(from).is_none() {
            return;
        }
        self.peers.on_sign_of_life(from, self.timers.now());
        let in_force = self.log.state().view().is_some_and(|view| view.id == of && view.rank_of(from).is_none());
        if !ready || !in_force {
            self.peers.evictions.ready.remove(&from);
            return;
        }
        self.peers.evictions.ready.insert(from, self.timers.now());
        let kept_out = self.peers.evictions.keeps_out(from, self.timers.now()) || self.is_leaving(from);
        if !kept_out && !self.closing.is_stopping() {
            self.begin_change(false);
        }
    }

    /// Coordinator: those who come into the view after this one, as far as there are places.
    pub(super) fn joiners(&self, view: &View, places: usize) -> Vec<RingMember> {
        let ready = self.peers.evictions.ready.iter().filter(|(node, at)| {
            let kept_out = self.peers.evictions.keeps_out(**node, self.timers.now());
            let lately = self.timers.now().since(**at) <= self.timeouts().silence_max(**node);
            let linked = **node == self.identity.me || self.peers.is_linked(**node);
            let leaves = self.is_leaving(**node) || self.log.state().has_left(**node);
            let stays = !leaves || !self.identity.rules.holds(Rule::LeftIsLogged);
            !kept_out && lately && linked && stays && view.rank_of(**node).is_none()
        });
        ready.filter_map(|(node, _)| self.joiner(*node)).take(places).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    /// How long a node is kept out that is evicted again so long after it was let back, this often.
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
