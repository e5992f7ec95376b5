//! How a master finds its slaves: by multicast, or by the names that it was given. Who counts is decided by the
//! handshake, and by the slave itself, which accepts or refuses.

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
use crate::{Founding, FoundingEvent, Lookup, LookupError, Node};

/// Nobody comes once this long nobody came: the finder's queries are closer to each other at first.
const QUIET: Duration = Duration::from_millis(500);
/// What a node that was found may take beyond the time for finding: a handshake on a lossy network, and an answer.
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Nodes that do not take part and are listed, each with the reason; the others are counted.
const REFUSALS_MAX: usize = 256;

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

/// A node that does not take part.
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

/// Nodes that do not take part, as many as are listed.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    list: Vec<Refusal>,
    unlisted: usize,
}

impl Refusals {
    pub(super) fn add(&mut self, refusal: Refusal) {
        if self.list.len() < REFUSALS_MAX { self.list.push(refusal) } else { self.unlisted += 1 }
    }

    /// The list, and a last entry for those that are not listed.
    pub(super) fn listed(mut self) -> Vec<Refusal> {
        if self.unlisted > 0 {
            let name = format!("{} more", self.unlisted);
            self.list.push(Refusal { name, reason: "they do not take part either, and are not listed".to_owned() });
        }
        self.list
    }
}

/// Slaves cannot be looked for; nobody was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A name cannot be one.
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

/// Where slaves are looked for while the session runs: by the names that were given, or else by multicast.
pub(super) fn lookup(slaves: &[String], multicast: Option<Multicast>) -> Lookup {
    Lookup { names: slaves.to_vec(), multicast: multicast.filter(|_| slaves.is_empty()) }
}

/// What to look for.
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

/// Looks for slaves and invites them, until there are enough or nobody is left to wait for.
pub(super) async fn find(
    node: &Node,
    founding: &mut Founding,
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
        founding,
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
    founding: &'a mut Founding,
    observe: &'a O,
    search: Search<'a>,
    finder: Option<Finder>,
    /// When the search ends, but for the answers that are still to come.
    ends_at: Instant,
    /// When somebody was last heard of.
    last_news_at: Instant,
    dials: Dials<'a>,
    /// Invited, and not answered yet.
    asked: BTreeMap<NodeId, Found>,
    /// By name: nodes that were found by multicast and could not be dialled, and why.
    unreached: BTreeMap<String, String>,
    found: Vec<Found>,
    refusals: Refusals,
    /// Nodes of this session that do not take part.
    refused: usize,
}

enum News {
    Hint(Option<Hint>),
    Dialled(Dialled),
    Answer(Option<FoundingEvent>),
    Nothing,
}

impl<O: Fn(Result<&Found, &Refusal>)> Finding<'_, O> {
    /// Waits for the next piece of news and takes it; false once the search is over.
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
            event = self.founding.next_event() => News::Answer(event),
            () = sleep_until(over_at) => News::Nothing,
        };
        match news {
            News::Hint(Some(hint)) => {
                if let Some(refusal) = belongs_elsewhere(&hint, self.search.session) {
                    // No news of this session.
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

    /// When nobody else is to be expected, if nobody is being asked.
    fn search_over_at(&self) -> Instant {
        let nobody_yet = self.found.is_empty() && self.refused == 0;
        if self.finder.is_none() {
            // All that were named have answered.
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
                    self.founding.invite(node);
                }
            }
            Err(Unreached { refused, words }) => match (hinted, &mut self.finder) {
                (Some(node), Some(finder)) if !refused => {
                    // It is dialled again only if it goes on to answer, and not soon.
                    finder.could_not_dial(node);
                    self.unreached.insert(name, words);
                }
                _ => self.refuse(name, words),
            },
        }
    }

    fn answered(&mut self, event: FoundingEvent) {
        match event {
            FoundingEvent::Accepted { node } => {
                if let Some(found) = self.asked.remove(&node) {
                    (self.observe)(Ok(&found));
                    self.found.push(found);
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
        self.refused += 1;
        self.list(Refusal { name, reason });
    }

    fn list(&mut self, refusal: Refusal) {
        (self.observe)(Err(&refusal));
        self.refusals.add(refusal);
    }

    /// A node that has not answered stays out.
    fn end(mut self) -> Crew {
        for (node, found) in std::mem::take(&mut self.asked) {
            self.founding.uninvite(node);
            self.refuse(found.name, "it was invited and did not answer in time".to_owned());
        }
        let unreached = std::mem::take(&mut self.unreached);
        let open: Vec<String> = self.dials.open_names().filter(|name| !unreached.contains_key(name)).collect();
        for (name, reason) in unreached {
            self.refuse(name, reason);
        }
        let enough = self.search.expect.is_some_and(|expected| self.found.len() >= expected);
        let reason =
            if enough { "it had not answered when enough slaves had accepted" } else { "it did not answer in time" };
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

/// Why a node that was found is left alone, if it belongs to another session.
pub(super) fn belongs_elsewhere(hint: &Hint, session: &SessionName) -> Option<Refusal> {
    (hint.label != session.as_str()).then(|| {
        let reason = format!("it belongs to session \"{}\"", Words::new(hint.label.as_bytes()));
        Refusal { name: hint.address.to_string(), reason }
    })
}
