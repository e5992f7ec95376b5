//! Commands of the node's users: links, groups, shutdown.

use std::sync::Arc;

use cloudy_proto::limits::{INVITED_MAX, LOG_ENTRIES_MAX};
use cloudy_proto::wire::{ControlFrame, NodeFrame, Refusal, Stream};
use cloudy_proto::{
    Durability, Frame, GroupId, Incarnation, Index, Input, Machine, MachineConfig, NodeId, Request, Role, Rules,
    ServeLimits, StoredError, Time, harmless,
};
use tokio::sync::{mpsc, oneshot};

use crate::driver::attempt::{Aim, Attempt, Stage};
use crate::driver::creation::{CreationEvent, CreationParts};
use crate::driver::disk::ForgetReply;
use crate::driver::joins::wants_disk;
use crate::driver::{Command, Driver, GroupRun, ResumedGroup, Stopping};
use crate::endpoint::canonical;
use crate::error::{CreateGroupError, ForgetError, JoinError};
use crate::group::GroupConfig;
use crate::group::saved::Saved;
use crate::group::shared::{Departs, EndReason, SUSPEND_TIMEOUT, Shared};
use crate::health::CloseReason;
use crate::link::{GROUPS_MAX, Traffic, WRITERS_LINGER};
use crate::link_error::{ConnectError, code};
use crate::storage::GroupMeta;
use crate::versions::wire_versions;

/// A node that waits to join a group.
pub(crate) struct Joining {
    /// The contact of the request; none if it waits for any invitation.
    pub(super) contact: Option<NodeId>,
    pub(super) aim: Aim,
    pub(super) config: Box<GroupConfig>,
    pub(super) stage: Stage,
    pub(super) reply: oneshot::Sender<Result<Arc<Shared>, Attempt>>,
}

