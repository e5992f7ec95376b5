//! One run: from the start of its nodes to the comparison of their results.

use std::time::Duration;

use miette::Report;

use super::key::Key;
use super::latency::Quantiles;
use super::meter::now_us;
use super::nodes::{Nodes, Place};
use super::orders::{Assignment, Order, Outcome, Said};
use super::spec::{Program, Spec};
use super::timeline::{Moment, moments, quantiles};
use crate::output::failure;

/// The time from the order to the start of the load, in which all nodes receive the order.
const START_AFTER: Duration = Duration::from_millis(50);

/// The measurements of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Messages per second in the result of the slowest node.
    pub(crate) approved_per_s: f64,
    /// For all nodes together.
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) packets_per_message: f64,
    /// For the largest process.
    pub(crate) memory_mib_max: f64,
    /// The mean over the senders; zero for the baseline.
    pub(crate) window_bytes: u64,
    /// At all nodes, the senders included; none for payloads that are too short for a stamp.
    pub(crate) latency_us: Option<Quantiles>,
    /// Rate and latency over the measured time.
    pub(crate) timeline: Vec<Moment>,
    /// Messages in the final result, the warm-up's included.
    pub(crate) count: u64,
}

/// Conducts runs, with a cluster key that lives as long as they do.
pub(crate) struct Conductor {
    place: Place,
    key: Key,
}

impl Conductor {
    pub(crate) fn new(place: Place) -> Result<Self, Report> {
        Ok(Self { place, key: Key::new()? })
    }

    /// Runs a program once.
    ///
    /// # Errors
    /// A node failed, or the nodes' results differ.
    pub(crate) async fn run(&self, program: Program, spec: &Spec) -> Result<Measured, Report> {
        let mut nodes = Nodes::start(self.assignments(program, spec), self.place).await?;
        let outcomes = direct(&mut nodes, spec).await;
        nodes.end().await;
        let outcomes = outcomes?;
        compare(&outcomes)?;
        Ok(summary(&outcomes, self.place, spec.duration))
    }

    fn assignments(&self, program: Program, spec: &Spec) -> Vec<Assignment> {
        let assignment = |number: usize| {
            // Another seed for each node: nodes with equal seeds lose the same datagrams.
            let faults = spec.faults.seed(spec.faults.seed.wrapping_add(number as u64));
            Assignment { number, program, spec: Spec { faults, ..spec.clone() }, key: self.key.file().to_owned() }
        };
        (0..spec.nodes).map(assignment).collect()
    }
}

/// Directs the nodes through the run.
async fn direct(nodes: &mut Nodes, spec: &Spec) -> Result<Vec<Outcome>, Report> {
    let load = START_AFTER + spec.warm_up + spec.duration;
    let addresses = nodes
        .hear(Duration::ZERO, "listening", |said| match said {
            Said::Listening(address) => Some(address),
            _ => None,
        })
        .await?;
    for number in 0..nodes.len() {
        nodes.tell(number, Order::Link(addresses.clone())).await;
    }
    nodes.hear(Duration::ZERO, "ready", |said| matches!(said, Said::Ready).then_some(())).await?;
    let at_us = now_us() + START_AFTER.as_micros() as u64;
    for number in 0..nodes.len() {
        nodes.tell(number, Order::Start { at_us }).await;
    }
    let sent = nodes
        .hear(load, "approved to its last message", |said| match said {
            Said::Drained { sent } => Some(sent),
            _ => None,
        })
        .await?;
    for number in 0..nodes.len() {
        nodes.tell(number, Order::End { sent: sent.clone() }).await;
    }
    let done = |said| match said {
        Said::Done(outcome) => Some(*outcome),
        _ => None,
    };
    nodes.hear(Duration::ZERO, "done", done).await
}

/// Checks that all nodes have the same result.
fn compare(outcomes: &[Outcome]) -> Result<(), Report> {
    let result = |outcome: &Outcome| (outcome.count, outcome.digest.clone());
    let first = outcomes.first().map(result);
    match outcomes.iter().position(|outcome| Some(result(outcome)) != first) {
        None => Ok(()),
        Some(number) => Err(failure(
            format_args!(
                "UNEQUAL: the results of node 0 and node {number} differ: {first:?} and {:?}",
                result(&outcomes[number])
            ),
            "this is a defect of cloudy or of this machine's memory: report it, with the command line",
        )),
    }
}

