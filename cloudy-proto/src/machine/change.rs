//! From one view to the next at this node: reports of failed members, and the coordinator's side of a view change
//! (`protocol.md` §6.1–§6.3).

use std::sync::Arc;

use crate::command::Command;
use crate::config::{Durability, OnFailure};
use crate::due::Due;
use crate::id::{NodeId, ViewId};
use crate::io::Output;
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::data_plane::DataPlane;
use crate::machine::divergence::DivergenceHandler;
use crate::machine::identity::Identity;
use crate::machine::next_view::{Decision, NextView};
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::machine::wedge::{Answer, WedgeHandler};
use crate::member::Member;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::view::View;
use crate::view_change::ViewChange;
use crate::wire::{ControlFrame, Wedged};

/// Handles everything from the present view to the next one. The coordinator uses [`WedgeHandler`] for its own place, and
/// frames for other members.
pub(super) struct ViewChangeHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a mut Peers,
    pub(super) plane: &'a mut DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
    pub(super) due: &'a Due,
}

/// The side of every member.
impl ViewChangeHandler<'_> {
    /// Finds members that have failed or stalled, and reports them.
    pub(super) fn suspect(&mut self) {
        let Some(failed) = self.wedge().suspect() else { return };
        let linked = failed.into_iter().filter(|node| self.peers.is_linked(*node));
        linked.for_each(|peer| self.outputs.push(Output::Redial { peer }));
        self.report_suspects();
    }

    /// Reports the findings against members of this view to the coordinator. Repeated on every new link to it.
    pub(super) fn report_suspects(&mut self) {
        let Some(member) = self.plane.member() else { return };
        let (view, wedged, findings) = (member.view.id, member.is_wedged(), member.findings().clone());
        if findings.down.is_empty() && findings.stalled.is_empty() && !wedged {
            return;
        }
        if self.coordinating.is_some() {
            self.on_suspect(self.identity.me, view, wedged);
        } else if let Some(coordinator) = self.tracking.linked(self.identity.me, self.peers) {
            self.send(coordinator, ControlFrame::Suspect { view, findings, wedged });
        }
    }

    /// Sends an answer that waited for the disk, if one is due.
    pub(super) fn on_synced(&mut self) {
        if let Some((to, answer)) = self.wedge().due_answer() {
            self.deliver(to, answer);
        }
    }

    /// Answers a request to wedge a view that is frozen here.
    pub(super) fn answer(&mut self, to: NodeId, view: ViewId) {
        if let Some(answer) = self.wedge().answer_once_synced(to, view) {
            self.deliver(to, answer);
        }
    }

    fn deliver(&mut self, to: NodeId, answer: Answer) {
        if to != self.identity.me {
            let still_coordinates = to == self.tracking.node();
            if still_coordinates || matches!(answer, Answer::Syncing(_)) {
                self.send(to, answer.into_frame());
            }
            return;
        }
        match answer {
            Answer::Syncing(view) => self.on_wedging(to, view),
            Answer::Wedged(wedged) => self.on_wedged(to, wedged),
        }
    }

    fn wedge(&mut self) -> WedgeHandler<'_> {
        WedgeHandler {
            identity: self.identity,
            log: self.log,
            peers: self.peers,
            plane: self.plane,
            result: self.result,
            storage: self.storage,
            now: self.timers.now(),
        }
    }

    fn send(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(self.peers, self.outputs, to, frame);
    }
}

