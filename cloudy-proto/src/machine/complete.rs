//! A view that nobody can end: no complete member of it is left, and the group says so (`protocol.md` P7, §6.2).

use crate::config::{Durability, Parameters};
use crate::id::{NodeId, ViewId};
use crate::io::{Event, NobodyComplete};
use crate::machine::Machine;
use crate::member::Member;
use crate::view::{RingMember, View};
use crate::view_change::ViewChange;
use crate::wire::ControlFrame;

impl Machine {
    /// Coordinator: looks whether a complete member answers. Once none has for the coordinator timeout it tells everybody
    /// who follows, again and again as long as that is so, for late joiners.
    pub(super) fn seek_complete(&mut self) {
        let view = self.log.state().view().filter(|view| self.lacks_complete(view)).cloned();
        let Some(coordinating) = &mut self.coordinating else { return };
        let Some(view) = view else { return coordinating.on_complete_member() };
        let Parameters { coordinator_timeout, wedge_timeout, .. } = view.parameters;
        if !coordinating.lacks_complete_for(self.timers.now(), coordinator_timeout, wedge_timeout) {
            return;
        }
        let followers: Vec<NodeId> = coordinating.followers().collect();
        let nodes = |is_wanted: &dyn Fn(&RingMember) -> bool| -> Vec<NodeId> {
            view.ring.iter().filter(|member| is_wanted(member)).map(|member| member.node).collect()
        };
        let lost = nodes(&|member| self.is_back_without(member));
        let missing = nodes(&|member| self.answer_of(member).is_none() && !self.is_back_without(member));
        for node in followers {
            let (missing, lost) = (missing.clone(), lost.clone());
            self.send_control(node, ControlFrame::NobodyComplete { view: view.id, missing, lost });
        }
        self.nobody_complete(view.id, missing, lost);
    }

    /// Coordinator: no complete member has answered its `Wedge`; or nobody is asked, since all who would report that the
    /// others are gone are gone themselves.
    fn lacks_complete(&self, view: &View) -> bool {
        let ends = view.last || self.closing.is_final() || !self.is_coordinator();
        match self.change() {
            _ if ends => false,
            Some(change) if change.is_proposed() => false,
            Some(change) => {
                let answers = self.next_view().map(|next| next.counted_answers(change)).unwrap_or_default();
                !answers.iter().flatten().any(|answer| answer.complete)
                    && !view.ring.iter().any(|member| self.may_answer(change, member))
            }
            None => {
                let reached = |member: &RingMember| self.plane.is_member() || self.peers.is_linked(member.node);
                !view.ring.iter().any(reached)
            }
        }
    }

    /// A member has not answered yet, and is heard of as a complete one: it is slow, and its time is not over.
    fn may_answer(&self, change: &ViewChange, member: &RingMember) -> bool {
        let complete = match member.node == self.identity.me {
            true => self.plane.member().is_some_and(Member::is_complete),
            false => self.peers.heartbeat(member.node).is_some_and(|heartbeat| heartbeat.complete),
        };
        let awaited = |rank| change.awaits_answer(rank) && !self.timeouts().is_overdue(change, rank);
        complete && self.timeouts().seems_alive(member.node) && change.view().rank_of(member.node).is_some_and(awaited)
    }

    /// What a member has answered: whether it is complete.
    fn answer_of(&self, member: &RingMember) -> Option<bool> {
        let change = self.change()?;
        let rank = change.view().rank_of(member.node)?;
        change.answer_of(rank).map(|answer| answer.complete)
    }

    /// A member is there again in another run, which has nothing of what the one on the ring held.
    fn is_back_without(&self, member: &RingMember) -> bool {
        // From a disk that knows of the view an answer comes at once, or a word that it will.
        let asked = self.change().is_some_and(|change| !change.is_wedging(member.node));
        let follows = member.node == self.identity.me || self.has_follower(member.node);
        let answers_nothing = self.answer_of(member).map_or(asked && follows, |complete| !complete);
        self.log.state().is_stale(member) && (self.identity.durability == Durability::Memory || answers_nothing)
    }

    /// The coordinator says so.
    pub(super) fn take_nobody_complete(&mut self, from: NodeId, view: ViewId, missing: Vec<NodeId>, lost: Vec<NodeId>) {
        if from == self.tracking.node() && !self.is_coordinator() {
            self.nobody_complete(view, missing, lost);
        }
    }

    fn nobody_complete(&mut self, view: ViewId, missing: Vec<NodeId>, lost: Vec<NodeId>) {
        let in_force = self.log.state().view().is_some_and(|latest| latest.id == view);
        let said = NobodyComplete { view, missing, lost, durability: self.identity.durability };
        if in_force && self.tracking.report_incomplete(&said) {
            self.event(Event::NobodyComplete(said));
        }
    }
}
