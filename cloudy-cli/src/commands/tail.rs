//! `cloudy tail`: prints the result of a group as JSON lines, while it grows. It delays no node.

use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::time::Duration;

use cloudy_node::discovery::seeds;
use cloudy_node::{ApprovedError, Checkpoint, ClusterKeys, Event, Group, Index, JoinError, Node};
use miette::{IntoDiagnostic, Report};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::args::TailArgs;
use crate::duration;
use crate::interrupts::Interrupts;
use crate::keys::KeyFile;
use crate::lines::Lines;
use crate::node::serve_admin;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_soon, say_plainly};

/// The time for which a name that does not resolve is resolved again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether a coordinator is in reach, at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same, at least.
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
    let file = KeyFile::open(&args.key).await?;
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let addresses =
        seeds::resolve_until(std::slice::from_ref(&args.address), deadline).await.into_diagnostic()?.concat();
    let (node, group) = first_of(&file.keys, &args.group_name(), Index(args.from.get()), addresses).await.map_err(
        |unread| match unread {
            Unread::Refused(error) => {
                failure(error, "name a node of a group that runs, and the group by --session NAME or --group NAME")
            }
            Unread::Unanswered(error) => failure(
                format_args!("cannot read along at {}: {error}", args.address),
                "check the address and the group (--group NAME); compare cluster keys by `cloudy key show`",
            ),
        },
    )?;
    serve_admin(&node, admin)?;
    file.followed(&node, say_plainly, Tail::new(args).follow(&group)).await
}

/// The reason for which no address leads to the group.
#[derive(Debug)]
enum Unread {
    /// A node answers without the group.
    Refused(Report),
    /// No node answers before the timeout: the last answer.
    Unanswered(String),
}

/// Observes the group at the first address that leads to it. All are tried in parallel, each by a node of its own, so
/// that two addresses of one node do not interfere.
async fn first_of(
    keys: &ClusterKeys,
    name: &str,
    from: Index,
    addresses: Vec<SocketAddr>,
) -> Result<(Node, Group), Unread> {
    let mut attempts = JoinSet::new();
    for address in addresses {
        let (keys, name) = (keys.clone(), name.to_owned());
        attempts.spawn(async move {
            let started = Node::builder().cluster_keys(&keys).bind(beside(address)).start().await;
            let node = started.into_diagnostic().map_err(Unread::Refused)?;
            match node.observe_group(&name, address, from).timeout(ANSWER_MAX).await {
                Ok(group) => Ok((node, group)),
                Err(error @ (JoinError::Connect(_) | JoinError::TimedOut(_))) => {
                    Err(Unread::Unanswered(error.to_string()))
                }
                Err(error) => Err(Unread::Refused(Report::msg(error))),
            }
        });
    }
    let mut unread = Unread::Unanswered("it has no address".to_owned());
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic())) {
            Ok(found) => return Ok(found),
            // A node's answer has more information than a missing one.
            Err(error) if matches!(unread, Unread::Unanswered(_)) => unread = error,
            Err(_) => {}
        }
    }
    Err(unread)
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
    lost_timeout: Duration,
    lines: Lines,
}

impl Tail {
    fn new(args: &TailArgs) -> Self {
        Self {
            from: Index(args.from.get()),
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
                Ok(item) => self.lines.of(&item),
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
            print_soon(&text).await?;
        }
        print_soon(&self.lines.last(final_result(group).await, self.from == Index(1))).await?;
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
                "no coordinator of group {name:?} was in reach for {}, so nobody in reach knows how it goes on; its members \
                 were {members}",
                duration::show(self.lost_timeout)
            ),
            format_args!(
                "a group in memory whose nodes are all gone is lost: create another; if its nodes come back, begin again \
                 with --from {next}, or wait longer by --lost-timeout TIME"
            ),
        )
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

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hold_up_the_others() {
        let key = ClusterKey::generate().expect("a key");
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let silent = silent.local_addr().expect("an address");
        let node = Node::builder().cluster_key(&key).start().await.expect("starts");
        let group = node.create_group("orders", 1, GroupConfig::default()).await.expect("created");
        let begun = Instant::now();
        let (reader, read) =
            first_of(&ClusterKeys::from(key.clone()), "orders", Index(1), vec![silent, node.local_addr()])
                .await
                .expect("the other address leads to it");
        assert_eq!(read.id(), group.id());
        assert!(begun.elapsed() < ANSWER_MAX, "the silent one was waited for");
        reader.shutdown().await;
    }
}
