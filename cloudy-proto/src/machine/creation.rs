//! The creation of a group: its creator invites nodes, they accept, and view 1 is installed with its full ring.

use std::collections::BTreeMap;

use crate::command::{Command, InstallView, SessionPlan};
use crate::config::Parameters;
use crate::id::{NodeId, ViewId};
use crate::io::Event;
use crate::limits::{INVITED_MAX, MEMBERS_MAX};
use crate::machine::control_log::ControlLog;
use crate::machine::identity::Identity;
use crate::machine::next_view::joiner;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::outputs::Outputs;
use crate::wire::{ControlFrame, Refusal};
use crate::words::harmless;

/// The state of a creator before the first view.
#[derive(Debug)]
pub(super) struct Creation {
    /// Whether the creator takes a place on the ring.
    member: bool,
    parameters: Parameters,
    /// Each invited node, and whether it has accepted.
    invited: BTreeMap<NodeId, bool>,
    /// The nodes and the session of view 1, once they are fixed. From then on no invitation counts.
    ring: Option<(Vec<NodeId>, Option<SessionPlan>)>,
    /// Whether the commands that precede view 1 were proposed.
    is_started: bool,
    /// Whether view 1 was proposed.
    is_proposed: bool,
}

/// The effect of an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acceptance {
    /// The node is on the ring of view 1, unless it is uninvited.
    Counts,
    /// It is repeated, or too late.
    Ignored,
    /// The node is not invited.
    NotInvited,
}

impl Creation {
    pub(super) fn new(member: bool, parameters: Parameters) -> Self {
        Self { member, parameters, invited: BTreeMap::new(), ring: None, is_started: false, is_proposed: false }
    }

    pub(super) fn has_invited(&self, node: NodeId) -> bool {
        self.invited.contains_key(&node)
    }

    /// Whether the creator takes a place on the ring.
    pub(super) fn takes_place(&self) -> bool {
        self.member
    }

    /// Invites a node. True if it was not invited before.
    fn invite(&mut self, node: NodeId, me: NodeId) -> bool {
        let invites = self.ring.is_none() && self.invited.len() < INVITED_MAX && !self.has_invited(node) && node != me;
        if invites {
            self.invited.insert(node, false);
        }
        invites
    }

    pub(super) fn uninvite(&mut self, node: NodeId) {
        if self.ring.is_none() {
            self.invited.remove(&node);
        }
    }

    /// Whether the node is invited and has not answered.
    fn awaits(&self, node: NodeId) -> bool {
        self.invited.get(&node) == Some(&false)
    }

    fn accept(&mut self, node: NodeId) -> Acceptance {
        match self.invited.get_mut(&node) {
            Some(accepted @ false) if self.ring.is_none() => {
                *accepted = true;
                Acceptance::Counts
            }
            Some(_) => Acceptance::Ignored,
            None => Acceptance::NotInvited,
        }
    }

    /// Notes a refusal. True if the node was invited and had not answered.
    fn refuse(&mut self, node: NodeId) -> bool {
        let awaits = self.awaits(node);
        if awaits {
            self.invited.remove(&node);
        }
        awaits
    }

    /// Fixes the ring of view 1: the nodes that have accepted, ordered by id. False if it is fixed already.
    fn fix_ring(&mut self, me: NodeId, session: Option<SessionPlan>) -> bool {
        if self.ring.is_some() {
            return false;
        }
        let accepted = self.invited.iter().filter(|(_, accepted)| **accepted);
        let mut nodes: Vec<NodeId> = accepted.map(|(node, _)| *node).collect();
        if self.member {
            nodes.push(me);
            nodes.sort_unstable();
        }
        nodes.truncate(MEMBERS_MAX);
        self.ring = Some((nodes, session));
        true
    }

    /// Takes the session once, for the commands that precede view 1. None if the ring is not fixed yet.
    fn start(&mut self) -> Option<Option<SessionPlan>> {
        let (_, session) = self.ring.as_ref().filter(|_| !self.is_started)?;
        self.is_started = true;
        Some(*session)
    }

    /// Takes the nodes of view 1 once, for its proposal. None as long as the log lacks one of them.
    fn propose(&mut self, log: &ControlLog) -> Option<Vec<NodeId>> {
        let (nodes, _) = self.ring.as_ref().filter(|_| self.is_started && !self.is_proposed)?;
        let is_listed = |node: &NodeId| log.state().incarnation(*node).is_some();
        if !nodes.iter().all(is_listed) {
            return None;
        }
        self.is_proposed = true;
        Some(nodes.clone())
    }
}

/// At the creator: invites nodes, and proposes view 1.
pub(super) struct CreationHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    /// The term in which this node coordinates, if it does.
    pub(super) term: Option<u64>,
    pub(super) creation: &'a mut Creation,
    pub(super) peers: &'a Peers,
    pub(super) outputs: &'a mut Outputs,
}

