//! The speed at which a newcomer fetches a long result under load.

use std::time::Duration;

use miette::Report;
use serde::Serialize;

use super::cluster::{Cluster, Joined, Make};
use crate::bench::key::Key;
use crate::progress::Progress;

/// Number of newcomers, one after the other.
const JOINS: usize = 5;
/// The approximate time for each MiB of result.
const TIME_PER_MIB: Duration = Duration::from_millis(150);
const AROUND: Duration = Duration::from_secs(2);

/// Medians over the newcomers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CatchUp {
    pub(crate) joins: usize,
    /// Number of messages in the result when a newcomer was on the ring.
    pub(crate) messages: u64,
    /// The time from the request to join until the newcomer is on the ring with the whole result.
    pub(crate) took_us: u64,
    pub(crate) messages_per_s: f64,
    /// 10⁶ bytes of payload.
    pub(crate) mb_per_s: f64,
}

/// Fills a group with this number of bytes of payload, and lets newcomers join.
///
/// # Errors
/// A node failed, or results differ.
pub(crate) async fn run(make: Make, bytes: u64, key: &Key, progress: &Progress) -> Result<CatchUp, Report> {
    progress.state(format!("catching up: {} MiB of result", bytes >> 20));
    let size_bytes = make.size_bytes as u64;
    let messages = bytes / size_bytes.max(1) / make.nodes as u64;
    let mut cluster = Cluster::start(make, key).await?;
    cluster.settle().await?;
    cluster.fill(messages).await?;
    let mut joins = Vec::with_capacity(JOINS);
    for join in 1..=JOINS {
        progress.state(format!("catching up: newcomer {join} of {JOINS}"));
        joins.push(cluster.join().await?);
    }
    cluster.end().await?;
    let found = CatchUp::of(&joins, size_bytes);
    progress.line(&format!("catching up: {:.0} messages/s, {:.1} MB/s", found.messages_per_s, found.mb_per_s));
    Ok(found)
}

/// The approximate time.
pub(crate) fn time_for(bytes: u64) -> Duration {
    AROUND + TIME_PER_MIB * (bytes >> 20) as u32
}

impl CatchUp {
    fn of(joins: &[Joined], size_bytes: u64) -> Self {
        let mut by_time = joins.to_vec();
        by_time.sort_by_key(|join| join.took_us);
        let median = by_time.get(by_time.len() / 2).copied().unwrap_or(Joined { took_us: 0, messages: 0 });
        let messages_per_s = median.messages as f64 * 1e6 / median.took_us.max(1) as f64;
        Self {
            joins: joins.len(),
            messages: median.messages,
            took_us: median.took_us,
            messages_per_s: messages_per_s.round(),
            mb_per_s: (messages_per_s * size_bytes as f64 / 1e4).round() / 1e2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_newcomer_in_the_middle() {
        let joins = [(3_000_000, 40), (500_000, 50_000), (100, 30)];
        let joins = joins.map(|(took_us, messages)| Joined { took_us, messages });
        let found = CatchUp::of(&joins, 1_000);
        assert_eq!((found.joins, found.messages, found.took_us), (3, 50_000, 500_000));
        assert_eq!((found.messages_per_s, found.mb_per_s), (100_000.0, 100.0));
    }
}
