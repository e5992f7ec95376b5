//! Failures, round after round, each in a group that is complete again.

use std::time::Duration;

use miette::Report;
use serde::Serialize;

use super::cluster::{Cluster, Make, Process, Settled};
use crate::args::FailureKind;
use crate::bench::key::Key;
use crate::bench::latency::{Quantiles, merged};
use crate::bench::meter::now_us;
use crate::bench::orders::{Failed, Span};
use crate::output::failure;
use crate::progress::Progress;

/// The length of the time before and after a failure in which rates are counted.
const WINDOW: Duration = Duration::from_millis(500);
/// The same for failures without a change of the view: longer than a view change.
const WINDOW_WITHOUT_VIEW: Duration = Duration::from_millis(1_500);
/// A group with a longer result is replaced: members retain only this much of it for newcomers.
const RESULT_BYTES_MAX: u64 = 16 << 20;
/// The approximate time of a round beyond its windows: for the failure, and the start of a process.
const AROUND: Duration = Duration::from_millis(1_500);

/// The plan of a measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) kinds: Vec<FailureKind>,
    /// For each kind.
    pub(crate) rounds: u32,
    /// Processes of a group.
    pub(crate) nodes: usize,
    pub(crate) size_bytes: usize,
    /// For each member.
    pub(crate) rate_per_s: u64,
}

/// The measurements of all rounds of a kind, at each survivor of each round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) failure: &'static str,
    pub(crate) rounds: usize,
    /// From the failure to the first approval of an own message in the new view; none if the view need not change.
    pub(crate) new_view_us: Option<Quantiles>,
    /// The longest time without any approval.
    pub(crate) still_us: Option<Quantiles>,
    /// Approved a second: means.
    pub(crate) before_per_s: f64,
    pub(crate) during_per_s: f64,
    pub(crate) after_per_s: f64,
    pub(crate) each: Vec<Round>,
}

/// The measurements of one failure.
struct Seen {
    settled: Settled,
    coordinator_failed: bool,
    /// Of each survivor.
    spans: Vec<Span>,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    pub(crate) coordinator_failed: bool,
    pub(crate) view_before: u64,
    pub(crate) view_after: u64,
    /// At the slowest survivor.
    pub(crate) new_view_us: Option<u64>,
    pub(crate) still_us: u64,
    /// Approved a second after it, at the slowest survivor.
    pub(crate) after_per_s: f64,
}

/// Runs all rounds of all kinds.
///
/// # Errors
/// A node failed unexpectedly, or results differ; the measurements are lost.
pub(crate) async fn all(plan: &Plan, key: &Key, progress: &Progress) -> Result<Vec<Row>, Report> {
    let mut rows = Vec::with_capacity(plan.kinds.len());
    for kind in &plan.kinds {
        let row = Row::of(*kind, &rounds(*kind, plan, key, progress).await?);
        progress.line(&format!("{}: {}", row.failure, row.in_short()));
        rows.push(row);
    }
    Ok(rows)
}

/// The approximate time.
pub(crate) fn time_for(plan: &Plan) -> Duration {
    plan.kinds.iter().map(|kind| (AROUND + 2 * window(*kind)) * plan.rounds).sum()
}

fn window(kind: FailureKind) -> Duration {
    if kind == FailureKind::Master { WINDOW_WITHOUT_VIEW } else { WINDOW }
}

async fn rounds(kind: FailureKind, plan: &Plan, key: &Key, progress: &Progress) -> Result<Vec<Seen>, Report> {
    let make = Make {
        nodes: plan.nodes,
        master: kind == FailureKind::Master,
        partitions: kind == FailureKind::Partition,
        size_bytes: plan.size_bytes,
        rate_per_s: plan.rate_per_s,
    };
    let mut seen = Vec::with_capacity(plan.rounds as usize);
    let mut cluster: Option<Cluster> = None;
    for round in 0..plan.rounds as usize {
        progress.state(format!("{}: round {} of {}", kind.name(), round + 1, plan.rounds));
        let mut whole = match cluster.take() {
            Some(cluster) => cluster,
            None => Cluster::start(make.clone(), key).await?,
        };
        let settled = whole.settle().await?;
        // sleep: approvals in this time are measured.
        tokio::time::sleep(window(kind)).await;
        seen.push(fail(kind, round, &mut whole, settled).await?);
        let bytes = settled.messages * plan.size_bytes as u64;
        let is_last = round + 1 == plan.rounds as usize;
        if kind == FailureKind::Master {
            // A group has only one master.
            whole.end().await?;
        } else if is_last || bytes > RESULT_BYTES_MAX {
            // A node that was cut off must be back at the end.
            whole.settle().await?;
            whole.end().await?;
        } else {
            cluster = Some(whole);
        }
    }
    Ok(seen)
}

