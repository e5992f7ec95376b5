//! `cloudy tail`: prints the result of a group as JSON lines, while it grows. It delays no node.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cloudy_node::discovery::seeds::{self, SeedError};
use cloudy_node::{ApprovedError, ApprovedItem, Checkpoint, Entry, Event, Group, Index, JoinError, Node, Status};
use miette::{IntoDiagnostic, Report};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::args::{Format, INDEX_MAX, TailArgs};
use crate::audit::AuditLog;
use crate::duration;
use crate::interrupts::Interrupts;
use crate::keys::Trust;
use crate::lines::{Lines, Message, messages, push_base64, push_json, push_text, view_line};
use crate::node::serve_admin;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_bytes, print_soon};

/// The time for which a name that does not resolve is resolved again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether a coordinator is in reach, at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The minimum of that interval.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(50);
/// The timeout for each address to know the group: a node that was just started joins its group within it.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(args: TailArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let ended = stop.unless_asked(tail(&args)).await;
        ended.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn tail(args: &TailArgs) -> Result<ExitCode, Report> {
    let admin = args.admin.bind()?;
    let trust = Arc::new(Trust::open(&args.trust).await?);
    let from = first_index(args, &trust).await?;
    let (node, group) = observed(args, &trust, from).await?;
    serve_admin(&node, admin)?;
    trust.followed(&node, &AuditLog::default(), Tail::new(args, from).follow(&group)).await
}

/// The index to print from: of `--last` and `--new` by the length of the result at this moment.
async fn first_index(args: &TailArgs, trust: &Arc<Trust>) -> Result<Index, Report> {
    let last = match (args.last, args.new) {
        (Some(last), _) => last.get(),
        (None, true) => 0,
        (None, false) => return Ok(Index(args.from.get())),
    };
    // Nothing of the result is fetched from here on.
    let (node, group) = observed(args, trust, Index(INDEX_MAX.get())).await?;
    let length = length(&group, args.lost_timeout).await?;
    node.shutdown().await;
    Ok(Index(length.0.saturating_sub(last) + 1))
}

/// The length of the result, by the first member that reports it, or by the end of the group.
async fn length(group: &Group, limit: Duration) -> Result<Index, Report> {
    let reported = async {
        let mut has_reports = false;
        loop {
            let Some(status) = group.status().await else { return pending().await };
            let heard = status.members.iter().filter(|member| member.alive && member.linked);
            let (length, heartbeat) = (heard.map(|member| member.index).max(), heartbeat(&status));
            if let Some(length) = length
                && std::mem::replace(&mut has_reports, true)
            {
                return length;
            }
            // sleep: a report of a member is no event. The first one was sent before this command began.
            sleep(if has_reports { 3 * heartbeat } else { LOOK_EVERY_MIN }).await;
        }
    };
    let ended = async {
        match final_result(group).await {
            Some(result) => result.index,
            None => pending().await,
        }
    };
    let found = async {
        tokio::select! {
            length = reported => length,
            length = ended => length,
        }
    };
    timeout(limit, found).await.map_err(|_| {
        failure(
            format_args!("no member of group {:?} has reported the length of the result", group.name()),
            "read from an index by --from, or wait longer by --lost-timeout TIME",
        )
    })
}

/// Between two reports of a member.
fn heartbeat(status: &Status) -> Duration {
    status.view.as_ref().map_or(LOOK_EVERY_MIN, |view| view.parameters.heartbeat)
}

/// Observes the group by the first seed that leads to it.
async fn observed(args: &TailArgs, trust: &Arc<Trust>, from: Index) -> Result<(Node, Group), Report> {
    let seeds: Vec<String> = args.address.iter().chain(&args.seeds).cloned().collect();
    first_of(trust, &args.group_name(), from, &seeds).await.map_err(|unread| match unread {
        Unread::Refused(error) => {
            failure(error, "name a node of a group that runs, and the group by --session NAME or --group NAME")
        }
        Unread::Unanswered(error) => failure(
            format_args!("cannot read along at {}: {error}", seeds.join(", ")),
            "check the address and the group (--group NAME); compare cluster keys by `cloudy key show`",
        ),
    })
}

