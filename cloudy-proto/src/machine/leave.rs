//! Members and other nodes leave the group by themselves, or stop and return later, without a timeout at the others
//! (`protocol.md` §6.8).

use core::time::Duration;

use crate::command::{Command, VoterRole};
use crate::id::{Incarnation, NodeId};
use crate::io::Event;
use crate::limits::MEMBERS_MAX;
use crate::machine::arrival::Arrival;
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
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::member::Member;
use crate::outputs::Outputs;
use crate::rules::Rule;
use crate::view::{RingMember, View};
use crate::wire::ControlFrame;

/// The time between two requests of a node that leaves.
const LEAVE_EVERY: Duration = Duration::from_millis(100);
/// The minimum time between two view changes without a leaving member, while no complete member stays.
const RELEASE_EVERY: Duration = Duration::from_secs(1);

/// Lets this node leave, and at the coordinator others.
pub(super) struct LeaveHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a mut Option<Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) arrival: &'a Arrival,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) storage: &'a Storage,
    pub(super) closing: &'a mut Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

/// What the coordinator does for members that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// None leaves, or they have to wait.
    Nothing,
    /// It starts a view change without them.
    ViewChange,
    /// It ends the group with its last members.
    Stop,
}

/// Members that were evicted from a view or before: they have not left, and may come back.
pub(super) fn absent<'a>(log: &'a ControlLog, view: &'a View) -> impl Iterator<Item = NodeId> + 'a {
    log.state().members().filter(|node| view.rank_of(*node).is_none() && !log.state().has_left(*node))
}

