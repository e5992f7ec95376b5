//! Dials nodes that a master was given or has found, in parallel.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::discovery::seeds::{self, SeedError};
use crate::wait::Backoff;
use crate::{ConnectError, Node};

/// Maximum of nodes that are dialled at a time; further found ones wait.
const DIALS_MAX: usize = 64;

/// The outcome of dialling a node.
#[derive(Debug)]
pub(super) struct Dialled {
    /// The `HOST:PORT` that named the node, or its address.
    pub(super) name: String,
    /// The node in a finder's hint; none if the user named it.
    pub(super) hinted: Option<NodeId>,
    pub(super) answer: Result<(NodeId, SocketAddr), Unreached>,
}

/// The reason for which no node was reached by a name.
#[derive(Debug)]
pub(super) struct Unreached {
    /// Whether another attempt would fail in the same way.
    pub(super) refused: bool,
    /// The text, which does not repeat the name.
    pub(super) words: String,
}

/// Dials in progress. Names are resolved again at each attempt, and tried until a deadline.
pub(super) struct Dials<'a> {
    node: &'a Node,
    ends_at: Instant,
    work: JoinSet<Done>,
    /// By name; removed once its outcome is returned.
    open: BTreeMap<String, Open>,
}

/// A name without an answer.
#[derive(Default)]
struct Open {
    /// Number of its addresses that are being dialled.
    dials: usize,
    backoff: Backoff,
    hinted: Option<NodeId>,
    /// Whether the log has reported that it does not resolve.
    reported: bool,
}

enum Done {
    LookedUp(String, Result<Vec<SocketAddr>, SeedError>),
    Dialled(String, SocketAddr, Result<NodeId, ConnectError>),
}

impl<'a> Dials<'a> {
    pub(super) fn new(node: &'a Node, ends_at: Instant) -> Self {
        Self { node, ends_at, work: JoinSet::new(), open: BTreeMap::new() }
    }

    /// Adds a name from the user.
    pub(super) fn by_name(&mut self, name: &str) {
        self.open.insert(name.to_owned(), Open::default());
        self.look_up(name.to_owned(), None);
    }

    /// Adds a node from a finder: it is dialled once.
    pub(super) fn by_hint(&mut self, node: NodeId, address: SocketAddr) {
        let name = address.to_string();
        self.open.insert(name.clone(), Open { dials: 1, hinted: Some(node), ..Open::default() });
        self.dial(name, address, false);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.work.len() >= DIALS_MAX
    }

    /// The names without an answer and without a failure.
    pub(super) fn open_names(&mut self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(&mut self.open).into_keys()
    }

    /// Returns the next answer, or the last failure of a name; none if nothing is dialled. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Dialled> {
        loop {
            let news = match self.work.join_next().await? {
                Ok(Done::LookedUp(name, outcome)) => self.looked_up(name, outcome),
                Ok(Done::Dialled(name, address, answer)) => self.dialled(name, address, answer),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            if news.is_some() {
                return news;
            }
        }
    }

    fn look_up(&mut self, name: String, backoff: Option<Duration>) {
        self.work.spawn(async move {
            if let Some(pause) = backoff {
                // sleep: names and nodes send no notification.
                sleep(pause).await;
            }
            let outcome = seeds::look_up(&name).await;
            Done::LookedUp(name, outcome)
        });
    }

    fn dial(&mut self, name: String, address: SocketAddr, beside: bool) {
        let node = self.node.clone();
        self.work.spawn(async move {
            let answer = node.connect_beside(address, beside).await;
            Done::Dialled(name, address, answer)
        });
    }

    fn looked_up(&mut self, name: String, outcome: Result<Vec<SocketAddr>, SeedError>) -> Option<Dialled> {
        match outcome {
            Ok(addresses) => {
                if let Some(open) = self.open.get_mut(&name) {
                    open.dials = addresses.len();
                }
                let beside = addresses.len() > 1;
                addresses.into_iter().for_each(|address| self.dial(name.clone(), address, beside));
                None
            }
            Err(error) => {
                let words = match error {
                    SeedError::Lookup { cause, .. } => {
                        format!("it does not resolve ({cause}); check the name, or give an IP address")
                    }
                    error => error.to_string(),
                };
                let left = self.ends_at.saturating_duration_since(Instant::now());
                if let Some(open) = self.open.get_mut(&name)
                    && !left.is_zero()
                    && !std::mem::replace(&mut open.reported, true)
                {
                    tracing::warn!("`{name}`: {words}; it is looked up again for {left:.1?}");
                }
                self.failed(name, Unreached { refused: false, words })
            }
        }
    }

    fn dialled(&mut self, name: String, address: SocketAddr, answer: Result<NodeId, ConnectError>) -> Option<Dialled> {
        match answer {
            Ok(node) => {
                // A name may stand for several nodes.
                let hinted = self.open.remove(&name).and_then(|open| open.hinted);
                Some(Dialled { name, hinted, answer: Ok((node, address)) })
            }
            Err(error) => {
                // After one address has answered, the others are not needed.
                let open = self.open.get_mut(&name)?;
                open.dials = open.dials.saturating_sub(1);
                if open.dials > 0 {
                    return None;
                }
                let refused = matches!(&error, ConnectError::Link { failure, .. } if failure.is_refusal());
                let words = match error {
                    ConnectError::Link { failure, .. } => failure.to_string(),
                    error => error.to_string(),
                };
                self.failed(name, Unreached { refused, words })
            }
        }
    }

    /// Notes a failed attempt by a name. Returns the outcome if no attempt follows.
    fn failed(&mut self, name: String, why: Unreached) -> Option<Dialled> {
        let open = self.open.get_mut(&name)?;
        let hinted = open.hinted;
        if hinted.is_none() && !why.refused && Instant::now() < self.ends_at {
            let pause = open.backoff.next();
            self.look_up(name, Some(pause));
            return None;
        }
        self.open.remove(&name);
        Some(Dialled { name, hinted, answer: Err(why) })
    }
}
