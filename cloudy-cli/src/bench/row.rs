//! A row of the table, as it is shown.

use serde::Serialize;

use super::course::Moment;
use super::latency::Quantiles;

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
    /// Of each sender; none at full speed.
    pub(crate) rate_per_s: Option<u64>,
    /// What a sender had outside its own result at most, where it adapts on the average.
    pub(crate) window_bytes: u64,
    pub(crate) window_adapts: bool,
    pub(crate) repeats: u32,
    /// In every result, each counted once.
    pub(crate) approved_per_s: f64,
    /// 10⁶ bytes of payload.
    pub(crate) mb_per_s: f64,
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) latency_us: Option<Quantiles>,
    pub(crate) packets_per_message: f64,
    /// The largest of all runs.
    pub(crate) memory_mib_max: f64,
    pub(crate) floor: Option<FloorRow>,
    /// Approved per second, of the floor's: the median of the pairs, the least and the greatest.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    /// Latencies, of the floor's: medians of the pairs.
    pub(crate) latency_ratio: Option<LatencyRatio>,
    /// Whether it reaches what it should.
    pub(crate) target: Option<Verdict>,
    /// Of the run in the middle: how it went.
    pub(crate) over_time: Vec<Moment>,
}

/// The floor beside a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FloorRow {
    pub(crate) approved_per_s: f64,
    pub(crate) latency_us: Option<Quantiles>,
    pub(crate) cpu_ns_per_message: f64,
    pub(crate) packets_per_message: f64,
    /// Of the run in the middle: how it went.
    pub(crate) over_time: Vec<Moment>,
}

/// How much slower than the floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LatencyRatio {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What a target came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What should be reached, in words.
    pub(crate) target: String,
    /// What was.
    pub(crate) found: String,
    pub(crate) reached: bool,
}

impl Verdict {
    /// In a cell of a table.
    pub(crate) fn in_short(&self) -> String {
        let Self { target, found, reached } = self;
        format!("{target}: {found}, {}", if *reached { "reached" } else { "missed" })
    }
}
