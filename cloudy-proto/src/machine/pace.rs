//! The rate at which a node fetches, and the window of bytes in flight for that (`protocol.md` §7.7).
//!
//! A *trip* lasts from a request for credit until everything that it allows has arrived. The window doubles with each
//! trip on which the rate has grown, and afterwards holds twice what arrives in the shortest round trip. It never
//! shrinks: the transport decides on the bytes in flight, and a window only has to be large enough for it.

use core::time::Duration;

use crate::limits::{FETCH_CREDIT_BYTES_MAX, FETCH_CREDIT_BYTES_MIN};
use crate::time::Time;

/// The part by which a rate has to be higher to count as growth.
const GROWTH_PART: u64 = 8;
/// The number of consecutive trips without growth that end the doubling.
const FLAT_TRIPS_MAX: u32 = 3;
/// The window in shortest round trips.
const WINDOW_TRIPS: u32 = 2;
/// A source is silent if nothing comes for this number of its round trips …
const SILENT_TRIPS: u32 = 4;
/// … doubled with each silence before, up to this number of times …
const SILENCES_COUNTED_MAX: u32 = 4;
/// … and up to this, unless the round trips alone take longer.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// The window of a node that fetches, kept from one transfer to the next.
#[derive(Debug)]
pub(crate) struct Pace {
    window_bytes: u64,
    /// The time of the request for the transfer, until its first frame arrives.
    requested_at: Option<Time>,
    /// Of this transfer, or of the last one that brought anything.
    shortest: Option<Duration>,
    trip: Option<Trip>,
    /// The highest rate of this transfer, and the number of later trips that did not exceed it.
    best: u64,
    flat_trips: u32,
}

/// The measured trip.
#[derive(Debug)]
struct Trip {
    since: Time,
    /// The received bytes of the transfer at its start, and at its end.
    received: u64,
    until: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window_bytes: FETCH_CREDIT_BYTES_MIN,
            requested_at: None,
            shortest: None,
            trip: None,
            best: 0,
            flat_trips: 0,
        }
    }
}

impl Pace {
    /// Maximum of bytes in flight.
    pub(super) fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// The time without a frame after which a source counts as silent: at least `least`, and several of its round trips,
    /// of which `measured` is the longest on its path.
    pub(super) fn silence_after(&self, least: Duration, measured: Option<Duration>, silences: u32) -> Duration {
        let round_trip = self.shortest.max(measured).unwrap_or_default();
        let once = least.max(round_trip * SILENT_TRIPS);
        (once * (1 << silences.min(SILENCES_COUNTED_MAX))).min(once.max(SILENCE_MAX))
    }

    /// Notes the start of a transfer.
    pub(super) fn start(&mut self, now: Time) {
        (self.requested_at, self.trip, self.best, self.flat_trips) = (Some(now), None, 0, 0);
    }

    /// Notes a request for credit: the source may send this number of bytes of the transfer, of which some have
    /// arrived.
    pub(super) fn request(&mut self, granted: u64, received: u64, now: Time) {
        self.trip.get_or_insert(Trip { since: now, received, until: granted });
    }

    /// Notes the received bytes of the transfer. Returns the rate of a trip that ends with them.
    pub(super) fn receive(&mut self, received: u64, now: Time) -> Option<u64> {
        if let Some(at) = self.requested_at.take() {
            self.shortest = Some(now.since(at));
        }
        let trip = self.trip.take_if(|trip| received >= trip.until)?;
        let took = now.since(trip.since);
        let shortest = self.shortest.map_or(took, |shortest| shortest.min(took));
        self.shortest = Some(shortest);
        let rate = per_second(received - trip.received, took);
        if rate >= self.best.saturating_add(self.best / GROWTH_PART) {
            (self.best, self.flat_trips) = (rate, 0);
        } else {
            self.flat_trips += 1;
        }
        let grows = self.flat_trips < FLAT_TRIPS_MAX;
        let doubled = if grows { self.window_bytes.saturating_mul(2) } else { 0 };
        let needed = in_time(self.best, shortest * WINDOW_TRIPS);
        self.window_bytes = self.window_bytes.max(doubled).max(needed).min(FETCH_CREDIT_BYTES_MAX);
        Some(rate)
    }
}

/// Bytes per second.
pub(super) fn per_second(bytes: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(bytes) * 1_000_000 / time.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// Bytes in some time at a rate in bytes per second.
pub(super) fn in_time(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate).saturating_mul(time.as_micros()) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window after some trips on a path with a round trip and a rate, in bytes per second.
    fn window_on(round_trip: Duration, rate: u64, trips: usize) -> u64 {
        let (mut pace, mut now, mut received) = (Pace::default(), Time(1), 0);
        pace.start(now);
        for _ in 0..trips {
            let granted = received + pace.window_bytes();
            pace.request(granted, received, now);
            pace.receive(received, now + round_trip);
            let in_line = Duration::from_micros((granted - received) * 1_000_000 / rate);
            now = now + round_trip.max(in_line);
            received = granted;
            pace.receive(received, now);
        }
        pace.window_bytes()
    }

    #[test]
    fn a_source_has_several_round_trips_for_an_answer_however_long_they_are() {
        let least = Duration::from_millis(250);
        let silence = |round_trip_ms, silences| {
            Pace::default().silence_after(least, Some(Duration::from_millis(round_trip_ms)), silences).as_millis()
        };
        assert_eq!([0, 1, 4, 9].map(|silences| silence(1, silences)), [250, 500, 4_000, 4_000]);
        assert_eq!([0, 3].map(|silences| silence(500, silences)), [2_000, 4_000]);
        assert_eq!([0, 3].map(|silences| silence(2_000, silences)), [8_000, 8_000]);
    }

    #[test]
    fn a_window_is_slightly_above_the_bandwidth_delay_product() {
        for (round_trip_ms, mbit) in [(10, 100), (50, 100), (100, 100), (300, 100), (50, 1_000)] {
            let (round_trip, rate) = (Duration::from_millis(round_trip_ms), mbit * 125_000);
            let on_the_way = in_time(rate, round_trip);
            let window = window_on(round_trip, rate, 20);
            assert!(window >= on_the_way.min(FETCH_CREDIT_BYTES_MAX), "{round_trip_ms} ms, {mbit} Mbit/s: {window}");
            assert!(
                window <= (16 * on_the_way).max(8 * FETCH_CREDIT_BYTES_MIN),
                "{round_trip_ms} ms, {mbit} Mbit/s: {window}"
            );
        }
        assert_eq!(window_on(Duration::from_millis(300), 125_000_000, 20), FETCH_CREDIT_BYTES_MAX);
    }
}
