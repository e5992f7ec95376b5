//! One group at the driver: its machine, and the state that users share.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use cloudy_proto::wire::{Refusal, StreamHeader};
use cloudy_proto::{
    Admission, Event, Input, Machine, MessageId, NodeId, Output, Position, Record, Request, Time, View,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Level;

use crate::driver::attempt::{NotJoined, Stage};
use crate::driver::creation::CreationEvent;
use crate::group::saved::Saved;
use crate::group::shared::{Departs, Divergence, EndReason, Shared, State};
use crate::repeats::{Repeats, Source};

/// A stream whose view is not installed yet.
struct Unread {
    peer: NodeId,
    link: u64,
    header: StreamHeader,
    reply: oneshot::Sender<Admission>,
}

/// Maximum of streams of a group that wait for their view: more than two for each lane and peer.
const UNREAD_MAX: usize = 1_024;

/// One group at the driver.
pub(crate) struct GroupRun {
    pub(crate) machine: Machine,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox_bytes_max: usize,
    /// Events for the creator, while it gathers members.
    pub(crate) creation: Option<mpsc::UnboundedSender<CreationEvent>>,
    /// At the creator, while it gathers members: the nodes that requested to join. Bounded by `INVITED_MAX`.
    pub(crate) asked: BTreeSet<NodeId>,
    /// At the creator, while it gathers members: the nodes that have accepted and are linked. Bounded by `INVITED_MAX`.
    accepted: BTreeSet<NodeId>,
    /// Notified once a view that includes this node is installed.
    pub(crate) installed: Option<oneshot::Sender<Result<(), NotJoined>>>,
    /// The contact of the join, and its progress for the caller's error.
    pub(crate) stage: Option<(NodeId, Stage)>,
    /// Whether it joins a running group. The join is complete once it is on the ring, or has a whole final result.
    pub(crate) comes: bool,
    /// Whether the group's log ends with its close.
    pub(crate) closed: bool,
    _ends: EndsWithDriver,
    unread: Vec<Unread>,
    /// The latest view here.
    pub(crate) view: Option<Arc<View>>,
    repeats: Repeats,
    /// How the machine was requested to depart.
    departs: Option<Departs>,
    /// The cost of the first payload that expires, as the machine knows it.
    waits_cost: Option<u64>,
    /// A snapshot that the application took: it is kept until the records are output that may name it.
    pub(crate) taken: Option<Saved>,
}

/// An effect of a turn's outputs on the node.
pub(crate) enum Effect {
    Send(Output),
    Persist(u64, Vec<Record>),
    /// Read for a peer from a position on, up to a number of bytes.
    Read(NodeId, Position, usize),
    /// Read for a peer a state, given by its id, from an offset on, up to a number of bytes.
    ReadSnapshot(NodeId, (u64, u64), usize),
    Referred(NodeId, Vec<SocketAddr>),
    Installed(Arc<View>),
    Ended,
}

/// Closes a group for its users if the driver drops it without a reason, because the runtime ended first.
struct EndsWithDriver(Arc<Shared>);

impl Drop for EndsWithDriver {
    fn drop(&mut self) {
        self.0.end(EndReason::ShutDown);
    }
}

impl GroupRun {
    pub(crate) fn new(machine: Machine, shared: Arc<Shared>, outbox_bytes_max: usize, repeats: Repeats) -> Self {
        Self {
            machine,
            _ends: EndsWithDriver(Arc::clone(&shared)),
            shared,
            outbox_bytes_max,
            creation: None,
            asked: BTreeSet::new(),
            accepted: BTreeSet::new(),
            installed: None,
            stage: None,
            comes: false,
            closed: false,
            unread: Vec::new(),
            view: None,
            repeats,
            departs: None,
            waits_cost: None,
            taken: None,
        }
    }

    /// Whether others may depend on this node: it is a member, or joins, and has not started to leave.
    pub(crate) fn is_relied_on(&self) -> bool {
        let state = self.shared.lock();
        !self.shared.observes && state.departs.is_none() && state.ended.is_none() && state.final_index.is_none()
    }

    /// Whether others have to know that this node stops: it is a member of a group that continues. The processes of a
    /// session leave it or end it.
    pub(crate) fn suspends(&self) -> bool {
        let state = self.shared.lock();
        let takes_part = !self.shared.observes && !state.is_session && self.view.is_some();
        takes_part && state.ended.is_none() && state.final_index.is_none()
    }

    /// Handles a stream that a peer opened: it is answered at once, or once its view is installed.
    pub(crate) fn admit(&mut self, peer: NodeId, link: u64, header: StreamHeader, reply: oneshot::Sender<Admission>) {
        match self.machine.admits(peer, header.incarnation, header.stream) {
            Admission::Wait if self.unread.len() < UNREAD_MAX => {
                self.unread.push(Unread { peer, link, header, reply });
            }
            // A reader that is gone needs no answer.
            admission => drop(reply.send(admission)),
        }
    }

    /// Admits streams that waited for the installed view.
    fn ask_again(&mut self) {
        for unread in std::mem::take(&mut self.unread) {
            self.admit(unread.peer, unread.link, unread.header, unread.reply);
        }
    }

    pub(crate) fn link_down(&mut self, peer: NodeId, link: u64, now: Time) {
        self.unread.retain(|unread| unread.link != link);
        self.asked.remove(&peer);
        if self.accepted.remove(&peer) {
            self.report(CreationEvent::Lost { node: peer });
        }
        self.machine.handle(now, Input::LinkDown { peer });
    }

    /// Whether the machine has outputs, the outbox has payloads, or the machine has to leave.
    pub(crate) fn has_work(&self) -> bool {
        if self.machine.has_output() {
            return true;
        }
        let state = self.shared.lock();
        (self.machine.wants_payload() && !state.outbox.is_empty())
            || state.may_depart() > self.departs
            || state.expiring.is_empty() == self.waits_cost.is_some()
    }

    /// Passes the outbox to the machine and carries out its outputs, until neither has more.
    pub(crate) fn turn(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            self.drain(now, effects);
            if let Some(how) = self.next_departure() {
                let leaves = how == Departs::Leaves;
                self.machine.handle(now, Input::Request(if leaves { Request::Leave } else { Request::Suspend }));
                continue;
            }
            let Some(input) = self.next_payloads(now) else { return };
            self.machine.handle(now, input);
        }
    }

    /// The payloads that the machine wants; those that expire only if they get a slot at once.
    fn next_payloads(&mut self, now: Time) -> Option<Input> {
        let mut state = self.shared.lock();
        let wants = self.machine.wants_payload();
        let mut admitted = Vec::new();
        let mut cost_bytes = None;
        if !state.expiring.is_empty() {
            let State { expiring, outbox, approvals, .. } = &mut *state;
            let at = Instant::now();
            cost_bytes = expiring.first_cost_bytes(at);
            if wants && outbox.is_empty() {
                admitted = expiring.admit(at, outbox, |cost_bytes| self.machine.takes_at_once(now, cost_bytes));
                admitted.iter().for_each(|(seq, _)| approvals.expect(*seq));
            }
        }
        let batch = if wants { state.outbox.take() } else { None };
        let incarnation = state.incarnation;
        #[cfg(feature = "admin")]
        batch.iter().for_each(|batch| state.stats.on_sent(batch, now));
        drop(state);
        if let Some(batch) = batch {
            self.shared.room.notify_waiters();
            for (seq, on_id) in admitted {
                let id = MessageId { origin: self.shared.me, incarnation, seq };
                if !on_id(id) {
                    self.shared.lock().approvals.release(seq);
                }
            }
            return Some(Input::Broadcast(batch));
        }
        let is_news = self.waits_cost != cost_bytes;
        self.waits_cost = cost_bytes;
        is_news.then_some(Input::Waits { cost_bytes })
    }

    /// How this node departs, once all its broadcasts are approved: once for each way.
    fn next_departure(&mut self) -> Option<Departs> {
        let departs = self.shared.lock().may_depart();
        if departs <= self.departs {
            return None;
        }
        self.departs = departs;
        departs
    }

    /// Takes all outputs. Those for users are stored where they read them, under one lock.
    #[cfg_attr(not(feature = "admin"), expect(unused_variables, reason = "the time is for the admin endpoint"))]
    fn drain(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let mut local = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { .. } | Output::CloseLink { .. } | Output::Redial { .. } => {
                    effects.push(Effect::Send(output));
                }
                Output::Persist { ticket, records } => effects.push(Effect::Persist(ticket, records)),
                Output::ReadResult { to, from, bytes_max } => effects.push(Effect::Read(to, from, bytes_max)),
                Output::ReadSnapshot { to, id, offset, bytes_max } => {
                    effects.push(Effect::ReadSnapshot(to, (id, offset), bytes_max));
                }
                Output::Approved(_) | Output::Deliver(_) | Output::Restore { .. } | Output::Resumed { .. } => {
                    local.push(output);
                }
                Output::Event(ref event) => {
                    self.event(event, effects);
                    local.push(output);
                }
            }
        }
        let mut state = self.shared.lock();
        let drained = state.outbox.set_taken(self.machine.last_sent());
        let listed = std::mem::replace(&mut state.incarnation, self.machine.incarnation()) != state.incarnation;
        state.only_watches = self.machine.only_watches();
        state.window_bytes = self.machine.window_bytes();
        // Messages that a snapshot includes were approved too.
        state.approved = state.approved.max(self.machine.last_approved());
        let moved = !local.is_empty();
        let mut happened = false;
        for output in local {
            #[cfg(feature = "admin")]
            state.stats.on_output(&output, now);
            match output {
                Output::Approved(approval) => state.approve(approval),
                Output::Restore { index, state: snapshot, view } => {
                    state.restore(index, Saved::of(snapshot, self.shared.states()), view);
                }
                Output::Resumed { after, view } => state.feed.begin_after(after, view),
                Output::Deliver(item) => state.feed.push(item),
                Output::Event(event) => {
                    happened = true;
                    state.happen(&event);
                }
                Output::Send { .. } | Output::CloseLink { .. } | Output::Redial { .. } => {}
                Output::Persist { .. } | Output::ReadResult { .. } | Output::ReadSnapshot { .. } => {}
            }
        }
        drop(state);
        if moved {
            self.shared.moved.notify_waiters();
        }
        if happened {
            self.shared.happened.notify_waiters();
        }
        if drained || happened || listed {
            self.shared.room.notify_waiters();
        }
    }

    /// Carries out the effects of an event on the node.
    fn event(&mut self, event: &Event, effects: &mut Vec<Effect>) {
        self.log(event);
        match event {
            Event::Accepted { node } => {
                self.accepted.insert(*node);
                self.report(CreationEvent::Accepted { node: *node });
            }
            Event::Refused { node, reason, refusal } => self.refused(*node, reason, *refusal),
            Event::Referred { node, addresses } => effects.push(Effect::Referred(*node, addresses.clone())),
            Event::Truncated { first } => {
                self.joined(Err(NotJoined::Truncated(*first)));
                self.end(EndReason::Truncated { first: *first }, effects);
            }
            Event::Final { .. } => self.joined(Ok(())),
            Event::ViewInstalled { view, active, .. } => {
                self.shared.adopt(&view.parameters, self.outbox_bytes_max);
                self.view = Some(Arc::clone(view));
                self.creation = None;
                self.accepted.clear();
                if let Some(installed) = self.installed.take_if(|_| *active || !self.comes) {
                    let creates = self.shared.creator == self.shared.me;
                    let belongs = *active || self.shared.observes || creates;
                    let late = "it created the group without this node, whose acceptance came too late".to_owned();
                    let late = NotJoined::NotYet(self.shared.creator, late);
                    // The caller that creates or joins has given up.
                    let _ = installed.send(if belongs { Ok(()) } else { Err(late) });
                    if !belongs {
                        return self.end(EndReason::Closed, effects);
                    }
                }
                self.ask_again();
                effects.push(Effect::Installed(Arc::clone(view)));
            }
            Event::CannotKeepUp(slower) => {
                if let Some((contact, stage)) = self.stage.as_ref().filter(|_| self.installed.is_some()) {
                    stage.reach(*contact, &format!("it admits this node, but {slower}"));
                }
            }
            Event::FinalResultMissing { sources } => self.misses_final(sources, effects),
            Event::Left { node } if *node == self.shared.me => self.end(EndReason::Left, effects),
            Event::Suspended { node } if *node == self.shared.me => {
                let is_shut_down = self.departs == Some(Departs::ShutsDown);
                self.end(if is_shut_down { EndReason::ShutDown } else { EndReason::Suspended }, effects);
            }
            Event::CoordinatorLost { node } => self.coordinator_lost(*node, effects),
            Event::Diverged { node, theirs, ours } => {
                let divergence = Divergence { node: *node, theirs: *theirs, ours: *ours };
                self.stop(EndReason::Diverged(Box::new(divergence)), effects);
            }
            Event::Forgotten => self.stop(EndReason::Forgotten, effects),
            Event::UnreadableLog { index, error } => {
                self.stop(EndReason::UnreadableLog { index: *index, error: error.clone() }, effects);
            }
            Event::Closed => {
                self.closed = true;
                let complete = self.machine.final_result().is_some();
                self.end(if complete { EndReason::Final } else { EndReason::Closed }, effects);
            }
            _ => {}
        }
    }

    /// Logs an event.
    fn log(&self, event: &Event) {
        match event {
            Event::Coordinator { node } => {
                let node = node.short();
                let text = format_args!("node {node} coordinates it");
                self.say(Level::INFO, "another node coordinates it", text);
            }
            Event::CannotKeepUp(slower) => self.say(Level::WARN, "this node cannot keep up", slower),
            Event::SlowDown { node, bytes_per_second } => {
                let (node, rate) = (node.short(), *bytes_per_second as f64 / 1e6);
                let text =
                    format_args!("it sends less, at most {rate:.2} MB/s in all, so that node {node} can catch up");
                self.say(Level::WARN, "it slows down for a node", text);
            }
            Event::SlowDownEnded { node, end } => {
                let text = format_args!("it does not slow down for node {} any longer: {end}", node.short());
                self.say(Level::WARN, "it does not slow down any longer", text);
            }
            Event::Waits(waiting) => self.say(Level::WARN, "the result waits", waiting),
            Event::NoCompleteMember(stopped) => self.say(Level::WARN, "no complete member answers", stopped),
            Event::VotesLost(lost) => tracing::error!(group = %self.shared.name, "{lost}"),
            Event::StaleDisk(older) => tracing::error!(group = %self.shared.name, "{older}"),
            Event::CoordinatorLost { node } => {
                let node = node.short();
                let missing = self.machine.status(Time(0)).missing_voters;
                let missing = missing.map(|missing| format!("; {missing}")).unwrap_or_default();
                let text = format_args!("no coordinator is in reach; the last was node {node}{missing}");
                self.say(Level::WARN, "no coordinator is in reach", text);
            }
            _ => {}
        }
    }

    /// Logs a line about the group that its members can cause any number of times.
    fn say(&self, level: Level, cause: &str, text: impl Display) {
        let (name, text) = (&self.shared.name, text.to_string());
        let line = format!("group {name:?}: {text}");
        self.repeats.say(level, &format!("group {name:?}: {cause}"), Source::Here(text), line);
    }

    /// The group is closed, and no node in reach has the rest of its result. A session does not wait for that.
    fn misses_final(&mut self, sources: &[NodeId], effects: &mut Vec<Effect>) {
        let names = sources.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
        let text = format!(
            "the group is closed, and no node in reach has the rest of its result; start one of these again: {names}"
        );
        self.say(Level::WARN, "the final result is not in reach", text);
        if self.shared.lock().is_session {
            self.end(EndReason::Closed, effects);
        }
    }

    /// A node refuses to join, or refuses to admit this one.
    fn refused(&mut self, node: NodeId, reason: &str, refusal: Refusal) {
        // It may send another request.
        self.asked.remove(&node);
        let reason = reason.to_owned();
        self.report(CreationEvent::Refused { node, reason: reason.clone() });
        if self.comes || self.shared.observes || self.shared.creator == node {
            self.joined(Err(match refusal {
                Refusal::NotYet => NotJoined::NotYet(node, reason),
                Refusal::Final => NotJoined::Refused(reason),
                Refusal::Gone => NotJoined::Gone(reason),
            }));
        }
    }

    fn coordinator_lost(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if let Some(installed) = self.installed.take() {
            let comes = self.comes || self.shared.observes;
            let words = if comes {
                "it coordinated the group last, and no coordinator is in reach"
            } else {
                "it is creating the group, and is out of reach"
            };
            // A caller that has given up needs no answer.
            let _ = installed.send(Err(NotJoined::NotYet(node, words.to_owned())));
            self.end(if comes { EndReason::Closed } else { EndReason::CoordinatorLost(node) }, effects);
        } else if self.shared.lock().final_index.is_some() {
            // The others had no reason to stay either.
            self.end(EndReason::Final, effects);
        }
    }

    /// Answers the caller that waits to join the group.
    fn joined(&mut self, joined: Result<(), NotJoined>) {
        if let Some(installed) = self.installed.take() {
            // The caller that creates or joins has given up.
            let _ = installed.send(joined);
        }
    }

    /// Closes the group here for a reason that the operator must know.
    fn stop(&mut self, reason: EndReason, effects: &mut Vec<Effect>) {
        tracing::error!(group = %self.shared.name, "{reason}");
        self.joined(Err(NotJoined::Refused(reason.to_string())));
        self.end(reason, effects);
    }

    fn end(&mut self, reason: EndReason, effects: &mut Vec<Effect>) {
        let outcomes = self.machine.final_outcomes();
        let mut state = self.shared.lock();
        // Before the close is visible: a reader that sees it may query at once.
        state.final_outcomes = outcomes;
        state.ended.get_or_insert(reason);
        drop(state);
        effects.push(Effect::Ended);
    }

    pub(super) fn report(&mut self, event: CreationEvent) {
        if let Some(creation) = &self.creation {
            // The caller that creates has given up.
            let _ = creation.send(event);
        }
    }
}