/// The reason for which no address leads to the group.
#[derive(Debug)]
enum Unread {
    /// A node answers without the group.
    Refused(Report),
    /// No node answers before the timeout: the last answer.
    Unanswered(String),
}

/// Observes the group at the first address that leads to it. All seeds are resolved, and all addresses are tried, in
/// parallel, each by a node of its own, so that two addresses of one node do not interfere.
async fn first_of(trust: &Arc<Trust>, name: &str, from: Index, seeds: &[String]) -> Result<(Node, Group), Unread> {
    let mut steps = JoinSet::new();
    for seed in seeds.iter().cloned().collect::<BTreeSet<_>>() {
        steps.spawn(async move {
            let deadline = Instant::now() + RESOLVE_TIMEOUT;
            Step::Resolved(seeds::resolve_until(&[seed], deadline).await.map(|addresses| addresses.concat()))
        });
    }
    let mut unread = Unread::Unanswered("it has no address".to_owned());
    while let Some(step) = steps.join_next().await {
        let error = match step.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic())) {
            Step::Resolved(Ok(addresses)) => {
                for address in addresses {
                    let (trust, name) = (Arc::clone(trust), name.to_owned());
                    steps.spawn(async move { Step::Tried(Box::new(observe_at(&trust, &name, from, address).await)) });
                }
                continue;
            }
            Step::Resolved(Err(error)) => Unread::Refused(Report::msg(error)),
            Step::Tried(tried) => match *tried {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
        };
        // A node's answer has more information than a missing one.
        if matches!(unread, Unread::Unanswered(_)) {
            unread = error;
        }
    }
    Err(unread)
}

/// A step on the way to the group.
enum Step {
    /// A seed is resolved.
    Resolved(Result<Vec<SocketAddr>, SeedError>),
    /// An address was tried.
    Tried(Box<Result<(Node, Group), Unread>>),
}

async fn observe_at(trust: &Arc<Trust>, name: &str, from: Index, address: SocketAddr) -> Result<(Node, Group), Unread> {
    let started = trust.builder().bind(beside(address)).start().await;
    let node = started.into_diagnostic().map_err(Unread::Refused)?;
    match node.observe_group(name, address, from).timeout(ANSWER_MAX).await {
        Ok(group) => Ok((node, group)),
        Err(error @ (JoinError::Connect(_) | JoinError::TimedOut(_))) => Err(Unread::Unanswered(error.to_string())),
        Err(error) => Err(Unread::Refused(Report::msg(error))),
    }
}

