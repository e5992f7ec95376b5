//! Latencies in microseconds, from when a message was due: whoever falls behind is not excused (coordinated omission).

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones count as this.
const LATENCY_US_MAX: u64 = 10 * 60 * 1_000_000;
/// Exact to a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of latencies.
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    /// What was due at other times does not count.
    due_us: Range<u64>,
}

/// What a histogram says, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    /// Of what is due in this time.
    pub(crate) fn of(due_us: Range<u64>) -> Self {
        // The bounds are constants that the histogram allows.
        let histogram = Histogram::new_with_max(LATENCY_US_MAX, SIGNIFICANT_DIGITS).expect("valid bounds");
        Self { histogram, due_us }
    }

    /// Messages that were due at one time have arrived.
    pub(crate) fn record(&mut self, due_us: u64, now_us: u64, messages: u64) {
        if self.due_us.contains(&due_us) {
            self.histogram.saturating_record_n(now_us.saturating_sub(due_us), messages);
        }
    }

    /// The distinct values and how often each was seen: what another process adds to its own.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let values = self.histogram.iter_recorded();
        values.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }
}

/// The quantiles over the counts of all nodes; none if nothing was counted.
pub(crate) fn merged<'a>(counts: impl IntoIterator<Item = &'a [(u64, u64)]>) -> Option<Quantiles> {
    let mut all = Latency::of(0..1).histogram;
    for &(value, count) in counts.into_iter().flatten() {
        all.saturating_record_n(value, count);
    }
    (!all.is_empty()).then(|| Quantiles {
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        p999: all.value_at_quantile(0.999),
        max: all.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(latencies: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
        let mut latency = Latency::of(100..200);
        latencies.into_iter().for_each(|value| latency.record(150, 150 + value, 1));
        latency.counts()
    }

    #[test]
    fn merged_counts_have_the_quantiles_of_all() {
        let (low, high) = (counts(1..=500), counts(501..=1_000));
        let all = merged([low.as_slice(), high.as_slice()]);
        assert_eq!(all, Some(Quantiles { p50: 500, p99: 990, p999: 999, max: 1_000 }));
        assert_eq!(all, merged([counts(1..=1_000).as_slice()]));
        assert_eq!(merged([low.as_slice()]).map(|low| low.max), Some(500));
    }

    #[test]
    fn large_values_keep_three_digits() {
        let Some(found) = merged([counts([1_234_567]).as_slice()]) else { panic!("one value") };
        assert!(found.max.abs_diff(1_234_567) <= 1_234, "{found:?}");
    }

    #[test]
    fn only_what_was_due_in_its_time_counts() {
        let mut latency = Latency::of(100..200);
        latency.record(99, 300, 5);
        latency.record(200, 300, 5);
        assert_eq!(merged([latency.counts().as_slice()]), None);
        latency.record(199, 300, 5);
        assert_eq!(latency.counts(), [(101, 5)]);
    }
}