impl CreationHandler<'_> {
    /// Invites a node to become a member, as soon as its link is up.
    pub(super) fn invite(&mut self, node: NodeId) {
        if self.creation.invite(node, self.identity.me) {
            self.send_invite(node);
        }
    }

    /// Sends the invitation to a linked node that has not answered it.
    pub(super) fn send_invite(&mut self, node: NodeId) {
        let Some(term) = self.term.filter(|_| self.creation.awaits(node) && self.peers.is_linked(node)) else { return };
        let (name, durability) = (self.identity.name.clone(), self.identity.durability);
        self.send(node, ControlFrame::Invite { name, durability });
        self.send(node, ControlFrame::Coordinates { term });
    }

    /// Handles the acceptance of an invitation.
    pub(super) fn on_accept(&mut self, from: NodeId, run: u64) {
        match self.creation.accept(from) {
            Acceptance::Counts => {
                self.propose(&Command::Incarnate { node: from, run });
                self.outputs.event(Event::Accepted { node: from });
            }
            Acceptance::Ignored => {}
            Acceptance::NotInvited => {
                let reason = format!("the ring of group {:?} is fixed, and this node is not on it", self.identity.name);
                // The group runs by the time of its next request.
                let reason = harmless(reason.as_bytes());
                self.send(from, ControlFrame::Refuse { reason, refusal: Refusal::NotYet });
            }
        }
    }

    /// Handles the refusal of an invitation.
    pub(super) fn on_refuse(&mut self, from: NodeId, reason: String, refusal: Refusal) {
        if self.creation.refuse(from) {
            self.outputs.event(Event::Refused { node: from, reason, refusal });
        }
    }

    /// Installs view 1 with the nodes that have accepted.
    pub(super) fn create(&mut self, session: Option<SessionPlan>) {
        if self.creation.fix_ring(self.identity.me, session) {
            self.start();
        }
    }

    /// Invites the nodes that were linked before this one coordinated, and proposes what was requested meanwhile.
    pub(super) fn start(&mut self) {
        for node in self.peers.linked() {
            self.send_invite(node);
        }
        if self.term.is_none() {
            return;
        }
        let Some(session) = self.creation.start() else { return };
        if self.creation.takes_place() {
            self.propose(&Command::Incarnate { node: self.identity.me, run: self.identity.run });
        }
        if let Some(plan) = session {
            self.propose(&Command::Session(plan));
        }
        self.install_first();
    }

    /// Proposes view 1 once the log lists an incarnation of each node on its ring.
    pub(super) fn install_first(&mut self) {
        let Some(nodes) = self.creation.propose(self.log) else { return };
        let ring = nodes.into_iter().filter_map(|node| joiner(self.identity, self.log, self.peers, node)).collect();
        self.propose(&Command::InstallView(InstallView {
            from: ViewId(0),
            ring,
            parameters: self.creation.parameters.clone(),
            cut: Vec::new(),
            last: false,
            dropped: Vec::new(),
        }));
    }

    fn propose(&mut self, command: &Command) {
        if self.term.is_some() {
            self.log.propose(command);
        }
    }

    fn send(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(self.peers, self.outputs, to, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATOR: NodeId = NodeId([5; 32]);
    const ONE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([9; 32]);

    fn creation(member: bool) -> Creation {
        let mut creation = Creation::new(member, Parameters::default());
        assert!(creation.invite(ONE, CREATOR) && creation.invite(OTHER, CREATOR));
        creation
    }

    #[test]
    fn a_node_is_invited_once_and_answers_once() {
        let mut creation = creation(true);
        assert!(!creation.invite(ONE, CREATOR) && !creation.invite(CREATOR, CREATOR), "invited already, and itself");
        assert_eq!(
            [ONE, ONE, CREATOR].map(|node| creation.accept(node)),
            [Acceptance::Counts, Acceptance::Ignored, Acceptance::NotInvited]
        );
        assert!(!creation.refuse(ONE) && creation.refuse(OTHER) && !creation.refuse(OTHER));
        assert_eq!(creation.accept(OTHER), Acceptance::NotInvited, "it has refused");
    }

    #[test]
    fn the_first_ring_has_the_nodes_that_accepted_in_the_order_of_their_ids() {
        for (member, ring) in [(true, vec![CREATOR, OTHER]), (false, vec![OTHER])] {
            let mut creation = creation(member);
            creation.accept(OTHER);
            assert_eq!(creation.start(), None, "the ring is not fixed");
            assert!(creation.fix_ring(CREATOR, None) && !creation.fix_ring(CREATOR, None), "once");
            assert_eq!(creation.ring.as_ref().map(|(nodes, _)| nodes), Some(&ring));
            assert_eq!([creation.start(), creation.start()], [Some(None), None]);
            creation.uninvite(ONE);
            assert!(creation.has_invited(ONE), "it is too late for that");
            assert!(!creation.invite(NodeId([7; 32]), CREATOR));
        }
    }
}
