//! The checkers' record of each view: lanes, wedges and results of one view are independent of those of another.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloudy_proto::wire::{ConsensusMessage, LaneFrame, Stream};
use cloudy_proto::{Command, InstallView, Origin, Rank, RingKind, RingMember, View, ViewId};

use super::control::commands_of;
use super::lanes::Lanes;
use super::wedge::Wedges;
use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// One view, from its first installation on.
#[derive(Debug)]
pub(super) struct ViewLog {
    pub(super) view: Arc<View>,
    /// By rank: the node's place.
    pub(super) ring: Vec<usize>,
    pub(super) lanes: Lanes,
    pub(super) wedges: Wedges,
    /// The place of the last slot that entered a result by the walk.
    pub(super) walked: Option<(u64, usize)>,
    /// Its first index, as the first complete member reported it.
    pub(super) first: Option<u64>,
}

impl ViewLog {
    pub(super) fn new(view: Arc<View>, ring: Vec<usize>, nodes: usize) -> Self {
        let (lanes, wedges) = (Lanes::new(nodes, ring.len()), Wedges::new(nodes, ring.len()));
        Self { view, ring, lanes, wedges, walked: None, first: None }
    }

    pub(super) fn rank_of(&self, node: usize) -> Option<usize> {
        self.ring.iter().position(|&member| member == node)
    }

    /// A stream of a lane may run from one member to another (`protocol.md` §5).
    pub(super) fn carries(&self, from: usize, to: usize, stream: Stream) -> bool {
        let Stream::Lane { lane, .. } = stream else { return false };
        match self.view.parameters.ring {
            RingKind::Token | RingKind::Pipelined => lane.at() == from,
            RingKind::Relay => (from + 1) % self.ring.len() == to && lane.at() != to,
        }
    }

    /// Checks a frame that a member sends of its own lane.
    pub(super) fn sent(&mut self, own: usize, frame: &LaneFrame) -> Result<(), Broken> {
        match self.lanes.sent(own, frame)? {
            // Beyond the walk lies the cut: who has not heard of it may go on sending.
            Some(round) if self.walked >= Some((round, own)) => {
                Err(("no slot is sent behind the result", format!("round {round} of lane {own}")))
            }
            _ => Ok(()),
        }
    }
}

/// The lane of a stream, if it is another member's.
pub(super) fn forwarded(own: usize, stream: Stream) -> Option<usize> {
    match stream {
        Stream::Lane { lane, .. } if lane.at() != own => Some(lane.at()),
        _ => None,
    }
}

/// All views, by id.
#[derive(Debug, Default)]
pub(super) struct Views(BTreeMap<ViewId, ViewLog>);

impl Views {
    pub(super) fn get(&self, view: ViewId) -> Option<&ViewLog> {
        self.0.get(&view)
    }

    pub(super) fn get_mut(&mut self, view: ViewId) -> Option<&mut ViewLog> {
        self.0.get_mut(&view)
    }

    pub(super) fn insert(&mut self, log: ViewLog) {
        self.0.insert(log.view.id, log);
    }

    pub(super) fn latest(&self) -> Option<&ViewLog> {
        self.0.values().next_back()
    }
}

impl Judge {
    /// A lane of the view in force at a process is its own.
    pub(crate) fn owns(&self, place: usize, lane: Rank) -> bool {
        let log = self.views.get(self.nodes[place].view);
        log.is_some_and(|log| log.rank_of(place) == Some(lane.at()))
    }

    /// A process was on a ring.
    pub(super) fn was_on_ring(&self, place: usize) -> bool {
        self.views.0.values().any(|log| log.ring.contains(&place))
    }

    /// A result that is complete up to the view in force has every message below the last one's cut.
    pub(super) fn reached_cut(&self, node: usize) -> Result<(), Broken> {
        let before = ViewId(self.nodes[node].view.0.wrapping_sub(1));
        let Some(log) = self.views.get(before) else { return Ok(()) };
        log.wedges.reached_cut(&self.ghost.through_at(self.nodes[node].index, &log.ring), &log.lanes)
    }

