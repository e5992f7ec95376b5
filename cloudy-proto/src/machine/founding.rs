//! How a group begins: the founder invites, the invited accept, and view 1 is installed with its full ring.

use std::collections::BTreeMap;

use crate::command::{Command, InstallView, SessionPlan};
use crate::config::Parameters;
use crate::id::{Index, NodeId, ViewId};
use crate::io::Event;
use crate::limits::{CONSENSUS_TICK, INVITED_MAX, MEMBERS_MAX};
use crate::machine::next_view::joiner;
use crate::machine::timers::Timer;
use crate::machine::{Machine, send_control};
use crate::stored::Record;
use crate::wire::{ControlFrame, Refusal};
use crate::words::harmless;

/// What the founder knows of a group that has no view yet.
#[derive(Debug)]
pub(crate) struct Founding {
    /// The founder takes a place on the ring.
    member: bool,
    parameters: Parameters,
    /// Each node that was asked, and whether it accepted.
    invited: BTreeMap<NodeId, bool>,
    /// View 1 is to be proposed with these, for this: nobody comes.
    ring: Option<(Vec<NodeId>, Option<SessionPlan>)>,
    /// What comes before view 1 was proposed.
    begun: bool,
    /// View 1 was proposed.
    founded: bool,
}

impl Founding {
    pub(crate) fn new(member: bool, parameters: Parameters) -> Self {
        Self { member, parameters, invited: BTreeMap::new(), ring: None, begun: false, founded: false }
    }

    /// A node was asked to come.
    pub(super) fn has_invited(&self, node: NodeId) -> bool {
        self.invited.contains_key(&node)
    }
}

impl Machine {
    /// What a machine does before anything else.
    pub(super) fn begun(mut self) -> Self {
        if self.log.voter().is_some() {
            self.set_timer(Timer::Consensus, CONSENSUS_TICK);
            self.run_consensus();
        }
        if self.arrival.joining.is_none() {
            // A node that is there before the first view has all of the result from its start.
            self.storage.records.keep(Record::Complete { view: ViewId(0), first: Index(1) });
        }
        self
    }

    /// Founder: asks a node to become a member, as soon as its link is up.
    pub(super) fn invite(&mut self, node: NodeId) {
        let Some(founding) = self.arrival.founding.as_mut().filter(|founding| founding.ring.is_none()) else { return };
        if founding.invited.len() >= INVITED_MAX || founding.invited.contains_key(&node) || node == self.identity.me {
            return;
        }
        founding.invited.insert(node, false);
        self.say_invite(node);
    }

    pub(super) fn uninvite(&mut self, node: NodeId) {
        if let Some(founding) = self.arrival.founding.as_mut().filter(|founding| founding.ring.is_none()) {
            founding.invited.remove(&node);
        }
    }

    /// Invites a linked node that was asked and has not answered.
    pub(super) fn say_invite(&mut self, node: NodeId) {
        let asked = self.arrival.founding.as_ref().is_some_and(|founding| founding.invited.get(&node) == Some(&false));
        if asked && self.is_coordinator() && self.peers.is_linked(node) {
            let (name, durability) = (self.identity.name.clone(), self.identity.durability);
            self.send_control(node, ControlFrame::Invite { name, durability });
            self.announce(node);
        }
    }

    /// An invited node comes.
    pub(super) fn say_accept(&mut self, to: NodeId) {
        self.arrival.has_accepted = true;
        self.send_control(to, ControlFrame::Accept { run: self.identity.run });
    }

    /// The link to the founder of a group without a view is up. The founder may be another process that knows nothing of
    /// the group: only an answer tells.
    pub(super) fn accept_again(&mut self, founder: NodeId) {
        if self.arrival.has_accepted && self.log.state().view().is_none() {
            self.say_accept(founder);
        }
    }

