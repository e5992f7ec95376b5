//! The driver: one task for each node, the only caller of its machines. It waits for the mailbox and for time, never for
//! a peer or a disk.
//!
//! ```text
//!   mailbox ─► take ─► machine.handle ─► poll_output ─┬─► link.push ─► link.flush   once a turn and stream
//!                                                     └─► what users read
//! ```

mod allowances;
pub(crate) mod attempt;
mod closed;
mod commands;
mod creation;
mod dialler;
pub(crate) mod disk;
mod effects;
mod joins;
mod located;
mod mailbox;
mod openings;
mod requests;
mod run;
mod same_identity;
mod silence;
#[cfg(feature = "admin")]
pub(crate) mod snapshot;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::wire::{ControlFrame, NodeFrame, Refusal, Stream, StreamHeader};
use cloudy_proto::{Admission, Frame, GroupId, Input, NodeId, Time, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::Level;

pub use creation::CreationEvent;
pub(crate) use creation::CreationParts;
pub(crate) use mailbox::{Command, Inbox, Mailbox, ResumedGroup, WeakMailbox, mailbox};

use crate::health::{CloseReason, ClosesWithDriver, Failures, Health};
use crate::identity::Identity;
use crate::link::{Link, LinkMail, Links, NewLink, RequestKind};
use crate::link_error::{ConnectError, LinkFailure, code};
use crate::repeats::Source;
use attempt::Attempt;
use closed::ClosedGroups;
use commands::Joining;
use dialler::Dialler;
use disk::Disk;
pub(crate) use located::Seeks;
use openings::OpeningRun;
pub(crate) use openings::{Known, OpenName};
use run::{Effect, GroupRun};
use same_identity::Superseded;
use trust::Trust;

/// Maximum of messages from links in one turn.
const TURN_MAIL_MAX: usize = 256;
/// Two connections that a pair dials at once are established within this time of each other. If a process dials later
/// it has no other: the older connection is dead.
const DUEL: Duration = Duration::from_secs(5);
/// The log text for a member without a link.
const NO_LINK: &str = "no link to a member";
/// The time for which the driver sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);
/// The time between two checks for datagrams of peers.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The shutdown of a node.
struct Stopping {
    /// The time at which the node stops although others may not know.
    until: Time,
    /// One for each caller.
    replies: Vec<oneshot::Sender<()>>,
}

/// The driver of one node.
pub(crate) struct Driver {
    me: NodeId,
    epoch: Instant,
    turn_at: Time,
    links: Links,
    inbox: Inbox,
    /// For callers that wait to join a group.
    mailbox: WeakMailbox,
    peers: BTreeMap<NodeId, Link>,
    /// The time of the last check for their datagrams.
    looked_at: Time,
    /// Links that another process of the peer's identity has replaced.
    superseded: Superseded,
    /// Peers with frames in this turn, in the order of their first frame.
    written_to: Vec<NodeId>,
    groups: BTreeMap<GroupId, GroupRun>,
    /// Closed groups, for nodes that were away.
    closed: ClosedGroups,
    /// Groups that ended here, for the admin endpoint.
    #[cfg(feature = "admin")]
    ended: snapshot::EndedGroups,
    /// The callers that wait for an invitation, by the group's name.
    joining: BTreeMap<String, Joining>,
    /// The groups that callers open, by name.
    openings: BTreeMap<String, OpeningRun>,
    connecting: Vec<(SocketAddr, oneshot::Sender<Result<NodeId, ConnectError>>)>,
    dialler: Dialler,
    /// The nodes that this node seeks beyond the addresses that it knows.
    seeks: watch::Sender<Seeks>,
    /// The store of `Disk` groups.
    disk: Option<Disk>,
    trust: Trust,
    /// Whether the groups shared with peers have changed in this turn.
    allowances_stale: bool,
    /// A clone in every stream's writer.
    writers: mpsc::Sender<()>,
    writers_ended: mpsc::Receiver<()>,
    stopping: Option<Stopping>,
    health: Health,
    failures: Failures,
    /// Dropped last: once the node is seen closed, its groups are closed.
    _closes: ClosesWithDriver,
}

impl Driver {
    pub(crate) fn new(
        identity: Identity,
        links: Links,
        inbox: Inbox,
        mailbox: WeakMailbox,
        disk: Option<Disk>,
        seeks: watch::Sender<Seeks>,
    ) -> Self {
        let (writers, writers_ended) = mpsc::channel(1);
        let mut dialler = Dialler::new(links.known.clone());
        let health = inbox.health.clone();
        links.revoked.all().into_iter().for_each(|node| dialler.never(node));
        Self {
            me: links.me,
            epoch: Instant::now(),
            turn_at: Time(0),
            links,
            inbox,
            mailbox,
            peers: BTreeMap::new(),
            looked_at: Time::default(),
            superseded: Superseded::default(),
            written_to: Vec::new(),
            groups: BTreeMap::new(),
            closed: ClosedGroups::default(),
            #[cfg(feature = "admin")]
            ended: snapshot::EndedGroups::default(),
            joining: BTreeMap::new(),
            openings: BTreeMap::new(),
            connecting: Vec::new(),
            dialler,
            seeks,
            disk,
            trust: Trust::new(identity),
            allowances_stale: false,
            writers,
            writers_ended,
            stopping: None,
            failures: health.failures(),
            _closes: ClosesWithDriver(health.clone()),
            health,
        }
    }

    /// Runs until the node is shut down, no handle to it is left, or a part of it has failed, including the driver
    /// itself.
    pub(crate) async fn run(mut self) {
        let health = self.health.clone();
        // A failure was noted by the node's health.
        let _ = health.run("driver", self.turns()).await;
        let reason = health.failure().map_or(CloseReason::ShutDown, CloseReason::Failed);
        health.run("driver's end", self.shut_down(reason)).await;
    }

    async fn turns(&mut self) {
        let mut mail = Vec::with_capacity(TURN_MAIL_MAX);
        let mut commands = Vec::new();
        while !self.is_stopped() {
            let (deadline, synced) = (self.deadline(), self.synced());
            tokio::select! {
                biased;
                _ = self.inbox.links.recv_many(&mut mail, TURN_MAIL_MAX) => {}
                command = self.inbox.commands.recv() => match command {
                    Some(command) => commands.push(command),
                    // No handle is left.
                    None => break,
                },
                () = self.inbox.payloads.notified() => {}
                () = disk::said(synced) => {}
                () = self.failures.happened() => return,
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.turn_at = Time(self.epoch.elapsed().as_micros() as u64);
            mail.drain(..).for_each(|mail| self.take_mail(mail));
            commands.extend(std::iter::from_fn(|| self.inbox.commands.try_recv().ok()).take(TURN_MAIL_MAX));
            commands.drain(..).for_each(|command| self.take_command(command));
            self.take_completions();
            self.run_timers();
            self.turn_groups();
            self.turn_closed();
            self.turn_openings();
            self.answer_waiting();
            self.set_allowances();
            self.dial_due();
            self.seek();
            self.flush();
        }
    }

    /// The time of this turn: one reading for all its events.
    fn now(&self) -> Time {
        self.turn_at
    }

    fn deadline(&self) -> Instant {
        let timers = self.groups.values().filter_map(|group| group.machine.poll_timeout());
        let stops_at = self.stopping.as_ref().map(|stopping| stopping.until);
        let next = timers.chain(self.dialler.next()).chain(self.looks_at()).chain(stops_at).min();
        next.map_or_else(|| Instant::now() + IDLE, |at| self.epoch + Duration::from_micros(at.0))
    }

    fn run_timers(&mut self) {
        let now = self.now();
        if now.since(self.looked_at) >= LOOK_EVERY {
            self.look(now);
        }
        for group in self.groups.values_mut() {
            if group.machine.poll_timeout().is_some_and(|at| at <= now) {
                for peer in group.machine.quiet() {
                    if let Some(since) = self.peers.get(&peer).and_then(Link::alive_since) {
                        group.machine.handle(now, Input::Alive { peer, since });
                    }
                }
                group.machine.handle(now, Input::Timeout);
            }
        }
    }

    /// Takes the outputs of every group.
    fn turn_groups(&mut self) {
        // Few of many groups have anything to do in one turn.
        let due: Vec<GroupId> = self.groups.iter().filter(|(_, run)| run.has_work()).map(|(&id, _)| id).collect();
        due.into_iter().for_each(|id| self.turn_group(id));
    }

    fn turn_group(&mut self, id: GroupId) {
        let now = self.now();
        let mut effects = Vec::new();
        if let Some(group) = self.groups.get_mut(&id) {
            group.turn(now, &mut effects);
        }
        // The last frames of a group are sent before its streams are closed.
        let ends = effects.iter().any(|effect| matches!(effect, Effect::Ended));
        effects.drain(..).for_each(|effect| self.carry_out(id, effect));
        if let Some(group) = self.groups.get_mut(&id) {
            group.taken = None;
        }
        if ends {
            self.ended(id);
        }
    }

    /// Requests links to all members, and closes streams of earlier views.
    fn installed(&mut self, group: GroupId, view: &View) {
        let now = self.now();
        self.allowances_stale = true;
        self.promise_kept(group);
        self.peers.values_mut().for_each(|link| link.end_views_before(group, view.id));
        let without = ("its creator has created it without this node", Refusal::NotYet);
        self.turn_down_asked(group, without, |node| view.rank_of(node).is_some());
        // A node that lacks a part of the final result needs the others; all others have their links.
        let complete = self.groups.get(&group).is_none_or(|run| run.shared.lock().final_index.is_some());
        if view.last && complete {
            return;
        }
        for member in view.ring.iter().filter(|member| member.node != self.me) {
            let linked = self.peers.contains_key(&member.node);
            self.dialler.want(self.me, member.node, &member.addresses, linked, now);
            self.dialler.advertised(member.node, member.advertised.as_deref());
        }
    }

    /// Closes a group here: its users are notified, its streams are closed.
    fn ended(&mut self, group: GroupId) {
        self.turn_down_asked(group, ("its creator has given it up", Refusal::NotYet), |_| false);
        self.allowances_stale = true;
        if let Some(run) = self.groups.remove(&group) {
            run.shared.lock().final_outcomes = run.machine.final_outcomes();
            run.shared.end(crate::group::EndReason::Closed);
            #[cfg(feature = "admin")]
            self.ended.add(&run.shared);
            let reason = run.shared.lock().ended.clone();
            self.promise_over(group, reason.as_ref());
            self.keep_closed(group, run);
            self.peers.values_mut().for_each(|link| {
                link.flush();
                link.end_group(group);
            });
        }
        if self.groups.is_empty() {
            self.dialler.forget(|_| false);
        }
    }

    fn take_mail(&mut self, mail: LinkMail) {
        let now = self.now();
        match mail {
            LinkMail::Up(new) => self.link_up(new),
            LinkMail::SameIdentity { process, address, by } => self.told_same_identity(by, process, address),
            LinkMail::Node { peer, link, frame: NodeFrame::Present, .. } if !self.is_current(peer, link) => {
                self.present(peer, link);
            }
            LinkMail::Down { peer, link, failure } => {
                self.closed_by_peer(peer, &failure);
                if failure.is_same_identity() {
                    self.present(peer, link);
                }
                self.superseded.forget(link);
                self.link_down(peer, link, &failure.to_string());
                if failure == LinkFailure::RevokedHere {
                    self.found_revoked(peer);
                }
            }
            LinkMail::RevokedHere { by } => self.found_revoked(by),
            LinkMail::DialledAgain { address, peer } => self.dialled_again(address, peer),
            LinkMail::DialFailed { address, error } => {
                if self.dialler.failed(address, now) {
                    self.refused_there(address, &error);
                }
                self.connected(address, Err(error));
            }
            LinkMail::Node { peer, link, frame, taken } if self.is_current(peer, link) => {
                self.take_node_frame(peer, frame);
                drop(taken);
            }
            LinkMail::Opened { peer, link, header, reply } if self.is_current(peer, link) => {
                self.opened(peer, link, header, reply);
            }
            LinkMail::Frames { peer, link, header, frames, taken } if self.is_current(peer, link) => {
                for frame in frames {
                    self.take_frame(peer, &header, frame, now);
                }
                drop(taken);
            }
            LinkMail::Arriving { peer, link, header, bytes } if self.is_current(peer, link) => {
                if let Some(group) = self.groups.get_mut(&header.group) {
                    group.machine.handle(now, Input::Arriving { from: peer, stream: header.stream, bytes });
                }
            }
            // Of a replaced link: its frames will be sent again.
            LinkMail::Node { .. } | LinkMail::Opened { .. } | LinkMail::Frames { .. } | LinkMail::Arriving { .. } => {}
        }
    }

    /// Logs the failure, with its cause if a link that a group needs is refused for good.
    fn refused_there(&self, address: SocketAddr, error: &ConnectError) {
        if let ConnectError::Link { failure, .. } = error
            && failure.is_refusal()
        {
            let text = format_args!("{NO_LINK} at {address}: {failure}");
            self.links.repeats.say(Level::WARN, NO_LINK, Source::Address(address.ip()), text);
        }
    }

    /// Logs the failure, with its cause if a peer closed a link because of this node.
    fn closed_by_peer(&self, peer: NodeId, failure: &LinkFailure) {
        let LinkFailure::ClosedByPeer { code, .. } = failure else { return };
        if [code::BREACH, code::OVERFLOW, code::KEY_DROPPED].map(u64::from).contains(code) {
            let text = format_args!("a link is down: {failure}");
            self.links.repeats.say(Level::WARN, "links are down: closed by the other node", Source::Node(peer), text);
        }
    }

    fn is_current(&self, peer: NodeId, link: u64) -> bool {
        self.peers.get(&peer).is_some_and(|current| current.id == link)
    }

    fn opened(&mut self, peer: NodeId, link: u64, header: StreamHeader, reply: oneshot::Sender<Admission>) {
        match self.groups.get_mut(&header.group) {
            Some(group) => group.admit(peer, link, header, reply),
            // An invitation is for a group that is not known yet.
            None => {
                let closed = self.closed.machine(header.group);
                let admission =
                    closed.map_or(Admission::Stop, |machine| machine.admits(peer, header.incarnation, header.stream));
                let admission = if admission == Admission::Wait { Admission::Stop } else { admission };
                // Such a stream is opened once for each link and group: a stopped one would be missing in a later join.
                let of_no_view = matches!(header.stream, Stream::Control | Stream::Result);
                let admission = if of_no_view { Admission::Read } else { admission };
                // A reader that is gone needs no answer.
                let _ = reply.send(admission);
            }
        }
    }

    fn take_frame(&mut self, from: NodeId, header: &StreamHeader, frame: Frame, now: Time) {
        let (incarnation, stream) = (header.incarnation, header.stream);
        if !self.groups.contains_key(&header.group) {
            // A caller here has requested it again, to read it.
            let asked =
                matches!(&frame, Frame::Control(ControlFrame::Running { name, .. }) if self.joining.contains_key(name));
            if !asked && self.closed.machine(header.group).is_some() {
                if let Some(kind) = RequestKind::of(&frame) {
                    return self.take_request(from, kind, header, frame);
                }
                self.handle_closed(header.group, Input::Frame { from, incarnation, stream, frame });
                return;
            }
            match &frame {
                Frame::Control(ControlFrame::Invite { name, durability })
                    if self.invited(from, header.group, name, *durability) => {}
                Frame::Control(ControlFrame::Running { name, creator, durability }) => {
                    return self.running(from, header.group, name, (*creator, *durability));
                }
                // It accepts an invitation of a group that was given up.
                Frame::Control(ControlFrame::Accept { .. }) => {
                    let reason = format!("the group has ended at node {}", self.me.short());
                    return self.refuse(from, header.group, reason, Refusal::NotYet);
                }
                frame => return self.say_absent(from, header.group, frame),
            }
        }
        if let Some(kind) = RequestKind::of(&frame) {
            return self.take_request(from, kind, header, frame);
        }
        if let Some(group) = self.groups.get_mut(&header.group) {
            group.machine.handle(now, Input::Frame { from, incarnation, stream, frame });
        }
    }

    /// §4: of two live connections of a pair the one dialled by the lower node id stays; a newer one in the same
    /// direction replaces the older.
    fn link_up(&mut self, new: NewLink) {
        let (peer, now) = (new.peer, self.now());
        let (dialled, at) = (new.dialled, new.remote());
        if let Some(failure) = self.turn_away(&new) {
            if let Some(address) = dialled {
                self.dialler.failed(address, now);
                self.connected(address, Err(ConnectError::Link { address, failure }));
            }
            return;
        }
        let dialled_by_lower = |dialled: bool| dialled == (self.me < peer);
        let stays = self.peers.get(&peer).is_some_and(|old| {
            let same_process = old.process == new.process && old.up_at.elapsed() < DUEL;
            let lives = same_process && old.connection.close_reason().is_none();
            lives && old.dialled != dialled.is_some() && dialled_by_lower(old.dialled)
        });
        if stays {
            new.connection.close(code::DUPLICATE.into(), b"another connection of this pair stays");
        } else {
            let found_at = self.peers.get(&peer).map_or_else(Vec::new, |old| old.found_at_by(new.process));
            if let Some(old) = self.peers.remove(&peer) {
                self.groups.values_mut().for_each(|group| group.link_down(peer, old.id, now));
                self.replaced(old, &new);
                self.closed.handle_all(now, &Input::LinkDown { peer });
            }
            tracing::debug!(peer = %peer.short(), address = %new.remote(), "link up");
            let (addresses, advertised) = (new.addresses.clone(), new.advertised.clone());
            let wake = Arc::clone(&self.inbox.payloads);
            let (repeats, health) = (self.links.repeats.clone(), self.health.clone());
            let mut link = Link::new(new, self.writers.clone(), repeats, (wake, health), now);
            found_at.into_iter().for_each(|address| link.found_at(address));
            self.joining.iter().filter(|(_, joining)| joining.contact == Some(peer)).for_each(|(name, joining)| {
                link.push_node(joining.aim.question(name.clone()));
            });
            self.tell_trust(&link);
            self.report_names(&link);
            self.peers.insert(peer, link);
            self.allowances_stale = true;
            for group in self.groups.values_mut() {
                let (addresses, advertised) = (addresses.clone(), advertised.clone());
                group.machine.handle(now, Input::LinkUp { peer, addresses, advertised });
            }
            self.closed.handle_all(now, &Input::LinkUp { peer, addresses, advertised });
            self.dialler.found(peer, at);
            self.tell_located(peer, at);
        }
        if let Some(address) = dialled {
            self.dialled(address, peer);
        }
    }

    fn link_down(&mut self, peer: NodeId, link: u64, why: &str) {
        if !self.is_current(peer, link) {
            return;
        }
        tracing::debug!(peer = %peer.short(), why, "link down");
        self.peers.remove(&peer);
        let now = self.now();
        self.groups.values_mut().for_each(|group| group.link_down(peer, link, now));
        self.closed.handle_all(now, &Input::LinkDown { peer });
        let asked = self.joining.iter().filter(|(_, joining)| joining.contact == Some(peer));
        for name in asked.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some(joining) = self.joining.remove(&name) {
                // A caller that has given up needs no answer.
                let _ = joining.reply.send(Err(Attempt::not_yet(peer, "the link to it broke")));
            }
        }
        self.dialler.miss(self.me, peer, now);
    }

    fn connected(&mut self, address: SocketAddr, result: Result<NodeId, ConnectError>) {
        for (_, reply) in self.connecting.extract_if(.., |(of, _)| *of == address) {
            // A caller that is gone needs no answer.
            let _ = reply.send(result.clone());
        }
    }
}
