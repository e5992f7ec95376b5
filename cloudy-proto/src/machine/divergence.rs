//! Corruption is found by comparing digests; better no answer than two (`protocol.md` §8).

use std::collections::{BTreeMap, VecDeque};

use crate::digest::{Checkpoint, Digest};
use crate::id::{Index, NodeId, Rank, ViewId};
use crate::io::Event;
use crate::machine::Machine;
use crate::rules::Rule;
use crate::view::View;
use crate::wire::{ControlFrame, Heartbeat, Wedged};

/// Checkpoints kept of each member: heartbeats come at different indexes, and a dispute is settled at one.
const RECENT: usize = 8;

/// What the members of the view in force said of their results.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    recent: BTreeMap<NodeId, VecDeque<Checkpoint>>,
    /// The end of the result before the view.
    begins: BTreeMap<NodeId, Checkpoint>,
}

impl Checkpoints {
    /// Only members of the view in force count.
    pub(crate) fn forget(&mut self, view: &View) {
        self.recent.retain(|&node, _| view.rank_of(node).is_some());
        self.begins.clear();
    }

    fn note(&mut self, node: NodeId, checkpoint: Checkpoint) {
        let recent = self.recent.entry(node).or_default();
        if recent.back() != Some(&checkpoint) {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(checkpoint);
        }
    }

    /// How many said another digest at an index.
    fn others_than(&self, index: Index, digest: Digest) -> usize {
        let said = self.recent.values().filter_map(|recent| recent.iter().find(|checkpoint| checkpoint.index == index));
        said.filter(|checkpoint| checkpoint.digest != digest).count()
    }
}

/// Two ends of the result before a view. A digest of zero behind the first index is not known.
fn differ(one: Checkpoint, other: Checkpoint) -> bool {
    let is_known = |checkpoint: Checkpoint| checkpoint.digest != Digest(0);
    one.index != other.index || (is_known(one) && is_known(other) && one.digest != other.digest)
}

/// No majority of all agrees with a node that so many of them contradict.
fn is_outvoted(contradicting: usize, all: usize) -> bool {
    contradicting > 0 && contradicting * 2 >= all
}

impl Machine {
    /// Compares what a member says of its result with the own one.
    pub(super) fn compare(&mut self, node: NodeId, said: Heartbeat) {
        let Some(view) = self.log.state().view().filter(|view| view.rank_of(node).is_some()).cloned() else { return };
        self.compare_checkpoint(&view, node, said.checkpoint);
        if said.complete {
            self.compare_beginning(&view, node, said.begins);
        }
    }

    /// Where checkpoints differ, this node continues only while a majority of the members agrees with it, or may agree once
    /// all have reported. A learner or observer counts the members that it is linked with.
    fn compare_checkpoint(&mut self, view: &View, node: NodeId, theirs: Checkpoint) {
        let (rule, all) = match self.plane.member() {
            Some(_) => (Rule::MembersCompare, view.members()),
            None => {
                let linked = view.ring.iter().filter(|member| self.peers.is_linked(member.node));
                (Rule::ObserversCompare, linked.count())
            }
        };
        // A result that begins later has a digest of its own.
        if !self.identity.reads_all || !self.identity.rules.holds(rule) {
            return;
        }
        self.peers.checkpoints.note(node, theirs);
        let Some(digest) = self.result.state().digest_at(theirs.index) else { return };
        let ours = Checkpoint { index: theirs.index, digest };
        if ours != theirs && is_outvoted(self.peers.checkpoints.others_than(ours.index, digest), all) {
            self.diverged(node, theirs, ours);
        }
    }

    /// All complete members of a view begin it at one index, with one digest before that.
    fn compare_beginning(&mut self, view: &View, node: NodeId, theirs: Checkpoint) {
        let Some(member) = self.plane.member().filter(|member| member.complete) else { return };
        let ours = member.begins;
        self.peers.checkpoints.begins.insert(node, theirs);
        let contradicting = self.peers.checkpoints.begins.values().filter(|theirs| differ(**theirs, ours)).count();
        let rule = self.identity.rules.holds(Rule::BeginningsCompare);
        if rule && differ(theirs, ours) && is_outvoted(contradicting, view.members()) {
            self.diverged(node, theirs, ours);
        }
    }

