//! A master's search for slaves: by multicast, or by given names. The handshake decides who counts, and so does the
//! slave, which accepts or refuses.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::NodeId;
use cloudy_proto::limits::MEMBERS_MAX;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::dials::{Dialled, Dials, Unreached};
use super::name::SessionName;
use crate::discovery::seeds::{self, SeedError};
use crate::discovery::{DiscoveryError, Finder, Hint, Multicast};
use crate::link_error::Words;
use crate::{CreationEvent, Lookup, LookupError, Node, PendingGroup};

/// The search ends after this time without an answer: the finder's first queries are closer to each other.
const QUIET: Duration = Duration::from_millis(500);
/// The time that a found node has beyond the discovery timeout: for a handshake on a lossy network, and an answer.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Maximum of listed nodes that do not take part, each with the reason; the others are counted.
const REFUSALS_MAX: usize = 256;

/// A slave that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The id of the node.
    pub node: NodeId,
    /// The address at which it answered.
    pub address: SocketAddr,
    /// The `HOST:PORT` that named it, or its address if it was found by multicast.
    pub name: String,
}

/// A node that does not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The name or address that was dialled.
    pub name: String,
    /// The reason.
    pub reason: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// Nodes that do not take part, up to the maximum of the list.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    list: Vec<Refusal>,
    unlisted: usize,
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Refusal) {
        if self.list.len() < REFUSALS_MAX { self.list.push(refusal) } else { self.unlisted += 1 }
    }

    /// The list, with a last entry for the nodes beyond it.
    pub(super) fn listed(mut self) -> Vec<Refusal> {
        if self.unlisted > 0 {
            let name = format!("{} more", self.unlisted);
            self.list.push(Refusal { name, reason: "they take no part either, and are not listed".to_owned() });
        }
        self.list
    }
}

/// The reason for which no search for slaves started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A name is malformed.
    #[error(transparent)]
    Seeds(#[from] SeedError),
    /// Multicast cannot be used.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

impl From<LookupError> for FindError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Name(error) => Self::Seeds(error),
            LookupError::Multicast(error) => Self::Discovery(error),
        }
    }
}

/// The sources of slaves' addresses while the session runs: the given names, or else multicast.
pub(super) fn lookup(slaves: &[String], multicast: Option<Multicast>) -> Lookup {
    Lookup { names: slaves.to_vec(), multicast: multicast.filter(|_| slaves.is_empty()) }
}

/// The parameters of a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) session: &'a SessionName,
    pub(super) slaves: &'a [String],
    pub(super) multicast: Option<Multicast>,
    pub(super) expect: Option<usize>,
    pub(super) timeout: Duration,
}

/// The slaves that were found.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) found: Vec<Found>,
    pub(super) refusals: Vec<Refusal>,
}

/// Searches for slaves and invites them, until there are enough or no answer is awaited.
pub(super) async fn find(
    node: &Node,
    creation: &mut PendingGroup,
    search: Search<'_>,
    observe: &impl Fn(Result<&Found, &Refusal>),
) -> Result<Crew, FindError> {
    let now = Instant::now();
    seeds::check(search.slaves)?;
    let finder = match search.multicast.filter(|_| search.slaves.is_empty()) {
        Some(place) => Some(Finder::start(node.discovery_keys(), place, search.timeout)?),
        None => None,
    };
    let ends_at = now + search.timeout;
    let mut finding = Finding {
        creation,
        observe,
        search,
        finder,
        ends_at,
        last_news_at: now,
        dials: Dials::new(node, ends_at),
        unreached: BTreeMap::new(),
        asked: BTreeMap::new(),
        found: Vec::new(),
        refusals: Refusals::default(),
        refused: 0,
    };
    search.slaves.iter().for_each(|name| finding.dials.by_name(name));
    while finding.step().await? {}
    Ok(finding.end())
}

struct Finding<'a, O> {
    creation: &'a mut PendingGroup,
    observe: &'a O,
    search: Search<'a>,
    finder: Option<Finder>,
    /// The end of the search, except for answers that are awaited.
    ends_at: Instant,
    /// The time of the last answer.
    last_news_at: Instant,
    dials: Dials<'a>,
    /// Invited nodes that have not answered.
    asked: BTreeMap<NodeId, Found>,
    /// Nodes by name that were found by multicast and could not be dialled, with the reason.
    unreached: BTreeMap<String, String>,
    found: Vec<Found>,
    refusals: Refusals,
    /// Number of nodes of this session that refused.
    refused: usize,
}

enum News {
    Hint(Option<Hint>),
    Dialled(Dialled),
    Answer(Option<CreationEvent>),
    Nothing,
}