fn summary(outcomes: &[Outcome], place: Place, duration: Duration) -> Measured {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>() as f64;
    let max = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).max().unwrap_or(0) as f64;
    let rate = |outcome: &Outcome| outcome.approved as f64 * 1e6 / (outcome.interval_us.max(1)) as f64;
    let cpu_us = match place {
        Place::Processes => sum(|outcome| outcome.cpu_us),
        // Each has measured the one process that they share.
        Place::InProcess(_) => max(|outcome| outcome.cpu_us),
    };
    let courses: Vec<_> = outcomes.iter().map(|outcome| outcome.timeline.as_slice()).collect();
    let messages = (sum(|outcome| outcome.approved) / outcomes.len().max(1) as f64).max(1.0);
    Measured {
        approved_per_s: outcomes.iter().map(rate).fold(f64::INFINITY, f64::min),
        cpu_ns_per_message: cpu_us * 1e3 / messages,
        packets_per_message: sum(|outcome| outcome.datagrams) / messages,
        memory_mib_max: max(|outcome| outcome.memory_kib) / 1024.0,
        window_bytes: mean_of_senders(outcomes),
        latency_us: quantiles(courses.iter().copied()),
        timeline: moments(&courses, duration),
        count: outcomes.first().map_or(0, |outcome| outcome.count),
    }
}

/// The baseline has the same total in flight if each sender has the mean.
fn mean_of_senders(outcomes: &[Outcome]) -> u64 {
    let windows = || outcomes.iter().map(|outcome| outcome.window_bytes).filter(|&bytes| bytes > 0);
    windows().sum::<u64>() / (windows().count() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::timeline::PartCounts;

    fn outcome(approved: u64, digest: &str) -> Outcome {
        Outcome {
            count: 1_000,
            digest: digest.to_owned(),
            approved,
            interval_us: 500_000,
            cpu_us: 2_000,
            datagrams: 300,
            window_bytes: 7 * approved,
            memory_kib: 2_048 + approved,
            timeline: vec![PartCounts { approved, latency: vec![(approved, 1)] }],
        }
    }

    #[test]
    fn a_summary_takes_the_slowest_node_and_the_work_of_all() {
        let outcomes = [outcome(1_024, "a"), outcome(976, "a")];
        let duration = Duration::from_millis(500);
        let measured = summary(&outcomes, Place::Processes, duration);
        assert_eq!(measured.approved_per_s, 1_952.0);
        assert_eq!((measured.cpu_ns_per_message, measured.packets_per_message), (4_000.0, 0.6));
        assert_eq!((measured.memory_mib_max, measured.count), (3.0, 1_000));
        assert_eq!(measured.window_bytes, 7 * 1_000);
        let with_an_idle_one = [outcome(1_024, "a"), Outcome { window_bytes: 0, ..outcome(976, "a") }];
        assert_eq!(summary(&with_an_idle_one, Place::Processes, duration).window_bytes, 7 * 1_024);
        assert_eq!(measured.timeline.iter().map(|moment| moment.approved_per_s).collect::<Vec<_>>(), [2_000.0]);
        assert_eq!(measured.latency_us.map(|latency| (latency.p50, latency.max)), Some((976, 1_024)));
        assert_eq!(
            summary(&outcomes, Place::InProcess(crate::bench::node::boxed), duration).cpu_ns_per_message,
            2_000.0
        );
    }

    #[test]
    fn results_that_differ_fail_the_run() {
        assert!(compare(&[outcome(1, "a"), outcome(2, "a")]).is_ok());
        let error = compare(&[outcome(1, "a"), outcome(1, "a"), outcome(1, "b")]).expect_err("they differ");
        assert!(error.to_string().contains("UNEQUAL: the results of node 0 and node 2 differ"), "{error}");
        let shorter = Outcome { count: 999, ..outcome(1, "a") };
        assert!(compare(&[outcome(1, "a"), shorter]).is_err());
    }
}
