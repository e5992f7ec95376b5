//! The window of a member: the bytes outside its own result that its path needs, between two bounds of the view's
//! (`protocol.md` §5). Receivers enforce the upper bound, so this decides only on speed.
//!
//! A *trip* is the time from sending a slot until it is in the own result. The window is the highest recent rate times
//! the shortest trip and some headroom: a longer trip was spent in queues. It begins by doubling with each trip while
//! the rate grows with it. A longer shortest trip counts only if it was measured with the least window for a while,
//! because with a larger one it would include full queues.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::{Durability, Parameters};
use crate::id::Round;
use crate::pending::Record;
use crate::time::Time;

/// Minimum headroom: the time for which slots may wait in queues on a path however short, so that no member runs out of
/// slots.
const HEADROOM_MIN: Duration = Duration::from_millis(2);
/// The same with `Durability::Disk`. A slot waits for the sync in progress and for its own, at each member, and a sync
/// takes from one millisecond to many: the shortest trip includes no long one. A sync costs about the same for few
/// slots and for many.
const HEADROOM_ON_DISK_MIN: Duration = Duration::from_millis(40);
/// Number of members up to which the least window is the configured one. With more it is less in proportion: each
/// member receives the windows of all others, and a queue that takes as long as the failure timeout looks like a
/// failure.
const MEMBERS_OF_LEAST: u64 = 8;
/// Number of slots of the recent size that fit, within the view's bound: a member that sends large ones has few in
/// flight in the headroom's time, and others receive and answer each of few slots separately.
const SLOTS_MIN: u64 = 8;
/// Maximum bytes of these slots: the transport splits larger slots, which would only wait longer.
const SLOTS_BYTES_MAX: u64 = 512 << 10;
/// Headroom in trips while the window grows: a rate is that of the window of a trip before, so this headroom makes it
/// grow with each trip.
const GROWTH_TRIPS: u32 = 2;
/// Number of remembered trips.
const TRIPS_KEPT: usize = 8;
/// Number of consecutive trips for a rate: slots enter the result in bursts, so a single trip is not representative.
const TRIPS_IN_A_ROW: usize = 4;
/// The part by which a rate has to be higher to count as growth.
const GROWTH_PART: u64 = 4;
/// Number of trips without growth that end the doubling.
const FLAT_TRIPS_MAX: u32 = 3;
/// The time with the least window, and slots that wait for capacity, after which the path counts as longer.
const LEAST_TIME_MAX: Duration = Duration::from_secs(10);

/// A member's window of bytes.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: u64,
    min_bytes: u64,
    max_bytes: u64,
    headroom_min: Duration,
    /// The mean size of the slots that entered the result on the last trip.
    slot_bytes: u64,
    /// Whether a slot has waited for capacity in the trip, so that the rate is the window's and not the application's.
    short: bool,
    trip: Option<Trip>,
    /// Bytes and time of the last trips on which the window was too small.
    trips: VecDeque<(u64, Duration)>,
    growth: Option<Growth>,
    /// The shortest trip.
    shortest: Option<Duration>,
    /// The shortest trip with the least window, and the time from which the window has been the least.
    at_least: Option<(Duration, Time)>,
}

/// The measured trip.
#[derive(Debug)]
struct Trip {
    /// The slot of the trip.
    round: Round,
    since: Time,
    /// Bytes that entered the result meanwhile.
    bytes: u64,
    slots: u64,
    /// The shortest trip of these slots.
    shortest: Duration,
}

/// The state of the doubling.
#[derive(Debug, Default)]
struct Growth {
    rate: u64,
    /// Number of consecutive trips on which the rate did not grow.
    flat_trips: u32,
}

impl Window {
    pub(crate) fn new(parameters: &Parameters, members: usize) -> Self {
        let max_bytes = parameters.window_bytes;
        let min_bytes = match parameters.window_bytes_min {
            fixed if fixed >= max_bytes => max_bytes,
            // Never zero, which could not double.
            least => (least * MEMBERS_OF_LEAST / MEMBERS_OF_LEAST.max(members as u64)).max(1),
        };
        Self {
            bytes: min_bytes,
            min_bytes,
            max_bytes,
            headroom_min: match parameters.durability {
                Durability::Memory => HEADROOM_MIN,
                Durability::Disk => HEADROOM_ON_DISK_MIN,
            },
            slot_bytes: 0,
            short: false,
            trip: None,
            trips: VecDeque::with_capacity(TRIPS_KEPT),
            growth: Some(Growth::default()),
            shortest: None,
            at_least: None,
        }
    }

