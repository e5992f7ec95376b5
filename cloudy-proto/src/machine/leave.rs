//! A member goes by itself: nobody waits for a timeout (`protocol.md` §6.1).

use crate::config::Durability;
use crate::id::{NodeId, Rank};
use crate::io::Event;
use crate::machine::Machine;
use crate::rules::Rule;
use crate::view::{RingMember, View};
use crate::view_change::ViewChange;
use crate::wire::{ControlFrame, Wedged};

impl Machine {
    /// Somebody here wants this node to leave the ring for good.
    pub(super) fn leave(&mut self) {
        self.wants_leave = true;
        if self.is_coordinator() {
            self.asked_to_leave(self.me);
        } else if self.has_coordinator() {
            self.send_control(self.coordinator, ControlFrame::Leave);
        }
        // Who is not on the ring need not wait for anybody.
        if self.joining.is_some() {
            self.try_go();
        }
    }

    /// Coordinator: a member wants to go. The last one ends the group.
    pub(super) fn asked_to_leave(&mut self, from: NodeId) {
        let Some(view) = self.state.view().filter(|view| view.rank_of(from).is_some() && self.is_coordinator()) else {
            return;
        };
        if view.ring.iter().all(|member| member.node == from || self.leaving.contains(&member.node)) {
            return self.begin_stop();
        }
        self.leaving.insert(from);
        self.begin_change(false);
    }

    /// The answers that count for the cut: not those of members that leave, as long as another complete one answered.
    pub(super) fn staying(&self, change: &ViewChange) -> Vec<Option<Wedged>> {
        let stays = |rank: Rank| change.last || !self.leaving.contains(&change.view.member(rank).node);
        let mut answers = change.answers.clone();
        let kept = |rank: &Rank| stays(*rank) && answers[rank.at()].as_ref().is_some_and(|answer| answer.complete);
        if change.view.ranks().any(|rank| kept(&rank)) {
            change.view.ranks().filter(|rank| !stays(*rank)).for_each(|rank| answers[rank.at()] = None);
        }
        let stale = change.view.ranks().filter(|rank| self.is_void(change.view.member(*rank)));
        stale.for_each(|rank| answers[rank.at()] = None);
        answers
    }

    /// A place on the ring of a run that is over and, with `Memory`, holds nothing any more, whatever it said.
    pub(super) fn is_void(&self, member: &RingMember) -> bool {
        self.delivery.durability == Durability::Memory
            && self.state.is_stale(member)
            && self.rules.hold(Rule::StaleMemberIsVoid)
    }

    /// The view in force is without those who left.
    pub(super) fn left(&mut self, view: &View) {
        self.leaving.retain(|node| view.rank_of(*node).is_some());
    }

    /// This node has left, and nobody needs it as a voter any more.
    pub(super) fn try_go(&mut self) {
        let on_ring = self.state.view().is_none_or(|view| view.rank_of(self.me).is_some());
        let votes = self.state.electors().any(|(_, node, _)| node == self.me);
        if self.wants_leave && !self.gone && !on_ring && !votes && self.leading.is_none() {
            self.gone = true;
            self.event(Event::Left { node: self.me });
        }
    }
}
