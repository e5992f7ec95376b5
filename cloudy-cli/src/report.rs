//! A session as its master shows it: progress while it runs, then a table and a verdict, or one JSON object.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use cloudy_node::session::{Found, MasterEvent, MasterOutcome, MasterRow, Refusal, SlaveResult};
use cloudy_node::{Index, NodeId, Phase};
use serde_json::{Value, json};

use crate::duration;
use crate::periods::Periods;
use crate::progress::Progress;
use crate::ring::RingChoice;
use crate::table::{self, Outcome, Row, Verdict};

/// A phase in the words of `protocol.md` §9.
pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "START",
        Phase::Send => "SEND: slaves broadcast",
        Phase::Grace => "GRACE: slaves finish",
        Phase::Stop => "STOP: the results are cut and compared",
        Phase::Done => "DONE",
    }
}

/// The same, in JSON and in one word.
fn short_phase(phase: Phase) -> &'static str {
    phase_name(phase).split(':').next().unwrap_or_default()
}

/// Shows a session while it runs.
pub(crate) struct Watcher {
    progress: Progress,
    /// What slaves are called, by their address; by the address itself where there is none.
    names: BTreeMap<String, String>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    nodes: BTreeMap<NodeId, String>,
    phase: Phase,
}

impl Watcher {
    /// With names for addresses.
    pub(crate) fn new(progress: Progress, names: BTreeMap<String, String>) -> Self {
        Self { progress, names, seen: RefCell::default() }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        self.progress.line(text);
    }

    /// What a slave is called.
    pub(crate) fn name(&self, slave: &Found) -> String {
        self.names.get(&slave.name).unwrap_or(&slave.name).clone()
    }

    /// Shows what happened.
    pub(crate) fn observe(&self, event: MasterEvent) {
        let mut seen = self.seen.borrow_mut();
        match event {
            MasterEvent::Found(slave) => {
                let name = self.name(&slave);
                self.progress.line(&format!("found {name}"));
                seen.nodes.insert(slave.node, name);
            }
            MasterEvent::Refused(Refusal { name, reason }) => {
                let name = self.names.get(&name).unwrap_or(&name);
                self.progress.line(&format!("without {name}: {reason}"));
            }
            MasterEvent::Founded { members: 1 } => self.progress.line("1 slave takes part"),
            MasterEvent::Founded { members } => self.progress.line(&format!("{members} slaves take part")),
            MasterEvent::Phase(phase) => {
                seen.phase = phase;
                self.progress.line(phase_name(phase));
            }
            MasterEvent::Approved(indexes) => self.progress.state(seen.state(&indexes)),
            MasterEvent::Silent(node) => {
                self.progress.line(&format!("{} does not answer: the session goes on without it", seen.name(node)));
            }
            MasterEvent::Blamed(node) => {
                self.progress.line(&format!("{} holds others up: they go on until it is back", seen.name(node)));
            }
            MasterEvent::View { id, members } => self.progress.line(&format!("view {id}: {members} slaves")),
            MasterEvent::Reported(node) => self.progress.state(format!("{} has reported", seen.name(node))),
        }
    }
}

impl Seen {
    fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).cloned().unwrap_or_else(|| node.short())
    }

    fn state(&self, indexes: &[(NodeId, Index)]) -> String {
        let furthest = indexes.iter().map(|(_, index)| index.0).max().unwrap_or_default();
        let each: Vec<String> = indexes.iter().map(|(node, index)| format!("{} {index}", self.name(*node))).collect();
        format!("{}: approved {furthest} ({})", short_phase(self.phase), each.join(", "))
    }
}

/// A session that has ended.
pub(crate) struct Session {
    pub(crate) periods: Periods,
    pub(crate) ring: RingChoice,
    pub(crate) seed: u64,
    /// Name and row of each slave, in the order to show.
    pub(crate) rows: Vec<(String, MasterRow)>,
    pub(crate) refusals: Vec<Refusal>,
    /// What else is wrong, each in a sentence.
    pub(crate) problems: Vec<String>,
    /// From the first look for slaves to the last report.
    pub(crate) took: Duration,
}

