//! A link with a bandwidth, and a queue before it.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes of a datagram on the link beside its contents: the headers of UDP, IPv4 and Ethernet.
const HEADER_BYTES: usize = 46;

/// The bandwidth of one address of a [`MemoryNetwork`](super::MemoryNetwork), in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bandwidth {
    /// Bytes a second in each direction, headers included. At least 1.
    pub bytes_per_second: u64,
    /// The length of the queue: a datagram that would wait longer is lost, and counted as `overflowed`.
    pub queue: Duration,
}

impl Bandwidth {
    cloudy_proto::setters! {
        bytes_per_second: u64,
        queue: Duration,
    }

    /// A rate in million bits a second, with a queue of 100 ms.
    #[must_use]
    pub const fn megabits(megabits: u64) -> Self {
        Self { bytes_per_second: megabits * 125_000, queue: Duration::from_millis(100) }
    }

    fn time_of(self, bytes: usize) -> Duration {
        let nanos = (bytes + HEADER_BYTES) as u128 * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    bandwidth: Bandwidth,
    free_at: Option<Instant>,
}

impl Queue {
    pub(super) fn new(bandwidth: Bandwidth) -> Self {
        Self { bandwidth, free_at: None }
    }

    /// The time at which a datagram leaves that arrives at `at`; none if it is lost.
    pub(super) fn pass(&mut self, at: Instant, bytes: usize) -> Option<Instant> {
        let start = self.free_at.map_or(at, |free_at| free_at.max(at));
        if start - at > self.bandwidth.queue {
            return None;
        }
        let through = start + self.bandwidth.time_of(bytes);
        self.free_at = Some(through);
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn datagrams_pass_one_after_another_and_are_lost_beyond_the_maximum_delay() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let mut queue = Queue::new(Bandwidth { bytes_per_second: 100_000, queue: ms(25) });
        let mut pass = |at| queue.pass(at, 1_000 - HEADER_BYTES).map(|through| through - now);
        assert_eq!([pass(now), pass(now), pass(now)], [Some(ms(10)), Some(ms(20)), Some(ms(30))]);
        assert_eq!(pass(now), None, "it would wait for 30 ms");
        assert_eq!(pass(now + ms(5)), Some(ms(40)));
        assert_eq!(pass(now + ms(100)), Some(ms(110)));
    }
}
