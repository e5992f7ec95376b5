//! A member leaves by itself, without a timeout at the others (`protocol.md` §6.8).

use core::time::Duration;

use crate::command::Command;
use crate::id::{Incarnation, NodeId};
use crate::io::{Event, LeaveWait};
use crate::limits::MEMBERS_MAX;
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::member::Member;
use crate::rules::Rule;
use crate::view::{RingMember, View};
use crate::wire::ControlFrame;

/// The time between two requests of a node that leaves.
const LEAVE_EVERY: Duration = Duration::from_millis(100);
/// The minimum time between two view changes without a leaving member, while no complete member stays.
const LET_GO_EVERY: Duration = Duration::from_secs(1);

/// This node leaves the group for good.
#[derive(Debug, Default)]
pub(super) struct Departure {
    is_wanted: bool,
    is_finished: bool,
}

impl Departure {
    fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the application has requested to leave.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Whether this node has left.
    fn is_finished(&self) -> bool {
        self.is_finished
    }
}

impl Machine {
    /// Handles the application's request to leave for good.
    pub(super) fn leave(&mut self) {
        self.departure.want();
        self.ask_to_leave();
    }

    /// Sends the request to leave to the coordinator, and repeats it until this node has left: a request is lost with
    /// its link, with the coordinator, and with a view change that evicts or admits this node meanwhile.
    pub(super) fn ask_to_leave(&mut self) {
        self.try_go();
        if !self.departure.is_wanted() || self.departure.is_finished() || self.log.state().is_closed() {
            return;
        }
        self.set_timer(Timer::Leave, LEAVE_EVERY);
        if self.is_coordinator() {
            self.asked_to_leave(self.identity.me);
        } else if self.has_coordinator() {
            self.send_control(self.tracking.node(), ControlFrame::Leave);
        }
    }

    /// Coordinator: handles a node's request to leave, in any state. It does not enter the ring.
    pub(super) fn asked_to_leave(&mut self, from: NodeId) {
        let Some(on_ring) = self.log.state().view().map(|view| view.rank_of(from).is_some()) else { return };
        let Some(coordinating) = &mut self.coordinating else { return };
        let proposed = coordinating.on_leave(from);
        if on_ring {
            return self.let_go();
        }
        if !proposed && !self.log.state().has_left(from) {
            coordinating.note_left_proposed(from);
            let incarnation = self.log.state().incarnation(from).unwrap_or(Incarnation(0));
            self.propose(&Command::Left { node: from, incarnation });
        }
    }

    /// Coordinator: starts a view change without the leaving members, once a complete member stays. If no member of the
    /// ring stays, evicted nodes that follow enter it first. Only if there are none in the whole group, the group
    /// closes with its last members.
    pub(super) fn let_go(&mut self) {
        let Some(view) = self.log.state().view().cloned() else { return };
        let Some(coordinating) = &self.coordinating else { return };
        let may_change = coordinating.change().is_none() && !self.closing.is_stopping() && !view.last;
        let leaves = |member: &RingMember| coordinating.is_leaving(member.node);
        if !may_change || !view.ring.iter().any(leaves) {
            return;
        }
        if view.ring.iter().all(leaves) {
            if self.has_heirs(&view) {
                self.view_change().start(false);
            } else if (self.is_last(&view) && !self.hands_over()) || !self.identity.rules.holds(Rule::LastHandsOver) {
                self.begin_stop();
            }
            return;
        }
        let complete = |member: &RingMember| match member.node == self.identity.me {
            true => self.plane.member().is_some_and(Member::is_complete),
            false => !self.peers.is_incomplete(member.node),
        };
        let mut stay = view.ring.iter().filter(|member| !leaves(member));
        let released_at = coordinating.released_at();
        let due = released_at.is_some_and(|at| self.timers.now().since(at) >= LET_GO_EVERY);
        let starts = stay.any(complete) || due;
        if let Some(coordinating) = &mut self.coordinating
            && (starts || released_at.is_none())
        {
            coordinating.note_released(self.timers.now());
        }
        if starts {
            self.view_change().start(false);
        }
    }

    /// Coordinator: whether it leaves and is on no ring, so that the next coordinator, which stays to report it, closes
    /// the group.
    pub(super) fn hands_over(&self) -> bool {
        self.departure.is_wanted()
            && self.log.state().view().is_some_and(|view| view.rank_of(self.identity.me).is_none())
    }

