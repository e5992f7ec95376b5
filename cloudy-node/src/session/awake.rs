//! A clock that does not count the time in which this process is stopped, as by `SIGSTOP` or on a host that swaps:
//! other processes are not late for that time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time between two readings.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Maximum that one reading adds. A process whose reading is later was stopped meanwhile.
const COUNTED_MAX: Duration = Duration::from_secs(1);

/// The time that this process has run, if [`AwakeClock::until`] is polled all the time.
#[derive(Debug)]
pub(super) struct AwakeClock {
    ran: Duration,
    looked_at: Instant,
    resumed_at: Option<Duration>,
}

impl AwakeClock {
    pub(super) fn start() -> Self {
        Self { ran: Duration::ZERO, looked_at: Instant::now(), resumed_at: None }
    }

    /// The time that the process has run from the start of the clock.
    pub(super) fn now(&mut self) -> Duration {
        let looked_at = Instant::now();
        let passed = looked_at - std::mem::replace(&mut self.looked_at, looked_at);
        self.ran += passed.min(COUNTED_MAX);
        if passed > COUNTED_MAX {
            self.resumed_at = Some(self.ran);
        }
        self.ran
    }

    /// The time at which the process continued after its latest stop.
    pub(super) fn resumed_at(&self) -> Option<Duration> {
        self.resumed_at
    }

    /// Returns at that time of this clock; never without one. Cancel safe.
    pub(super) async fn until(&mut self, by: Option<Duration>) {
        let by = by.unwrap_or(Duration::MAX);
        loop {
            let left = by.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            // sleep: a process receives no notification of its stop.
            sleep(left.min(LOOK_EVERY)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_process_is_stopped_does_not_count() {
        let (begun, mut clock) = (Instant::now(), AwakeClock::start());
        clock.until(Some(Duration::from_secs(2))).await;
        assert_eq!((begun.elapsed().as_secs(), clock.resumed_at()), (2, None));
        // Like after SIGCONT: the clock was not read meanwhile.
        advance(Duration::from_secs(12)).await;
        clock.until(Some(Duration::from_secs(5))).await;
        assert_eq!(begun.elapsed().as_secs(), 12 + 5 - COUNTED_MAX.as_secs());
        assert_eq!(clock.resumed_at(), Some(Duration::from_secs(2) + COUNTED_MAX));
    }
}
