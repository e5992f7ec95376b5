//! Joining a running group, as a newcomer, a restarted process or an observer (`protocol.md` §7).

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use crate::digest::Checkpoint;
use crate::id::{Incarnation, Index, NodeId};
use crate::io::Event;
use crate::machine::control_log::ControlLog;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::timers::{Timer, Timers};
use crate::machine::tracking::CoordinatorTracking;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::wire::ControlFrame;

/// The time between two requests to join.
const JOIN_EVERY: Duration = Duration::from_millis(100);

/// The aim of a node that joins a running group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// A place on the ring.
    Member,
    /// Events, and the result from an index on, if it requests any.
    Observer { from: Option<Index> },
}

/// A node that joins a running group; an observer remains in this state.
#[derive(Debug)]
pub(super) struct Joining {
    contact: NodeId,
    aim: Aim,
    /// The last contact.
    asked: Option<NodeId>,
    /// The coordinator, if a contact has named it after the last tick.
    referred: Option<NodeId>,
    /// Observer: the linked nodes that know of it, and report their progress to it.
    known_to: BTreeSet<NodeId>,
    /// Whether this node accepted an invitation to a group without a view.
    has_accepted: bool,
}

impl Joining {
    pub(super) fn new(contact: NodeId, aim: Aim) -> Self {
        Self { contact, aim, asked: None, referred: None, known_to: BTreeSet::new(), has_accepted: false }
    }

    /// Whether it follows the result.
    pub(super) fn reads(&self) -> bool {
        !matches!(self.aim, Aim::Observer { from: None })
    }

    pub(super) fn observes(&self) -> bool {
        self.aim != Aim::Member
    }

    /// Whether a node is a contact, or was named by one.
    pub(super) fn relies_on(&self, node: NodeId) -> bool {
        self.contact == node || self.has_asked(node) || self.referred == Some(node)
    }

    /// Whether the node is the last contact.
    pub(super) fn has_asked(&self, node: NodeId) -> bool {
        self.asked == Some(node)
    }

    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.known_to.remove(&node);
    }

    pub(super) fn on_accepted(&mut self) {
        self.has_accepted = true;
    }

    pub(super) fn has_accepted(&self) -> bool {
        self.has_accepted
    }
}

/// At a joining node: requests admission until the log lists it, and finds the coordinator for that.
pub(super) struct JoinHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    /// Whether this node coordinates.
    pub(super) coordinates: bool,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) joining: &'a mut Joining,
    pub(super) peers: &'a Peers,
    pub(super) result: &'a ResultLog,
    pub(super) outputs: &'a mut Outputs,
    pub(super) timers: &'a mut Timers,
}

