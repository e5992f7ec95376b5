//! Many seeds, on several threads, with one verdict.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::invariants::Failure;
use crate::sim::run::run_seed;
use crate::sim::stats::Stats;

/// The outcome of many seeds.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The lowest seed that failed, and how.
    pub failed: Option<(u64, Failure)>,
    /// The counts of all runs.
    pub stats: Stats,
    /// The number of runs.
    pub runs: u64,
}

impl Verdict {
    /// The report on a failed seed: its cause, and the line that replays it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let (seed, failure) = self.failed.as_ref()?;
        Some(format!("seed {seed}: {failure}\nreplay: cargo xtask simulate --from {seed} --seeds 1"))
    }
}

/// Runs `seeds` seeds from `from` on, and tells how many are done now and then. Stops early at a failure.
pub fn campaign(from: u64, seeds: u64, threads: usize, progress: impl Fn(u64) + Sync) -> Verdict {
    let next = AtomicU64::new(from);
    let end = from.saturating_add(seeds);
    let verdict = Mutex::new(Verdict::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let outcome = run_seed(seed);
            let Ok(mut verdict) = verdict.lock() else { break };
            verdict.runs += 1;
            verdict.stats.merge(&outcome.stats);
            if let Some(failure) = outcome.failure {
                next.fetch_max(end, Ordering::Relaxed);
                if verdict.failed.as_ref().is_none_or(|(known, _)| seed < *known) {
                    verdict.failed = Some((seed, failure));
                }
            }
            progress(verdict.runs);
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        handles.into_iter().for_each(|handle| handle.join().unwrap_or_default());
    });
    verdict.into_inner().unwrap_or_default()
}
