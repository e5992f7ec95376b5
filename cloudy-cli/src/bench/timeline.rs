//! Rate and latency in each part of the measured time.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::{Latencies, Quantiles, merged};

/// The minimum length of a part.
const PART_US_MIN: u64 = 100_000;
/// Maximum of parts of the measured time.
const PARTS_MAX: u64 = 100;

/// The measurements of a node, in equal parts of the measured time.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    measure: Range<u64>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Default)]
struct Part {
    approved: u64,
    latencies: Latencies,
}

/// A part in a node's report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartCounts {
    /// Messages approved here in this time.
    pub(crate) approved: u64,
    /// Microseconds from due to approved here, with the number of messages, for messages that were due in this part.
    pub(crate) latency: Vec<(u64, u64)>,
}

/// A part over all nodes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Moment {
    /// Its end, from the start of the measured time.
    pub(crate) at_ms: u64,
    /// At a node, on average.
    pub(crate) approved_per_s: f64,
    /// The median of messages that were due in the interval, over all nodes; none without such messages.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

impl Timeline {
    /// An empty record of a time, in microseconds since the Unix epoch.
    pub(crate) fn of(measure: Range<u64>) -> Self {
        let parts = parts_in(measure.end - measure.start);
        Self { measure, parts: vec![Part::default(); parts as usize] }
    }

    /// Records approved messages, with the time at which they were due if it is known.
    pub(crate) fn record(&mut self, due_us: Option<u64>, now_us: u64, messages: u64) {
        if let Some(part) = self.part_at(now_us) {
            part.approved += messages;
        }
        if let Some((due_us, part)) = due_us.and_then(|due_us| Some((due_us, self.part_at(due_us)?))) {
            part.latencies.record(now_us.saturating_sub(due_us), messages);
        }
    }

    fn part_at(&mut self, at_us: u64) -> Option<&mut Part> {
        let since = at_us.checked_sub(self.measure.start)?;
        let length = self.measure.end - self.measure.start;
        let at = since.checked_mul(self.parts.len() as u64)?.checked_div(length)?;
        self.parts.get_mut(at as usize)
    }

    /// The counts, part by part.
    pub(crate) fn counts(&self) -> Vec<PartCounts> {
        let counts = |part: &Part| PartCounts { approved: part.approved, latency: part.latencies.counts() };
        self.parts.iter().map(counts).collect()
    }
}

fn parts_in(length_us: u64) -> u64 {
    if length_us == 0 { 0 } else { (length_us / PART_US_MIN).clamp(1, PARTS_MAX) }
}

/// The quantiles of the whole measured time, over the reports of all nodes.
pub(crate) fn quantiles<'a>(nodes: impl IntoIterator<Item = &'a [PartCounts]>) -> Option<Quantiles> {
    merged(nodes.into_iter().flatten().map(|part| part.latency.as_slice()))
}

/// The parts of a measured time over the reports of all nodes.
pub(crate) fn moments(nodes: &[&[PartCounts]], length: Duration) -> Vec<Moment> {
    let parts = nodes.iter().map(|parts| parts.len()).min().unwrap_or(0);
    let part_s = length.as_secs_f64() / parts.max(1) as f64;
    let moment = |at: usize| {
        let approved: u64 = nodes.iter().map(|parts| parts[at].approved).sum();
        let latency = merged(nodes.iter().map(|parts| parts[at].latency.as_slice()));
        Moment {
            at_ms: (part_s * (at + 1) as f64 * 1e3).round() as u64,
            approved_per_s: (approved as f64 / nodes.len() as f64 / part_s).round(),
            p50_us: latency.map(|latency| latency.p50),
            p99_us: latency.map(|latency| latency.p99),
        }
    };
    (0..parts).map(moment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_US: u64 = 5_000_000;

    #[test]
    fn approvals_count_when_they_come_and_latencies_when_they_were_due() {
        let mut timeline = Timeline::of(START_US..START_US + 300_000);
        timeline.record(Some(START_US + 50_000), START_US + 150_000, 7);
        timeline.record(Some(START_US + 250_000), START_US + 350_000, 3);
        timeline.record(None, START_US + 299_999, 2);
        let part = |approved, latency: &[_]| PartCounts { approved, latency: latency.to_vec() };
        let [first, second, third] = <[PartCounts; 3]>::try_from(timeline.counts()).expect("three parts");
        assert_eq!((first.approved, first.latency[0].1), (0, 7));
        assert_eq!(second, part(7, &[]));
        assert_eq!((third.approved, third.latency[0].1), (2, 3));
        assert!(first.latency[0].0.abs_diff(100_000) < 100);
    }

    #[test]
    fn messages_due_outside_the_measured_time_are_not_counted() {
        let mut timeline = Timeline::of(START_US..START_US + 100_000);
        for due_us in [0, START_US - 1, START_US + 100_000, u64::MAX] {
            timeline.record(Some(due_us), due_us, 1);
        }
        assert_eq!(timeline.counts(), [PartCounts::default()]);
        let mut nothing = Timeline::of(0..0);
        nothing.record(Some(0), 0, 1);
        assert_eq!(nothing.counts(), []);
    }

    #[test]
    fn a_long_measurement_has_longer_intervals_and_a_short_one_has_one() {
        assert_eq!((parts_in(20_000), parts_in(2_000_000), parts_in(600_000_000)), (1, 20, PARTS_MAX));
    }

    #[test]
    fn the_course_of_all_is_the_mean_rate_and_the_quantiles_of_all() {
        let part = |approved, latency_us| PartCounts { approved, latency: vec![(latency_us, 1)] };
        let (one, other) = ([part(100, 300), part(0, 500)], [part(300, 100), PartCounts::default()]);
        let timeline = moments(&[&one, &other], Duration::from_millis(200));
        let moment = |at_ms, approved_per_s, p50_us, p99_us| Moment { at_ms, approved_per_s, p50_us, p99_us };
        let expected = [moment(100, 2_000.0, Some(100), Some(300)), moment(200, 0.0, Some(500), Some(500))];
        assert_eq!(timeline, expected);
        assert_eq!(quantiles([one.as_slice(), other.as_slice()]).map(|all| (all.p50, all.max)), Some((300, 500)));
        assert_eq!(moments(&[], Duration::from_secs(1)), []);
    }
}
