//! Rows: pairs of runs, library and baseline in turns, and their medians.

use std::time::Duration;

use miette::Report;

use super::conduct::{Conductor, Measured};
use super::latency::Quantiles;
use super::row::{BaselineRow, LatencyRatio, Row};
use super::spec::{Program, Spec};
use super::targets::Target;
use super::timeline::Moment;
use crate::progress::Progress;

/// A row to measure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedRow {
    pub(crate) spec: Spec,
    /// Whether to run the baseline beside the library.
    pub(crate) baseline: bool,
    /// Runs, or pairs of runs; at least 1.
    pub(crate) repeat: u32,
    /// Its target.
    pub(crate) target: Option<Target>,
}

/// Runs everything, row after row.
///
/// # Errors
/// A run failed; the rows so far are lost.
pub(crate) async fn all(plan: &[PlannedRow], conductor: &Conductor, progress: &Progress) -> Result<Vec<Row>, Report> {
    let mut rows: Vec<Row> = Vec::with_capacity(plan.len());
    for PlannedRow { spec, baseline: with_baseline, repeat, target } in plan {
        let (mut real, mut baseline) = (Vec::new(), Vec::new());
        for run in 1..=*repeat {
            progress.state(format!("row {} of {}, run {run} of {repeat}: {spec}", rows.len() + 1, plan.len()));
            let measured = conductor.run(Program::Group, spec).await?;
            if *with_baseline {
                // With the same total in flight as the library.
                let spec = if spec.window_adapts { spec.with_window(measured.window_bytes) } else { spec.clone() };
                baseline.push(conductor.run(Program::Baseline, &spec).await?);
            }
            real.push(measured);
        }
        let mut row = Row::of(spec, &real, &baseline);
        row.target = target.and_then(|target| target.judge(&row, &rows));
        progress.line(&format!("{spec}: {}", row.in_short()));
        rows.push(row);
    }
    Ok(rows)
}

/// The approximate time of a plan: the load, and the time around it.
pub(crate) fn time_for(plan: &[PlannedRow]) -> Duration {
    const AROUND: Duration = Duration::from_millis(200);
    const AROUND_EACH_NODE: Duration = Duration::from_millis(50);
    let time = |row: &PlannedRow| {
        let around = AROUND + AROUND_EACH_NODE * row.spec.nodes as u32;
        (row.spec.warm_up + row.spec.duration + around) * row.repeat * if row.baseline { 2 } else { 1 }
    };
    plan.iter().map(time).sum()
}

impl Row {
    /// The row of both programs' runs, in pairs; `baseline` may be empty.
    fn of(spec: &Spec, real: &[Measured], baseline: &[Measured]) -> Self {
        let ratios = |of: fn(&Measured) -> Option<f64>| {
            let pairs = real.iter().zip(baseline);
            sorted(pairs.filter_map(|(real, baseline)| Some(of(real)? / of(baseline)?.max(f64::MIN_POSITIVE))))
        };
        let rates = ratios(|run| Some(run.approved_per_s));
        let p50 = middle(&ratios(|run| run.latency_us.map(|latency| latency.p50 as f64)));
        let p99 = middle(&ratios(|run| run.latency_us.map(|latency| latency.p99 as f64)));
        let approved_per_s = median(real, |run| run.approved_per_s);
        Self {
            nodes: spec.nodes,
            senders: spec.senders,
            size_bytes: spec.size_bytes,
            ring: spec.ring_name(),
            durability: spec.durability_name(),
            loss: spec.faults.loss,
            delay_us: spec.faults.latency.as_micros() as u64,
            rate_per_s: spec.rate_per_s,
            window_bytes: if spec.window_adapts {
                median(real, |run| run.window_bytes as f64) as u64
            } else {
                spec.window_bytes
            },
            window_adapts: spec.window_adapts,
            repeats: real.len() as u32,
            approved_per_s: round(approved_per_s),
            mb_per_s: round(approved_per_s * spec.size_bytes as f64 / 1e6),
            cpu_ns_per_message: round(median(real, |run| run.cpu_ns_per_message)),
            latency_us: quantiles(real),
            packets_per_message: round(median(real, |run| run.packets_per_message)),
            memory_mib_max: round(real.iter().map(|run| run.memory_mib_max).fold(0.0, f64::max)),
            baseline: (!baseline.is_empty()).then(|| BaselineRow {
                approved_per_s: round(median(baseline, |run| run.approved_per_s)),
                latency_us: quantiles(baseline),
                cpu_ns_per_message: round(median(baseline, |run| run.cpu_ns_per_message)),
                packets_per_message: round(median(baseline, |run| run.packets_per_message)),
                over_time: timeline(baseline),
            }),
            ratio: middle(&rates).map(round),
            ratio_min: rates.first().copied().map(round),
            ratio_max: rates.last().copied().map(round),
            latency_ratio: p50.zip(p99).map(|(p50, p99)| LatencyRatio { p50: round(p50), p99: round(p99) }),
            target: None,
            over_time: timeline(real),
        }
    }

