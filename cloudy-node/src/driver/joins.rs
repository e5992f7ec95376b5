//! Joining a running group (`protocol.md` §7): at the joining node, and at its contact.

use std::sync::Arc;

use cloudy_proto::wire::{ControlFrame, NodeFrame, Refusal, Stream};
use cloudy_proto::{Durability, Frame, GroupId, Incarnation, NodeId, Role};
use tokio::sync::oneshot;

use crate::driver::attempt::{Aim, Attempt, NotJoined};
use crate::driver::{Driver, Mailbox};
use crate::error::JoinError;
use crate::group::GroupConfig;
use crate::group::shared::{Departs, EndReason, Shared};
use crate::link::Link;

/// Whether a caller asked for a group on disk, and the group is in memory.
pub(super) fn wants_disk(config: &GroupConfig, durability: Durability) -> bool {
    config.parameters.durability == Durability::Disk && durability == Durability::Memory
}

/// Returns the group once this node has joined it.
async fn joined(
    installed: oneshot::Receiver<Result<(), NotJoined>>,
    group: &Arc<Shared>,
) -> Result<Arc<Shared>, Attempt> {
    let name = group.name.clone();
    match installed.await {
        Ok(Ok(())) => Ok(Arc::clone(group)),
        Ok(Err(NotJoined::Refused(reason))) => Err(JoinError::Refused { name, reason }.into()),
        Ok(Err(NotJoined::Gone(reason))) => Err(JoinError::Gone { name, reason }.into()),
        Ok(Err(NotJoined::NotYet(node, words))) => Err(Attempt::not_yet(node, words)),
        Ok(Err(NotJoined::Truncated(first))) => Err(JoinError::Truncated { name, first }.into()),
        Err(_) => Err(match group.ended().await {
            // Another group of that name may follow.
            EndReason::Closed => Attempt::not_yet(group.creator, "the group ended before this node was in it"),
            reason => JoinError::of_end(name, reason).into(),
        }),
    }
}

impl Driver {
    /// Handles frames of a peer on the node stream.
    pub(super) fn take_node_frame(&mut self, peer: NodeId, frame: NodeFrame) {
        match frame {
            // Received once, before the link is up.
            NodeFrame::Hello { .. } => {}
            NodeFrame::Join { name } => self.asked_to_join(peer, name),
            NodeFrame::Observe { name } => self.asked_to_observe(peer, name),
            NodeFrame::Revoked { own, nodes } => self.told_revoked(peer, &nodes, own),
            NodeFrame::Certificate(certificate) => self.told_certificate(peer, &certificate),
            NodeFrame::SameIdentity { process, address } => self.told_same_identity(peer, process, address),
            // The answer to a request that this link has not sent.
            NodeFrame::Present => {}
            NodeFrame::Located { node, address } => self.told_located(peer, node, address),
            NodeFrame::Named(report) => self.take_name_report(peer, *report),
            NodeFrame::Refused { name, reason, refusal } => {
                // A join without a contact has sent no request.
                if let Some(joining) = self.take_joining(&name, peer, |joining| joining.contact.is_some()) {
                    // A caller that has given up needs no answer.
                    let _ = joining.reply.send(Err(match refusal {
                        Refusal::NotYet => Attempt::not_yet(peer, reason),
                        Refusal::Final => JoinError::Refused { name, reason }.into(),
                        Refusal::Gone => JoinError::Gone { name, reason }.into(),
                    }));
                }
            }
        }
    }

