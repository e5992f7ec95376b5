//! Targets of the rows of `--quick` (`docs/explanation/performance.md`).

use super::latency::Quantiles;
use super::row::{Row, Verdict};

/// The target of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// Minimum of the rate relative to the baseline.
    OfBaseline(f64),
    /// Maximum of the latencies relative to the baseline.
    LatencyOfBaseline { p50: f64, p99: f64 },
    /// Maximum of the latencies.
    Latency { p50_us: u64, p99_us: u64 },
    /// Minimum of the rate relative to an earlier row, counted from 1.
    OfRow(usize, f64),
    /// Maximum of the CPU for a message at one node relative to an earlier row, counted from 1.
    CpuOfRow(usize, f64),
    /// None: a later row is compared with it.
    Measured,
}

impl Target {
    /// Whether it needs the baseline.
    pub(crate) fn is_of_baseline(self) -> bool {
        matches!(self, Self::OfBaseline(_) | Self::LatencyOfBaseline { .. })
    }

    /// Compares a row with its target; none if the value was not measured.
    pub(crate) fn judge(self, row: &Row, earlier: &[Row]) -> Option<Verdict> {
        let of_row = |number: usize, of: fn(&Row) -> f64| Some(of(row) / of(earlier.get(number.checked_sub(1)?)?));
        match self {
            Self::Measured => None,
            Self::OfBaseline(least) => at_least(row.ratio?, least, "the baseline"),
            Self::OfRow(number, least) => {
                at_least(of_row(number, |row| row.approved_per_s)?, least, &format!("row {number}"))
            }
            Self::CpuOfRow(number, most) => {
                let found = of_row(number, |row| row.cpu_ns_per_message / row.nodes as f64)?;
                verdict(format!("CPU a node ≤ {most} × row {number}"), format!("{found:.2}"), found <= most)
            }
            Self::LatencyOfBaseline { p50, p99 } => {
                let found = row.latency_ratio?;
                let words = format!("{:.2} / {:.2}", found.p50, found.p99);
                verdict(format!("≤ {p50} / {p99} × the baseline"), words, found.p50 <= p50 && found.p99 <= p99)
            }
            Self::Latency { p50_us, p99_us } => {
                let Quantiles { p50, p99, .. } = row.latency_us?;
                verdict(format!("≤ {p50_us} / {p99_us} µs"), format!("{p50} / {p99}"), p50 <= p50_us && p99 <= p99_us)
            }
        }
    }
}

fn at_least(found: f64, least: f64, of: &str) -> Option<Verdict> {
    verdict(format!("≥ {least} of {of}"), format!("{found:.2}"), found >= least)
}

fn verdict(target: String, found: String, reached: bool) -> Option<Verdict> {
    Some(Verdict { target, found, reached })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::runs::tests::row;

    fn judged(target: Target) -> (String, bool) {
        let half = Row { approved_per_s: row().approved_per_s / 2.0, nodes: 2, ..row() };
        let verdict = target.judge(&row(), &[half]).expect("it was measured");
        (verdict.in_short(), verdict.reached)
    }

    #[test]
    fn a_row_is_held_against_its_baseline() {
        assert_eq!(judged(Target::OfBaseline(0.25)), ("≥ 0.25 of the baseline: 0.25, reached".to_owned(), true));
        assert_eq!(judged(Target::OfBaseline(0.8)), ("≥ 0.8 of the baseline: 0.25, missed".to_owned(), false));
        let latency = |p50, p99| judged(Target::LatencyOfBaseline { p50, p99 });
        assert_eq!(latency(2.0, 2.0), ("≤ 2 / 2 × the baseline: 2.00 / 2.00, reached".to_owned(), true));
        assert!(!latency(1.9, 2.0).1 && !latency(2.0, 1.9).1);
    }

    #[test]
    fn a_row_is_held_against_times_and_other_rows() {
        let latency = |p50_us, p99_us| judged(Target::Latency { p50_us, p99_us });
        assert_eq!(latency(900, 1_800), ("≤ 900 / 1800 µs: 900 / 1800, reached".to_owned(), true));
        assert!(!latency(899, 1_800).1 && !latency(900, 1_799).1);
        assert_eq!(judged(Target::OfRow(1, 2.0)), ("≥ 2 of row 1: 2.00, reached".to_owned(), true));
        assert!(!judged(Target::OfRow(1, 2.1)).1);
        assert_eq!(judged(Target::CpuOfRow(1, 0.5)), ("CPU a node ≤ 0.5 × row 1: 0.50, reached".to_owned(), true));
        assert!(!judged(Target::CpuOfRow(1, 0.4)).1);
    }

    #[test]
    fn a_missing_measurement_is_not_judged() {
        let bare = Row { ratio: None, latency_ratio: None, latency_us: None, ..row() };
        for target in [
            Target::OfBaseline(0.0),
            Target::LatencyOfBaseline { p50: 9.0, p99: 9.0 },
            Target::Latency { p50_us: 9, p99_us: 9 },
            Target::OfRow(1, 0.0),
            Target::OfRow(0, 0.0),
            Target::Measured,
        ] {
            assert_eq!(target.judge(&bare, &[]), None, "{target:?}");
        }
    }
}
