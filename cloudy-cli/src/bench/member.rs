//! A node of a run: a member of a group, through the library's API.

use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use cloudy_node::DataDir;
use cloudy_node::{
    Approved, ApprovedError, ApprovedItem, BroadcastError, Checkpoint, CreationEvent, Durability, Entry, Event, Group,
    GroupConfig, Index, Node, Parameters, PendingGroup, RingKind, Seq, key_file, payload_slices,
};
use miette::{IntoDiagnostic, Report};
use tokio::time::{Instant, sleep_until};

use super::load::{Burst, Load, Times, stamp, stamped};
use super::meter;
use super::orders::{Assignment, Order, Outcome, Post, Said, unexpected};
use super::spec::Spec;
use super::timeline::Timeline;
use super::timer::Timer;
use crate::node::{self, Settings, Who};
use crate::output::failure;

/// The group's name.
pub(super) const GROUP: &str = "cloudy-bench";

/// Runs a node from its assignment to its end.
///
/// # Errors
/// The failure, as text; the run has no result.
pub(crate) async fn run(assignment: &Assignment, post: &mut Post) -> Result<(), Report> {
    let Assignment { number, spec, key, .. } = assignment;
    let key = key_file::load(key).into_diagnostic()?;
    // The directory is deleted with this process.
    let directory = match spec.durability {
        Durability::Memory => None,
        Durability::Disk => Some(tempfile::tempdir().into_diagnostic()?),
    };
    let who = match &directory {
        Some(directory) => Who::Owns(Box::new(DataDir::open(directory.path(), true).into_diagnostic()?)),
        None => Who::Fresh,
    };
    let socket = node::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let (node, _) = node::start_as(socket, &key.into(), who, spec.faults, false, Settings::default()).await?;
    let group = if *number == 0 { create(&node, spec, post).await? } else { join(&node, post).await? };
    let mut member = Member {
        approved: group.approved_from(Index(1)),
        tally: Tally { me: group.node_id(), hellos: 0, count: 0, own: Seq(0), timeline: Timeline::of(0..0) },
        group,
        node,
        is_creator: *number == 0,
    };
    member.greet(spec.nodes).await?;
    post.say(Said::Ready).await?;
    let start_us = match post.next().await? {
        Order::Start { at_us } => at_us,
        order => return Err(unexpected(&order)),
    };
    let times = Times::new(spec, start_us);
    let mut outcome = member.load(Load::of(spec, *number, &times), spec, &times).await?;
    post.say(Said::Drained { sent: member.tally.own.0 }).await?;
    member.finish(post, &mut outcome).await?;
    post.say(Said::Done(Box::new(outcome))).await?;
    // Others may need this node until the bench has all answers.
    while post.orders.recv().await.is_some() {}
    member.node.shutdown().await;
    Ok(())
}

/// Creates the group at the first node, before others receive its address.
async fn create(node: &Node, spec: &Spec, post: &mut Post) -> Result<Group, Report> {
    let defaults = Parameters::default();
    let slot_payloads_max = match spec.ring {
        // Each turn of the token sends one message, as in a session.
        RingKind::Token => 1,
        RingKind::Pipelined | RingKind::Relay => defaults.slot_payloads_max,
    };
    let (ring, durability, window_bytes) = (spec.ring, spec.durability, spec.window_bytes);
    let window_bytes_min = if spec.window_adapts { defaults.window_bytes_min } else { window_bytes };
    let parameters = defaults
        .ring(ring)
        .durability(durability)
        .window_bytes(window_bytes)
        .window_bytes_min(window_bytes_min)
        .slot_payloads_max(slot_payloads_max);
    let config = GroupConfig::default().parameters(parameters);
    let creation = node.prepare_group(GROUP, config).await.into_diagnostic()?;
    post.say(Said::Listening(node.local_addr())).await?;
    links(post).await?;
    gather(creation, spec.nodes - 1).await
}

/// Admits the first nodes that request it, up to a number, and creates the group.
pub(super) async fn gather(mut creation: PendingGroup, mut others: usize) -> Result<Group, Report> {
    while others > 0 {
        match creation.next_event().await {
            Some(CreationEvent::AskedToJoin { node }) => creation.invite(node),
            Some(CreationEvent::Accepted { .. }) => others -= 1,
            Some(CreationEvent::Refused { reason, .. }) => {
                return Err(failure(format_args!("a node was not admitted: {reason}"), "run it again"));
            }
            Some(CreationEvent::Lost { node }) => {
                return Err(failure(format_args!("node {} was lost", node.short()), "run it again"));
            }
            Some(_) => {}
            None => return Err(failure("the first node was shut down", "run it again")),
        }
    }
    creation.create(None).await.into_diagnostic()
}

