//! Counts of durations in fixed buckets, for the admin endpoint.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, in seconds; one more bucket has all longer durations.
const BOUNDS_SECONDS: [f64; 15] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Durations, counted in buckets since the process started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bound of each bucket but the last one, in seconds, rising.
    pub bounds_seconds: Vec<f64>,
    /// Number of durations in each bucket; the last bucket has those above every bound.
    pub counts: Vec<u64>,
    /// The sum of all durations, in seconds.
    pub sum_seconds: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bounds_seconds: BOUNDS_SECONDS.to_vec(), counts: vec![0; BOUNDS_SECONDS.len() + 1], sum_seconds: 0.0 }
    }
}

impl Histogram {
    /// Counts a duration a number of times.
    pub(crate) fn observe(&mut self, duration: Duration, times: u64) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds_seconds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += times;
            self.sum_seconds += seconds * times as f64;
        }
    }

    /// Number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// An upper bound of the shortest durations that make up this share of all: the bound of their bucket, in seconds.
    /// None without a duration, and if the bucket has no bound.
    ///
    /// ```
    /// let none = cloudy_node::admin::Histogram::default();
    /// assert_eq!(none.quantile_seconds(0.99), None);
    /// ```
    #[must_use]
    pub fn quantile_seconds(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= wanted
        })?;
        self.bounds_seconds.get(bucket).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_the_bucket_whose_bound_they_do_not_exceed() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1), 98);
        histogram.observe(Duration::from_millis(2), 1);
        histogram.observe(Duration::from_secs(60), 1);
        assert_eq!((histogram.counts[2], histogram.counts[3], histogram.counts[15]), (98, 1, 1));
        assert_eq!(histogram.count(), 100);
        assert!((histogram.sum_seconds - 60.1).abs() < 1e-9, "{}", histogram.sum_seconds);
        let quantiles = [0.5, 0.98, 0.99, 1.0].map(|share| histogram.quantile_seconds(share));
        assert_eq!(quantiles, [Some(0.001), Some(0.001), Some(0.002_5), None]);
    }
}