impl LeaveHandler<'_> {
    /// Sends the request to leave to the coordinator, and repeats it until this node has left: a request is lost with
    /// its link, with the coordinator, and with a view change that evicts or admits this node meanwhile.
    pub(super) fn ask(&mut self) -> Release {
        self.try_finish();
        let departure = self.closing.departure();
        if !departure.is_wanted() || departure.is_finished() || self.log.state().is_closed() {
            return Release::Nothing;
        }
        self.timers.set(Timer::Leave, self.timers.now() + LEAVE_EVERY);
        if self.log.state().view().is_some_and(|view| self.has_living_heir(view) || self.is_needed(view)) {
            self.closing.departure_mut().on_heir(self.timers.now());
        }
        let returns = self.closing.departure().returns();
        if self.coordinating.is_some() {
            return self.on_request(self.identity.me, returns);
        }
        if let Some(coordinator) = self.tracking.linked(self.identity.me, self.peers) {
            send_control(self.peers, self.outputs, coordinator, ControlFrame::Leave { returns });
        }
        Release::Nothing
    }

    /// Coordinator: a node wants to leave or to stop, on the ring or off it. It does not come onto the ring again in this
    /// incarnation.
    pub(super) fn on_request(&mut self, from: NodeId, returns: bool) -> Release {
        let Some(on_ring) = self.log.state().view().map(|view| view.rank_of(from).is_some()) else {
            return Release::Nothing;
        };
        let Some(coordinating) = self.coordinating else { return Release::Nothing };
        if returns {
            coordinating.on_suspend(from);
            return if on_ring { self.release() } else { Release::Nothing };
        }
        let proposed = coordinating.on_leave(from);
        if on_ring {
            return self.release();
        }
        if !proposed && !self.log.state().has_left(from) {
            coordinating.note_left_proposed(from);
            let incarnation = self.log.state().incarnation(from).unwrap_or(Incarnation(0));
            self.log.propose(&Command::Left { node: from, incarnation });
        }
        Release::Nothing
    }

    /// Coordinator: a view change without the members that leave may start, once a complete member stays. If none on the
    /// ring stays, evicted nodes that follow come onto it first; while there are none, the coordinator stays and the
    /// others leave. Only if there are none in the whole group, the group ends with its last members.
    pub(super) fn release(&mut self) -> Release {
        let Some(view) = self.log.state().view().cloned() else { return Release::Nothing };
        let Some(coordinating) = self.coordinating.as_ref() else { return Release::Nothing };
        let may_change = coordinating.change().is_none() && !self.closing.is_stopping() && !view.last;
        let departing = coordinating.departing(&view, self.identity.me, usize::from(view.parameters.ring_min));
        let leaves = |member: &RingMember| departing.contains(&member.node);
        if !may_change || !view.ring.iter().any(leaves) {
            return Release::Nothing;
        }
        if view.ring.iter().all(leaves) {
            let hands_over = self.closing.departure().hands_over(self.identity.me, self.log);
            return match self.has_heirs(&view, coordinating) {
                true => Release::ViewChange,
                false if self.is_last(&view) && self.has_former_voter(&view) => Release::Nothing,
                false if self.is_last(&view) && !hands_over => Release::Stop,
                false if !self.identity.rules.holds(Rule::LastHandsOver) => Release::Stop,
                false if self.may_stay_alone(&view) => Release::ViewChange,
                false => Release::Nothing,
            };
        }
        let complete = |member: &RingMember| match member.node == self.identity.me {
            true => self.plane.member().is_some_and(Member::is_complete),
            false => !self.peers.is_incomplete(member.node),
        };
        let now = self.timers.now();
        let mut stay = view.ring.iter().filter(|member| !leaves(member));
        let released_at = coordinating.released_at();
        let starts = stay.any(complete) || released_at.is_some_and(|at| now.since(at) >= RELEASE_EVERY);
        if let Some(coordinating) = self.coordinating
            && (starts || released_at.is_none())
        {
            coordinating.note_released(now);
        }
        if starts { Release::ViewChange } else { Release::Nothing }
    }

    /// Coordinator: whether it can keep the group for nodes that may take over, so that the other members leave.
    fn may_stay_alone(&self, view: &View) -> bool {
        let is_complete = self.plane.member().is_some_and(Member::is_complete);
        let others = view.rank_of(self.identity.me).is_some() && view.members() > 1;
        self.identity.rules.holds(Rule::OneStays) && is_complete && others && view.parameters.ring_min <= 1
    }

    /// Whether a node off the ring that has not left gives signs of life: it may take over.
    fn has_living_heir(&self, view: &View) -> bool {
        let timeouts = self.timeouts();
        let may_come = |node: &NodeId| view.rank_of(*node).is_none() && !self.log.state().has_left(*node);
        let mut others = absent(self.log, view).chain(self.log.state().runs().filter(may_come));
        others.any(|node| node != self.identity.me && timeouts.seems_alive(node))
    }

    /// Whether another living node needs this one: a member of the ring, or a node that has left and still votes.
    fn is_needed(&self, view: &View) -> bool {
        let timeouts = self.timeouts();
        let mut others = view.ring.iter().filter(|member| member.node != self.identity.me);
        others.any(|member| timeouts.seems_alive(member.node)) || self.has_former_voter(view)
    }

    /// Whether a node that follows the result may enter the ring.
    fn has_heirs(&self, view: &View, coordinating: &Coordinating) -> bool {
        let (now, places) = (self.timers.now(), MEMBERS_MAX.saturating_sub(view.members()));
        let next = NextView {
            identity: self.identity,
            log: self.log,
            coordinating,
            peers: self.peers,
            timeouts: self.timeouts(),
            now,
        };
        self.identity.rules.holds(Rule::LastHandsOver) && !next.joiners(view, places).is_empty()
    }

    /// Whether every node that was ever a member is on the ring or has left by itself, and no node is joining.
    fn is_last(&self, view: &View) -> bool {
        let timeouts = self.timeouts();
        let comes = |node: NodeId| {
            !self.log.state().was_member(node) && !self.log.state().has_left(node) && timeouts.seems_alive(node)
        };
        absent(self.log, view).next().is_none() && !self.log.state().runs().any(comes)
    }

    /// Whether a linked node that has left still votes. It is no voter before the group ends, so it does not wait for the
    /// close, which the last members need not wait for either.
    fn has_former_voter(&self, view: &View) -> bool {
        let mut electors = self.log.state().electors();
        electors.any(|(_, node, role)| {
            let has_left = view.rank_of(node).is_none() && self.log.state().has_left(node);
            role == VoterRole::Voter && has_left && self.peers.is_linked(node)
        })
    }

    /// Ends this node's part, once it has left, the log records that, and its vote is not needed.
    pub(super) fn try_finish(&mut self) {
        let on_ring = match self.log.state().view() {
            Some(view) => view.rank_of(self.identity.me).is_some(),
            None => !self.arrival.is_joining(),
        };
        let over = self.log.state().is_closed() || self.is_past_last_view();
        if self.closing.departure().returns() {
            return self.try_stop(on_ring && !over);
        }
        let votes = (self.log.lists_voter_of(self.identity.me) || self.coordinating.is_some()) && !over;
        if !self.closing.departure().is_wanted() || self.closing.departure().is_finished() || on_ring || votes {
            return;
        }
        let listed = self.identity.incarnation > Incarnation(0) && !self.arrival.observes();
        let created = self.log.state().creator() == Some(self.identity.me);
        // A joining node that reaches no other node has nothing that others could miss.
        let unheard = self.arrival.is_joining() && !self.is_in_reach();
        let has_left = self.log.state().has_left(self.identity.me);
        let logged = has_left || !(listed || created) || !self.identity.rules.holds(Rule::LeftIsLogged);
        // A node that led until its own removal may be the only one to know of that: another one has to coordinate
        // without it.
        let unled = has_left && !self.is_in_reach() && self.identity.rules.holds(Rule::LeaverHasALeader);
        if (logged || unheard) && !unled || over {
            self.closing.departure_mut().finish();
            self.timers.stop(Timer::Leave);
            self.outputs.event(Event::Left { node: self.identity.me });
        }
    }

    /// Ends the part of a node that stops and will return: it is on no ring, and another node coordinates. It keeps its
    /// disk, and a member that is alone has no other to notify.
    fn try_stop(&mut self, on_ring: bool) {
        let is_alone = self.log.state().view().is_some_and(|view| view.members() == 1);
        let leads = self.coordinating.is_some() && self.identity.rules.holds(Rule::StopHandsOver);
        let waits = if on_ring { !is_alone } else { leads };
        if waits || self.closing.departure().is_finished() {
            return;
        }
        self.closing.departure_mut().finish();
        self.timers.stop(Timer::Leave);
        self.outputs.event(Event::Suspended { node: self.identity.me });
    }

    /// Whether the last view is in force without this node, and none of its members is linked. These may end as soon as
    /// their result is final, before the log closes the group.
    fn is_past_last_view(&self) -> bool {
        let last = self.log.state().view().filter(|view| view.last && view.rank_of(self.identity.me).is_none());
        let is_alone = |view: &View| !view.ring.iter().any(|member| self.peers.is_linked(member.node));
        let follows = self.coordinating.is_none() && self.identity.rules.holds(Rule::CloseFreesLeaver);
        follows && last.is_some_and(|view| is_alone(view))
    }

    fn is_in_reach(&self) -> bool {
        self.coordinating.is_some() || self.tracking.linked(self.identity.me, self.peers).is_some()
    }

    fn timeouts(&self) -> Timeouts<'_> {
        Timeouts::new(self.identity, self.log, self.peers, self.storage, self.timers.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Dropped, InstallView};
    use crate::config::Parameters;
    use crate::id::Round;
    use crate::io::{Frame, Input, Output, Request};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, drain, pair};
    use crate::rules::Rules;
    use crate::time::Time;
    use crate::wire::{Stream, encode_command};

    /// Whether a member leaves once the last view is in force without it and that view's only member is gone.
    fn leaves_after_the_last_view(rules: Rules) -> bool {
        let (_, mut member) = pair(Parameters::default());
        member.identity.rules = rules;
        member.handle(Time(0), Input::Request(Request::Leave));
        let view = member.log.state().view().cloned().expect("it is a member");
        let last = Command::InstallView(InstallView {
            from: view.id,
            ring: view.ring.iter().filter(|of| of.node == COORDINATOR).cloned().collect(),
            parameters: view.parameters.clone(),
            cut: vec![Round(0); 2],
            last: true,
            dropped: vec![(MEMBER, Dropped::Silent)],
        });
        let (first, entries) = (member.log.state().next(), vec![encode_command(&last)]);
        let frame = Frame::Control(ControlFrame::Log { first, entries, term: 1 });
        let (from, incarnation, stream) = (COORDINATOR, Incarnation(0), Stream::Control);
        member.handle(Time(0), Input::Frame { from, incarnation, stream, frame });
        let is_left = |output: Output| matches!(output, Output::Event(Event::Left { node: MEMBER }));
        let leaves = |machine: &mut Machine| drain(machine).into_iter().any(is_left);
        assert!(!leaves(&mut member), "the log does not record that it left");
        member.handle(Time(0), Input::LinkDown { peer: COORDINATOR });
        member.handle(Time(0) + LEAVE_EVERY, Input::Timeout);
        leaves(&mut member)
    }

    #[test]
    fn a_node_that_leaves_outside_the_last_view_does_not_wait_for_stopped_members() {
        assert!(leaves_after_the_last_view(Rules::default()));
        #[cfg(feature = "mutations")]
        assert!(!leaves_after_the_last_view(Rules::all_but(Rule::CloseFreesLeaver)), "the rule lets it leave");
    }

    #[test]
    fn the_wait_for_a_node_that_takes_over_begins_once_no_living_node_needs_this_one() {
        let (mut coordinator, _) = pair(Parameters::default());
        coordinator.closing.departure_mut().want(Time(0));
        let silence = |machine: &mut Machine, at: Time| {
            machine.timers.advance(at);
            machine.leaving().ask();
            machine.closing.departure().without_heir_for(at)
        };
        let (soon, late) = (Time(0) + LEAVE_EVERY, Time(0) + Duration::from_secs(10));
        assert_eq!(silence(&mut coordinator, soon), Duration::ZERO, "the other member is on the ring");
        coordinator.peers.on_link_down(MEMBER, true);
        assert_eq!(silence(&mut coordinator, late), late.since(soon));
    }
}