/// The group's final result, once it was read.
pub(super) async fn final_result(group: &Group) -> Result<Checkpoint, Report> {
    let mut events = group.events();
    let result = loop {
        match events.next().await {
            Some(Ok(Event::Final { result })) => break result,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error).into_diagnostic(),
            None => return Err(failure("the group ended without a final result", "run it again")),
        }
    };
    group.report(Bytes::new());
    Ok(result)
}

async fn join(node: &Node, post: &mut Post) -> Result<Group, Report> {
    post.say(Said::Listening(node.local_addr())).await?;
    let addresses = links(post).await?;
    let creator = addresses.first().ok_or_else(|| failure("a run without nodes", "run it again"))?;
    node.join_group_at(GROUP, *creator).await.into_diagnostic()
}

async fn links(post: &mut Post) -> Result<Vec<SocketAddr>, Report> {
    match post.next().await? {
        Order::Link(addresses) => Ok(addresses),
        order => Err(unexpected(&order)),
    }
}

struct Member {
    group: Group,
    approved: Approved,
    tally: Tally,
    node: Node,
    is_creator: bool,
}

/// Counts of the read result.
struct Tally {
    me: cloudy_node::NodeId,
    /// Members whose first message, the greeting, was read.
    hellos: usize,
    /// Messages, greetings included.
    count: u64,
    /// The last own message.
    own: Seq,
    timeline: Timeline,
}

/// The sender's window in each turn.
#[derive(Default)]
struct Windows {
    turns: u64,
    bytes: u64,
}

impl Windows {
    fn add(&mut self, measures: bool, window_bytes: u64) {
        if measures {
            self.turns += 1;
            self.bytes += window_bytes;
        }
    }

    fn mean(&self) -> u64 {
        self.bytes / self.turns.max(1)
    }
}

/// A sample of all counters.
struct Sample {
    at: Instant,
    count: u64,
    cpu_us: u64,
    datagrams: u64,
}

impl Member {
    /// Broadcasts one message, and waits until the first message of every member is approved: then all lanes are open.
    async fn greet(&mut self, members: usize) -> Result<(), Report> {
        // The receipt is not needed, because the result has the same information.
        drop(self.group.broadcast(b"").await.into_diagnostic()?);
        while self.tally.hellos < members {
            let item = self.approved.next_batch().await;
            self.tally.take(item)?;
        }
        Ok(())
    }

    /// Sends its load, if it has one, and reads until all of it is approved and the time is over.
    async fn load(&mut self, mut load: Option<Load>, spec: &Spec, times: &Times) -> Result<Outcome, Report> {
        self.tally.timeline = Timeline::of(times.measure.clone());
        sleep_until(instant(times.send.start)).await;
        let mut timer = Timer::new().into_diagnostic()?;
        let mut payload = vec![0; spec.size_bytes];
        let mut samples = Vec::with_capacity(2);
        let mut milestone = std::pin::pin!(sleep_until(instant(times.measure.start)));
        let mut outbox_full = false;
        let mut windows = Windows::default();
        loop {
            let window_bytes = self.group.window_bytes();
            windows.add(samples.len() == 1 && load.is_some(), window_bytes);
            if let Some(load) = load.as_mut().filter(|_| spec.ring != RingKind::Token) {
                load.keep_in_flight(spec.in_flight_max_of(window_bytes));
            }
            let (now_us, approved) = (meter::now_us(), self.tally.own.0 - 1);
            let burst = load.as_ref().filter(|_| !outbox_full).and_then(|load| load.due(now_us, approved));
            let next_us = load.as_ref().and_then(Load::next_us);
            if samples.len() == 2 && load.as_ref().is_none_or(|load| load.is_over(now_us) && load.taken() == approved) {
                return Ok(outcome(&samples, &self.tally, windows.mean()));
            }
            tokio::select! {
                biased;
                item = self.approved.next_batch() => self.tally.take(item)?,
                () = &mut milestone, if samples.len() < 2 => {
                    samples.push(self.sample().await);
                    milestone.as_mut().reset(instant(times.measure.end));
                }
                () = ready(()), if burst.is_some() => if let (Some(load), Some(burst)) = (&mut load, burst) {
                    outbox_full = self.offer(burst, &mut payload, load)?;
                },
                () = self.group.capacity(), if outbox_full => outbox_full = false,
                timer = timer.at(next_us.unwrap_or(0)), if next_us.is_some() && !outbox_full => timer.into_diagnostic()?,
            }
        }
    }