impl Session {
    /// Of the outcome.
    pub(crate) fn new(
        (periods, ring, seed): (Periods, RingChoice, u64),
        outcome: MasterOutcome,
        watcher: &Watcher,
        took: Duration,
    ) -> Self {
        let MasterOutcome { rows, refusals } = outcome;
        let rows: Vec<(String, MasterRow)> = rows.into_iter().map(|row| (watcher.name(&row.slave), row)).collect();
        let problems = rows.iter().filter_map(|(name, row)| problem(name, &row.result)).collect();
        Self { periods, ring, seed, rows, refusals, problems, took }
    }

    fn table(&self) -> Vec<Row> {
        self.rows.iter().map(|(name, row)| table_row(name, row)).collect()
    }

    /// All results are there and equal, and nothing else is wrong.
    pub(crate) fn is_good(&self) -> bool {
        Verdict::of(&self.table()).is_equal() && self.problems.is_empty()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let rows = self.table();
        let mut text = table::render(&rows);
        self.problems.iter().for_each(|problem| text.push_str(&format!("{problem}\n")));
        text.push_str(&format!("{}\n", Verdict::of(&rows)));
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let micros = |duration: Duration| duration.as_micros() as u64;
        let nodes: Vec<Value> = self.rows.iter().map(|(name, row)| json_row(name, row)).collect();
        let refused = |refusal: &Refusal| json!({ "name": refusal.name, "reason": refusal.reason });
        json!({
            "equal": self.is_good(),
            "verdict": Verdict::of(&self.table()).to_string(),
            "ring": self.ring.to_string(),
            "seed": self.seed,
            "send_us": micros(self.periods.send),
            "grace_us": micros(self.periods.grace),
            "stop_us": micros(self.periods.stop),
            "took_us": micros(self.took),
            "nodes": nodes,
            "refused": self.refusals.iter().map(refused).collect::<Vec<_>>(),
            "problems": self.problems,
        })
    }
}

/// The line before a session.
pub(crate) fn heading(periods: Periods, ring: RingChoice, seed: u64) -> String {
    let total = duration::show(periods.send + periods.grace + periods.stop);
    format!("periods: {periods} (together {total}); ring {ring}, seed {seed}\n")
}

fn table_row(name: &str, row: &MasterRow) -> Row {
    let summary = row.result.summary();
    Row {
        node: name.to_owned(),
        outcome: summary.map(|summary| Outcome {
            count: summary.count,
            sum: summary.sum,
            digest: summary.digest.to_string(),
        }),
        own: summary.map_or(0, |summary| summary.own),
        confirmations: summary.map_or(0, |summary| summary.confirmations),
    }
}

fn json_row(name: &str, row: &MasterRow) -> Value {
    let summary = row.result.summary();
    json!({
        "name": name,
        "node": row.slave.node.to_string(),
        "address": row.slave.address,
        "rank": row.rank.0,
        "count": summary.map(|summary| summary.count),
        "sum": summary.map(|summary| summary.sum),
        "digest": summary.map(|summary| summary.digest.to_string()),
        "own": summary.map(|summary| summary.own),
        "confirmations": summary.map(|summary| summary.confirmations),
    })
}

fn problem(name: &str, result: &SlaveResult) -> Option<String> {
    match result {
        SlaveResult::Reported(_) => None,
        SlaveResult::Silent => Some(format!("{name} gave no answer: the session ended without it")),
        SlaveResult::Missing => Some(format!("{name} did not report its result in time")),
        SlaveResult::Unreadable(error) => Some(format!("{name}: {error}")),
        SlaveResult::Contradictory(summary) => Some(format!(
            "{name} added up {} messages with digest {}, which is not what its node holds",
            summary.count, summary.digest
        )),
    }
}
