//! Congestion control that builds no long queue before a slow link.
//!
//! CUBIC sends more until packets are lost, and in slow start twice as much with each round trip. Before a link with a
//! deep queue heartbeats then wait for seconds behind bulk data, and a lost heartbeat is repeated only after the same
//! time. The queue is measured as the shortest time in which a packet of one round trip was acknowledged, less the
//! shortest of all. A small queue ends slow start, as in HyStart++ (RFC 9406). Once the queue exceeds [`QUEUE_MIN`],
//! the window shrinks to the capacity of the path with half of that queue, and grows again slowly.
//!
//! A path may become longer, or other traffic may fill its queue. So the shortest round trip counts for
//! [`BASE_AGE_MAX`]. Then the window shrinks for two round trips to a size that fills no queue, and the shortest round
//! trip is measured again.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// A longer queue is too long. A shorter one is left to CUBIC, which shares it fairly with other traffic: several
/// connections and both directions of a path add up to one round trip.
const QUEUE_MIN: Duration = Duration::from_millis(300);
/// The limit is at least this part of the shortest round trip, because the round trip varies in proportion.
const QUEUE_PART: u32 = 4;
/// The window shrinks to this part of the queue, and by half at most.
const QUEUE_LEFT: u32 = 2;
/// A queue of this part of the limit ends slow start.
const QUEUE_SMALL: u32 = 8;
/// In a round trip with a shorter queue the window grows by this part, with a longer one by this part of the initial
/// window: connections that share a link reach equal windows.
const GROWTH_PART: u64 = 4;
/// Number of consecutive packets whose queue ends slow start, which would otherwise double the window until the end of
/// the round trip.
const PACKETS: u32 = 8;
/// The time for which the shortest round trip counts.
const BASE_AGE_MAX: Duration = Duration::from_secs(10);
/// This part of the path's capacity in the shortest round trip fills no queue.
const EMPTY_PARTS: (u32, u32) = (3, 4);

/// Builds controllers that keep queues short.
pub(super) struct ShortQueue<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for ShortQueue<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bounded { inner: Arc::clone(&self.0).build(now, current_mtu), queue: Queue::new(now) })
    }
}

/// The packets of one round trip: those that are acknowledged before the first packet that was sent meanwhile.
#[derive(Clone, Copy, Debug)]
struct Round {
    since: Instant,
    /// The shortest time from sending a packet to its acknowledgement.
    shortest: Option<Duration>,
    /// The same for the latest packets, and their number.
    latest: (Duration, u32),
    acked: u64,
    /// Whether there was nothing to send at some point.
    is_app_limited: bool,
}

/// A period in which the window is small enough for an empty queue.
#[derive(Clone, Copy, Debug)]
struct Drain {
    window: u64,
    /// Packets that are sent from this time on meet an empty queue.
    measure_from: Instant,
}

/// The measured queue before the path's slowest link.
#[derive(Clone, Copy, Debug)]
struct Queue {
    round: Round,
    /// The shortest round trip, and the time of its measurement.
    base: Option<(Duration, Instant)>,
    /// Maximum bytes in flight.
    window_max: Option<u64>,
    drain: Option<Drain>,
}

impl Round {
    fn new(now: Instant) -> Self {
        Self { since: now, shortest: None, latest: (Duration::MAX, 0), acked: 0, is_app_limited: false }
    }
}

impl Queue {
    fn new(now: Instant) -> Self {
        Self { round: Round::new(now), base: None, window_max: None, drain: None }
    }

    /// Handles an acknowledgement. Returns the smaller one of the inner controller's window and the limit.
    fn ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, windows: (u64, u64)) {
        let took = now.saturating_duration_since(sent);
        if let Some(drain) = self.drain {
            if sent >= drain.measure_from {
                (self.base, self.drain, self.round) = (Some((took, now)), None, Round::new(now));
            }
            return;
        }
        let round = &mut self.round;
        round.shortest = Some(round.shortest.map_or(took, |shortest| shortest.min(took)));
        round.latest = (round.latest.0.min(took), round.latest.1 + 1);
        round.acked += bytes;
        round.is_app_limited |= app_limited;
        if self.base.is_none_or(|(base, _)| took <= base) {
            self.base = Some((took, now));
        }
        if sent >= self.round.since {
            self.end_round(now, windows);
            self.round = Round::new(now);
        } else if self.round.latest.1 == PACKETS {
            let (latest, _) = std::mem::replace(&mut self.round.latest, (Duration::MAX, 0));
            if self.queue(latest).is_some_and(|(queue, max)| queue > max / QUEUE_SMALL) {
                self.window_max = Some(self.window(windows.0));
            }
        }
    }

    /// The queueing time of a packet that was acknowledged after `took`, and its limit.
    fn queue(&self, took: Duration) -> Option<(Duration, Duration)> {
        let (base, _) = self.base?;
        Some((took.saturating_sub(base), QUEUE_MIN.max(base / QUEUE_PART)))
    }

    fn window(&self, inner: u64) -> u64 {
        let max = self.drain.map(|drain| drain.window).or(self.window_max);
        max.map_or(inner, |max| max.min(inner))
    }

    fn is_bound(&self) -> bool {
        self.drain.is_some() || self.window_max.is_some()
    }

    fn end_round(&mut self, now: Instant, (inner, least): (u64, u64)) {
        let Round { since, shortest: Some(shortest), acked, is_app_limited, .. } = self.round else { return };
        let (Some((base, measured_at)), Some((queue, queue_max))) = (self.base, self.queue(shortest)) else { return };
        let rate = acked as f64 / now.saturating_duration_since(since).max(shortest).as_secs_f64();
        let fits = |time: Duration| ((rate * time.as_secs_f64()) as u64).max(least);
        if now.saturating_duration_since(measured_at) > BASE_AGE_MAX {
            if is_app_limited {
                self.base = Some((shortest, now));
            } else {
                let window = fits(base * EMPTY_PARTS.0 / EMPTY_PARTS.1);
                self.drain = Some(Drain { window, measure_from: now + shortest });
            }
        } else if queue > queue_max && !is_app_limited {
            let window = self.window(inner);
            let part = (base + queue_max / QUEUE_LEFT).as_secs_f64() / shortest.as_secs_f64();
            self.window_max = Some(((window as f64 * part) as u64).max(window / 2).max(least).min(window));
        } else if queue <= queue_max {
            let grown = |max: u64| {
                if queue < queue_max / QUEUE_SMALL { max + max / GROWTH_PART } else { max + least / GROWTH_PART }
            };
            self.window_max = self.window_max.map(grown).filter(|max| *max < inner);
        }
    }
}