impl JoinHandler<'_> {
    /// Sends a request to join: to the coordinator, or to one after the other of the nodes that may know it.
    pub(super) fn ask_next(&mut self) {
        if self.log.state().is_closed() {
            return;
        }
        let referred = self.joining.referred.take();
        self.timers.set(Timer::Join, self.timers.now() + JOIN_EVERY);
        if self.is_admitted() {
            return self.notify_members();
        }
        let candidates = self.candidates();
        let after = self.joining.asked.and_then(|asked| candidates.iter().position(|&node| node == asked));
        let next = candidates.iter().cycle().nth(after.map_or(0, |at| at + 1)).copied();
        let referred = referred.filter(|node| !self.joining.has_asked(*node) && candidates.contains(node));
        if let Some(node) = referred.or(next) {
            self.ask(node);
        }
    }

    pub(super) fn on_link_up(&mut self, node: NodeId) {
        self.joining.known_to.remove(&node);
        if self.joining.contact == node || self.joining.referred == Some(node) {
            self.ask_next();
        }
    }

    /// Handles a contact's answer with the coordinator, and the rest of the session's period.
    pub(super) fn on_refer(&mut self, node: NodeId, addresses: Vec<SocketAddr>, left: Duration) {
        let now = self.timers.now();
        if left > Duration::ZERO && self.timers.left(Timer::Period, now).is_some_and(|own| own > left) {
            // The phase began before this node joined.
            self.timers.set(Timer::Period, now + left);
        }
        let is_asked = self.joining.has_asked(node) || self.joining.referred.is_some();
        self.joining.referred = Some(node);
        if node == self.identity.me || self.is_admitted() {
            return;
        }
        if !self.peers.is_linked(node) {
            self.outputs.event(Event::Referred { node, addresses });
        } else if !is_asked {
            // At most one such request between two ticks, with any answers of the others.
            self.ask(node);
        }
    }

    /// Whether the log lists this incarnation, or need not, and the coordinator of the group is known and in reach.
    fn is_admitted(&self) -> bool {
        let listed = self.joining.observes() || self.identity.incarnation > Incarnation(0);
        let is_in_reach = self.coordinates || self.tracking.linked(self.identity.me, self.peers).is_some();
        listed && self.log.state().view().is_some() && self.tracking.knows_term() && is_in_reach
    }

    /// Linked nodes of the group, as far as known.
    fn candidates(&self) -> Vec<NodeId> {
        let ring = self.log.state().view().into_iter().flat_map(|view| view.ring.iter().map(|member| member.node));
        let known = [Some(self.tracking.node()), self.joining.referred, Some(self.joining.contact)];
        let all: BTreeSet<NodeId> = known.into_iter().flatten().chain(ring).collect();
        all.into_iter().filter(|node| *node != self.identity.me && self.peers.is_linked(*node)).collect()
    }

    fn ask(&mut self, node: NodeId) {
        let follow = self.log.follow_frame(self.identity.incarnation, self.identity.level_max);
        send_control(self.peers, self.outputs, node, follow);
        self.send_join(node);
        self.joining.asked = Some(node);
    }

    fn send_join(&mut self, to: NodeId) {
        let observer = self.joining.observes();
        if observer && self.peers.is_linked(to) {
            self.joining.known_to.insert(to);
        }
        let (run, result) = (self.identity.run, self.result.state().latest_checkpoint());
        // An observer from a later index has no digest that others could compare.
        let result = if self.identity.reads_all { result } else { Checkpoint::default() };
        let level = self.identity.level_max;
        send_control(self.peers, self.outputs, to, ControlFrame::Join { run, observer, result, level });
    }

    /// Observer: notifies the linked members of itself, so that they report their progress to it.
    fn notify_members(&mut self) {
        if !self.joining.observes() {
            return;
        }
        for node in self.candidates() {
            if !self.joining.known_to.contains(&node) {
                self.send_join(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Frame, Input, Output};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, drain, joiner};
    use crate::time::Time;

    /// The nodes that a machine sends requests to, and those that it reports as named.
    fn asked(machine: &mut Machine) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut asked, mut named) = (Vec::new(), Vec::new());
        for output in drain(machine) {
            match output {
                Output::Send { to, frame: Frame::Control(ControlFrame::Join { .. }), .. } => asked.push(to),
                Output::Event(Event::Referred { node, .. }) => named.push(node),
                _ => {}
            }
        }
        (asked, named)
    }

    fn refer(machine: &mut Machine, node: NodeId) {
        machine.join().expect("it joins").on_refer(node, Vec::new(), Duration::ZERO);
    }

    #[test]
    fn a_joiner_requests_from_its_contact_and_then_from_the_named_coordinator() {
        let mut machine = joiner();
        machine.handle(Time(0), Input::LinkUp { peer: COORDINATOR, addresses: Vec::new(), advertised: None });
        assert_eq!(asked(&mut machine), (vec![COORDINATOR], vec![]));
        refer(&mut machine, MEMBER);
        assert_eq!(asked(&mut machine), (vec![], vec![MEMBER]), "it has no link to it");
        machine.handle(Time(0), Input::LinkUp { peer: MEMBER, addresses: Vec::new(), advertised: None });
        assert_eq!(asked(&mut machine), (vec![COORDINATOR], vec![]), "who coordinates may have changed");
        refer(&mut machine, MEMBER);
        assert_eq!(asked(&mut machine), (vec![MEMBER], vec![]), "it is linked: it is asked at once");
        refer(&mut machine, COORDINATOR);
        assert_eq!(asked(&mut machine), (vec![], vec![]), "at most once between two ticks");
    }

    #[test]
    fn a_period_of_a_session_is_only_ever_shortened() {
        let mut machine = joiner();
        let refer = |machine: &mut Machine, left| {
            machine.join().expect("it joins").on_refer(MEMBER, Vec::new(), Duration::from_secs(left));
            machine.timers.left(Timer::Period, machine.timers.now())
        };
        assert_eq!(refer(&mut machine, 5), None, "no period has begun here");
        machine.timers.set(Timer::Period, Time(0) + Duration::from_secs(3));
        assert_eq!(refer(&mut machine, 5), Some(Duration::from_secs(3)));
        assert_eq!(refer(&mut machine, 2), Some(Duration::from_secs(2)));
    }
}