    pub(super) fn installed(
        &mut self,
        node: usize,
        view: &Arc<View>,
        first: u64,
        active: bool,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let before = core::mem::replace(&mut self.nodes[node].view, view.id);
        let was_active = self.nodes[node].active;
        let restores = self.nodes[node].restored.is_some() && before == ViewId(0);
        let skips = self.nodes[node].skipped_to.take_if(|to| *to == view.id && view.id > before.next()).is_some();
        if view.id != before.next() && !restores && !skips {
            return Err(self.failure("views come one after the other", node, format!("{} after {before}", view.id)));
        }
        if skips && first > 0 && !restores {
            return Err(self.failure("who skips a view is not complete", node, format!("{} after {before}", view.id)));
        }
        (self.nodes[node].active, self.nodes[node].joined) = (active, first == 0);
        let listed = view.ring.iter().any(|member| self.homes[&member.node] == self.home_of[node]);
        self.nodes[node].was_member = self.nodes[node].restored.is_some() && listed && !active;
        let run_of = |member: &RingMember| self.control.run_of(member.node, member.incarnation);
        let Some(ring) = view.ring.iter().map(run_of).collect::<Option<Vec<usize>>>() else {
            return Err(self.failure("a ring lists runs of the log", node, format!("{:?}", view.ring)));
        };
        match self.views.get(view.id) {
            Some(known) if known.view == *view => {}
            Some(_) => return Err(self.failure("all have one view", node, "another")),
            None => self.views.insert(ViewLog::new(Arc::clone(view), ring.clone(), self.places_max)),
        }
        if view.id > ViewId(1) && !view.last {
            stats.met(Met::ViewChanged);
            let relayed = self.views.get(before).is_some_and(|log| log.view.parameters.ring == RingKind::Relay);
            if relayed && view.parameters.ring == RingKind::Pipelined {
                stats.met(Met::RelayFellBack);
            }
            if active && !was_active {
                stats.met(Met::Rejoined);
            }
        }
        if !active && was_active && view.last {
            stats.met(Met::DroppedAlive);
        }
        if view.last {
            self.survivors = ring;
        }
        // A member that is not complete does not know its view's first index.
        if first == 0 || self.is_tainted(node) {
            return Ok(());
        }
        self.begins(node, view.id, first, restores).map_err(|(rule, what)| self.failure(rule, node, what))
    }

    /// One of the survivors has in memory the result up to the first index of the view that ends (`protocol.md` §6.3).
    pub(super) fn has_complete_survivor(&self, install: &InstallView) -> Result<(), Broken> {
        let Some(log) = self.views.get(install.from).filter(|_| self.disks.is_none()) else { return Ok(()) };
        let goes_on = |member: &&RingMember| member.origin == Origin::Survivor;
        let mut survivors = install.ring.iter().filter(goes_on).filter_map(|member| log.view.rank_of(member.node));
        // What an altered node has is not known.
        if survivors.any(|rank| self.is_complete_in_memory(log, rank.at()) || self.is_tainted(log.ring[rank.at()])) {
            return Ok(());
        }
        Err(("a survivor has the whole result", format!("nobody of {:?}", install.ring)))
    }

    /// A coordinator sends a view that follows the latest one, and no survivor that lives has the whole result,
    /// although one that seems to live would.
    pub(crate) fn leaves_nobody(
        &self,
        message: &ConsensusMessage,
        alive: impl Fn(usize) -> bool,
        seems_alive: impl Fn(usize) -> bool,
    ) -> bool {
        commands_of(message).any(|(_, command)| match command {
            Command::InstallView(install) => {
                !self.has_survivor(&install, &alive) && self.has_survivor(&install, &seems_alive)
            }
            _ => false,
        })
    }

    /// Of those who go on with a view, one lives that has the whole result of the view before.
    pub(crate) fn has_survivor(&self, install: &InstallView, alive: &dyn Fn(usize) -> bool) -> bool {
        let Some(log) = self.views.get(install.from) else { return true };
        let survivors = install.ring.iter().filter(|member| member.origin != Origin::Joiner);
        let mut ranks = survivors.filter_map(|member| log.view.rank_of(member.node));
        ranks.any(|rank| self.goes_on(log.ring[rank.at()], alive) && self.is_complete(log, rank.at()))
    }

    /// A complete member says where its view begins.
    fn begins(&mut self, node: usize, view: ViewId, first: u64, restores: bool) -> Result<(), Broken> {
        let index = self.nodes[node].index;
        if first != index + 1 && !(restores && first <= index + 1) {
            return Err(("a view begins where the last one ended", format!("at index {first}")));
        }
        self.ghost.begins_at(view, first)?;
        if !restores && (self.nodes[node].active || self.nodes[node].was_member) {
            self.reached_cut(node)?;
        }
        let Some(log) = self.views.get_mut(view) else { return Ok(()) };
        let known = *log.first.get_or_insert(first);
        if known != first {
            return Err(("a view begins at one index", format!("{first}, elsewhere {known}")));
        }
        Ok(())
    }
}
