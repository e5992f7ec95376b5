//! How much of its own a member has outside its own result: as much as its path needs, between two bounds of the view's
//! (`protocol.md` §5). What receivers enforce is the upper one, so this decides about speed only.
//!
//! A *trip* is the time from sending a slot until it is in the own result. The window is the highest rate of late times
//! the shortest trip and some headroom: what is longer than the shortest trip was spent in queues. It begins by doubling
//! with each trip while the rate grows with it. The shortest trip is measured anew now and then with a small window, for
//! with a large one it would come to be that of full queues.

use core::time::Duration;

use crate::config::Parameters;
use crate::id::Round;
use crate::pending::Record;
use crate::time::Time;

/// Headroom, at least: so long may slots wait in queues on a path however short, so that nobody runs dry.
const HEADROOM_MIN: Duration = Duration::from_millis(2);
/// Headroom for what a path delays unevenly: this part of the shortest trip.
const HEADROOM_PART: u32 = 2;
/// Trips whose rates are remembered.
const RATES_KEPT: usize = 8;
/// A rate has grown if it is higher by this part.
const GROWTH_PART: u64 = 4;
/// So many trips without growth end the doubling.
const FLAT_TRIPS_MAX: u32 = 3;
/// The shortest trip is good for so long; then it is measured anew.
const SHORTEST_AGE_MAX: Duration = Duration::from_secs(10);
/// Trips with the smallest window: one for what is on its way, one that is measured.
const DRAIN_TRIPS: u32 = 2;

/// A member's window of bytes.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: u64,
    min_bytes: u64,
    max_bytes: u64,
    /// A slot has waited for room since the trip began: the rate is the window's and not the application's.
    short: bool,
    trip: Option<Trip>,
    /// Bytes a second, of the last trips on which the window was short.
    rates: [u64; RATES_KEPT],
    next_rate: usize,
    growth: Option<Growth>,
    /// The shortest trip, and when it was taken.
    shortest: Option<(Duration, Time)>,
    /// Trips that are left of measuring it anew.
    drain_trips: u32,
}

/// The trip that is measured.
#[derive(Debug)]
struct Trip {
    /// The slot that makes it.
    round: Round,
    since: Time,
    /// What has entered the result meanwhile.
    bytes: u64,
    /// The shortest of the slots that did.
    shortest: Duration,
}

/// The window doubles.
#[derive(Debug, Default)]
struct Growth {
    rate: u64,
    /// Trips in a row on which the rate did not grow.
    flat_trips: u32,
}

impl Window {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let max_bytes = parameters.window_bytes;
        let min_bytes = parameters.window_bytes_min.min(max_bytes);
        Self {
            bytes: min_bytes,
            min_bytes,
            max_bytes,
            short: false,
            trip: None,
            rates: [0; RATES_KEPT],
            next_rate: 0,
            growth: Some(Growth::default()),
            shortest: None,
            drain_trips: 0,
        }
    }

    /// The size at this moment.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// There is room for a slot beside what is in flight; one slot always has room.
    pub(crate) fn has_room(&self, in_flight_bytes: u64, cost_bytes: u64) -> bool {
        in_flight_bytes == 0 || in_flight_bytes + cost_bytes <= self.bytes
    }

    /// A slot waits for room.
    pub(crate) fn is_short(&mut self) {
        self.short = true;
    }

    /// An own slot has entered the own result. `newest` is the last own slot that has not.
    pub(crate) fn entered(&mut self, record: &Record, newest: Option<Round>, now: Time) {
        if self.min_bytes == self.max_bytes {
            return;
        }
        let took = now.since(record.sent_at);
        if self.shortest.is_none_or(|(shortest, _)| took <= shortest) {
            self.shortest = Some((took, now));
        }
        let begun = |round, since| Trip { round, since, bytes: 0, shortest: Duration::MAX };
        let trip = self.trip.get_or_insert_with(|| begun(record.round, record.sent_at));
        trip.bytes += record.cost_bytes;
        trip.shortest = trip.shortest.min(took);
        if record.round >= trip.round {
            let (rate, shortest) = (per_second(trip.bytes, now.since(trip.since)), trip.shortest);
            self.trip = newest.map(|round| begun(round, now));
            self.trip_is_over(rate, shortest, now);
        }
    }

    fn trip_is_over(&mut self, rate: u64, shortest: Duration, now: Time) {
        let short = core::mem::take(&mut self.short);
        if self.drain_trips > 0 {
            self.drain_trips -= 1;
            if self.drain_trips == 0 {
                self.shortest = Some((shortest, now));
                self.bytes = self.needed();
            }
            return;
        }
        // A rate that was the application's own says nothing, unless it is a new highest.
        if short || rate > self.rate_max() {
            self.rates[self.next_rate] = rate;
            self.next_rate = (self.next_rate + 1) % RATES_KEPT;
        }
        if short {
            self.growth = self.growth.take().and_then(|growth| growth.goes_on(rate));
        }
        if self.shortest.is_some_and(|(_, at)| now.since(at) >= SHORTEST_AGE_MAX) {
            self.drain_trips = DRAIN_TRIPS;
            self.bytes = self.min_bytes;
        } else {
            self.bytes = self.needed().min(self.bytes.saturating_mul(2)).max(self.min_bytes);
        }
    }

    /// What the path needs, within the bounds.
    fn needed(&self) -> u64 {
        let shortest = self.shortest.map_or(Duration::ZERO, |(shortest, _)| shortest);
        let headroom = if self.growth.is_some() { shortest } else { shortest / HEADROOM_PART };
        let needed = in_time(self.rate_max(), shortest.saturating_add(headroom.max(HEADROOM_MIN)));
        needed.clamp(self.min_bytes, self.max_bytes)
    }

    fn rate_max(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or_default()
    }
}

impl Growth {
    /// After another trip; none if the rate has stopped growing.
    fn goes_on(self, rate: u64) -> Option<Self> {
        if rate >= self.rate.saturating_add(self.rate / GROWTH_PART) {
            return Some(Self { rate, flat_trips: 0 });
        }
        let flat_trips = self.flat_trips + 1;
        (flat_trips < FLAT_TRIPS_MAX).then_some(Self { flat_trips, ..self })
    }
}

/// Bytes a second.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let us = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / us).unwrap_or(u64::MAX)
}

/// Bytes, at a rate of so many a second.
fn in_time(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate).saturating_mul(time.as_micros()) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
