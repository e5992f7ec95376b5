//! Dialling the nodes that a master was given or has found, all at a time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::discovery::seeds::{self, SeedError};
use crate::wait::Backoff;
use crate::{ConnectError, Node};

/// Nodes that are dialled at a time; those that were found beyond wait.
const DIALS_MAX: usize = 64;

/// A node that was dialled, or could not be.
#[derive(Debug)]
pub(super) struct Dialled {
    /// The `HOST:PORT` that the node was named by, or its address.
    pub(super) name: String,
    /// The node that a finder named; none if the user did.
    pub(super) hinted: Option<NodeId>,
    pub(super) answer: Result<(NodeId, SocketAddr), Unreached>,
}

/// Why nobody was reached by a name.
#[derive(Debug)]
pub(super) struct Unreached {
    /// Another attempt would end the same.
    pub(super) refused: bool,
    /// In words that do not repeat the name.
    pub(super) words: String,
}

/// Dials in progress. Names are resolved again at each attempt, and tried until a deadline.
pub(super) struct Dials<'a> {
    node: &'a Node,
    ends_at: Instant,
    work: JoinSet<Done>,
    /// By name: gone once all is said about it.
    open: BTreeMap<String, Open>,
}

/// A name of which nobody has answered yet.
#[derive(Default)]
struct Open {
    /// Its addresses that are being dialled.
    dials: usize,
    backoff: Backoff,
    hinted: Option<NodeId>,
    /// The log says that it does not resolve.
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

    /// A name that the user gave.
    pub(super) fn by_name(&mut self, name: &str) {
        self.open.insert(name.to_owned(), Open::default());
        self.look_up(name.to_owned(), None);
    }

    /// A node that a finder named: it is dialled once.
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

    /// The names of which nobody has answered, and which have not failed either.
    pub(super) fn open_names(&mut self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(&mut self.open).into_keys()
    }

    /// The next answer, or what ends the attempts by a name; none if nothing is dialled. Cancel safe.
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
                // sleep: neither names nor nodes announce themselves.
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
                    SeedError::Lookup { source, .. } => {
                        format!("it does not resolve ({source}); check the name, or give an IP address")
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
                // Once one address has answered, the others need not.
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

    /// An attempt by a name has failed: another follows, or this is what is said about it.
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
