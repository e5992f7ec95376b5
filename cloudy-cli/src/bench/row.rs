//! A row of the table.

use serde::Serialize;

use super::latency::Quantiles;
use super::timeline::Moment;

/// A row of the table: medians over its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) nodes: usize,
    pub(crate) senders: usize,
    pub(crate) size_bytes: usize,
    pub(crate) ring: &'static str,
    pub(crate) durability: &'static str,
    /// Share of the datagrams that each node loses, injected.
    pub(crate) loss: f64,
    /// Delay of each datagram, injected.
    pub(crate) delay_us: u64,
    /// For each sender; none at full speed.
    pub(crate) rate_per_s: Option<u64>,
    /// The maximum of a sender's window; the mean if it adapts.
    pub(crate) window_bytes: u64,
    pub(crate) window_adapts: bool,
    pub(crate) repeats: u32,
    /// Messages in the results, each counted once.
    pub(crate) approved_per_s: f64,
    /// 10⁶ bytes of payload.
    pub(crate) mb_per_s: f64,
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) latency_us: Option<Quantiles>,
    pub(crate) packets_per_message: f64,
    /// The maximum over all runs.
    pub(crate) memory_mib_max: f64,
    pub(crate) baseline: Option<BaselineRow>,
    /// The rate relative to the baseline: the median of the pairs, the minimum and the maximum.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    /// Latencies relative to the baseline: medians of the pairs.
    pub(crate) latency_ratio: Option<LatencyRatio>,
    /// The verdict on its target.
    pub(crate) target: Option<Verdict>,
    /// Rate and latency over time, of the run with the median rate.
    pub(crate) over_time: Vec<Moment>,
}

/// The baseline of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct BaselineRow {
    pub(crate) approved_per_s: f64,
    pub(crate) latency_us: Option<Quantiles>,
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) packets_per_message: f64,
    /// Rate and latency over time, of the run with the median rate.
    pub(crate) over_time: Vec<Moment>,
}

/// Latency relative to the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LatencyRatio {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The verdict on a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// The target, as text.
    pub(crate) target: String,
    /// The measured value.
    pub(crate) found: String,
    pub(crate) reached: bool,
}

impl Verdict {
    /// The text for a cell of a table.
    pub(crate) fn in_short(&self) -> String {
        let Self { target, found, reached } = self;
        format!("{target}: {found}, {}", if *reached { "reached" } else { "missed" })
    }
}
