//! A node that serves until it receives the order to stop, or is killed: a member under a steady load, or a creator
//! without a place on the ring.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cloudy_node::fault::{FaultControl, Faults};
use cloudy_node::{
    Approved, ApprovedError, ApprovedItem, BroadcastError, EndReason, Group, GroupConfig, Index, InstalledView, Node,
    Seq, key_file,
};
use miette::{IntoDiagnostic, Report};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::history::History;
use crate::bench::member::{GROUP, final_result, gather};
use crate::bench::meter;
use crate::bench::orders::{Failed, Order, Part, Post, Role, Said, Task, Word, unexpected};
use crate::node::{self, Settings, Who};
use crate::output::failure;

/// The time between two checks of due messages and awaited answers.
const TICK: Duration = Duration::from_millis(2);
/// A load is steady while fewer of its messages wait for approval than are offered in this part of a second.
const STEADY_PER_SECOND: u64 = 20;
/// Maximum of messages that are offered at once at full speed.
const BURST_MAX: u64 = 256;

/// Serves from its configuration to its end.
///
/// # Errors
/// The failure, as text.
pub(crate) async fn run(part: &Part, post: &mut Post) -> Result<(), Report> {
    let key = key_file::load(&part.key).into_diagnostic()?;
    let socket = node::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let (node, control) =
        node::start_as(socket, &key.into(), Who::Fresh, Faults::none(), part.partitions, Settings::default()).await?;
    let (group, took) = enter(&node, part, post).await?;
    let messages = group.status().await.map_or(0, |status| status.index.0);
    let joined = Word::Joined { node: node.id(), took_us: took.as_micros() as u64, messages };
    let is_member = !matches!(part.role, Role::Master { .. });
    let mut server = Server {
        approved: is_member.then(|| group.approved_from(Index(1))),
        group,
        control,
        history: History::default(),
        own: Seq(0),
        load: Load {
            rate_per_s: part.rate_per_s,
            began_at: Instant::now(),
            paced: 0,
            at_once: 0,
            filled: 0,
            offered: 0,
        },
        payload: vec![0; part.size_bytes],
        waits: None,
    };
    post.say(Said::Did(joined)).await?;
    server.serve(post).await?;
    // Others may need this node until the bench has all answers.
    while post.orders.recv().await.is_some() {}
    node.shutdown().await;
    Ok(())
}

/// Enters the group; returns the time that it took.
async fn enter(node: &Node, part: &Part, post: &mut Post) -> Result<(Group, Duration), Report> {
    let creation = match part.role {
        Role::Joiner => None,
        Role::Creator { others } | Role::Master { others } => {
            let creator_is_member = matches!(part.role, Role::Creator { .. });
            let config = GroupConfig::default().creator_is_member(creator_is_member);
            // It starts the creation before others receive its address.
            Some((node.prepare_group(GROUP, config).await.into_diagnostic()?, others))
        }
    };
    post.say(Said::Listening(node.local_addr())).await?;
    let contact = match post.next().await? {
        Order::Do(Task::Join(contact)) => contact,
        order => return Err(unexpected(&order)),
    };
    let began_at = Instant::now();
    let group = match (creation, contact) {
        (Some((creation, others)), None) => gather(creation, others).await?,
        (None, Some(address)) => node.join_group_at(GROUP, address).await.into_diagnostic()?,
        (_, contact) => return Err(unexpected(&Order::Do(Task::Join(contact)))),
    };
    Ok((group, began_at.elapsed()))
}

struct Server {
    group: Group,
    /// None for a creator without a place on the ring.
    approved: Option<Approved>,
    control: Option<FaultControl>,
    history: History,
    /// The last own message in the result.
    own: Seq,
    load: Load,
    payload: Vec<u8>,
    /// The task without an answer yet.
    waits: Option<Wait>,
}

enum Wait {
    Settle { members: usize, voters: usize },
    Survive(Failed),
    Fill,
}

/// The load: a steady rate, and sometimes a number of messages at once.
struct Load {
    rate_per_s: u64,
    began_at: Instant,
    /// Number of offered messages of the steady part.
    paced: u64,
    /// Number of messages still to offer at once.
    at_once: u64,
    /// The last message of those.
    filled: u64,
    offered: u64,
}

impl Load {
    fn due(&self) -> u64 {
        let due = self.began_at.elapsed().as_micros() * u128::from(self.rate_per_s) / 1_000_000;
        (due as u64).saturating_sub(self.paced)
    }
}

impl Server {
    async fn serve(&mut self, post: &mut Post) -> Result<(), Report> {
        let mut tick = ticks();
        loop {
            tokio::select! {
                item = next(&mut self.approved) => match item {
                    Some(item) => self.take(item)?,
                    None => return self.end_with_others(post).await,
                },
                _ = tick.tick() => {
                    if self.approved.is_some() {
                        self.offer()?;
                    }
                    if let Some(word) = self.answer().await {
                        self.waits = None;
                        post.say(Said::Did(word)).await?;
                    }
                }
                // The bench is gone, so this node is not needed.
                order = post.orders.recv() => match order {
                    None => return Ok(()),
                    Some(Order::Do(Task::End { ends })) => return self.end(ends, post).await,
                    Some(Order::Do(task)) => self.begin(task, post).await?,
                    Some(order) => return Err(unexpected(&order)),
                },
                () = self.group.capacity(), if self.load.at_once > 0 => self.fill()?,
            }
        }
    }