/// A local address from which that one can be reached.
fn beside(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(v6) if v6.ip().is_loopback() => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

struct Tail {
    from: Index,
    format: Format,
    /// Number of messages that remain to be printed.
    left: u64,
    lost_timeout: Duration,
    lines: Lines,
}

impl Tail {
    fn new(args: &TailArgs, from: Index) -> Self {
        Self {
            from,
            format: args.format,
            left: args.count.map_or(u64::MAX, NonZeroU64::get),
            lost_timeout: args.lost_timeout,
            lines: Lines::of_group(&args.group_name()),
        }
    }

    async fn follow(mut self, group: &Group) -> Result<ExitCode, Report> {
        let (mut approved, mut reach) = (group.approved_from(self.from), Reach::of(group));
        loop {
            let next = tokio::select! {
                biased;
                next = approved.next_batch() => next,
                () = reach.lost_for(self.lost_timeout) => return Err(self.lost(group).await),
            };
            let Some(item) = next else { break };
            let text = match item {
                Ok(ApprovedItem::Batch(entry)) => self.messages(&entry),
                Ok(ApprovedItem::View(installed)) if self.format == Format::Json => view_line(&installed).into_bytes(),
                Ok(ApprovedItem::View(_)) => continue,
                Err(ApprovedError::Lagged { resume_from }) => {
                    return Err(failure(
                        format_args!(
                            "the result before index {resume_from} is no longer kept here: it was read too slowly"
                        ),
                        format_args!("read this program's output faster, or begin again with --from {resume_from}"),
                    ));
                }
                Err(error) => return Err(failure(error, "begin again with --from INDEX where it names one")),
            };
            print_bytes(text).await?;
            if self.left == 0 {
                return Ok(ExitCode::from(EXIT_EQUAL));
            }
        }
        if self.format == Format::Json {
            print_soon(&self.lines.last(final_result(group).await, self.from == Index(1))).await?;
        }
        Ok(ExitCode::from(EXIT_EQUAL))
    }

    /// The error with the nodes of a group that are out of reach.
    async fn lost(&self, group: &Group) -> Report {
        let status = group.status().await;
        let view = status.as_ref().and_then(|status| status.view.as_ref());
        let members = view.into_iter().flat_map(|view| &view.ring).map(|member| match member.addresses.first() {
            Some(address) => format!("node {} at {address}", member.node.short()),
            None => format!("node {}", member.node.short()),
        });
        let (name, members) = (group.name(), members.collect::<Vec<_>>().join(", "));
        let next = status.map_or(self.from, |status| status.index.next().max(self.from));
        failure(
            format_args!(
                "no coordinator of group {name:?} was in reach for {}, so no node in reach knows how it continues; its members \
                 were {members}",
                duration::show(self.lost_timeout)
            ),
            format_args!(
                "a group in memory whose nodes are all gone is lost: create another; if its nodes come back, begin again \
                 with --from {next}, or wait longer by --lost-timeout TIME"
            ),
        )
    }

    fn messages(&mut self, entry: &Entry) -> Vec<u8> {
        let mut lines = Vec::new();
        for message in messages(entry, Index(1)).take(usize::try_from(self.left).unwrap_or(usize::MAX)) {
            self.left -= 1;
            push_message(&mut lines, &mut self.lines, self.format, &message);
        }
        lines
    }
}

/// Appends the line of a message.
pub(super) fn push_message(text: &mut Vec<u8>, lines: &mut Lines, format: Format, message: &Message<'_>) {
    match (format, lines.number(message)) {
        (Format::Json, _) => push_json(text, &lines.message(message)),
        (Format::Text, Some(number)) => push_text(text, number.to_string().as_bytes()),
        (Format::Text, None) => push_text(text, message.payload),
        (Format::Base64, _) => push_base64(text, message.payload),
    }
}

/// Since when no coordinator of the group has given a sign of life.
struct Reach<'a> {
    group: &'a Group,
    silent_since: Option<Instant>,
    looks_at: Instant,
}

impl<'a> Reach<'a> {
    fn of(group: &'a Group) -> Self {
        Self { group, silent_since: None, looks_at: Instant::now() }
    }

    /// Returns once none has given one for so long. Cancel safe.
    async fn lost_for(&mut self, limit: Duration) {
        loop {
            // sleep: silence is no event.
            sleep_until(self.looks_at).await;
            // A group that has ended: the readers of the result report how.
            let Some(status) = self.group.status().await else { return pending().await };
            let now = Instant::now();
            self.looks_at = now + LOOK_EVERY.min(limit.max(LOOK_EVERY_MIN));
            let silent_since = status.coordinator_silent_for.map(|silence| now.checked_sub(silence).unwrap_or(now));
            self.silent_since = silent_since.map(|since| self.silent_since.map_or(since, |before| before.min(since)));
            if self.silent_since.is_some_and(|since| now - since >= limit) {
                return;
            }
        }
    }
}

async fn final_result(group: &Group) -> Option<Checkpoint> {
    let mut events = group.events();
    while let Some(event) = events.next().await {
        if let Ok(Event::Final { result }) = event {
            return Some(result);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use cloudy_node::{ClusterKey, GroupConfig};

    use super::*;
    use crate::keys::KeyFile;

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_others() {
        let key = ClusterKey::generate().expect("a key");
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let silent = silent.local_addr().expect("an address");
        let node = Node::builder().cluster_key(&key).start().await.expect("starts");
        let group = node.create_group("orders", 1, GroupConfig::default()).await.expect("created");
        let begun = Instant::now();
        let (reader, read) = first_of(
            &Arc::new(Trust::Keys(KeyFile::of(key.clone().into()))),
            "orders",
            Index(1),
            &[silent, node.local_addr()].map(|at| at.to_string()),
        )
        .await
        .expect("the other address leads to it");
        assert_eq!(read.id(), group.id());
        assert!(begun.elapsed() < ANSWER_MAX, "the silent one was waited for");
        reader.shutdown().await;
    }
}
