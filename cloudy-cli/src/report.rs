//! The report of a finished session by its master or demo: a table and a verdict, or one JSON object.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloudy_node::session::{MasterOutcome, MasterRow, Refusal, SlaveResult};
use serde_json::{Value, json};

use crate::duration;
use crate::periods::Periods;
use crate::ring::RingChoice;
use crate::verdict::{self, Outcome, Row, Verdict};
use crate::watcher::{ViewChange, Watcher};

/// A finished session.
pub(crate) struct Session {
    pub(crate) periods: Periods,
    pub(crate) ring: RingChoice,
    pub(crate) seed: u64,
    /// Name and row of each slave, in the order of the report.
    pub(crate) rows: Vec<(String, MasterRow)>,
    pub(crate) refusals: Vec<Refusal>,
    /// Names of slaves that were killed on purpose.
    pub(crate) killed: BTreeSet<String>,
    /// Actions on the processes, for programs.
    pub(crate) faults: Vec<Value>,
    /// Views after the first.
    pub(crate) views: Vec<ViewChange>,
    /// The problem of a row, by its slave's name, as a sentence.
    pub(crate) row_problems: BTreeMap<String, String>,
    /// Other problems, each as a sentence.
    pub(crate) problems: Vec<String>,
    /// Remarks that are no problems.
    pub(crate) notes: Vec<String>,
    /// The time from the first query for slaves to the last report.
    pub(crate) took: Duration,
}

impl Session {
    /// The report of an outcome.
    pub(crate) fn new(
        (periods, ring, seed): (Periods, RingChoice, u64),
        outcome: MasterOutcome,
        watcher: &Watcher,
        took: Duration,
    ) -> Self {
        let MasterOutcome { rows, refusals } = outcome;
        let rows: Vec<(String, MasterRow)> = rows.into_iter().map(|row| (watcher.name(&row.slave), row)).collect();
        let problem = |(name, row): &(String, MasterRow)| Some((name.clone(), problem(name, &row.result)?));
        let row_problems = rows.iter().filter_map(problem).collect();
        let problems = ended_early(&rows, periods.send).into_iter().collect();
        let (killed, faults, notes) = Default::default();
        let views = watcher.views().to_vec();
        Self { periods, ring, seed, rows, refusals, killed, faults, views, row_problems, problems, notes, took }
    }

    /// Reports named slaves that take no part. They are missing unless `expected` slaves were enough.
    pub(crate) fn report_absent(&mut self, named: &[String], expected: bool) {
        let absent = self.refusals.iter().filter(|refusal| named.contains(&refusal.name));
        let sentences = absent.map(|Refusal { name, reason }| format!("{name} was named and took no part: {reason}"));
        if expected { self.notes.extend(sentences) } else { self.problems.extend(sentences) }
    }

    fn table(&self) -> Vec<Row> {
        self.rows.iter().map(|(name, row)| table_row(name, row, self.killed.contains(name))).collect()
    }

    /// All problems, each as a sentence.
    fn all_problems(&self) -> Vec<&str> {
        self.row_problems.values().chain(&self.problems).map(String::as_str).collect()
    }

    /// Whether all results are there and equal, and there is no other problem.
    pub(crate) fn is_good(&self) -> bool {
        Verdict::of(&self.table()).is_good() && self.all_problems().is_empty()
    }

    /// The text for people.
    pub(crate) fn text(&self) -> String {
        let rows = self.table();
        let mut text = verdict::render(&rows);
        let notes = self.notes.iter().map(String::as_str);
        self.all_problems().into_iter().chain(notes).for_each(|line| text.push_str(&format!("{line}\n")));
        text.push_str(&format!("{}\n", Verdict::of(&rows)));
        text
    }

    /// The object for programs.
    pub(crate) fn json(&self) -> Value {
        let micros = |duration: Duration| duration.as_micros() as u64;
        let nodes: Vec<Value> =
            self.rows.iter().map(|(name, row)| json_row(name, row, self.killed.contains(name))).collect();
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
            "faults": self.faults,
            "views": self.views,
            "problems": self.all_problems(),
            "notes": self.notes,
        })
    }
}

/// The line before a session.
pub(crate) fn heading(periods: Periods, ring: RingChoice, seed: u64) -> String {
    let total = duration::show(periods.send + periods.grace + periods.stop);
    format!("periods: {periods} (together {total}); ring {ring}, seed {seed}\n")
}

fn table_row(name: &str, row: &MasterRow, killed: bool) -> Row {
    let summary = row.result.summary();
    Row {
        node: name.to_owned(),
        killed,
        outcome: summary.map(|summary| Outcome {
            count: summary.count,
            sum: summary.sum,
            digest: summary.digest.to_string(),
        }),
        own: summary.map_or(0, |summary| summary.own),
        confirmations: summary.map_or(0, |summary| summary.confirmations),
    }
}

fn json_row(name: &str, row: &MasterRow, killed: bool) -> Value {
    let summary = row.result.summary();
    json!({
        "name": name,
        "node": row.slave.node.to_string(),
        "address": row.slave.address,
        "rank": row.rank.0,
        "killed": killed,
        "count": summary.map(|summary| summary.count),
        "sum": summary.map(|summary| summary.sum),
        "digest": summary.map(|summary| summary.digest.to_string()),
        "own": summary.map(|summary| summary.own),
        "confirmations": summary.map(|summary| summary.confirmations),
    })
}

/// Names the slaves that left and so ended the session, if there are any.
fn ended_early(rows: &[(String, MasterRow)], planned: Duration) -> Option<String> {
    let left = |(name, row): &(String, MasterRow)| Some((name.clone(), row.result.summary()?.left?));
    let (names, sent): (Vec<String>, Vec<Duration>) = rows.iter().filter_map(left).unzip();
    let (were, sent) = (if names.len() > 1 { "were" } else { "was" }, sent.into_iter().max()?);
    let names = names.join(" and ");
    Some(if sent < planned.mul_f64(0.99) {
        let (sent, planned) = (duration::show(rounded(sent)), duration::show(planned));
        format!("SEND ended early, after {sent} of {planned}, because {names} {were} stopped and no slave stayed")
    } else {
        format!("GRACE ended early, because {names} {were} stopped and no slave stayed")
    })
}

/// For people: in whole milliseconds.
pub(crate) fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn problem(name: &str, result: &SlaveResult) -> Option<String> {
    match result {
        SlaveResult::Reported(_) => None,
        SlaveResult::Silent => Some(format!("{name} gave no answer: the session ended without it")),
        SlaveResult::Left => Some(format!("{name} left the session before its end, and has no result")),
        SlaveResult::Missing => Some(format!("{name} did not report its result before the timeout")),
        SlaveResult::Unreadable(error) => Some(format!("{name}: {error}")),
        SlaveResult::Contradictory(summary) => Some(format!(
            "{name} added up {} messages with digest {}, which differs from its node's result",
            summary.count, summary.digest
        )),
    }
}