    /// Whether a node that follows the result may enter the ring.
    fn has_heirs(&self, view: &View) -> bool {
        let places = MEMBERS_MAX.saturating_sub(view.members());
        let has_joiners = self.next_view().is_some_and(|next| !next.joiners(view, places).is_empty());
        self.identity.rules.holds(Rule::LastHandsOver) && has_joiners
    }

    /// Whether every node that was ever a member is on the ring or has left by itself, and no node is joining.
    fn is_last(&self, view: &View) -> bool {
        let timeouts = self.timeouts();
        let comes = |node: NodeId| {
            !self.log.state().was_member(node) && !self.log.state().has_left(node) && timeouts.seems_alive(node)
        };
        self.absent(view).next().is_none() && !self.log.state().runs().any(comes)
    }

    /// Evicted members, which have not left and may return.
    fn absent<'a>(&'a self, view: &'a View) -> impl Iterator<Item = NodeId> + 'a {
        self.log.state().members().filter(|node| view.rank_of(*node).is_none() && !self.log.state().has_left(*node))
    }

    /// Notes the members of a view: checkpoints of others do not count, and its joiners have to fetch before they are
    /// complete.
    pub(super) fn note_members(&mut self, view: &View) {
        self.peers.checkpoints.forget(view);
        self.peers.on_view(view);
        self.probe_peers();
    }

    /// Handles the log's entry that a node off the ring has left.
    pub(super) fn has_left(&mut self, node: NodeId) {
        if node != self.identity.me {
            self.event(Event::Left { node });
        }
        self.reconfigure();
    }

    /// Ends this node's part, once it has left, the log records that, and its vote is not needed.
    pub(super) fn try_go(&mut self) {
        let on_ring = match self.log.state().view() {
            Some(view) => view.rank_of(self.identity.me).is_some(),
            None => !self.arrival.is_joining(),
        };
        let closed = self.log.state().is_closed();
        let votes = (self.log.lists_voter_of(self.identity.me) || self.is_coordinator()) && !closed;
        if !self.departure.is_wanted() || self.departure.is_finished() || on_ring || votes {
            return;
        }
        let listed = self.identity.incarnation > Incarnation(0) && !self.arrival.observes();
        let founded = self.log.state().founder() == Some(self.identity.me);
        // A joining node that reaches no other node has nothing that others could miss.
        let unheard = self.arrival.is_joining() && !self.has_coordinator();
        let has_left = self.log.state().has_left(self.identity.me);
        let logged = has_left || !(listed || founded) || !self.identity.rules.holds(Rule::LeftIsLogged);
        // A node that led until its own removal may be the only one to know of that: another one has to coordinate
        // without it.
        let unled = has_left && !self.has_coordinator() && self.identity.rules.holds(Rule::LeaverIsLed);
        if (logged || unheard) && !unled || closed {
            self.departure.finish();
            self.timers.stop(Timer::Leave);
            self.event(Event::Left { node: self.identity.me });
        }
    }

    /// The condition that this node waits for, if it is leaving.
    pub(super) fn leave_wait(&self) -> Option<LeaveWait> {
        let view = self.log.state().view().filter(|_| self.departure.is_wanted() && !self.departure.is_finished())?;
        if !self.has_coordinator() {
            return Some(LeaveWait::CoordinatorOutOfReach);
        }
        if view.rank_of(self.identity.me).is_none() {
            return Some(if self.log.lists_voter_of(self.identity.me) { LeaveWait::Vote } else { LeaveWait::Log });
        }
        // Only the coordinator knows the other leaving members.
        let leaves = |member: &RingMember| member.node == self.identity.me || self.is_leaving(member.node);
        let nobody_stays = view.ring.iter().all(leaves);
        let evicted: Vec<NodeId> = self.absent(view).collect();
        let (members, ring_min) = (view.members(), view.parameters.ring_min);
        Some(match nobody_stays && !evicted.is_empty() {
            true => LeaveWait::Heir { evicted },
            false if !nobody_stays && members <= usize::from(ring_min) => LeaveWait::LeastRing { members, ring_min },
            false => LeaveWait::View,
        })
    }
}
