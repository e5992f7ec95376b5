//! How a master finds its slaves: by multicast, or by the names that it was given. Who counts is decided by the
//! handshake, and by the slave itself, which accepts or refuses.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use cloudy_proto::NodeId;
use cloudy_proto::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::discovery::seeds::{self, SeedError};
use crate::discovery::{DiscoveryError, Finder};
use crate::{ConnectError, Founding, FoundingEvent, Node};

/// Nobody comes any more once this long nobody came: the finder's queries are closer to each other at first.
const QUIET: Duration = Duration::from_millis(500);
/// What a node that was found may take beyond the time for finding: a handshake on a lossy network, and an answer.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Before an address that did not answer is dialled again.
const REDIAL_AFTER: Duration = Duration::from_millis(250);

/// Where to ask for slaves by multicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// The group and port; [`discovery::GROUP`](crate::discovery::GROUP) unless the slaves listen on another.
    pub group: SocketAddrV4,
    /// The local address of the interface to ask on.
    pub interface: IpAddr,
}

/// A slave that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which node.
    pub node: NodeId,
    /// Where it answered.
    pub address: SocketAddr,
    /// The `HOST:PORT` that it was named by, or its address if it was found by multicast.
    pub name: String,
}

/// Somebody who does not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The name or address that was tried.
    pub name: String,
    /// Why not, in words.
    pub reason: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Slaves cannot be looked for; nobody was asked.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A name leads nowhere.
    #[error(transparent)]
    Seeds(#[from] SeedError),
    /// Multicast cannot be used.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) slaves: &'a [String],
    pub(super) multicast: Option<Multicast>,
    pub(super) expect: Option<usize>,
    pub(super) timeout: Duration,
}

/// Who was found.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) found: Vec<Found>,
    pub(super) refusals: Vec<Refusal>,
}

/// Looks for slaves and invites them, until there are enough or nobody is left to wait for.
pub(super) async fn find(
    node: &Node,
    founding: &mut Founding,
    search: Search<'_>,
    observe: &impl Fn(Result<&Found, &Refusal>),
) -> Result<Crew, FindError> {
    let now = Instant::now();
    let finder = match search.multicast.filter(|_| search.slaves.is_empty()) {
        Some(Multicast { group, interface }) => Some(Finder::start_in(group, interface, search.timeout)?),
        None => None,
    };
    let mut finding = Finding {
        node,
        founding,
        observe,
        search,
        finder,
        ends_at: now + search.timeout,
        last_news_at: now,
        dials: JoinSet::new(),
        open_dials: BTreeMap::new(),
        asked: BTreeMap::new(),
        crew: Crew::default(),
    };
    for (name, addresses) in search.slaves.iter().zip(seeds::resolve(search.slaves).await?) {
        for address in addresses {
            finding.dial(name.clone(), address, Duration::ZERO);
        }
    }
    while finding.step().await {}
    Ok(finding.end())
}

struct Finding<'a, O> {
    node: &'a Node,
    founding: &'a mut Founding,
    observe: &'a O,
    search: Search<'a>,
    finder: Option<Finder>,
    /// When the search ends, but for the answers that are still to come.
    ends_at: Instant,
    /// When somebody was last heard of.
    last_news_at: Instant,
    dials: JoinSet<Dialled>,
    /// By name: how many of its addresses are still being dialled. Gone once one has answered.
    open_dials: BTreeMap<String, usize>,
    /// Invited, and not answered yet.
    asked: BTreeMap<NodeId, Found>,
    crew: Crew,
}

struct Dialled {
    name: String,
    address: SocketAddr,
    answer: Result<NodeId, ConnectError>,
}

enum News {
    Hint(Option<SocketAddr>),
    Dialled(Dialled),
    Answer(Option<FoundingEvent>),
    Nothing,
}