/// The coordinator's side.
impl ViewChangeHandler<'_> {
    /// Handles findings of a member of the present view, or a wedge by a predecessor. The findings themselves are in
    /// its answer to `Wedge`: here they only start the view change.
    pub(super) fn on_suspect(&mut self, from: NodeId, view: ViewId, wedged: bool) {
        let latest = self.log.state().view().map_or(ViewId(0), |view| view.id);
        if let Some(coordinating) = self.coordinating
            && view > latest
            && self.log.state().incarnation(from).is_some()
        {
            // Its disk was faster than the coordinator's.
            return coordinating.keep_suspicion(from, view, wedged);
        }
        let in_force = self.log.state().view().is_some_and(|latest| {
            let evicts = latest.parameters.on_failure == OnFailure::Evict;
            latest.id == view && latest.rank_of(from).is_some() && (evicts || wedged)
        });
        if in_force && !self.closing.is_stopping() {
            self.start(false);
        }
    }

    /// Wedges every member of the view in force, to install the next view, or the last. If a change is in progress already,
    /// it becomes the change to the last view.
    pub(super) fn start(&mut self, last: bool) {
        let now = self.timers.now();
        let Some(coordinating) = self.coordinating else { return };
        if let Some(change) = coordinating.change_mut() {
            // The group may otherwise wait for `ring_min` for good.
            if last && change.become_last() {
                self.try_propose();
            }
            return;
        }
        let Some(view) = self.log.state().view().filter(|view| !view.last).cloned() else { return };
        coordinating.start_change(ViewChange::new(Arc::clone(&view), last, now));
        self.timers.set(Timer::Wedge, now + view.parameters.wedge_timeout);
        coordinating.send_log(self.log, self.peers, self.outputs);
        view.ring.iter().for_each(|member| self.send_wedge(member.node));
        self.wedge_own_place(view.id, false);
    }

    /// Handles an evicted node's heartbeat, and whether it is ready to return.
    pub(super) fn on_rejoin(&mut self, from: NodeId, of: ViewId, ready: bool) {
        if self.log.state().incarnation(from).is_none() {
            return;
        }
        let now = self.timers.now();
        self.peers.on_sign_of_life(from, now);
        let in_force = self.log.state().view().is_some_and(|view| view.id == of && view.rank_of(from).is_none());
        if !ready || !in_force {
            return self.peers.evictions.on_not_ready(from);
        }
        self.peers.evictions.on_ready(from, now);
        let leaves = self.coordinating.as_ref().is_some_and(|coordinating| coordinating.is_departing(from));
        if !leaves && !self.peers.evictions.keeps_out(from, now) && !self.closing.is_stopping() {
            self.start(false);
        }
    }

    /// Restarts a change whose view took no effect, because a joiner was restarted meanwhile.
    pub(super) fn restart(&mut self) {
        if let Some(change) = self.coordinating.as_mut().and_then(Coordinating::take_proposed_change) {
            self.start(change.is_last());
        }
    }

    /// Replaces a view that lists an incarnation that is over.
    pub(super) fn replace_stale(&mut self) {
        let is_stale = |view: &View| view.ring.iter().any(|member| self.log.state().is_stale(member));
        let stale = self.log.state().view().is_some_and(|view| is_stale(view));
        if stale && self.coordinating.is_some() && !self.closing.is_stopping() {
            self.start(false);
            // A change in progress does not wait for it.
            self.try_propose();
        }
    }

    /// Sends the request to wedge to a member that has not answered. It must have received the log so far, or it would
    /// not know the view. A node that does not follow the log yet receives the request once it does.
    pub(super) fn send_wedge(&mut self, node: NodeId) {
        let Some(coordinating) = self.coordinating else { return };
        let Some(change) = coordinating.undecided_change() else { return };
        if change.awaits(node) && coordinating.has_follower(node) {
            let (view, last, again) = (change.view().id, change.is_last(), change.is_repeated());
            self.send(node, ControlFrame::Wedge { view, last, again });
        }
    }

    /// Handles the answer of a member.
    pub(super) fn on_wedged(&mut self, from: NodeId, wedged: Wedged) {
        let Some(change) = self.change_mut() else { return };
        if let Err(error) = change.answer(from, wedged) {
            return self.outputs.close_link(from, error.to_string());
        }
        self.try_propose();
    }

    /// Notes that a member syncs first, and answers then.
    pub(super) fn on_wedging(&mut self, from: NodeId, view: ViewId) {
        if let Some(change) = self.change_mut() {
            change.syncs(from, view);
        }
    }

    /// Notes that the link to a member went down.
    pub(super) fn on_link_down(&mut self, node: NodeId) {
        let counts_reach = self.identity.rules.holds(Rule::AnswerIsInReach);
        if let Some(change) = self.change_mut().filter(|_| counts_reach) {
            change.part(node);
        }
        self.try_propose();
    }

    /// Notes an incarnation of a node in the log. The answer of an earlier one is void: its disk answers again, if it
    /// has one.
    pub(super) fn on_incarnation(&mut self, node: NodeId) {
        let Some(change) = self.change_mut().filter(|change| !change.is_proposed()) else { return };
        let view = change.view().id;
        if self.identity.durability == Durability::Disk || self.identity.rules.holds(Rule::StaleMemberIsVoid) {
            self.change_mut().into_iter().for_each(|change| change.forget(node));
        }
        if node == self.identity.me {
            self.wedge_own_place(view, false);
        } else {
            self.send_wedge(node);
        }
    }

    /// Requests missing answers again, because their timeout passed.
    pub(super) fn on_timeout(&mut self) {
        self.try_propose();
        let change = self.coordinating.as_ref().and_then(Coordinating::undecided_change);
        let Some(view) = change.map(|change| Arc::clone(change.view())) else { return };
        self.timers.set(Timer::Wedge, self.timers.now() + view.parameters.wedge_timeout);
        view.ring.iter().for_each(|member| self.send_wedge(member.node));
        // Its own answer may be from before it had the whole result.
        let awaits_own = self.change().is_some_and(|change| change.awaits(self.identity.me));
        if awaits_own && self.plane.member().is_some_and(Member::is_complete) {
            self.answer(self.identity.me, view.id);
        }
    }

    /// Proposes the next view once all have answered, or their timeout has passed and a complete member has answered.
    pub(super) fn try_propose(&mut self) {
        let now = self.timers.now();
        let decides = |change: &&ViewChange| !change.is_proposed() && !change.waits_at(now);
        let Some(change) = self.change().filter(decides) else { return };
        if self.next_view().is_none_or(|next| next.awaits_answers(change)) {
            return;
        }
        self.compare_answers();
        let Some(change) = self.change().filter(|_| !self.outputs.is_halted()) else { return };
        let Some(next) = self.next_view() else { return };
        match next.decide(change) {
            Decision::Wait => {}
            // Requested again until enough members have returned (`protocol.md` §6.3).
            Decision::TooFew => self.repeat(),
            Decision::Install(next) => {
                self.change_mut().into_iter().for_each(ViewChange::propose);
                self.log.propose(&Command::InstallView(*next));
            }
        }
    }

    /// Requests all answers again, at most once within their timeout.
    fn repeat(&mut self) {
        let now = self.timers.now();
        let is_due = |change: &&mut ViewChange| now.since(change.asked_at()) >= change.view().parameters.wedge_timeout;
        let Some(change) = self.change_mut().filter(is_due) else { return };
        change.ask_again(now);
        let view = change.view().id;
        self.wedge_own_place(view, true);
    }

    /// Ends the change that led to a view. Another one that was requested meanwhile may start.
    pub(super) fn finish(&mut self, view: &View) {
        self.timers.stop(Timer::Wedge);
        if let Some(coordinating) = self.coordinating {
            coordinating.finish_change();
        }
        if self.closing.is_stopping() && !view.last {
            self.start(true);
        }
        self.replace_stale();
    }

    /// Freezes the coordinator's own place in a view, and answers for it.
    fn wedge_own_place(&mut self, view: ViewId, again: bool) {
        if self.wedge().freeze(view, again) {
            self.answer(self.identity.me, view);
        }
    }

    fn compare_answers(&mut self) {
        let Some(coordinating) = self.coordinating else { return };
        let mut divergence = DivergenceHandler {
            identity: self.identity,
            log: self.log,
            tracking: self.tracking,
            peers: self.peers,
            plane: self.plane,
            result: self.result,
            storage: self.storage,
            closing: self.closing,
            outputs: self.outputs,
            due: self.due,
            now: self.timers.now(),
        };
        divergence.compare_answers(coordinating);
    }

    fn next_view(&self) -> Option<NextView<'_>> {
        let now = self.timers.now();
        Some(NextView {
            identity: self.identity,
            log: self.log,
            coordinating: self.coordinating.as_ref()?,
            peers: self.peers,
            timeouts: Timeouts::new(self.identity, self.log, self.peers, self.storage, now),
            now,
        })
    }

    fn change(&self) -> Option<&ViewChange> {
        self.coordinating.as_ref().and_then(Coordinating::change)
    }

    fn change_mut(&mut self) -> Option<&mut ViewChange> {
        self.coordinating.as_mut().and_then(Coordinating::change_mut)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Parameters;
    use crate::io::{Input, Request};
    use crate::machine::tests::{alone, drain};

    #[test]
    fn the_end_of_a_group_does_not_wait_for_the_least_ring() {
        let mut machine = alone(Parameters { ring_min: 2, ..Parameters::default() });
        machine.view_change().start(false);
        drain(&mut machine);
        assert!(machine.change().is_some(), "one member is too few");
        machine.handle(machine.timers.now(), Input::Request(Request::End));
        drain(&mut machine);
        assert!(machine.final_result().is_some());
    }
}
