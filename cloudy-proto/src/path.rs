//! Measurements of the path to a peer, and the silence that a node allows the peer because of them (`protocol.md`
//! §6.1).

use core::time::Duration;

use crate::limits::{PROBE_EVERY, ROUND_TRIP_UNKNOWN};
use crate::time::Time;

/// The silence in longest recent gaps between heartbeats after which a peer is silent for too long.
const GAPS: u32 = 4;
/// A peak decays by the elapsed time divided by this.
const SINK: u32 = 64;
/// The assumed gap of a path without a measurement, in heartbeats.
const GAP_UNKNOWN_HEARTBEATS: u32 = 2;

/// The maximum of recent durations; it decays with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    value: Duration,
    at: Time,
}

impl Peak {
    /// Its value at a time.
    pub(crate) fn at(self, now: Time) -> Duration {
        self.value.saturating_sub(now.since(self.at) / SINK)
    }

    /// Notes another measured duration.
    pub(crate) fn rise(&mut self, value: Duration, now: Time) {
        *self = Self { value: value.max(self.at(now)), at: now };
    }
}

/// The smoothed round trip and its variation, as in RFC 6298 §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    fn first(sample: Duration) -> Self {
        Self { smoothed: sample, variation: sample / 2 }
    }

    fn then(self, sample: Duration) -> Self {
        let variation = (self.variation * 3 + self.smoothed.abs_diff(sample)) / 4;
        Self { smoothed: (self.smoothed * 7 + sample) / 8, variation }
    }

    /// A bound that hardly any round trip exceeds.
    fn most(self) -> Duration {
        self.smoothed + self.variation * 4
    }
}

/// The path to one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    round_trip: Option<RoundTrip>,
    /// The time between two heartbeats of the peer.
    gap: Option<Peak>,
    heartbeat_at: Option<Time>,
    /// The time of the latest probe, and whether its echo is outstanding.
    probe: Option<(Time, bool)>,
    /// When the latest echo arrived.
    echoed_at: Option<Time>,
}

impl Path {
    /// Notes another link: no echo of the former one arrives, and the time without a link is not a gap.
    pub(crate) fn link_up(&mut self) {
        self.probe = None;
        self.heartbeat_at = None;
    }

    /// Notes a heartbeat of a peer that sends one at this interval.
    pub(crate) fn heartbeat(&mut self, interval: Duration, now: Time) {
        let gap = self.heartbeat_at.map_or(interval * GAP_UNKNOWN_HEARTBEATS, |at| now.since(at));
        if self.gap.is_none() || self.heartbeat_at.is_some() {
            self.gap.get_or_insert_default().rise(gap, now);
        }
        self.heartbeat_at = Some(now);
    }

    /// Notes that this node did not run for a while, which is not a gap of the peer's.
    pub(crate) fn slept(&mut self, slept: Duration) {
        self.heartbeat_at = self.heartbeat_at.map(|at| at + slept);
    }

    /// Whether a probe is due.
    pub(crate) fn is_probe_due(&self, now: Time) -> bool {
        self.probe.is_none_or(|(sent_at, is_outstanding)| {
            let echo_max = self.round_trip_max().unwrap_or(ROUND_TRIP_UNKNOWN);
            now.since(sent_at) >= if is_outstanding { echo_max.max(PROBE_EVERY) } else { PROBE_EVERY }
        })
    }

    /// Notes a sent probe.
    pub(crate) fn probe(&mut self, now: Time) {
        self.probe = Some((now, true));
    }

    /// Notes the echo of the probe of this time; that of an older probe is ignored.
    pub(crate) fn echo(&mut self, sent_at: Time, now: Time) {
        if self.probe == Some((sent_at, true)) {
            self.probe = Some((sent_at, false));
            self.echoed_at = Some(now);
            let sample = now.since(sent_at);
            self.round_trip =
                Some(self.round_trip.map_or_else(|| RoundTrip::first(sample), |known| known.then(sample)));
        }
    }

    /// When the peer last answered a probe.
    pub(crate) fn echoed_at(&self) -> Option<Time> {
        self.echoed_at
    }