    /// Handles a node of a running group: a caller that waits for one of that name joins.
    pub(super) fn running(
        &mut self,
        contact: NodeId,
        group: GroupId,
        name: &str,
        (creator, durability): (NodeId, Durability),
    ) {
        let joining = self.take_joining(name, contact, |_| true);
        let (Some(joining), Some(mailbox)) = (joining, self.mailbox.upgrade()) else { return };
        let now = self.now();
        self.closed.forget(group);
        let (aim, observes) = (joining.aim, joining.aim != Aim::Member);
        // An observer retains nothing for others.
        let durability = if observes { Durability::Memory } else { durability };
        if durability == Durability::Disk && self.disk.is_none() {
            // A caller that has given up needs no answer.
            let _ = joining.reply.send(Err(JoinError::NeedsDataDir { name: name.to_owned() }.into()));
            return;
        }
        if !observes && wants_disk(&joining.config, durability) {
            // As above.
            let _ = joining.reply.send(Err(JoinError::InMemory { name: name.to_owned() }.into()));
            return;
        }
        let mut shared = Shared::new(group, name.to_owned(), self.me, creator, &joining.config);
        shared.observes = observes;
        let role = match aim {
            Aim::Member => Role::Joiner { contact },
            Aim::Observer(from) => Role::Observer { contact, from },
        };
        let (installed, installed_in) = oneshot::channel();
        let run = self.start_group(role, durability, Arc::new(shared), &joining.config);
        run.installed = Some(installed);
        run.comes = !observes;
        joining.stage.reach(contact, "it admits this node, which is not in the group yet");
        run.stage = Some((contact, joining.stage));
        let group = Arc::clone(&run.shared);
        if let Some(link) = self.peers.get(&contact) {
            let addresses = link.addresses.clone();
            self.dialler.want(self.me, contact, &addresses, true, now);
        }
        self.answer_once_joined(joining.reply, installed_in, (group, mailbox));
    }

    /// Answers the caller once this node has joined the group. If no caller waits, the node leaves, so that the others
    /// do not wait for it.
    pub(super) fn answer_once_joined(
        &self,
        mut reply: oneshot::Sender<Result<Arc<Shared>, Attempt>>,
        installed: oneshot::Receiver<Result<(), NotJoined>>,
        (group, mailbox): (Arc<Shared>, Mailbox),
    ) {
        self.health.spawn("join", async move {
            let answer = tokio::select! {
                answer = joined(installed, &group) => Some(answer),
                () = reply.closed() => None,
            };
            if answer.is_none_or(|answer| matches!(reply.send(answer), Err(Ok(_)))) {
                group.depart(Departs::Leaves);
                mailbox.wake();
            }
        });
    }

    /// Answers a peer's request for a group by its name, with the group if it runs here.
    pub(super) fn asked_for_running(&mut self, peer: NodeId, name: String) {
        let me = self.me.short();
        let behind = self.peers.get(&peer).is_some_and(Link::must_wait);
        let reason = match self.groups.values().find(|run| run.shared.name == name) {
            Some(_) if behind => {
                format!("node {me} waits until the other node has read earlier answers; try again in a moment")
            }
            Some(run) if run.installed.is_none() => {
                let (group, incarnation) = (run.shared.id, run.machine.incarnation());
                let frame = Frame::Control(ControlFrame::Running {
                    name,
                    creator: run.shared.creator,
                    durability: run.machine.durability(),
                });
                return self.push(peer, (group, incarnation, Stream::Control), &frame);
            }
            Some(_) => format!("group {name:?} has not begun at node {me}"),
            None if self.closed.named(&name).is_some() => {
                format!("group {name:?} has ended at node {me}; observe it for its result, or create another")
            }
            None => match self.belongs_elsewhere(&name) {
                Some(elsewhere) => format!("node {me} is in no group {name:?}: {elsewhere}"),
                None => format!(
                    "node {me} is in no group {name:?}: name a member of it; if no member is left, a group on disk continues once they are started with their data directories, and any other has to be created again"
                ),
            },
        };
        // It may start, or be resumed from its disk, at any time.
        self.refuse_name(peer, name, &reason, Refusal::NotYet);
    }

    /// Answers a peer's request to observe; a closed group has its result as well.
    fn asked_to_observe(&mut self, peer: NodeId, name: String) {
        let runs = self.groups.values().any(|run| run.shared.name == name);
        let closed = self.closed.named(&name).filter(|_| !runs);
        let Some((group, frame)) = closed.and_then(|(group, machine)| Some((group, machine.running()?))) else {
            return self.asked_for_running(peer, name);
        };
        self.push(peer, (group, Incarnation(0), Stream::Control), &Frame::Control(frame));
    }

    /// Handles the coordinator's address from a member.
    pub(super) fn referred(&mut self, node: NodeId, addresses: &[std::net::SocketAddr]) {
        let linked = self.peers.contains_key(&node);
        self.dialler.want(self.me, node, addresses, linked, self.now());
    }

    /// Requests a group from a linked peer.
    pub(super) fn ask(&self, contact: NodeId, name: &str, aim: Aim) -> bool {
        let link = self.peers.get(&contact);
        if let Some(link) = link {
            link.push_node(aim.question(name.to_owned()));
        }
        link.is_some()
    }
}