    pub(super) fn accepted(&mut self, from: NodeId, run: u64) {
        let Some(founding) = self.arrival.founding.as_mut() else { return };
        match founding.invited.get_mut(&from) {
            Some(accepted @ false) if founding.ring.is_none() => {
                *accepted = true;
                self.propose(&Command::Incarnate { node: from, run });
                self.event(Event::Accepted { node: from });
            }
            Some(_) => {}
            None => {
                let reason = format!("the ring of group {:?} is fixed, and this node is not on it", self.identity.name);
                // The group runs by the time it asks again.
                let reason = harmless(reason.as_bytes());
                self.send_control(from, ControlFrame::Refuse { reason, refusal: Refusal::NotYet });
            }
        }
    }

    pub(super) fn refused(&mut self, from: NodeId, reason: String, refusal: Refusal) {
        if let Some(founding) = self.arrival.founding.as_mut() {
            if founding.invited.get(&from) == Some(&false) {
                founding.invited.remove(&from);
                self.event(Event::Refused { node: from, reason, refusal });
            }
        } else if from == self.tracking.node() || self.is_of_group(from) {
            self.event(Event::Refused { node: from, reason, refusal });
            self.event(Event::Closed);
        }
    }

    /// Founder: installs view 1 with everybody who has accepted, in the order of their ids.
    pub(super) fn found(&mut self, session: Option<SessionPlan>) {
        let Some(founding) = self.arrival.founding.as_mut().filter(|founding| founding.ring.is_none()) else { return };
        let accepted = founding.invited.iter().filter(|(_, accepted)| **accepted);
        let mut nodes: Vec<NodeId> = accepted.map(|(node, _)| *node).collect();
        if founding.member {
            nodes.push(self.identity.me);
            nodes.sort_unstable();
        }
        nodes.truncate(MEMBERS_MAX);
        founding.ring = Some((nodes, session));
        self.begin_founding();
    }

    /// Founder: asks those who were linked before it coordinated, and puts up what was wanted meanwhile.
    pub(super) fn begin_founding(&mut self) {
        let linked: Vec<NodeId> = self.peers.linked();
        linked.into_iter().for_each(|node| self.say_invite(node));
        let leads = self.is_coordinator();
        let Some(founding) = self.arrival.founding.as_mut().filter(|founding| leads && !founding.begun) else { return };
        let Some((_, session)) = founding.ring else { return };
        founding.begun = true;
        if founding.member {
            self.propose(&Command::Incarnate { node: self.identity.me, run: self.identity.run });
        }
        if let Some(plan) = session {
            self.propose(&Command::Session(plan));
        }
        self.install_first();
    }

    /// Founder: proposes view 1 once the log lists the run of everybody on its ring.
    pub(super) fn install_first(&mut self) {
        let Some(founding) = self.arrival.founding.as_mut().filter(|founding| founding.begun && !founding.founded)
        else {
            return;
        };
        let Some((nodes, _)) = &founding.ring else { return };
        if nodes.iter().any(|node| self.log.state().incarnation(*node).is_none()) {
            return;
        }
        founding.founded = true;
        let (nodes, parameters) = (nodes.clone(), founding.parameters.clone());
        let ring = nodes.into_iter().filter_map(|node| joiner(&self.identity, &self.log, &self.peers, node)).collect();
        self.propose(&Command::InstallView(InstallView {
            from: ViewId(0),
            ring,
            parameters,
            cut: Vec::new(),
            last: false,
            dropped: Vec::new(),
        }));
    }

    /// This node founded the group and takes no place on its ring, as its role says, or as the log does.
    pub(super) fn only_founds(&self) -> bool {
        let without_place = self.arrival.founding.as_ref().is_some_and(|founding| !founding.member);
        let is_unlisted = self.log.state().view().is_some() && self.log.state().incarnation(self.identity.me).is_none();
        without_place || (self.log.state().founder() == Some(self.identity.me) && is_unlisted)
    }

    pub(super) fn send_control(&mut self, to: NodeId, frame: ControlFrame) {
        send_control(&self.peers, &mut self.outputs, to, frame);
    }
}