    /// The present size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a slot has capacity beside the bytes in flight; one slot always has.
    pub(crate) fn has_capacity(&self, in_flight_bytes: u64, cost_bytes: u64) -> bool {
        in_flight_bytes == 0 || in_flight_bytes + cost_bytes <= self.bytes
    }

    /// Notes that a slot waits for capacity.
    pub(crate) fn on_shortage(&mut self) {
        self.short = true;
    }

    /// Notes a sent own slot. The next trip is measured on the first slot after the end of the last trip: slots that
    /// enter the result until then were all in flight with it, or before it.
    pub(crate) fn sent(&mut self, round: Round, now: Time) {
        self.trip.get_or_insert(Trip { round, since: now, bytes: 0, slots: 0, shortest: Duration::MAX });
    }

    /// Notes an own slot that has entered the own result.
    pub(crate) fn entered(&mut self, record: &Record, now: Time) {
        if self.min_bytes == self.max_bytes {
            return;
        }
        let took = now.since(record.sent_at);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        let Some(trip) = &mut self.trip else { return };
        trip.bytes += record.cost_bytes;
        trip.slots += 1;
        trip.shortest = trip.shortest.min(took);
        if record.round >= trip.round {
            let (bytes, time, shortest) = (trip.bytes, now.since(trip.since), trip.shortest);
            self.slot_bytes = bytes / trip.slots;
            self.trip = None;
            self.trip_is_over((bytes, time), shortest, now);
        }
    }

    fn trip_is_over(&mut self, trip: (u64, Duration), shortest: Duration, now: Time) {
        let short = core::mem::take(&mut self.short);
        // The application's own rate does not count, unless it is a higher one.
        if short || per_second(trip) > self.rate() {
            if self.trips.len() == TRIPS_KEPT {
                self.trips.pop_front();
            }
            self.trips.push_back(trip);
        }
        if short {
            self.growth = self.growth.take().and_then(|growth| growth.goes_on(per_second(trip)));
        }
        self.bytes = self.needed().min(self.bytes.saturating_mul(2)).max(self.min_bytes);
        self.watch_least(short, shortest, now);
    }

    /// Detects a longer path: the member cannot send less, and still waits as long for each trip.
    fn watch_least(&mut self, short: bool, shortest: Duration, now: Time) {
        if self.bytes > self.least() || !short {
            self.at_least = None;
            return;
        }
        let (least, since) = self.at_least.map_or((shortest, now), |(least, since)| (least.min(shortest), since));
        self.at_least = Some((least, since));
        if now.since(since) >= LEAST_TIME_MAX {
            (self.shortest, self.growth, self.at_least) = (Some(least), Some(Growth::default()), None);
        }
    }

    /// The minimum, as on the shortest and slowest path.
    fn least(&self) -> u64 {
        SLOTS_BYTES_MAX.min(SLOTS_MIN * self.slot_bytes).clamp(self.min_bytes, self.max_bytes)
    }

    /// The need of the path, within the bounds.
    fn needed(&self) -> u64 {
        let shortest = self.shortest.unwrap_or_default();
        let headroom = if self.growth.is_some() { GROWTH_TRIPS * shortest } else { shortest };
        let needed = in_time(self.rate(), shortest.saturating_add(headroom.max(self.headroom_min)));
        needed.clamp(self.least(), self.max_bytes)
    }

    /// The highest rate of some consecutive trips; while the window grows, of the very last if that is higher.
    fn rate(&self) -> u64 {
        let in_a_row = TRIPS_IN_A_ROW.min(self.trips.len());
        let rate_from = |first: usize| {
            let trips = self.trips.range(first..first + in_a_row);
            per_second(trips.fold((0u64, Duration::ZERO), |(bytes, time), trip| {
                (bytes.saturating_add(trip.0), time.saturating_add(trip.1))
            }))
        };
        let highest = (0..=self.trips.len() - in_a_row).map(rate_from).max();
        let last = self.trips.back().filter(|_| self.growth.is_some());
        highest.unwrap_or_default().max(last.map_or(0, |&last| per_second(last)))
    }
}

impl Growth {
    /// The state after another trip; none if the rate has stopped growing.
    fn goes_on(self, rate: u64) -> Option<Self> {
        if rate >= self.rate.saturating_add(self.rate / GROWTH_PART) {
            return Some(Self { rate, flat_trips: 0 });
        }
        let flat_trips = self.flat_trips + 1;
        (flat_trips < FLAT_TRIPS_MAX).then_some(Self { flat_trips, ..self })
    }
}

/// Bytes per second.
fn per_second((bytes, time): (u64, Duration)) -> u64 {
    let us = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / us).unwrap_or(u64::MAX)
}

/// Bytes in some time at a rate in bytes per second.
fn in_time(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate).saturating_mul(time.as_micros()) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
