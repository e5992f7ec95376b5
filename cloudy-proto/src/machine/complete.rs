//! A view that no member can end: it has no complete member in reach, and the group reports that (`protocol.md` P7,
//! §6.2).

use crate::config::{Durability, Parameters};
use crate::id::{NodeId, ViewId};
use crate::io::{Event, NoCompleteMember};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::next_view::NextView;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::tracking::CoordinatorTracking;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::time::Time;
use crate::view::{RingMember, View};
use crate::view_change::ViewChange;
use crate::wire::ControlFrame;

/// Finds and reports that no complete member of the view in force answers.
pub(super) struct CompleteHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a mut CoordinatorTracking,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) storage: &'a Storage,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) now: Time,
}

impl CompleteHandler<'_> {
    /// Coordinator: checks whether a complete member answers. Once none has for the coordinator timeout it notifies all
    /// followers, and repeats that while it lasts, for late joiners.
    pub(super) fn check(&mut self) {
        let view = self.log.state().view().filter(|view| self.lacks_complete(view)).cloned();
        let Some(coordinating) = self.coordinating.as_mut() else { return };
        let Some(view) = view else { return coordinating.on_complete_member() };
        let Parameters { coordinator_timeout, wedge_timeout, .. } = view.parameters;
        if !coordinating.lacks_complete_for(self.now, coordinator_timeout, wedge_timeout) {
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
            let frame = ControlFrame::NoCompleteMember { view: view.id, missing, lost };
            send_control(self.peers, self.outputs, node, frame);
        }
        self.report(view.id, missing, lost);
    }

    /// Coordinator: whether no complete member has answered its `Wedge`, or none was requested to, because all members
    /// that would report the others are gone themselves.
    fn lacks_complete(&self, view: &View) -> bool {
        let ends = view.last || self.closing.is_final() || self.coordinating.is_none();
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

    /// Whether a member has not answered yet, and is alive and complete by its heartbeats: it is slow, and within its
    /// timeout.
    fn may_answer(&self, change: &ViewChange, member: &RingMember) -> bool {
        let complete = match member.node == self.identity.me {
            true => self.plane.member().is_some_and(Member::is_complete),
            false => self.peers.heartbeat(member.node).is_some_and(|heartbeat| heartbeat.complete),
        };
        let timeouts = self.timeouts();
        let awaited = |rank| change.awaits_answer(rank) && !timeouts.is_overdue(change, rank);
        complete && timeouts.seems_alive(member.node) && change.view().rank_of(member.node).is_some_and(awaited)
    }

    /// Whether a member has answered that it is complete.
    fn answer_of(&self, member: &RingMember) -> Option<bool> {
        let change = self.change()?;
        let rank = change.view().rank_of(member.node)?;
        change.answer_of(rank).map(|answer| answer.complete)
    }

    /// Whether a member has returned as another incarnation, without the data of the one on the ring.
    fn is_back_without(&self, member: &RingMember) -> bool {
        // A disk that knows the view answers at once, or reports that it will.
        let asked = self.change().is_some_and(|change| !change.is_wedging(member.node));
        let follows = member.node == self.identity.me
            || self.coordinating.as_ref().is_some_and(|coordinating| coordinating.has_follower(member.node));
        let answers_nothing = self.answer_of(member).map_or(asked && follows, |complete| !complete);
        self.log.state().is_stale(member) && (self.identity.durability == Durability::Memory || answers_nothing)
    }

    /// Handles the coordinator's report.
    pub(super) fn on_report(&mut self, from: NodeId, view: ViewId, missing: Vec<NodeId>, lost: Vec<NodeId>) {
        if from == self.tracking.node() && self.coordinating.is_none() {
            self.report(view, missing, lost);
        }
    }

    fn report(&mut self, view: ViewId, missing: Vec<NodeId>, lost: Vec<NodeId>) {
        let in_force = self.log.state().view().is_some_and(|latest| latest.id == view);
        let said = NoCompleteMember { view, missing, lost, durability: self.identity.durability };
        if in_force && self.tracking.report_incomplete(&said) {
            self.outputs.event(Event::NoCompleteMember(said));
        }
    }

    fn change(&self) -> Option<&ViewChange> {
        self.coordinating.as_ref().and_then(Coordinating::change)
    }

    fn timeouts(&self) -> Timeouts<'_> {
        Timeouts::new(self.identity, self.log, self.peers, self.storage, self.now)
    }

    fn next_view(&self) -> Option<NextView<'_>> {
        let coordinating = self.coordinating.as_ref()?;
        let (identity, log, peers, now) = (self.identity, self.log, self.peers, self.now);
        Some(NextView { identity, log, coordinating, peers, timeouts: self.timeouts(), now })
    }
}
