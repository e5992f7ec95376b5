//! The memory of a group's nodes under a steady load over a long time.

use std::time::Duration;

use miette::Report;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, Make};
use crate::bench::key::Key;
use crate::progress::Progress;

/// Number of memory readings, spread over the time.
const LOOKS: u32 = 60;
/// From this reading on memory should be constant: the retained part of the result has its full size.
const SETTLED_LOOK: usize = LOOKS as usize / 4;

/// The measurements of a soak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Soak {
    pub(crate) duration_us: u64,
    /// Number of messages in the final result, which was the same at all nodes.
    pub(crate) messages: u64,
    pub(crate) approved_per_s: f64,
    /// None if the operating system does not report the memory of a process.
    pub(crate) memory: Option<Memory>,
}

/// The resident memory of the processes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Memory {
    pub(crate) looks: Vec<Look>,
    /// Of the largest process: at a quarter of the time, at the end, and at most.
    pub(crate) quarter_mib: f64,
    pub(crate) end_mib: f64,
    pub(crate) max_mib: f64,
}

/// The resident memory of each process at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Look {
    pub(crate) at_us: u64,
    pub(crate) mib: Vec<f64>,
}

/// Keeps a group under load for this time.
///
/// # Errors
/// A node failed, or results differ.
pub(crate) async fn run(make: Make, duration: Duration, key: &Key, progress: &Progress) -> Result<Soak, Report> {
    let mut cluster = Cluster::start(make, key).await?;
    cluster.settle().await?;
    let began_at = Instant::now();
    let mut looks = Some(Vec::with_capacity(LOOKS as usize));
    for look in 1..=LOOKS {
        // sleep: memory is read at fixed times.
        sleep_until(began_at + duration * look / LOOKS).await;
        let at_us = began_at.elapsed().as_micros() as u64;
        let seen = cluster.memory_kib().await?.map(|kib| Look { at_us, mib: kib.into_iter().map(mib).collect() });
        if let Some(seen) = &seen {
            progress.state(format!("{} s: {:.1} MiB in the largest process", at_us / 1_000_000, seen.largest()));
        }
        looks = looks.zip(seen).map(|(mut looks, seen)| {
            looks.push(seen);
            looks
        });
    }
    let duration_us = began_at.elapsed().as_micros() as u64;
    let messages = cluster.end().await?;
    let approved_per_s = (messages as f64 * 1e6 / duration_us.max(1) as f64).round();
    Ok(Soak { duration_us, messages, approved_per_s, memory: looks.map(Memory::of) })
}

fn mib(kib: u64) -> f64 {
    (kib as f64 / 102.4).round() / 10.0
}

impl Look {
    pub(crate) fn largest(&self) -> f64 {
        self.mib.iter().copied().fold(0.0, f64::max)
    }
}

impl Memory {
    fn of(looks: Vec<Look>) -> Self {
        let largest = |look: Option<&Look>| look.map_or(0.0, Look::largest);
        Self {
            quarter_mib: largest(looks.get(SETTLED_LOOK - 1)),
            end_mib: largest(looks.last()),
            max_mib: looks.iter().map(Look::largest).fold(0.0, f64::max),
            looks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_process_counts() {
        let looks = (1..=60).map(|at| Look { at_us: at, mib: vec![1.0, if at == 30 { 99.0 } else { at as f64 }] });
        let memory = Memory::of(looks.collect());
        assert_eq!((memory.quarter_mib, memory.end_mib, memory.max_mib), (15.0, 60.0, 99.0));
        assert_eq!(mib(1_536), 1.5);
    }
}
