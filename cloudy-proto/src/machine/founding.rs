//! How a group begins: the founder invites, the invited accept, and view 1 is installed with its full ring.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, InstallView, SessionPlan};
use crate::config::Parameters;
use crate::id::{NodeId, ViewId};
use crate::io::{Event, Frame};
use crate::limits::{INVITED_MAX, MEMBERS_MAX};
use crate::machine::Machine;
use crate::view::{Origin, RingMember};
use crate::wire::ControlFrame;

/// What the founder knows of a group that has no view yet.
#[derive(Debug)]
pub(crate) struct Founding {
    /// The founder takes a place on the ring.
    member: bool,
    parameters: Parameters,
    /// Whoever was asked, and the run in which it accepted.
    invited: BTreeMap<NodeId, Option<u64>>,
    /// Whose runs were put into the log.
    proposed: BTreeSet<NodeId>,
    /// Nobody comes any more: view 1 is installed once the log lists all who did.
    founded: bool,
    session: Option<SessionPlan>,
    installed: bool,
}

impl Founding {
    pub(crate) fn new(member: bool, parameters: Parameters) -> Self {
        Self {
            member,
            parameters,
            invited: BTreeMap::new(),
            proposed: BTreeSet::new(),
            founded: false,
            session: None,
            installed: false,
        }
    }

    /// A node was asked to come.
    pub(super) fn has_invited(&self, node: NodeId) -> bool {
        self.invited.contains_key(&node)
    }

    /// Who takes a place in view 1, each in its run, as far as known.
    fn members(&self, founder: (NodeId, u64)) -> Vec<(NodeId, u64)> {
        let accepted = self.invited.iter().filter_map(|(node, run)| Some((*node, (*run)?)));
        let mut members: Vec<(NodeId, u64)> = accepted.collect();
        if self.member && self.founded {
            members.push(founder);
            members.sort_unstable();
        }
        members.truncate(MEMBERS_MAX);
        members
    }
}

impl Machine {
    /// Founder: asks a node to become a member, as soon as its link is up.
    pub(super) fn invite(&mut self, node: NodeId) {
        let Some(founding) = self.founding.as_mut().filter(|founding| !founding.founded) else { return };
        if founding.invited.len() >= INVITED_MAX || founding.invited.contains_key(&node) || node == self.me {
            return;
        }
        founding.invited.insert(node, None);
        self.say_invite(node);
    }

    pub(super) fn uninvite(&mut self, node: NodeId) {
        if let Some(founding) = self.founding.as_mut().filter(|founding| !founding.founded) {
            founding.invited.remove(&node);
        }
    }

    /// Invites a linked node that was asked and has not answered.
    pub(super) fn say_invite(&mut self, node: NodeId) {
        let asked = self.founding.as_ref().is_some_and(|founding| founding.invited.get(&node) == Some(&None));
        if asked && self.links.contains_key(&node) {
            let (name, durability) = (self.name.clone(), self.delivery.durability);
            self.send_control(node, ControlFrame::Invite { name, durability });
            self.announce(node);
        }
    }

    /// An invited node comes.
    pub(super) fn say_accept(&mut self, to: NodeId) {
        self.send_control(to, ControlFrame::Accept { run: self.run });
    }

    pub(super) fn accepted(&mut self, from: NodeId, run: u64) {
        let Some(founding) = self.founding.as_mut() else { return };
        match founding.invited.get_mut(&from) {
            Some(accepted @ None) if !founding.founded => {
                *accepted = Some(run);
                self.event(Event::Accepted { node: from });
                self.go_on_founding();
            }
            Some(_) => {}
            None => {
                let reason = format!("the ring of group {:?} is fixed, and this node is not on it", self.name);
                self.send_control(from, ControlFrame::Refuse { reason });
            }
        }
    }

    pub(super) fn refused(&mut self, from: NodeId, reason: String) {
        if let Some(founding) = self.founding.as_mut() {
            if founding.invited.get(&from) == Some(&None) {
                founding.invited.remove(&from);
                self.event(Event::Refused { node: from, reason });
            }
        } else if from == self.coordinator || self.state.view().is_some() {
            self.event(Event::Refused { node: from, reason });
            self.event(Event::Closed);
        }
    }

    /// Founder: installs view 1 with everybody who has accepted, in the order of their ids.
    pub(super) fn found(&mut self, session: Option<SessionPlan>) {
        let Some(founding) = self.founding.as_mut().filter(|founding| !founding.founded) else { return };
        founding.founded = true;
        founding.session = session;
        self.go_on_founding();
    }

    /// Founder: puts into the log who comes, and view 1 once all of them are there.
    pub(super) fn go_on_founding(&mut self) {
        let founder = (self.me, self.run);
        let Some(founding) = self.founding.as_mut().filter(|founding| !founding.installed) else { return };
        if self.leading.is_none() {
            return;
        }
        let members = founding.members(founder);
        let unlisted = members.iter().filter(|(node, run)| !self.state.is_latest_run(*node, *run));
        let unlisted: Vec<(NodeId, u64)> = unlisted.copied().collect();
        let fresh: Vec<(NodeId, u64)> =
            unlisted.iter().filter(|(node, _)| founding.proposed.insert(*node)).copied().collect();
        let installs = founding.founded && unlisted.is_empty();
        founding.installed = installs;
        let (parameters, session) = (founding.parameters.clone(), founding.session);
        fresh.into_iter().for_each(|(node, run)| self.propose(&Command::Incarnate { node, run }));
        if !installs {
            return;
        }
        if let Some(plan) = session {
            self.propose(&Command::Session(plan));
        }
        let ring = members.into_iter().filter_map(|(node, _)| self.joiner(node)).collect();
        self.propose(&Command::InstallView(InstallView {
            from: ViewId(0),
            ring,
            parameters,
            cut: Vec::new(),
            last: false,
            dropped: Vec::new(),
        }));
    }

    /// A node that comes into the next view, in its latest run.
    pub(super) fn joiner(&self, node: NodeId) -> Option<RingMember> {
        let addresses = if node == self.me { Some(&self.addresses) } else { self.links.get(&node) };
        Some(RingMember {
            node,
            incarnation: self.state.incarnation(node)?,
            origin: Origin::Joiner,
            addresses: addresses.cloned().unwrap_or_default(),
        })
    }

    pub(super) fn send_control(&mut self, to: NodeId, frame: ControlFrame) {
        if self.links.contains_key(&to) {
            let stream = crate::wire::Stream::Control;
            self.delivery.outputs.push_back(crate::io::Output::Send { to, stream, frame: Frame::Control(frame) });
        }
    }
}