impl<O: Fn(Result<&Found, &Refusal>)> Finding<'_, O> {
    /// Waits for the next piece of news and takes it; false once the search is over.
    async fn step(&mut self) -> bool {
        let now = Instant::now();
        let enough = self.search.expect.unwrap_or(MEMBERS_MAX).min(MEMBERS_MAX);
        let answers_open = !self.dials.is_empty() || !self.asked.is_empty();
        let over_at = if answers_open { self.ends_at + ANSWER_MAX } else { self.search_over_at() };
        if self.crew.found.len() >= enough || now >= over_at {
            return false;
        }
        let news = tokio::select! {
            hint = next_hint(&mut self.finder) => News::Hint(hint),
            Some(Ok(dialled)) = self.dials.join_next() => News::Dialled(dialled),
            event = self.founding.next_event() => News::Answer(event),
            () = sleep_until(over_at) => News::Nothing,
        };
        match news {
            News::Hint(Some(address)) => self.dial(address.to_string(), address, Duration::ZERO),
            News::Hint(None) => self.finder = None,
            News::Dialled(dialled) => self.dialled(dialled),
            News::Answer(Some(event)) => self.answered(event),
            // The node was shut down.
            News::Answer(None) => return false,
            News::Nothing => return true,
        }
        self.last_news_at = Instant::now();
        true
    }

    /// When nobody else is to be expected, if nobody is being asked.
    fn search_over_at(&self) -> Instant {
        let nobody_yet = self.crew.found.is_empty() && self.crew.refusals.is_empty();
        if self.finder.is_none() {
            // All that were named have answered.
            self.last_news_at
        } else if nobody_yet || self.search.expect.is_some() {
            self.ends_at
        } else {
            self.ends_at.min(self.last_news_at + QUIET)
        }
    }

    fn dial(&mut self, name: String, address: SocketAddr, after: Duration) {
        *self.open_dials.entry(name.clone()).or_default() += 1;
        let node = self.node.clone();
        self.dials.spawn(async move {
            // sleep: an address that gave no answer is not asked again at once.
            sleep(after).await;
            let answer = node.connect(address).await;
            Dialled { name, address, answer }
        });
    }

    fn dialled(&mut self, Dialled { name, address, answer }: Dialled) {
        let others_open = match self.open_dials.get_mut(&name) {
            Some(open) => {
                *open -= 1;
                *open > 0
            }
            // Another address of that name has answered.
            None => true,
        };
        match answer {
            Ok(node) => {
                self.open_dials.remove(&name);
                let known = self.asked.contains_key(&node) || self.crew.found.iter().any(|found| found.node == node);
                if !known {
                    self.asked.insert(node, Found { node, address, name });
                    self.founding.invite(node);
                }
            }
            Err(_) if others_open => {}
            Err(error) => {
                self.open_dials.remove(&name);
                let named = self.finder.is_none();
                let refused = matches!(&error, ConnectError::Link { failure, .. } if failure.is_refusal());
                if named && !refused && Instant::now() < self.ends_at {
                    self.dial(name, address, REDIAL_AFTER);
                } else {
                    self.refuse(name, in_words(error));
                }
            }
        }
    }

    fn answered(&mut self, event: FoundingEvent) {
        match event {
            FoundingEvent::Accepted { node } => {
                if let Some(found) = self.asked.remove(&node) {
                    (self.observe)(Ok(&found));
                    self.crew.found.push(found);
                }
            }
            FoundingEvent::Refused { node, reason } => {
                if let Some(found) = self.asked.remove(&node) {
                    self.refuse(found.name, reason);
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, name: String, reason: String) {
        let refusal = Refusal { name, reason };
        (self.observe)(Err(&refusal));
        self.crew.refusals.push(refusal);
    }

    /// Whoever has not answered stays out.
    fn end(mut self) -> Crew {
        for (node, found) in std::mem::take(&mut self.asked) {
            self.founding.uninvite(node);
            self.refuse(found.name, "it was invited and did not answer in time".to_owned());
        }
        if self.search.expect.is_none() {
            for name in std::mem::take(&mut self.open_dials).into_keys() {
                self.refuse(name, "it did not answer in time".to_owned());
            }
        }
        self.crew
    }
}

/// The name says already where it was.
fn in_words(error: ConnectError) -> String {
    match error {
        ConnectError::Link { failure, .. } => failure.to_string(),
        error => error.to_string(),
    }
}

async fn next_hint(finder: &mut Option<Finder>) -> Option<SocketAddr> {
    match finder {
        Some(finder) => finder.next().await,
        None => pending().await,
    }
}