    /// Offers due messages; returns whether the outbox is full.
    fn offer(&self, burst: Burst, payload: &mut [u8], load: &mut Load) -> Result<bool, Report> {
        stamp(payload, burst.due_us);
        for _ in 0..burst.messages {
            match self.group.try_broadcast(&payload) {
                Ok(_receipt) => load.take(1),
                Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => return Ok(true),
                Err(error) => return Err(error).into_diagnostic(),
            }
        }
        Ok(false)
    }

    async fn sample(&self) -> Sample {
        let (at, count, cpu_us) = (Instant::now(), self.tally.count, meter::cpu_us());
        Sample { at, count, cpu_us, datagrams: self.node.traffic().await.datagrams_sent }
    }

    /// Reads to the end of the final result, which is the same at all nodes, once the first node has closed the group.
    async fn finish(&mut self, post: &mut Post, outcome: &mut Outcome) -> Result<(), Report> {
        let mut ended = false;
        loop {
            tokio::select! {
                item = self.approved.next_batch() => match item {
                    Some(item) => self.tally.take(Some(item))?,
                    None => break,
                },
                order = post.next(), if !ended => match order? {
                    Order::End { .. } => {
                        ended = true;
                        if self.is_creator {
                            self.group.end();
                        }
                    }
                    order => return Err(unexpected(&order)),
                }
            }
        }
        let result = final_result(&self.group).await?;
        if result.index.0 != self.tally.count {
            let read = self.tally.count;
            let problem = format!("{read} messages were read of a final result of {}", result.index);
            return Err(failure(problem, "this is a defect of cloudy: report it"));
        }
        outcome.count = result.index.0;
        outcome.digest = result.digest.to_string();
        outcome.timeline = self.tally.timeline.counts();
        outcome.memory_kib = meter::memory_kib_max();
        Ok(())
    }
}

fn outcome(samples: &[Sample], tally: &Tally, window_bytes: u64) -> Outcome {
    let [from, to] = samples else { return Outcome::default() };
    Outcome {
        count: tally.count,
        approved: to.count - from.count,
        interval_us: to.at.duration_since(from.at).as_micros() as u64,
        cpu_us: to.cpu_us - from.cpu_us,
        datagrams: to.datagrams - from.datagrams,
        window_bytes,
        ..Outcome::default()
    }
}

/// Converts a time since the Unix epoch to the runtime's time.
pub(super) fn instant(at_us: u64) -> Instant {
    Instant::now() + Duration::from_micros(at_us.saturating_sub(meter::now_us()))
}

impl Tally {
    fn take(&mut self, item: Option<Result<ApprovedItem, ApprovedError>>) -> Result<(), Report> {
        match item {
            Some(Ok(ApprovedItem::Batch(entry))) => self.take_entry(entry),
            Some(Ok(ApprovedItem::View(_))) => {}
            Some(Err(error)) => return Err(error).into_diagnostic(),
            None => return Err(failure("the group ended before the run was over", "run it again")),
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry) {
        let now_us = meter::now_us();
        if entry.origin == self.me {
            self.own = entry.batch.last_seq();
        }
        let greeting = usize::from(entry.batch.first_seq == Seq(1));
        self.hellos += greeting;
        self.count += greeting as u64;
        let (mut due_us, mut together) = (None, 0);
        for payload in payload_slices(&entry.batch.body).skip(greeting) {
            self.count += 1;
            let stamped = stamped(payload);
            if stamped != due_us {
                self.record(due_us, now_us, together);
                (due_us, together) = (stamped, 0);
            }
            together += 1;
        }
        self.record(due_us, now_us, together);
    }

    fn record(&mut self, due_us: Option<u64>, now_us: u64, messages: u64) {
        if messages > 0 {
            self.timeline.record(due_us, now_us, messages);
        }
    }
}