impl Driver {
    pub(super) fn take_command(&mut self, command: Command) {
        match command {
            Command::Connect { address, beside, reply } => self.connect(address, beside, reply),
            Command::Located { node, address } => self.located(node, address),
            Command::Create { name, config, reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.create(name, &config));
            }
            Command::Join { name, contact, aim, config, stage, reply } => {
                self.join(name, Joining { contact, aim, config, stage, reply });
            }
            Command::OpenName { name, expect, parameters, seeds, reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.open_name(name, expect, *parameters, seeds));
            }
            Command::SetSeeds { name, seeds } => self.set_seeds(&name, seeds),
            Command::ReportAgain { name } => self.report_again(&name),
            Command::Request { group, request } => self.request(group, request),
            Command::Saved { group, index, saved } => self.saved(group, index, saved),
            Command::Outcome { group, id, reply } => {
                if let Some(run) = self.groups.get(&group) {
                    // A caller that is gone needs no answer.
                    let _ = reply.send(run.machine.outcome(id));
                }
            }
            Command::Status { group, reply } => {
                let now = self.now();
                if let Some(run) = self.groups.get(&group) {
                    // A caller that is gone needs no answer.
                    let _ = reply.send(run.machine.status(now));
                }
            }
            Command::Resume { group, reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.resume(*group));
            }
            Command::ForgetStored { group, reply } => self.forget_stored(group, reply),
            #[cfg(feature = "admin")]
            Command::Snapshot { reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.snapshot());
            }
            Command::Traffic { reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.traffic());
            }
            Command::SetKeys { keys, reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.set_keys(&keys));
            }
            Command::Revoke { node, reply } => {
                // A caller that is gone needs no answer.
                let _ = reply.send(self.revoke(node));
            }
            Command::Shutdown { reply } => self.stop(reply),
        }
    }

    /// Deletes a group. Others may depend on a member's vote and data, so it must have left or tried to.
    fn forget_stored(&mut self, group: GroupId, reply: ForgetReply) {
        // An earlier command of this turn may have closed it.
        self.turn_group(group);
        if let Some(run) = self.groups.get(&group) {
            if run.is_relied_on() {
                let name = run.shared.name.clone();
                // A caller that is gone needs no answer.
                return drop(reply.send(Err(ForgetError::Running { name })));
            }
            run.shared.end(EndReason::Deleted);
        }
        self.ended(group);
        self.closed.forget(group);
        match &mut self.disk {
            Some(disk) => disk.forget(group, Some(reply)),
            // A caller that is gone needs no answer.
            None => drop(reply.send(Ok(()))),
        }
    }

    fn traffic(&self) -> Traffic {
        self.peers.values().map(|link| link.connection.stats()).sum()
    }

    fn connect(
        &mut self,
        address: std::net::SocketAddr,
        beside: bool,
        reply: oneshot::Sender<Result<NodeId, ConnectError>>,
    ) {
        let address = canonical(address);
        if let Some(peer) = self.linked_at(address) {
            // A caller that is gone needs no answer.
            let _ = reply.send(Ok(peer));
            return;
        }
        // Two connections in one direction would replace each other, at each end perhaps another one.
        if !self.connecting.iter().any(|(of, _)| *of == address) {
            self.links.dial(address, beside);
        }
        self.connecting.push((address, reply));
    }

    fn create(&mut self, name: String, config: &GroupConfig) -> Result<CreationParts, CreateGroupError> {
        if let Some(why) = self.trust.expelled {
            return Err(why.create_group_error());
        }
        self.end_abandoned();
        if self.is_in(&name) {
            let leaves = self.only_leaves(&name);
            return Err(if leaves { CreateGroupError::Leaving { name } } else { CreateGroupError::NameTaken { name } });
        }
        if self.is_full() {
            return Err(CreateGroupError::TooManyGroups);
        }
        let durability = config.parameters.durability;
        if durability == Durability::Disk && self.disk.is_none() {
            return Err(CreateGroupError::NeedsDataDir { name });
        }
        let group = GroupId(rand::random());
        let shared = Arc::new(Shared::new(group, name, self.me, self.me, config));
        let role = Role::Creator { member: config.creator_is_member, parameters: config.parameters.clone() };
        let (events, events_in) = mpsc::unbounded_channel();
        let (installed, installed_in) = oneshot::channel();
        let run = self.start_group(role, durability, shared, config);
        run.creation = Some(events);
        run.installed = Some(installed);
        let group = Arc::clone(&run.shared);
        Ok(CreationParts { group, events: events_in, installed: installed_in })
    }

    /// Gives up groups whose creator stopped waiting before it had a handle.
    fn end_abandoned(&mut self) {
        let now = self.now();
        let is_abandoned = |run: &&mut GroupRun| run.creation.as_ref().is_some_and(mpsc::UnboundedSender::is_closed);
        for run in self.groups.values_mut().filter(is_abandoned) {
            run.machine.handle(now, Input::Request(Request::End));
        }
        self.turn_groups();
    }

    /// Whether this node has a group of that name.
    fn is_in(&mut self, name: &str) -> bool {
        let is_in = |driver: &Self| driver.groups.values().any(|run| run.shared.name == name);
        // An earlier command of this turn may have closed it.
        is_in(self) && {
            self.turn_groups();
            is_in(self)
        }
    }

    /// Whether all groups of that name here are leaving.
    fn only_leaves(&self, name: &str) -> bool {
        self.groups.values().filter(|run| run.shared.name == name).all(|run| run.shared.lock().departs.is_some())
    }

    /// Whether this node is in the maximum number of groups, or waits to join them.
    fn is_full(&mut self) -> bool {
        self.joining.retain(|_, joining| !joining.reply.is_closed());
        self.groups.len() + self.joining.len() >= GROUPS_MAX
    }

    /// Starts a group here; its machine receives every established link.
    pub(super) fn start_group(
        &mut self,
        role: Role,
        durability: Durability,
        shared: Arc<Shared>,
        config: &GroupConfig,
    ) -> &mut GroupRun {
        let outbox_bytes_max = config.outbox_bytes_max;
        if let Some(disk) = self.disk.as_mut().filter(|_| durability == Durability::Disk) {
            let (name, creator) = (shared.name.clone(), shared.creator);
            let outbox_bytes_max = outbox_bytes_max as u64;
            let (retain_bytes, retain_disk_bytes) = (config.retain_bytes, config.retain_disk_bytes);
            let meta = GroupMeta { name, creator, outbox_bytes_max, retain_bytes, retain_disk_bytes };
            let states = disk.begin(shared.id, &meta);
            shared.read_from(disk.reader(), states);
        }
        let machine = Machine::new(self.machine_config(&shared, role, durability, config));
        self.run_group(machine, shared, outbox_bytes_max)
    }

    fn machine_config(
        &self,
        shared: &Shared,
        role: Role,
        durability: Durability,
        config: &GroupConfig,
    ) -> MachineConfig {
        MachineConfig {
            me: self.me,
            addresses: self.links.addresses.to_vec(),
            advertised: self.links.advertised.as_deref().map(ToOwned::to_owned),
            group: shared.id,
            name: shared.name.clone(),
            run: rand::random(),
            role,
            durability,
            retain_bytes: config.retain_bytes,
            retain_disk_bytes: config.retain_disk_bytes,
            log_entries_max: LOG_ENTRIES_MAX,
            level_max: wire_versions().max,
            serves: ServeLimits::default(),
            rules: Rules::default(),
        }
    }

    /// Resumes a group that an earlier process left in the data directory.
    fn resume(&mut self, ResumedGroup { id, meta, stored, states }: ResumedGroup) -> Result<Arc<Shared>, StoredError> {
        let config = GroupConfig {
            outbox_bytes_max: usize::try_from(meta.outbox_bytes_max).unwrap_or(usize::MAX),
            retain_bytes: meta.retain_bytes,
            retain_disk_bytes: meta.retain_disk_bytes,
            ..GroupConfig::default()
        };
        let shared = Arc::new(Shared::new(id, meta.name, self.me, meta.creator, &config));
        let durability = Durability::Disk;
        let machine = self.machine_config(&shared, Role::Restored, durability, &config);
        if let Some(disk) = &mut self.disk {
            let states = disk.resume(id, &stored, states);
            shared.read_from(disk.reader(), states);
        }
        let machine = Machine::restored(self.now(), machine, stored)?;
        self.run_group(machine, Arc::clone(&shared), config.outbox_bytes_max);
        // The next reader has all stored entries, and knows whether the group is closed.
        self.turn_groups();
        Ok(shared)
    }

    fn run_group(&mut self, mut machine: Machine, shared: Arc<Shared>, outbox_bytes_max: usize) -> &mut GroupRun {
        let (now, group) = (self.now(), shared.id);
        for (&peer, link) in &self.peers {
            let (addresses, advertised) = (link.addresses.clone(), link.advertised.clone());
            machine.handle(now, Input::LinkUp { peer, addresses, advertised });
        }
        self.allowances_stale = true;
        self.groups.entry(group).or_insert(GroupRun::new(machine, shared, outbox_bytes_max, self.links.repeats.clone()))
    }

    fn request(&mut self, group: GroupId, request: Request) {
        let now = self.now();
        if let Request::Invite { node } = &request {
            // A contact is dialled again if its link breaks.
            if let Some(link) = self.peers.get(node) {
                let addresses = link.addresses.clone();
                self.dialler.want(self.me, *node, &addresses, true, now);
            }
        }
        if let Some(run) = self.groups.get_mut(&group) {
            run.machine.handle(now, Input::Request(request));
        }
    }

    /// Handles a snapshot that the application took.
    fn saved(&mut self, group: GroupId, index: Index, saved: Saved) {
        let now = self.now();
        // A record that names an earlier one may still be among the outputs.
        self.turn_group(group);
        if let Some(run) = self.groups.get_mut(&group) {
            run.machine.handle(now, Input::Request(Request::Snapshot { index, state: saved.state() }));
            run.taken = Some(saved);
        }
    }

    fn join(&mut self, name: String, wanted: Joining) {
        if let Some(why) = self.trust.expelled {
            // A caller that is gone needs no answer.
            let _ = wanted.reply.send(Err(why.join_error().into()));
            return;
        }
        self.joining.retain(|_, joining| !joining.reply.is_closed());
        let (is_in, leaves) = (self.is_in(&name), self.only_leaves(&name));
        if self.joining.contains_key(&name) || (is_in && !leaves) {
            // A caller that is gone needs no answer.
            let _ = wanted.reply.send(Err(JoinError::NameTaken { name }.into()));
            return;
        }
        if is_in && wanted.contact.is_some() {
            let words = "it is leaving the group of that name, which it joined before";
            // A caller that is gone needs no answer.
            let _ = wanted.reply.send(Err(Attempt::not_yet(self.me, words)));
            return;
        }
        if self.is_full() {
            // A caller that is gone needs no answer.
            let _ = wanted.reply.send(Err(JoinError::TooManyGroups.into()));
            return;
        }
        if let Some(node) = wanted.contact.filter(|&node| !self.ask(node, &name, wanted.aim)) {
            // A caller that is gone needs no answer.
            let _ = wanted.reply.send(Err(Attempt::not_yet(node, "the link to it broke")));
            return;
        }
        self.joining.insert(name, wanted);
    }

    /// Handles a peer's invitation. Returns whether this node accepts.
    pub(super) fn invited(&mut self, from: NodeId, group: GroupId, name: &str, durability: Durability) -> bool {
        if durability == Durability::Disk && self.disk.is_none() {
            let me = self.me.short();
            let reason = format!(
                "group {name:?} keeps its result on disk, and node {me} has no data directory: start it with one"
            );
            self.refuse(from, group, reason, Refusal::Final);
            if let Some(joining) = self.take_joining(name, from, |joining| joining.aim == Aim::Member) {
                // A caller that has given up needs no answer.
                let _ = joining.reply.send(Err(JoinError::NeedsDataDir { name: name.to_owned() }.into()));
            }
            return false;
        }
        if !self.may_accept(name, from) {
            let me = self.me.short();
            let reason = format!(
                "node {me} has accepted another node's invitation to a group {name:?}, whose outcome it does not know"
            );
            self.refuse(from, group, reason, Refusal::NotYet);
            return false;
        }
        let joining = self.take_joining(name, from, |joining| joining.aim == Aim::Member);
        let (Some(joining), Some(mailbox)) = (joining, self.mailbox.upgrade()) else {
            let (reason, refusal) = self.refusal(name);
            self.refuse(from, group, reason, refusal);
            return false;
        };
        if wants_disk(&joining.config, durability) {
            let reason =
                format!("group {name:?} is kept in memory, and node {} was to keep it on disk", self.me.short());
            self.refuse(from, group, reason, Refusal::Final);
            // A caller that has given up needs no answer.
            let _ = joining.reply.send(Err(JoinError::InMemory { name: name.to_owned() }.into()));
            return false;
        }
        let now = self.now();
        let shared = Arc::new(Shared::new(group, name.to_owned(), self.me, from, &joining.config));
        let (installed, installed_in) = oneshot::channel();
        self.promised(name, from, group);
        let run = self.start_group(Role::Invited { by: from }, durability, shared, &joining.config);
        run.installed = Some(installed);
        let group = Arc::clone(&run.shared);
        if let Some(link) = self.peers.get(&from) {
            let addresses = link.addresses.clone();
            self.dialler.want(self.me, from, &addresses, true, now);
        }
        joining.stage.reach(from, "this node has accepted its invitation, and it has not created the group yet");
        self.answer_once_joined(joining.reply, installed_in, (group, mailbox));
        true
    }

    /// Refuses a peer's request for a group that is not here.
    pub(super) fn refuse(&mut self, to: NodeId, group: GroupId, reason: String, refusal: Refusal) {
        let reason = harmless(reason.as_bytes());
        self.answer_of(to, group, ControlFrame::Refuse { reason, refusal });
    }

    /// Answers a peer about a group that is not here, and closes the stream: there is one for each such group.
    pub(super) fn answer_of(&mut self, to: NodeId, group: GroupId, frame: ControlFrame) {
        if let Some(link) = self.peers.get_mut(&to) {
            link.push(group, Incarnation(0), Stream::Control, &Frame::Control(frame));
            link.flush();
            link.end_group(group);
        }
    }

    /// Removes the caller that waits for a group of that name, if this peer's frame is for it.
    pub(super) fn take_joining(
        &mut self,
        name: &str,
        from: NodeId,
        wanted: impl Fn(&Joining) -> bool,
    ) -> Option<Joining> {
        let joining = self.joining.get(name)?;
        let asked = joining.contact.is_none_or(|contact| contact == from);
        if asked && wanted(joining) && !joining.reply.is_closed() { self.joining.remove(name) } else { None }
    }

    fn refusal(&self, name: &str) -> (String, Refusal) {
        let me = self.me.short();
        match self.groups.values().find(|run| run.shared.name == name) {
            Some(run) => {
                let creator = run.shared.creator.short();
                let reason =
                    format!("node {me} is in group {name:?} of node {creator} already; try again when that has ended");
                (reason, Refusal::Final)
            }
            None => {
                let words = format!("node {me} does not wait for an invitation to a group {name:?}");
                let elsewhere = self.belongs_elsewhere(name).map(|elsewhere| format!("{words}: {elsewhere}"));
                (elsewhere.unwrap_or(words), Refusal::NotYet)
            }
        }
    }

    /// The group that this node waits for or is in, if it is not the group of that name.
    pub(super) fn belongs_elsewhere(&self, name: &str) -> Option<String> {
        let waits = |(other, joining): &(&String, &Joining)| {
            *other != name && joining.aim == Aim::Member && !joining.reply.is_closed()
        };
        if let Some((other, _)) = self.joining.iter().find(waits) {
            return Some(format!("it belongs to group {other:?}, and waits for an invitation to that"));
        }
        let run = self.groups.values().find(|run| run.shared.name != name)?;
        Some(format!("it belongs to group {:?} of node {}", run.shared.name, run.shared.creator.short()))
    }

    pub(super) fn asked_to_join(&mut self, peer: NodeId, name: String) {
        let creation = self.groups.values_mut().find(|run| run.shared.name == name);
        let reason = match creation {
            Some(run) if run.creation.is_some() && run.asked.len() < INVITED_MAX => {
                if run.asked.insert(peer) {
                    run.report(CreationEvent::AskedToJoin { node: peer });
                }
                return;
            }
            Some(run) if run.creation.is_some() => format!("{INVITED_MAX} nodes ask to join group {name:?} already"),
            _ => return self.asked_for_running(peer, name),
        };
        self.refuse_name(peer, name, &reason, Refusal::NotYet);
    }

    /// Refuses a peer's request for a group by its name.
    pub(super) fn refuse_name(&self, peer: NodeId, name: String, reason: &str, refusal: Refusal) {
        if let Some(link) = self.peers.get(&peer) {
            let reason = harmless(reason.as_bytes());
            link.push_node(NodeFrame::Refused { name, reason, refusal });
        }
    }

    /// Refuses the nodes that requested to join a group and are not part of it, because it is created or given up.
    pub(super) fn turn_down_asked(
        &mut self,
        group: GroupId,
        (reason, refusal): (&str, Refusal),
        belongs: impl Fn(NodeId) -> bool,
    ) {
        let Some(run) = self.groups.get_mut(&group) else { return };
        let (name, asked) = (run.shared.name.clone(), std::mem::take(&mut run.asked));
        for node in asked.into_iter().filter(|&node| !belongs(node)) {
            self.refuse_name(node, name.clone(), reason, refusal);
        }
    }

    /// Suspends the groups of a node that is shut down, so that no other member waits for a timeout.
    fn stop(&mut self, reply: oneshot::Sender<()>) {
        let until = self.now() + SUSPEND_TIMEOUT;
        self.stopping.get_or_insert(Stopping { until, replies: Vec::new() }).replies.push(reply);
        self.groups.values().filter(|run| run.suspends()).for_each(|run| run.shared.depart(Departs::ShutsDown));
    }

    /// Whether the node was shut down, and the others know that or the limit has passed.
    pub(super) fn is_stopped(&self) -> bool {
        let suspends = || self.groups.values().any(GroupRun::suspends);
        let now = Time(self.epoch.elapsed().as_micros() as u64);
        self.stopping.as_ref().is_some_and(|stopping| stopping.until <= now || self.peers.is_empty() || !suspends())
    }

    /// Closes all groups, waits for sent data to arrive, and closes all links; at once if a part of the node has
    /// failed.
    pub(super) async fn shut_down(mut self, reason: CloseReason) {
        let reason = self.health.close(reason);
        let ended = EndReason::from(reason.clone());
        for run in self.groups.values() {
            // A machine after a failure is not used.
            if reason == CloseReason::ShutDown {
                run.shared.lock().final_outcomes = run.machine.final_outcomes();
            }
            run.shared.end(ended.clone());
        }
        self.groups.clear();
        if let CloseReason::Failed(_) = reason {
            // Frames of the links may be wrong.
            self.links.endpoint.close(code::FAILED.into(), b"this node failed");
        } else {
            self.close_links().await;
        }
        let _ = tokio::time::timeout(WRITERS_LINGER, self.links.endpoint.wait_idle()).await;
        self.links.repeats.finish();
        if let Some(disk) = self.disk.take() {
            // Not on this thread, which others need; a panic there has no effect here.
            let _ = tokio::task::spawn_blocking(|| disk.close()).await;
        }
        if let Some(stopping) = self.stopping.take() {
            // A caller may be gone.
            for reply in stopping.replies {
                let _ = reply.send(());
            }
        }
    }

    async fn close_links(&mut self) {
        for link in self.peers.values_mut() {
            link.flush();
        }
        let peers: Vec<_> = std::mem::take(&mut self.peers).into_values().map(|link| link.connection.clone()).collect();
        self.superseded.close_all(code::SHUTDOWN, "this node was shut down");
        // The last sender except those of the writers.
        self.writers = mpsc::channel(1).0;
        // Bounded, because a peer that is gone confirms nothing.
        let _ = tokio::time::timeout(WRITERS_LINGER, self.writers_ended.recv()).await;
        peers.iter().for_each(|connection| connection.close(code::SHUTDOWN.into(), b"this node was shut down"));
        self.links.endpoint.close(code::SHUTDOWN.into(), b"this node was shut down");
    }
}