    fn in_short(&self) -> String {
        let ratio = self.ratio.map(|ratio| format!(", {ratio:.2} of the baseline")).unwrap_or_default();
        format!("{:.0} approved/s{ratio}", self.approved_per_s)
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The median of sorted values; the lower one of the two in the middle of an even number.
fn middle(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

fn median(runs: &[Measured], of: fn(&Measured) -> f64) -> f64 {
    middle(&sorted(runs.iter().map(of))).unwrap_or(0.0)
}

fn quantiles(runs: &[Measured]) -> Option<Quantiles> {
    let latencies: Vec<Quantiles> = runs.iter().filter_map(|run| run.latency_us).collect();
    let median = |of: fn(&Quantiles) -> u64| {
        let values = sorted(latencies.iter().map(|latency| of(latency) as f64));
        middle(&values).map(|value| value as u64)
    };
    Some(Quantiles {
        p50: median(|latency| latency.p50)?,
        p99: median(|latency| latency.p99)?,
        p999: median(|latency| latency.p999)?,
        max: median(|latency| latency.max)?,
    })
}

/// The parts of the run with the median rate.
fn timeline(runs: &[Measured]) -> Vec<Moment> {
    let rate = median(runs, |run| run.approved_per_s);
    runs.iter().find(|run| run.approved_per_s == rate).map(|run| run.timeline.clone()).unwrap_or_default()
}

/// Rounded to a thousandth: more is noise.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
pub(crate) mod tests {
    use cloudy_node::fault::Faults;
    use cloudy_node::{Durability, RingKind};

    use super::*;

    /// Four nodes that send 100 bytes.
    pub(crate) fn spec() -> Spec {
        Spec {
            nodes: 4,
            senders: 4,
            size_bytes: 100,
            rate_per_s: None,
            window_bytes: 256 << 10,
            window_adapts: false,
            ring: RingKind::Pipelined,
            durability: Durability::Memory,
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs(2),
            faults: Faults::none(),
        }
    }

    fn moment(at_ms: u64, approved_per_s: f64, p50_us: Option<u64>) -> Moment {
        Moment { at_ms, approved_per_s, p50_us, p99_us: p50_us.map(|p50| 2 * p50) }
    }

    fn run(approved_per_s: f64, p50: u64) -> Measured {
        Measured {
            approved_per_s,
            cpu_ns_per_message: 2e9 / approved_per_s,
            packets_per_message: 0.25,
            memory_mib_max: approved_per_s / 1e4,
            window_bytes: approved_per_s as u64,
            latency_us: Some(Quantiles { p50, p99: 2 * p50, p999: 3 * p50, max: 4 * p50 }),
            timeline: vec![moment(100, approved_per_s, Some(p50)), moment(200, 0.0, None)],
            count: 7,
        }
    }

    /// Three pairs of runs.
    pub(crate) fn row() -> Row {
        let real = [run(300_000.0, 900), run(100_000.0, 800), run(200_000.0, 1_000)];
        let baseline = [run(1_000_000.0, 300), run(400_000.0, 400), run(1_000_000.0, 500)];
        Row::of(&spec(), &real, &baseline)
    }

    #[test]
    fn a_row_holds_medians_and_the_spread_of_the_pairs() {
        let row = row();
        assert_eq!((row.approved_per_s, row.mb_per_s, row.repeats), (200_000.0, 20.0, 3));
        assert_eq!((row.ratio, row.ratio_min, row.ratio_max), (Some(0.25), Some(0.2), Some(0.3)));
        assert_eq!(row.latency_us, Some(Quantiles { p50: 900, p99: 1_800, p999: 2_700, max: 3_600 }));
        assert_eq!(row.latency_ratio, Some(LatencyRatio { p50: 2.0, p99: 2.0 }));
        assert_eq!((row.cpu_ns_per_message, row.memory_mib_max), (10_000.0, 30.0));
        assert_eq!(row.over_time, [moment(100, 200_000.0, Some(1_000)), moment(200, 0.0, None)]);
        let baseline = row.baseline.expect("a baseline");
        assert_eq!((baseline.approved_per_s, baseline.cpu_ns_per_message), (1_000_000.0, 2_000.0));
    }

    #[test]
    fn an_adaptive_window_is_shown_at_its_final_size() {
        let runs = [run(100_000.0, 1), run(300_000.0, 1), run(200_000.0, 1)];
        assert_eq!(Row::of(&spec(), &runs, &[]).window_bytes, 256 << 10);
        let adapts = Spec { window_adapts: true, ..spec() };
        assert_eq!(Row::of(&adapts, &runs, &[]).window_bytes, 200_000);
        assert_eq!(adapts.with_window(5), spec().with_window(5));
        assert!(adapts.in_flight_max_of(64 << 10) > (64 << 10) / 100 + (16 << 10) / 100 - 2);
    }

    #[test]
    fn without_a_baseline_there_is_no_ratio() {
        let row = Row::of(&spec(), &[run(1_000.0, 5)], &[]);
        assert_eq!((row.baseline, row.ratio, row.latency_ratio), (None, None, None));
    }

    #[test]
    fn the_time_is_that_of_all_runs() {
        let row = PlannedRow { spec: spec(), baseline: true, repeat: 3, target: None };
        let alone = PlannedRow { baseline: false, repeat: 1, ..row.clone() };
        assert_eq!(time_for(&[row, alone]), Duration::from_millis(7 * 2_900));
    }
}