struct Bounded {
    inner: Box<dyn Controller>,
    queue: Queue,
}

impl Controller for Bounded {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        let windows = (self.inner.window(), self.inner.initial_window());
        self.queue.ack(now, sent, bytes, app_limited, windows);
        // An unused window does not grow.
        let is_bound = self.queue.is_bound();
        self.inner.on_ack(now, sent, bytes, app_limited || is_bound, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        let is_bound = self.queue.is_bound();
        self.inner.on_end_acks(now, in_flight, app_limited || is_bound, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.queue.window(self.inner.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), queue: self.queue })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const PACKET_BYTES: u64 = 1_200;
    const LEAST: u64 = 12 * PACKET_BYTES;

    /// A link with an unbounded queue, and a connection in slow start that always has data to send.
    struct Link {
        now: Instant,
        round_trip: Duration,
        bytes_per_second: f64,
        inner: u64,
        queue: Queue,
        free_at: Instant,
        /// The times at which packets were sent, and at which they will be acknowledged.
        in_flight: VecDeque<(Instant, Instant)>,
    }

    impl Link {
        fn new(round_trip_ms: u64, megabits: u32) -> Self {
            let now = Instant::now();
            Self {
                now,
                round_trip: Duration::from_millis(round_trip_ms),
                bytes_per_second: f64::from(megabits) * 125_000.0,
                inner: LEAST,
                queue: Queue::new(now),
                free_at: now,
                in_flight: VecDeque::new(),
            }
        }

        /// Runs for some time. Returns the longest queue, and the used part of the link's bandwidth.
        fn run(&mut self, time: Duration) -> (Duration, f64) {
            let (since, mut longest, mut bytes) = (self.now, Duration::ZERO, 0);
            while self.now < since + time {
                while (self.in_flight.len() as u64 + 1) * PACKET_BYTES <= self.queue.window(self.inner) {
                    let takes = Duration::from_secs_f64(PACKET_BYTES as f64 / self.bytes_per_second);
                    self.free_at = self.free_at.max(self.now) + takes;
                    self.in_flight.push_back((self.now, self.free_at + self.round_trip));
                }
                let (sent, acked) = self.in_flight.pop_front().unwrap();
                self.now = self.now.max(acked);
                self.queue.ack(self.now, sent, PACKET_BYTES, false, (self.inner, LEAST));
                self.inner += if self.queue.is_bound() { 0 } else { PACKET_BYTES };
                longest = longest.max((self.now - sent).saturating_sub(self.round_trip));
                bytes += PACKET_BYTES;
            }
            (longest, bytes as f64 / self.bytes_per_second / time.as_secs_f64())
        }
    }

    /// The queue exceeds its limit by a part before a round trip shows it.
    fn most() -> Duration {
        QUEUE_MIN * 5 / 2
    }

    #[test]
    fn the_queue_before_a_link_stays_short_and_the_link_busy() {
        for (round_trip_ms, megabits) in [(1, 2), (1, 100), (50, 2), (50, 10), (50, 100), (300, 10)] {
            let (longest, used) = Link::new(round_trip_ms, megabits).run(Duration::from_secs(60));
            assert!(longest < most() && used > 0.9, "{round_trip_ms} ms, {megabits} Mbit/s: {longest:?}, {used}");
        }
    }

    #[test]
    fn a_path_that_becomes_longer_is_measured_again() {
        let mut link = Link::new(50, 10);
        link.run(2 * BASE_AGE_MAX);
        link.round_trip = Duration::from_millis(550);
        link.run(2 * BASE_AGE_MAX);
        let (longest, used) = link.run(6 * BASE_AGE_MAX);
        assert!(longest < most() && used > 0.9, "{longest:?}, {used}");
    }
}
