//! Detection of corruption by comparing digests: no answer is better than two different ones (`protocol.md` §8).

use crate::digest::Checkpoint;
use crate::due::Due;
use crate::id::{Index, NodeId, Rank, ViewId};
use crate::io::Event;
use crate::machine::checkpoints::{differ, is_outvoted};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::View;
use crate::wire::{ControlFrame, Heartbeat, Wedged};

/// Compares the reports of other nodes with the result here. If this node is outvoted, it stops for good.
pub(super) struct DivergenceHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a mut Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a Storage,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) due: &'a Due,
    pub(super) now: Time,
}

impl DivergenceHandler<'_> {
    /// Compares a member's heartbeat with the own result.
    pub(super) fn compare(&mut self, node: NodeId, said: Heartbeat) {
        let Some(view) = self.log.state().view().filter(|view| view.rank_of(node).is_some()).cloned() else { return };
        self.compare_checkpoint(&view, node, said.checkpoint);
        if said.complete {
            self.compare_beginning(&view, node, said.begins);
        }
    }

    /// If checkpoints differ, this node continues only while a majority of the members agrees with it, or may agree
    /// once all have reported. A learner or observer counts the members that it is linked to.
    fn compare_checkpoint(&mut self, view: &View, node: NodeId, theirs: Checkpoint) {
        let (rule, all) = match self.plane.member() {
            Some(_) => (Rule::MembersCompare, view.members()),
            None => {
                let linked = view.ring.iter().filter(|member| self.peers.is_linked(member.node));
                (Rule::ObserversCompare, linked.count())
            }
        };
        // A result that begins later has another digest.
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

    /// Compares the begin of the view: all complete members have the same first index, and the same digest before it.
    fn compare_beginning(&mut self, view: &View, node: NodeId, theirs: Checkpoint) {
        let Some(member) = self.plane.member().filter(|member| member.is_complete()) else { return };
        let ours = member.before();
        let contradicting = self.peers.checkpoints.note_beginning(node, theirs, ours);
        let rule = self.identity.rules.holds(Rule::BeginningsCompare);
        if rule && differ(theirs, ours) && is_outvoted(contradicting, view.members()) {
            self.diverged(node, theirs, ours);
        }
    }

    /// Compares the final results that members report to the log.
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

    /// Compares the digest of a fetched final result with the source's; false if they differ.
    pub(super) fn agrees_with_source(&mut self, node: NodeId, theirs: Checkpoint) -> bool {
        let ours = self.result.checkpoint();
        let compares = self.identity.reads_all && self.identity.rules.holds(Rule::FinalsCompare);
        if compares && differ(theirs, ours) {
            self.diverged(node, theirs, ours);
            return false;
        }
        true
    }

    /// Coordinator: excludes complete members from the next view that contradict the others on the begin of the present
    /// view, and notifies them. Without a majority all stop.
    pub(super) fn compare_answers(&mut self, coordinating: &mut Coordinating) {
        let change = coordinating.change_mut().filter(|_| self.identity.rules.holds(Rule::AnswersCompare));
        let Some(change) = change else { return };
        let complete = |rank: Rank| change.answer_of(rank).filter(|answer| answer.complete);
        let said: Vec<(NodeId, Checkpoint)> = change
            .view()
            .ranks()
            .filter_map(|rank| Some((change.view().member(rank).node, complete(rank)?.begins())))
            .collect();
        let against = |ours: Checkpoint| said.iter().filter(move |(_, theirs)| differ(*theirs, ours));
        let outvoted: Vec<(NodeId, Checkpoint, NodeId, Checkpoint)> = said
            .iter()
            .filter(|(_, ours)| is_outvoted(against(*ours).count(), said.len()))
            .filter_map(|(node, ours)| against(*ours).next().map(|(other, theirs)| (*node, *ours, *other, *theirs)))
            .collect();
        let (view, me) = (change.view().id, self.identity.me);
        for &(node, ours, other, theirs) in outvoted.iter().filter(|(node, ..)| *node != me) {
            change.leave_out(node);
            send_control(self.peers, self.outputs, node, ControlFrame::Diverged { view, node: other, theirs, ours });
        }
        if let Some(&(_, ours, other, theirs)) = outvoted.iter().find(|(node, ..)| *node == self.identity.me) {
            self.diverged(other, theirs, ours);
        }
    }

    /// Handles the coordinator's report that this node's result differs from the others' at the beginning of the view;
    /// or a contact's report that it differs at a checkpoint.
    pub(super) fn on_diverged(
        &mut self,
        from: NodeId,
        view: ViewId,
        (node, theirs): (NodeId, Checkpoint),
        ours: Checkpoint,
        asked_to_join: bool,
    ) {
        let in_force = self
            .log
            .state()
            .view()
            .is_some_and(|latest| latest.id == view && latest.rank_of(self.identity.me).is_some());
        if (in_force && from == self.tracking.node()) || asked_to_join {
            self.diverged(node, theirs, ours);
        }
    }

    /// Stops for good, because the result here and a node's differ. The last heartbeat carries the own digest, because
    /// the others have to compare it too.
    fn diverged(&mut self, node: NodeId, theirs: Checkpoint, ours: Checkpoint) {
        self.outputs.halt();
        self.outputs.clear();
        let at_checkpoint = self.result.state().digest_at(ours.index) == Some(ours.digest);
        let heartbeat = self.plane.heartbeat(self.result, self.storage.syncs.slowest_ms(self.now), self.now);
        let checkpoint = if at_checkpoint { ours } else { heartbeat.checkpoint };
        if let Some(member) = self.plane.member_mut() {
            member.stop();
            member.beat(Heartbeat { checkpoint, ..heartbeat }, self.outputs, self.due);
        }
        self.outputs.event(Event::Diverged { node, theirs, ours });
    }
}

impl Wedged {
    /// The end of the result before the view.
    fn begins(&self) -> Checkpoint {
        Checkpoint { index: Index(self.first.0.saturating_sub(1)), digest: self.digest }
    }
}