impl<O: Fn(Result<&Found, &Refusal>)> Finding<'_, O> {
    /// Waits for the next answer and handles it; false once the search is over.
    async fn step(&mut self) -> Result<bool, FindError> {
        let now = Instant::now();
        let enough = self.search.expect.unwrap_or(MEMBERS_MAX).min(MEMBERS_MAX);
        let answers_open = !self.dials.is_empty() || !self.asked.is_empty();
        let over_at = if answers_open { self.ends_at + ANSWER_MAX } else { self.search_over_at() };
        if self.found.len() >= enough || now >= over_at {
            return Ok(false);
        }
        let news = tokio::select! {
            hint = next_hint(&mut self.finder), if !self.dials.is_full() => News::Hint(hint),
            Some(dialled) = self.dials.next() => News::Dialled(dialled),
            event = self.creation.next_event() => News::Answer(event),
            () = sleep_until(over_at) => News::Nothing,
        };
        match news {
            News::Hint(Some(hint)) => {
                if let Some(refusal) = belongs_elsewhere(&hint, self.search.session) {
                    // It is not of this session.
                    self.list(refusal);
                    return Ok(true);
                }
                self.dials.by_hint(hint.node, hint.address);
            }
            News::Hint(None) => {
                if let Some(error) = self.finder.take().and_then(|mut finder| finder.failure()) {
                    return Err(error.into());
                }
            }
            News::Dialled(dialled) => self.dialled(dialled),
            News::Answer(Some(event)) => self.answered(event),
            // The node was shut down.
            News::Answer(None) => return Ok(false),
            News::Nothing => return Ok(true),
        }
        self.last_news_at = Instant::now();
        Ok(true)
    }

    /// The time at which no further answer is expected, if none is awaited.
    fn search_over_at(&self) -> Instant {
        let nobody_yet = self.found.is_empty() && self.refused == 0;
        if self.finder.is_none() {
            // All named nodes have answered.
            self.last_news_at
        } else if nobody_yet || self.search.expect.is_some() {
            self.ends_at
        } else {
            self.ends_at.min(self.last_news_at + QUIET)
        }
    }

    fn dialled(&mut self, dialled: Dialled) {
        let Dialled { name, hinted, answer } = dialled;
        match answer {
            Ok((node, address)) => {
                self.unreached.remove(&name);
                let known = self.asked.contains_key(&node) || self.found.iter().any(|found| found.node == node);
                if !known {
                    self.asked.insert(node, Found { node, address, name });
                    self.creation.invite(node);
                }
            }
            Err(Unreached { refused, words }) => match (hinted, &mut self.finder) {
                (Some(node), Some(finder)) if !refused => {
                    // It is dialled again only if it answers again, after a pause.
                    finder.could_not_dial(node);
                    self.unreached.insert(name, words);
                }
                _ => self.refuse(name, words),
            },
        }
    }

    fn answered(&mut self, event: CreationEvent) {
        match event {
            CreationEvent::Accepted { node } => {
                if let Some(found) = self.asked.remove(&node) {
                    (self.observe)(Ok(&found));
                    self.found.push(found);
                }
            }
            CreationEvent::Refused { node, reason } => {
                if let Some(found) = self.asked.remove(&node) {
                    self.refuse(found.name, reason);
                }
            }
            _ => {}
        }
    }

    fn refuse(&mut self, name: String, reason: String) {
        self.refused += 1;
        self.list(Refusal { name, reason });
    }

    fn list(&mut self, refusal: Refusal) {
        (self.observe)(Err(&refusal));
        self.refusals.add(refusal);
    }

    /// Excludes nodes that have not answered.
    fn end(mut self) -> Crew {
        let enough = self.search.expect.is_some_and(|expected| self.found.len() >= expected);
        let reason = if enough {
            "enough slaves had accepted before it answered"
        } else {
            "it did not answer before the timeout"
        };
        for (node, found) in std::mem::take(&mut self.asked) {
            self.creation.uninvite(node);
            self.refuse(found.name, reason.to_owned());
        }
        let unreached = std::mem::take(&mut self.unreached);
        let open: Vec<String> = self.dials.open_names().filter(|name| !unreached.contains_key(name)).collect();
        for (name, reason) in unreached {
            self.refuse(name, reason);
        }
        for name in open {
            self.refuse(name, reason.to_owned());
        }
        Crew { found: self.found, refusals: self.refusals.listed() }
    }
}

pub(super) async fn next_hint(finder: &mut Option<Finder>) -> Option<Hint> {
    match finder {
        Some(finder) => finder.next().await,
        None => pending().await,
    }
}

/// The reason to ignore a found node of another session.
pub(super) fn belongs_elsewhere(hint: &Hint, session: &SessionName) -> Option<Refusal> {
    (hint.label != session.as_str()).then(|| {
        let reason = format!("it belongs to session \"{}\"", Words::new(hint.label.as_bytes()));
        Refusal { name: hint.address.to_string(), reason }
    })
}
