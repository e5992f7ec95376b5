//! Latencies in microseconds, from the time at which a message was due: a sender that lags is charged for it
//! (coordinated omission).

use hdrhistogram::Histogram;
use serde::Serialize;

/// The maximum; longer ones count as this.
const LATENCY_US_MAX: u64 = 10 * 60 * 1_000_000;
/// Precision: a thousandth.
const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram of latencies; its size grows with its values.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u32>);

/// Quantiles of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        // The number of digits is a constant that the histogram allows.
        Self(Histogram::new(SIGNIFICANT_DIGITS).expect("valid digits"))
    }
}

impl Latencies {
    /// Records a number of messages with this latency.
    pub(crate) fn record(&mut self, latency_us: u64, messages: u64) {
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        // It grows to any value, so this cannot fail; the saturating way would not let it grow.
        let _ = self.0.record_n(latency_us.min(LATENCY_US_MAX), messages);
    }

    /// The distinct values with their counts, for another process to add.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let values = self.0.iter_recorded();
        values.map(|value| (value.value_iterated_to(), u64::from(value.count_at_value()))).collect()
    }
}

/// The quantiles over the counts of all nodes; none without counts.
pub(crate) fn merged<'a>(counts: impl IntoIterator<Item = &'a [(u64, u64)]>) -> Option<Quantiles> {
    let mut all = Histogram::<u64>::new_with_max(LATENCY_US_MAX, SIGNIFICANT_DIGITS).expect("valid bounds");
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
        let mut all = Latencies::default();
        latencies.into_iter().for_each(|value| all.record(value, 1));
        all.counts()
    }

    #[test]
    fn merged_counts_have_the_quantiles_of_all() {
        let (low, high) = (counts(1..=500), counts(501..=1_000));
        let all = merged([low.as_slice(), high.as_slice()]);
        assert_eq!(all, Some(Quantiles { p50: 500, p99: 990, p999: 999, max: 1_000 }));
        assert_eq!(all, merged([counts(1..=1_000).as_slice()]));
        assert_eq!(merged([low.as_slice()]).map(|low| low.max), Some(500));
        assert_eq!(merged([]), None);
    }

    #[test]
    fn large_values_keep_three_digits_up_to_a_bound() {
        let Some(found) = merged([counts([1_234_567]).as_slice()]) else { panic!("one value") };
        assert!(found.max.abs_diff(1_234_567) <= 1_234, "{found:?}");
        let Some(found) = merged([counts([u64::MAX]).as_slice()]) else { panic!("one value") };
        assert!(found.max.abs_diff(LATENCY_US_MAX) <= LATENCY_US_MAX / 1_000, "{found:?}");
    }
}
