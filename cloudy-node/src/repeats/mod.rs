//! Log lines that peers can cause: each cause leaves a bounded number of them, with counts in place of the rest.
//!
//! The first line of a cause is written at once, and so is the first one of each further source, up to
//! [`SOURCES_NAMED_MAX`]. Repetitions are counted, and one summary has their number, time and sources. Summaries of a
//! persistent cause follow after one minute, then at intervals that double up to [`SUMMARY_AFTER_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Level;

use crate::health::Health;

/// Maximum of distinct causes; further ones are counted as one.
const CAUSES_MAX: usize = 64;
/// Maximum of sources of a cause that get a line of their own.
const SOURCES_NAMED_MAX: usize = 8;
/// Maximum of distinct sources of a cause in a summary.
const SOURCES_COUNTED_MAX: usize = 256;
/// Time from a cause's first line to its first summary.
const SUMMARY_AFTER: Duration = Duration::from_secs(60);
/// The longest time between two summaries of a cause.
const SUMMARY_AFTER_MAX: Duration = Duration::from_secs(16 * 60);
/// The name of the causes beyond [`CAUSES_MAX`].
const OTHER_CAUSES: &str = "other causes";

/// The source of a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A node that proved its identity.
    Node(NodeId),
    /// An address whose node is not known.
    Address(IpAddr),
    /// This node; the text distinguishes two lines.
    Here(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {}", node.short()),
            Self::Address(address) => write!(f, "{}", address.to_canonical()),
            Self::Here(_) => f.write_str("this node"),
        }
    }
}

/// Limits the lines of one node's log. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Repeats {
    table: Arc<Mutex<Table>>,
    runtime: Handle,
    health: Health,
}

#[derive(Default)]
struct Table {
    causes: BTreeMap<String, Cause>,
    /// Whether a task waits for the next summary.
    watched: bool,
}

/// A cause with a written first line.
struct Cause {
    level: Level,
    named: BTreeSet<Source>,
    /// Number of repetitions after the last summary, without lines of their own.
    repeated: u64,
    sources: BTreeSet<Source>,
    since: Instant,
    period: Duration,
}

impl Cause {
    fn new(level: Level) -> Self {
        Self {
            level,
            named: BTreeSet::new(),
            repeated: 0,
            sources: BTreeSet::new(),
            since: Instant::now(),
            period: SUMMARY_AFTER,
        }
    }

    fn due_at(&self) -> Instant {
        self.since + self.period
    }

    /// Whether a source gets a line of its own; else it is counted.
    fn is_new(&mut self, source: Source) -> bool {
        if self.named.len() < SOURCES_NAMED_MAX && self.named.insert(source.clone()) {
            return true;
        }
        self.repeated += 1;
        if self.sources.len() <= SOURCES_COUNTED_MAX {
            self.sources.insert(source);
        }
        false
    }

    /// The summary of the repetitions after the last one; none if there are none.
    fn summary(&mut self, cause: &str) -> Option<(Level, String)> {
        let (times, seconds) = (std::mem::take(&mut self.repeated), self.since.elapsed().as_secs());
        let sources = std::mem::take(&mut self.sources);
        (self.since, self.period) = (Instant::now(), (2 * self.period).min(SUMMARY_AFTER_MAX));
        let times = match times {
            0 => return None,
            1 => "once more".to_owned(),
            times => format!("{times} times"),
        };
        Some((self.level, format!("{cause}: repeated {times} in {seconds} s{}", from(&sources))))
    }
}

/// The number of sources, with some of them.
fn from(sources: &BTreeSet<Source>) -> String {
    let nodes = sources.iter().filter(|source| matches!(source, Source::Node(_))).count();
    let addresses = sources.iter().filter(|source| matches!(source, Source::Address(_))).count();
    let count = match sources.len() {
        0 => return String::new(),
        count if count > SOURCES_COUNTED_MAX => format!("more than {SOURCES_COUNTED_MAX}"),
        count => count.to_string(),
    };
    let noun = match (nodes, addresses) {
        (0, 0) => return String::new(),
        (1, 0) => "node",
        (_, 0) => "nodes",
        (0, 1) => "address",
        (0, _) => "addresses",
        (..) => "nodes and addresses",
    };
    let names: Vec<String> = sources.iter().take(SOURCES_NAMED_MAX).map(Source::to_string).collect();
    let more = if sources.len() > names.len() { ", …" } else { "" };
    format!(", from {count} {noun} ({}{more})", names.join(", "))
}

impl Repeats {
    /// Zero counts. A task of the current runtime writes the summaries.
    pub(crate) fn new(health: Health) -> Self {
        Self { table: Arc::default(), runtime: Handle::current(), health }
    }

    /// Writes a line, or counts it. `cause` represents all lines with this cause, and begins its summaries; it must
    /// contain nothing that a peer chooses.
    pub(crate) fn say(&self, level: Level, cause: &str, source: Source, text: impl fmt::Display) {
        let mut table = lock(&self.table);
        let known = table.causes.contains_key(cause) || table.causes.len() < CAUSES_MAX;
        let cause = if known { cause } else { OTHER_CAUSES };
        if !table.causes.contains_key(cause) {
            table.causes.insert(cause.to_owned(), Cause::new(level));
        }
        let is_new = table.causes.get_mut(cause).is_some_and(|cause| cause.is_new(source.clone()));
        if !std::mem::replace(&mut table.watched, true) {
            let (health, watch) = (self.health.clone(), watch(Arc::downgrade(&self.table)));
            // A failure was noted by the node's health.
            self.runtime.spawn(async move { health.run("log summaries", watch).await });
        }
        drop(table);
        if is_new {
            match source {
                Source::Here(_) => write(level, text),
                source => write(level, format_args!("{text} (from {source})")),
            }
        }
    }

    /// Writes summaries of everything that is counted.
    pub(crate) fn finish(&self) {
        let causes = std::mem::take(&mut lock(&self.table).causes);
        for (name, mut cause) in causes {
            cause.summary(&name).into_iter().for_each(|(level, summary)| write(level, summary));
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // A panic under the lock leaves wrong counts at worst.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes summaries when they are due, until no cause is left.
async fn watch(table: Weak<Mutex<Table>>) {
    loop {
        let Some(next) = table.upgrade().and_then(|table| next_due(&table)) else { return };
        tokio::time::sleep_until(next).await;
        let Some(table) = table.upgrade() else { return };
        for (level, summary) in take_due(&table) {
            write(level, summary);
        }
    }
}

/// The time of the next summary; none, which ends the task, once no cause is left.
fn next_due(table: &Mutex<Table>) -> Option<Instant> {
    let mut table = lock(table);
    let next = table.causes.values().map(Cause::due_at).min();
    table.watched = next.is_some();
    next
}

/// The due summaries. A cause without repetitions is dropped.
fn take_due(table: &Mutex<Table>) -> Vec<(Level, String)> {
    let (now, mut summaries) = (Instant::now(), Vec::new());
    lock(table).causes.retain(|name, cause| {
        if cause.due_at() > now {
            return true;
        }
        let summary = cause.summary(name);
        let repeats = summary.is_some();
        summaries.extend(summary);
        repeats
    });
    summaries
}

fn write(level: Level, text: impl fmt::Display) {
    match level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        _ => tracing::info!("{text}"),
    }
}

#[cfg(test)]
mod tests;
