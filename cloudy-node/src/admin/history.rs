//! The last minutes of the groups' counts, so that a page that is opened shows them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::source::Source;
use super::status::{GroupStatus, NodeStatus};

/// The time between two samples.
const EVERY: Duration = Duration::from_secs(2);
/// Maximum of samples: five minutes.
const SAMPLES_MAX: usize = 150;
/// Maximum of groups in a sample: the first ones by id.
const GROUPS_MAX: usize = 16;

/// The counts of a group at one time.
#[derive(Clone, Debug, Serialize)]
struct Counts {
    index: u64,
    latencies: u64,
    latency_seconds: f64,
}

/// The counts of all groups at one time, by the groups' ids.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    at: u64,
    groups: BTreeMap<String, Counts>,
}

/// The samples of the last minutes, oldest first.
#[derive(Default)]
pub(super) struct History(Mutex<VecDeque<Sample>>);

impl History {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        // A panic under the lock leaves the samples valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.lock().iter().cloned().collect()
    }

    /// Takes a sample at regular times.
    pub(super) async fn follow(&self, source: Arc<Source>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(status) = source.status().await {
                self.push(sample(&status));
            }
        }
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

fn sample(status: &NodeStatus) -> Sample {
    let counts = |group: &GroupStatus| Counts {
        index: group.index,
        latencies: group.receipt_latency.count(),
        latency_seconds: group.receipt_latency.sum_seconds,
    };
    let groups = status.groups.iter().take(GROUPS_MAX).map(|group| (group.id.clone(), counts(group)));
    Sample { at: status.at_ms, groups: groups.collect() }
}