    async fn begin(&mut self, task: Task, post: &Post) -> Result<(), Report> {
        match task {
            Task::Settle { members, voters } => self.waits = Some(Wait::Settle { members, voters }),
            Task::Survive(failed) => self.waits = Some(Wait::Survive(failed)),
            Task::Fill { messages } => {
                self.load.at_once += messages;
                self.load.filled = u64::MAX;
                self.waits = Some(Wait::Fill);
                self.fill()?;
            }
            Task::CutOff(peers) => match &self.control {
                Some(control) => control.partition(peers),
                None => return Err(failure("this node cannot be cut off", "this is a defect of cloudy: report it")),
            },
            Task::Memory => post.say(Said::Did(Word::Memory { kib: meter::memory_kib() })).await?,
            task @ (Task::Join(_) | Task::End { .. }) => return Err(unexpected(&Order::Do(task))),
        }
        Ok(())
    }

    /// The answer to the task, once there is one.
    async fn answer(&self) -> Option<Word> {
        match self.waits.as_ref()? {
            Wait::Settle { members, voters } => {
                let view = self.history.whole(*members).filter(|_| self.is_steady())?;
                let status = self.group.status().await?;
                let coordinator = status.coordinator.filter(|_| status.voters.len() == *voters)?;
                Some(Word::Settled { view, coordinator, messages: self.history.messages() })
            }
            Wait::Survive(failed) => self.history.span(failed, meter::now_us()).map(Word::Survived),
            Wait::Fill => (self.own.0 >= self.load.filled).then_some(Word::Filled),
        }
    }

    /// Whether the messages that a failure delayed are approved.
    fn is_steady(&self) -> bool {
        self.load.offered.saturating_sub(self.own.0) <= self.load.rate_per_s / STEADY_PER_SECOND + 1
    }

    /// Broadcasts due messages, as far as there is capacity.
    fn offer(&mut self) -> Result<(), Report> {
        for _ in 0..self.load.due() {
            if !self.broadcast()? {
                break;
            }
            self.load.paced += 1;
        }
        Ok(())
    }

    /// Broadcasts some of the messages to offer at once, as far as there is capacity.
    fn fill(&mut self) -> Result<(), Report> {
        for _ in 0..self.load.at_once.min(BURST_MAX) {
            if !self.broadcast()? {
                break;
            }
            self.load.at_once -= 1;
        }
        if self.load.at_once == 0 {
            self.load.filled = self.load.offered;
        }
        Ok(())
    }

    /// Broadcasts one message; returns whether there was capacity.
    fn broadcast(&mut self) -> Result<bool, Report> {
        match self.group.try_broadcast(&self.payload) {
            Ok(_receipt) => self.load.offered += 1,
            Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => return Ok(false),
            // Another node has received the close first: the next read returns it.
            Err(BroadcastError::Ended(EndReason::Final)) => return Ok(false),
            Err(error) => return Err(error).into_diagnostic(),
        }
        Ok(true)
    }

    fn take(&mut self, item: Result<ApprovedItem, ApprovedError>) -> Result<(), Report> {
        match item {
            Ok(ApprovedItem::Batch(entry)) => {
                let own = entry.origin == self.group.node_id();
                if own {
                    self.own = entry.batch.last_seq();
                }
                self.history.approved(meter::now_us(), entry.view, own, u64::from(entry.batch.count));
            }
            Ok(ApprovedItem::View(InstalledView { view, .. })) => {
                self.history.view(view.id, view.ring.iter().map(|member| member.node).collect());
            }
            Err(error) => return Err(error).into_diagnostic(),
        }
        Ok(())
    }

    /// Waits for the order to end: the group is closed, and another node had its order first.
    async fn end_with_others(&mut self, post: &mut Post) -> Result<(), Report> {
        match post.next().await? {
            Order::Do(Task::End { .. }) => self.end(false, post).await,
            order => Err(unexpected(&order)),
        }
    }

    /// Reads to the end of the final result, which is the same at all nodes.
    async fn end(&mut self, ends: bool, post: &Post) -> Result<(), Report> {
        if ends {
            self.group.end();
        }
        while let Some(approved) = &mut self.approved
            && let Some(item) = approved.next_batch().await
        {
            self.take(item)?;
        }
        let result = final_result(&self.group).await?;
        if self.approved.is_some() && result.index.0 != self.history.messages() {
            let problem = format!("{} messages were read of a final {}", self.history.messages(), result.index);
            return Err(failure(problem, "this is a defect of cloudy: report it"));
        }
        post.say(Said::Did(Word::Done { messages: result.index.0, digest: result.digest.to_string() })).await
    }
}

async fn next(approved: &mut Option<Approved>) -> Option<Result<ApprovedItem, ApprovedError>> {
    match approved {
        Some(approved) => approved.next_batch().await,
        None => pending().await,
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