    /// A bound that hardly any round trip exceeds, including the time that the peer's process takes to answer; none
    /// without a measurement.
    pub(crate) fn round_trip_max(&self) -> Option<Duration> {
        self.round_trip.map(RoundTrip::most)
    }

    /// The silence that is allowed to a live peer with heartbeats at this interval, beside the path's delay: a multiple
    /// of the longest recent gap.
    pub(crate) fn silence_max(&self, interval: Duration, now: Time) -> Duration {
        self.gap.map_or(interval * GAP_UNKNOWN_HEARTBEATS, |gap| gap.at(now)).max(interval) * GAPS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A path with these round trips, one probe each `PROBE_EVERY`.
    fn measured(round_trips: &[u64]) -> Path {
        let (mut path, mut now) = (Path::default(), Time(0));
        for &round_trip in round_trips {
            assert!(path.is_probe_due(now));
            path.probe(now);
            path.echo(now, now + ms(round_trip));
            now = now + PROBE_EVERY.max(ms(round_trip));
        }
        path
    }

    fn longest(round_trips: &[u64]) -> Duration {
        measured(round_trips).round_trip_max().expect("it is measured")
    }

    #[test]
    fn a_round_trip_is_smoothed_and_covers_its_variation() {
        assert_eq!(Path::default().round_trip_max(), None);
        assert_eq!(measured(&[400]).round_trip_max(), Some(ms(1_200)), "the first sample: three times as long");
        let steady = longest(&[400; 40]);
        assert!((ms(400)..ms(410)).contains(&steady), "{steady:?}");
        let varied: Vec<u64> = (0..80).map(|at| 400 + at * 67 % 200).collect();
        let most = longest(&varied);
        assert!((ms(600)..ms(900)).contains(&most), "{most:?}");
        let shorter: Vec<u64> = [400; 40].into_iter().chain([1; 80]).collect();
        assert!(longest(&shorter) < ms(10), "it follows a path that becomes short");
    }

    #[test]
    fn only_the_echo_of_the_latest_probe_counts() {
        let mut path = measured(&[1; 20]);
        let known = path.round_trip_max();
        let (first, second) = (Time(20_000_000), Time(25_000_000));
        path.probe(first);
        assert!(!path.is_probe_due(first + ms(100)), "one is outstanding");
        assert!(path.is_probe_due(second), "the first was lost");
        path.probe(second);
        path.echo(first, second + ms(1));
        assert_eq!(path.round_trip_max(), known);
        path.link_up();
        path.echo(second, second + ms(400));
        assert_eq!(path.round_trip_max(), known, "it was sent on another link");
    }

    #[test]
    fn silence_is_allowed_in_proportion_to_the_longest_recent_gap() {
        let mut path = measured(&[1; 40]);
        let mut now = Time(0);
        let mut hear_after = |path: &mut Path, gap: Duration| {
            now = now + gap;
            path.heartbeat(HEARTBEAT, now);
            now
        };
        let mut at = Time(0);
        (0..200).for_each(|_| at = hear_after(&mut path, HEARTBEAT));
        let local = path.silence_max(HEARTBEAT, at);
        assert!((ms(200)..ms(201)).contains(&local), "{local:?}");
        at = hear_after(&mut path, ms(180));
        let loaded = path.silence_max(HEARTBEAT, at);
        assert!((ms(720)..ms(730)).contains(&loaded), "{loaded:?}");
        (0..100).for_each(|_| at = hear_after(&mut path, HEARTBEAT));
        let later = path.silence_max(HEARTBEAT, at);
        assert!((ms(350)..ms(500)).contains(&later), "a gap counts for less as it grows old: {later:?}");
    }

    #[test]
    fn neither_own_sleep_nor_a_time_without_link_is_a_gap() {
        let mut path = measured(&[1; 40]);
        let mut now = Time(0);
        for _ in 0..200 {
            now = now + HEARTBEAT;
            path.heartbeat(HEARTBEAT, now);
        }
        let before = path.silence_max(HEARTBEAT, now);
        now = now + ms(3_000);
        path.slept(ms(2_960));
        path.heartbeat(HEARTBEAT, now);
        path.link_up();
        now = now + ms(5_000);
        path.heartbeat(HEARTBEAT, now);
        assert!(path.silence_max(HEARTBEAT, now) <= before);
    }
}
