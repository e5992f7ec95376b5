//! Coming onto the ring: after an eviction, or for the first time in this run (`protocol.md` §6.5, §7.1, §7.2).

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::{Incarnation, NodeId, ViewId};
use crate::io::Phase;
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::{RingMember, View};
use crate::wire::ControlFrame;

/// How long an evicted node is kept out at first; it doubles with each eviction, so that flapping costs ever less.
const KEPT_OUT_MIN: Duration = Duration::from_millis(250);
/// How long at last.
const KEPT_OUT_MAX: Duration = Duration::from_secs(30);
/// Between two signs of life of an evicted node.
const REJOIN_EVERY: Duration = Duration::from_millis(100);

/// What the coordinator knows of those it evicted.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    /// How often, and until when it is kept out.
    evicted: BTreeMap<NodeId, (u32, Time)>,
    /// Who would come back, and when it last said so.
    ready: BTreeMap<NodeId, Time>,
}

impl Machine {
    /// Coordinator: a node is dropped by a view change.
    pub(super) fn evicted_at(&mut self, node: NodeId) {
        let times = self.evictions.evicted.get(&node).map_or(0, |(times, _)| *times);
        let kept_out = KEPT_OUT_MIN.saturating_mul(1 << times.min(16)).min(KEPT_OUT_MAX);
        self.evictions.evicted.insert(node, (times + 1, self.now + kept_out));
        self.evictions.ready.remove(&node);
    }

    /// An evicted node says that it lives, and whether it could come back.
    pub(super) fn say_rejoin(&mut self) {
        let Some(view) = self.state.view().filter(|_| self.is_evicted()).cloned() else { return };
        let reaches = |node: NodeId| node == self.me || self.links.contains_key(&node);
        let linked = self.has_coordinator() && view.ring.iter().all(|member| reaches(member.node));
        let ready = linked && self.fetching.as_ref().is_some_and(|fetching| fetching.near);
        self.set_timer(Timer::Rejoin, REJOIN_EVERY);
        if self.is_coordinator() {
            self.would_rejoin(self.me, view.id, ready);
        } else if self.has_coordinator() {
            self.send_control(self.coordinator, ControlFrame::Rejoin { view: view.id, ready });
        }
    }

    fn is_evicted(&self) -> bool {
        let listed = self.delivery.incarnation > Incarnation(0) && !self.observes();
        let ended = self.final_result.is_some() || self.state.is_closed();
        let follows = self.fetching.is_some() && self.member.is_none() && !ended;
        listed && follows && !self.wants_leave
    }

    /// Coordinator: an evicted node lives, and may be ready to come back.
    pub(super) fn would_rejoin(&mut self, from: NodeId, of: ViewId, ready: bool) {
        if self.state.incarnation(from).is_none() {
            return;
        }
        let kept_out_until = self.evictions.evicted.get(&from).map_or(Time(0), |(_, until)| *until);
        if let Some((at, _)) = self.heard.get_mut(&from) {
            *at = self.now;
        }
        let in_force = self.state.view().is_some_and(|view| view.id == of && view.rank_of(from).is_none());
        if !ready || !in_force {
            self.evictions.ready.remove(&from);
            return;
        }
        self.evictions.ready.insert(from, self.now);
        if self.now >= kept_out_until && self.phase < Phase::Stop && !self.leaving.contains(from) {
            self.begin_change(false);
        }
    }

    /// Coordinator: those who come into the view after this one, as far as there are places.
    pub(super) fn joiners(&self, view: &View, places: usize) -> Vec<RingMember> {
        let ready = self.evictions.ready.iter().filter(|(node, at)| {
            let kept_out = self.evictions.evicted.get(node).is_some_and(|(_, until)| self.now < *until);
            let lately = self.now.since(**at) <= view.parameters.failure_timeout;
            let linked = **node == self.me || self.links.contains_key(node);
            let leaves = self.leaving.contains(**node) || self.state.has_left(**node);
            let stays = !leaves || !self.rules.hold(Rule::LeftIsLogged);
            !kept_out && lately && linked && stays && view.rank_of(**node).is_none()
        });
        ready.filter_map(|(node, _)| self.joiner(*node)).take(places).collect()
    }
}