/// Causes a failure, waits until it is over at all survivors, and completes the group again.
async fn fail(kind: FailureKind, round: usize, cluster: &mut Cluster<'_>, settled: Settled) -> Result<Seen, Report> {
    let members = cluster.members().to_vec();
    let failing = failing(kind, round, cluster, settled);
    if failing.is_empty() {
        return Err(failure("no member of the group coordinates it", "run it again"));
    }
    let coordinator_failed = failing.iter().any(|process| process.node == settled.coordinator);
    let at_us = now_us();
    if kind == FailureKind::Partition {
        cluster.cut_off(&failing).await;
    } else {
        for process in &failing {
            cluster.kill(*process).await;
        }
    }
    let without = match kind {
        FailureKind::Master => Vec::new(),
        _ => failing.iter().map(|process| process.node).collect(),
    };
    let failed = Failed { at_us, without, window_us: window(kind).as_micros() as u64 };
    let fails = |process: &Process| failing.iter().any(|other| other.number == process.number);
    let survivors: Vec<Process> = members.into_iter().filter(|process| !fails(process)).collect();
    let spans = cluster.survive(&survivors, &failed).await?;
    match kind {
        FailureKind::Partition => cluster.cut_off(&[]).await,
        FailureKind::Master => {}
        FailureKind::Member | FailureKind::Coordinator => drop(cluster.join().await?),
    }
    Ok(Seen { settled, coordinator_failed, spans })
}

/// The process that fails in a round; another one each time, if there is a choice.
fn failing(kind: FailureKind, round: usize, cluster: &Cluster<'_>, settled: Settled) -> Vec<Process> {
    let members = cluster.members();
    let is_coordinator = |process: &Process| process.node == settled.coordinator;
    match kind {
        FailureKind::Coordinator => members.iter().copied().filter(is_coordinator).collect(),
        FailureKind::Member => {
            let others: Vec<Process> = members.iter().copied().filter(|process| !is_coordinator(process)).collect();
            others.get(round % others.len().max(1)).copied().into_iter().collect()
        }
        FailureKind::Master => cluster.master().into_iter().collect(),
        // In some rounds the coordinator is among them.
        FailureKind::Partition => {
            let minority = (cluster.voters() - 1) / 2;
            (0..minority).map(|at| members[(round + at) % members.len()]).collect()
        }
    }
}

impl Row {
    fn of(kind: FailureKind, seen: &[Seen]) -> Self {
        let spans = || seen.iter().flat_map(|seen| &seen.spans);
        let quantiles = |values: Vec<u64>| {
            let counts: Vec<(u64, u64)> = values.into_iter().map(|value| (value, 1)).collect();
            merged([counts.as_slice()])
        };
        let mean = |of: fn(&Span) -> f64| {
            let sum: f64 = spans().map(of).sum();
            (sum / spans().count().max(1) as f64).round()
        };
        Self {
            failure: kind.name(),
            rounds: seen.len(),
            new_view_us: quantiles(spans().filter_map(|span| span.new_view_us).collect()),
            still_us: quantiles(spans().map(|span| span.still_us).collect()),
            before_per_s: mean(|span| span.before_per_s),
            during_per_s: mean(|span| span.during_per_s),
            after_per_s: mean(|span| span.after_per_s),
            each: seen.iter().map(Round::of).collect(),
        }
    }

    fn in_short(&self) -> String {
        match (self.new_view_us, self.still_us) {
            (Some(new_view), _) => format!("a new view after {} ms at p99", new_view.p99 / 1_000),
            (None, Some(still)) => format!("at most {} ms without an approval at p99", still.p99 / 1_000),
            (None, None) => "nobody survived".to_owned(),
        }
    }
}

impl Round {
    fn of(Seen { settled, coordinator_failed, spans }: &Seen) -> Self {
        Self {
            coordinator_failed: *coordinator_failed,
            view_before: settled.view.0,
            view_after: spans.iter().map(|span| span.view.0).max().unwrap_or_default(),
            new_view_us: spans.iter().filter_map(|span| span.new_view_us).max(),
            still_us: spans.iter().map(|span| span.still_us).max().unwrap_or_default(),
            after_per_s: spans.iter().map(|span| span.after_per_s).fold(f64::INFINITY, f64::min).round(),
        }
    }
}

#[cfg(test)]
mod tests {
    use cloudy_node::{NodeId, ViewId};

    use super::*;

    #[test]
    fn a_row_counts_each_survivor_of_each_round() {
        let span = |new_view_us: u64| Span {
            view: ViewId(2),
            new_view_us: Some(new_view_us),
            still_us: new_view_us / 2,
            before_per_s: 100.0,
            during_per_s: 10.0,
            after_per_s: new_view_us as f64,
        };
        let settled = Settled { view: ViewId(1), coordinator: NodeId([1; 32]), messages: 5 };
        let seen = |spans: &[u64]| {
            let spans = spans.iter().map(|new_view_us| span(*new_view_us)).collect();
            Seen { settled, coordinator_failed: true, spans }
        };
        let row = Row::of(FailureKind::Member, &[seen(&[100, 300]), seen(&[200])]);
        assert_eq!((row.failure, row.rounds, row.before_per_s, row.after_per_s), ("member", 2, 100.0, 200.0));
        assert_eq!(row.new_view_us.map(|all| (all.p50, all.max)), Some((200, 300)));
        assert_eq!(row.still_us.map(|all| all.max), Some(150));
        let first = Round {
            coordinator_failed: true,
            view_before: 1,
            view_after: 2,
            new_view_us: Some(300),
            still_us: 150,
            after_per_s: 100.0,
        };
        assert_eq!(row.each[0], first);
    }

    #[test]
    fn the_time_is_that_of_all_rounds() {
        let kinds = vec![FailureKind::Member, FailureKind::Master];
        let plan = Plan { kinds, rounds: 10, nodes: 5, size_bytes: 100, rate_per_s: 500 };
        assert_eq!(time_for(&plan), Duration::from_secs(25 + 45));
    }
}
