//! The load of a sender: the times of its broadcasts.

use std::ops::Range;

use super::spec::{STAMP_BYTES, Spec};

/// Maximum of messages that are offered with one reading of the clock at full speed: they share their due time.
const BURST_MAX: u64 = 64;

/// The times of a run, microseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// Senders send.
    pub(crate) send: Range<u64>,
    /// Messages that are due in this time are measured.
    pub(crate) measure: Range<u64>,
}

impl Times {
    pub(crate) fn new(spec: &Spec, start_us: u64) -> Self {
        let from = start_us + spec.warm_up.as_micros() as u64;
        let to = from + spec.duration.as_micros() as u64;
        Self { send: start_us..to, measure: from..to }
    }
}

/// Messages that are due together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) due_us: u64,
    pub(crate) messages: u64,
}

/// One sender's load.
pub(crate) struct Load {
    send: Range<u64>,
    in_flight_max: u64,
    schedule: Option<Schedule>,
    taken: u64,
}

/// A schedule of messages at equal distances, interleaved with those of other senders.
struct Schedule {
    rate_per_s: u64,
    first_us: u64,
}

impl Load {
    /// The load of a node; none if it sends nothing.
    pub(crate) fn of(spec: &Spec, number: usize, times: &Times) -> Option<Self> {
        let schedule = spec.rate_per_s.map(|rate_per_s| {
            let offset_us = 1_000_000 * number as u64 / (rate_per_s * spec.senders as u64);
            Schedule { rate_per_s, first_us: times.send.start + offset_us }
        });
        let load = Self { send: times.send.clone(), in_flight_max: spec.in_flight_max(), schedule, taken: 0 };
        (number < spec.senders).then_some(load)
    }

    /// The messages to offer at this time, if `approved` messages of this node are approved. They are due until they
    /// are [taken](Self::take).
    pub(crate) fn due(&self, now_us: u64, approved: u64) -> Option<Burst> {
        if let Some(due_us) = self.next_us() {
            return (due_us <= now_us).then_some(Burst { due_us, messages: 1 });
        }
        let room = self.in_flight_max.saturating_sub(self.taken - approved);
        let messages = room.min(BURST_MAX);
        let goes_on = self.schedule.is_none() && self.send.contains(&now_us);
        (goes_on && messages > 0).then_some(Burst { due_us: now_us, messages })
    }

    /// The time of the next message of the schedule; none at full speed, or once it is over.
    pub(crate) fn next_us(&self) -> Option<u64> {
        let schedule = self.schedule.as_ref()?;
        let next_us = schedule.first_us + (u128::from(self.taken) * 1_000_000 / u128::from(schedule.rate_per_s)) as u64;
        self.send.contains(&next_us).then_some(next_us)
    }

    /// Sets the maximum of messages in flight at full speed.
    pub(crate) fn keep_in_flight(&mut self, messages: u64) {
        self.in_flight_max = messages;
    }

    /// Notes that messages were offered.
    pub(crate) fn take(&mut self, messages: u64) {
        self.taken += messages;
    }

    /// Number of offered messages.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether no more messages are offered.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        match self.schedule {
            Some(_) => self.next_us().is_none(),
            None => now_us >= self.send.end,
        }
    }
}

/// Writes the due time into the beginning of a payload, if it is long enough.
pub(crate) fn stamp(payload: &mut [u8], due_us: u64) {
    if let Some(stamp) = payload.first_chunk_mut::<STAMP_BYTES>() {
        *stamp = due_us.to_le_bytes();
    }
}

/// The due time of a payload, if it is long enough to contain it.
pub(crate) fn stamped(payload: &[u8]) -> Option<u64> {
    payload.first_chunk::<STAMP_BYTES>().map(|stamp| u64::from_le_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::runs::tests::spec;

    fn load(rate_per_s: Option<u64>, number: usize) -> (Load, Times) {
        let spec = Spec { rate_per_s, senders: 2, warm_up: Duration::ZERO, duration: Duration::from_secs(1), ..spec() };
        let times = Times::new(&spec, 5_000_000);
        (Load::of(&spec, number, &times).expect("a sender"), times)
    }

    #[test]
    fn a_schedule_keeps_its_times_however_late_it_is_served() {
        let (mut load, _) = load(Some(4), 1);
        assert_eq!(load.due(5_000_000, 0), None);
        assert_eq!(load.next_us(), Some(5_125_000));
        let mut due = Vec::new();
        while let Some(burst) = load.due(9_000_000, 0) {
            due.push((burst.due_us, burst.messages));
            load.take(burst.messages);
        }
        assert_eq!(due, [(5_125_000, 1), (5_375_000, 1), (5_625_000, 1), (5_875_000, 1)]);
        assert!(load.is_over(5_900_000));
    }

    #[test]
    fn full_speed_keeps_to_the_window() {
        let (mut load, times) = load(None, 0);
        let in_flight_max = spec().in_flight_max();
        let mut offered = 0;
        while let Some(burst) = load.due(5_000_001, 0) {
            assert_eq!(burst.due_us, 5_000_001);
            load.take(burst.messages);
            offered += burst.messages;
        }
        assert_eq!(offered, in_flight_max);
        assert_eq!(load.due(5_000_002, 10), Some(Burst { due_us: 5_000_002, messages: 10 }));
        assert_eq!(load.due(times.send.end, 10), None);
        assert!(load.is_over(times.send.end) && !load.is_over(5_000_002));
    }

    #[test]
    fn listeners_have_no_load_and_short_payloads_no_stamp() {
        let times = Times::new(&spec(), 0);
        assert!(Load::of(&Spec { senders: 1, ..spec() }, 1, &times).is_none());
        let (mut long, mut short) = ([0; 9], [0; 7]);
        stamp(&mut long, 77);
        stamp(&mut short, 77);
        assert_eq!((stamped(&long), stamped(&short)), (Some(77), None));
    }
}
