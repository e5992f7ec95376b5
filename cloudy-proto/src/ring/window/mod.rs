//! How much of its own a member has outside its own result: as much as its path needs, between two bounds of the view's
//! (`protocol.md` §5). What receivers enforce is the upper one, so this decides about speed only.
//!
//! A *trip* is the time from sending a slot until it is in the own result. The window is the highest recent rate times
//! the shortest trip and some headroom: what is longer than the shortest trip was spent in queues. It begins by doubling
//! with each trip while the rate grows with it. A longer shortest trip is believed only where it was met with the least
//! window for a while, for with a larger one it would be that of full queues.

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::{Durability, Parameters};
use crate::id::Round;
use crate::pending::Record;
use crate::time::Time;

/// Headroom, at least: so long may slots wait in queues on a path however short, so that nobody runs dry.
const HEADROOM_MIN: Duration = Duration::from_millis(2);
/// As much with `Durability::Disk`. A slot waits for the sync that is in progress and for its own, at each member, and a sync
/// takes from one millisecond to many: the shortest trip, which met none that was long, says little of that. One sync
/// costs about the same for few slots and for many.
const HEADROOM_ON_DISK_MIN: Duration = Duration::from_millis(40);
/// Members up to which the least window is the configured one. With more it is less in proportion: each member is sent the
/// windows of all others, and a queue that takes as long as the failure timeout looks like a failure.
const MEMBERS_OF_LEAST: u64 = 8;
/// Slots of the recent size that fit, within the view's bound: a member that sends large ones has few in flight in the
/// headroom's time, and a member that has few takes and answers each by itself.
const SLOTS_MIN: u64 = 8;
/// Up to so many bytes of them: larger slots are pieces enough for the transport, and would only wait longer.
const SLOTS_BYTES_MAX: u64 = 512 << 10;
/// Headroom while the window grows: a rate is that of the window of a trip before, so this much makes it grow with each.
const GROWTH_TRIPS: u32 = 2;
/// Trips that are remembered.
const TRIPS_KEPT: usize = 8;
/// Trips in a row that make a rate: slots enter the result in bursts, so that a single one says little.
const TRIPS_IN_A_ROW: usize = 4;
/// The part by which a rate has to be higher to count as growth.
const GROWTH_PART: u64 = 4;
/// So many trips without growth end the doubling.
const FLAT_TRIPS_MAX: u32 = 3;
/// After so long with the least window, and slots that wait for room, the path has become longer.
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
    /// A slot has waited for room since the trip began: the rate is the window's and not the application's.
    short: bool,
    trip: Option<Trip>,
    /// Bytes and time of the last trips on which the window was short.
    trips: VecDeque<(u64, Duration)>,
    growth: Option<Growth>,
    /// The shortest trip.
    shortest: Option<Duration>,
    /// The shortest trip since the window has come to be the least, and since when that is.
    at_least: Option<(Duration, Time)>,
}

/// The measured trip.
#[derive(Debug)]
struct Trip {
    /// The slot that makes it.
    round: Round,
    since: Time,
    /// What has entered the result meanwhile.
    bytes: u64,
    slots: u64,
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
    pub(crate) fn new(parameters: &Parameters, members: usize) -> Self {
        let max_bytes = parameters.window_bytes;
        let min_bytes = match parameters.window_bytes_min {
            fixed if fixed >= max_bytes => max_bytes,
            // Never nothing: that could not double.
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

    /// The size at this moment.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// There is room for a slot beside what is in flight; one slot always has room.
    pub(crate) fn has_room(&self, in_flight_bytes: u64, cost_bytes: u64) -> bool {
        in_flight_bytes == 0 || in_flight_bytes + cost_bytes <= self.bytes
    }

    /// A slot waits for room.
    pub(crate) fn on_shortage(&mut self) {
        self.short = true;
    }

    /// An own slot was sent. The next trip is measured on the first that is sent after the last trip was over: what enters
    /// the result until then was all in flight with it, or before it.
    pub(crate) fn sent(&mut self, round: Round, now: Time) {
        self.trip.get_or_insert(Trip { round, since: now, bytes: 0, slots: 0, shortest: Duration::MAX });
    }

    /// An own slot has entered the own result.
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
        // A rate that was the application's own says nothing, unless it is a higher one.
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

    /// A member that can send no less, and still waits as long for each trip, has a longer path than was thought.
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

    /// What it has on the shortest and slowest path.
    fn least(&self) -> u64 {
        SLOTS_BYTES_MAX.min(SLOTS_MIN * self.slot_bytes).clamp(self.min_bytes, self.max_bytes)
    }

    /// What the path needs, within the bounds.
    fn needed(&self) -> u64 {
        let shortest = self.shortest.unwrap_or_default();
        let headroom = if self.growth.is_some() { GROWTH_TRIPS * shortest } else { shortest };
        let needed = in_time(self.rate(), shortest.saturating_add(headroom.max(self.headroom_min)));
        needed.clamp(self.least(), self.max_bytes)
    }

    /// The highest of some trips in a row; while the window grows, of the very last if that is higher.
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