    /// Compares final results as members report them to the log.
    pub(super) fn compare_final(&mut self) {
        let Some(ours) = self.closing.final_result().filter(|_| self.identity.reads_all) else { return };
        let Some(view) = self.log.state().view().filter(|_| self.identity.rules.holds(Rule::FinalsCompare)) else {
            return;
        };
        let members = self.log.state().reports().filter(|(node, ..)| view.rank_of(*node).is_some());
        let contradicting: Vec<(NodeId, Checkpoint)> =
            members.filter(|(_, theirs, _)| *theirs != ours).map(|(node, theirs, _)| (node, theirs)).collect();
        if is_outvoted(contradicting.len(), view.members())
            && let Some(&(node, theirs)) = contradicting.first()
        {
            self.diverged(node, theirs, ours);
        }
    }

    /// A node that fetched the end of the result compares its digest with the source's; false if they differ.
    pub(super) fn agrees_with_source(&mut self, node: NodeId, theirs: Checkpoint) -> bool {
        let ours = self.result.checkpoint();
        let compares = self.identity.reads_all && self.identity.rules.holds(Rule::FinalsCompare);
        if compares && differ(theirs, ours) {
            self.diverged(node, theirs, ours);
            return false;
        }
        true
    }

    /// Coordinator: leaves complete members out of the next view that contradict the others about where the view in force
    /// begins, and tells them. Without a majority all stop.
    pub(super) fn compare_answers(&mut self) {
        let Some(change) = self.change().filter(|_| self.identity.rules.holds(Rule::AnswersCompare)) else { return };
        let complete = |rank: Rank| change.answers[rank.at()].as_ref().filter(|answer| answer.complete);
        let said: Vec<(NodeId, Checkpoint)> = change
            .view
            .ranks()
            .filter_map(|rank| Some((change.view.member(rank).node, complete(rank)?.begins())))
            .collect();
        let against = |ours: Checkpoint| said.iter().filter(move |(_, theirs)| differ(*theirs, ours));
        let outvoted: Vec<(NodeId, Checkpoint, NodeId, Checkpoint)> = said
            .iter()
            .filter(|(_, ours)| is_outvoted(against(*ours).count(), said.len()))
            .filter_map(|(node, ours)| against(*ours).next().map(|(other, theirs)| (*node, *ours, *other, *theirs)))
            .collect();
        let (view, me) = (change.view.id, self.identity.me);
        for &(node, ours, other, theirs) in outvoted.iter().filter(|(node, ..)| *node != me) {
            if let Some(change) = self.change_mut() {
                change.leave_out(node);
            }
            self.send_control(node, ControlFrame::Diverged { view, node: other, theirs, ours });
        }
        if let Some(&(_, ours, other, theirs)) = outvoted.iter().find(|(node, ..)| *node == self.identity.me) {
            self.diverged(other, theirs, ours);
        }
    }

    /// The coordinator reports that this node's result differs from the others' at the beginning of the view; or the node
    /// that this one asked to join reports that it differs at a checkpoint.
    pub(super) fn take_diverged(
        &mut self,
        from: NodeId,
        view: ViewId,
        (node, theirs): (NodeId, Checkpoint),
        ours: Checkpoint,
    ) {
        let in_force = self
            .log
            .state()
            .view()
            .is_some_and(|latest| latest.id == view && latest.rank_of(self.identity.me).is_some());
        if (in_force && from == self.tracking.node()) || self.has_asked(from) {
            self.diverged(node, theirs, ours);
        }
    }

    /// Stops for good: the result here and a node's differ. The last heartbeat carries the own digest, since the others have
    /// to compare it too.
    fn diverged(&mut self, node: NodeId, theirs: Checkpoint, ours: Checkpoint) {
        self.outputs.halt();
        self.outputs.clear();
        let at_checkpoint = self.result.state().digest_at(ours.index) == Some(ours.digest);
        let heartbeat = self.heartbeat();
        let checkpoint = if at_checkpoint { ours } else { heartbeat.checkpoint };
        if let Some(member) = self.plane.member_mut() {
            member.wedged = true;
            member.beat(Heartbeat { checkpoint, ..heartbeat }, &mut self.outputs, &self.due);
        }
        self.event(Event::Diverged { node, theirs, ours });
    }
}

impl Wedged {
    /// The end of the result before the view.
    fn begins(&self) -> Checkpoint {
        Checkpoint { index: Index(self.first.0.saturating_sub(1)), digest: self.digest }
    }
}
