//! How much of its own a member has outside its own result: as much as its path needs, between two bounds of the view's
//! (`protocol.md` §5). What receivers enforce is the upper one, so this decides about speed only.
//!
//! A *trip* is the time from sending a slot until it is in the own result. The window is the rate times a trip and
//! its headroom: the highest rate of late, and the shortest trip of late, for what is longer than that was spent
//! in queues. The headroom lets a window grow while the rate grows with it: it doubles with each trip on a long path, and
//! stops where more only waits longer.

use core::time::Duration;

use crate::config::Parameters;
use crate::id::Round;
use crate::pending::Record;
use crate::time::Time;

/// Headroom, at least: so long may slots wait in queues on a path however short, so that nobody runs dry.
const HEADROOM_MIN: Duration = Duration::from_millis(2);
/// Trips whose rates are remembered.
const RATES_KEPT: usize = 8;
/// The shortest trip is that of one to two such spans, so that a path that has become longer is noticed.
const SPAN: Duration = Duration::from_secs(5);

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
    shortest: Shortest,
}

/// The trip that is measured.
#[derive(Debug)]
struct Trip {
    /// The slot that makes it.
    round: Round,
    since: Time,
    /// What has entered the result meanwhile.
    bytes: u64,
}

/// The shortest trip of the last one or two spans.
#[derive(Debug, Default)]
struct Shortest {
    before: Option<Duration>,
    now: Option<Duration>,
    since: Time,
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
            shortest: Shortest::default(),
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
        self.shortest.take(now.since(record.sent_at), now);
        let trip = self.trip.get_or_insert(Trip { round: record.round, since: record.sent_at, bytes: 0 });
        trip.bytes += record.cost_bytes;
        if record.round >= trip.round {
            let rate = per_second(trip.bytes, now.since(trip.since));
            self.trip = newest.map(|round| Trip { round, since: now, bytes: 0 });
            self.adapt(rate);
        }
    }

    /// A trip is over. A rate that was the application's own says nothing, unless it is a new highest.
    fn adapt(&mut self, rate: u64) {
        let short = core::mem::take(&mut self.short);
        if short || rate > self.rate_max() {
            self.rates[self.next_rate] = rate;
            self.next_rate = (self.next_rate + 1) % RATES_KEPT;
        }
        let shortest = self.shortest.get();
        let needed = in_time(self.rate_max(), shortest + shortest.max(HEADROOM_MIN));
        self.bytes = needed.min(self.bytes.saturating_mul(2)).clamp(self.min_bytes, self.max_bytes);
    }

    fn rate_max(&self) -> u64 {
        self.rates.iter().copied().max().unwrap_or_default()
    }
}

impl Shortest {
    fn take(&mut self, trip: Duration, now: Time) {
        if now.since(self.since) >= SPAN {
            // After an idle time longer than both spans nothing is left of what was before it.
            self.before = self.now.take().filter(|_| now.since(self.since) < 2 * SPAN);
            self.since = now;
        }
        self.now = Some(self.now.map_or(trip, |shortest| shortest.min(trip)));
    }

    fn get(&self) -> Duration {
        self.before.into_iter().chain(self.now).min().unwrap_or_default()
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
