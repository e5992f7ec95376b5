//! The broadcasts of a slave.

use std::num::NonZeroU32;
use std::time::Duration;

use cloudy_proto::{RingKind, SessionPlan};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::reading::Approvals;
use crate::handle::{BroadcastError, Group};
use crate::session::numbers::{Numbers, encode};

/// Numbers that are broadcast before other tasks run: received frames are handled before more is sent.
const BURST: u32 = 256;
/// Maximum of own numbers that wait for a slot: enough to fill the next slots, few enough to be sent soon after SEND.
const WAITING_MAX: u64 = 8_192;

/// Maximum lag of this slave's result file behind the result, before it pauses its broadcasts: well within the retained
/// part, because otherwise a disk slower than the network would end every file early.
const BEHIND_MAX: u64 = 1 << 18;

/// Bursts in a second for a limited rate: one for each tick of the timer.
const BURSTS_PER_SECOND: u32 = 1_000;
/// The time for which an unused part of the rate may be made up: more than a timer is late.
const RATE_CREDIT: Duration = Duration::from_millis(20);

/// The stage of a session for a producer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// It has not begun.
    Start,
    /// Broadcast.
    Send {
        /// The periods and the seed.
        plan: SessionPlan,
        /// The stream of the seed; none while this slave is not on the ring.
        stream: Option<u64>,
        /// The ring model.
        ring: RingKind,
    },
    /// Broadcast nothing else.
    Over,
}

/// Limits a slave's broadcasts to the speed of its file, and to its maximum rate.
pub(super) struct Pace {
    approved: watch::Receiver<Approvals>,
    /// The last index written; none without a file.
    written: Option<watch::Receiver<u64>>,
    numbers_per_second_max: Option<NonZeroU32>,
    /// The time of the next number within the rate.
    next_at: Instant,
}

impl Pace {
    pub(super) fn new(
        approved: watch::Receiver<Approvals>,
        written: Option<watch::Receiver<u64>>,
        numbers_per_second_max: Option<NonZeroU32>,
    ) -> Self {
        Self { approved, written, numbers_per_second_max, next_at: Instant::now() }
    }

    /// Waits until the file is close behind the result.
    async fn kept(&mut self) {
        let Some(written) = &mut self.written else { return };
        let approved = &self.approved;
        let close = |written: &u64| approved.borrow().sum.count().saturating_sub(*written) <= BEHIND_MAX;
        if written.wait_for(close).await.is_err() {
            // The file is finished, complete or not.
            self.written = None;
        }
    }

    /// Waits until the rate allows the next numbers; returns their number, up to `burst_max`.
    async fn allowed(&mut self, burst_max: u32) -> u32 {
        let Some(per_second_max) = self.numbers_per_second_max.map(NonZeroU32::get) else { return burst_max };
        // sleep: a rate is defined by time.
        sleep_until(self.next_at).await;
        let burst = per_second_max.div_ceil(BURSTS_PER_SECOND).min(burst_max);
        let earliest = Instant::now().checked_sub(RATE_CREDIT).unwrap_or(self.next_at);
        self.next_at = self.next_at.max(earliest) + Duration::from_secs(1) * burst / per_second_max;
        burst
    }
}

/// Broadcasts random numbers during SEND.
pub(super) async fn produce(group: &Group, mut stage: watch::Receiver<Stage>, mut pace: Pace) {
    let begins = |stage: &Stage| matches!(stage, Stage::Send { stream: Some(_), .. } | Stage::Over);
    let begun = stage.wait_for(begins).await.map(|stage| *stage);
    let Ok(Stage::Send { plan, stream: Some(stream), ring }) = begun else { return };
    if plan.send.is_zero() {
        // Otherwise chance decides whether a first burst is sent before the end of SEND.
        return;
    }
    let mut numbers = Numbers::new(plan.seed, stream);
    let over = async {
        // An error means that the session is gone, and so over as well.
        let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
    };
    tokio::select! {
        biased;
        () = over => {}
        () = async {
            match ring {
                RingKind::Token => one_at_a_time(group, &mut numbers, &mut pace).await,
                RingKind::Pipelined | RingKind::Relay => as_room_allows(group, &mut numbers, &mut pace).await,
            }
        } => {}
    }
}

/// Broadcasts the next number once the one before has a slot: each turn of the token takes one.
async fn one_at_a_time(group: &Group, numbers: &mut Numbers, pace: &mut Pace) {
    while group.broadcast(encode(numbers.next_number())).await.is_ok() {
        group.outbox_below(1).await;
        pace.kept().await;
        pace.allowed(1).await;
    }
}

async fn as_room_allows(group: &Group, numbers: &mut Numbers, pace: &mut Pace) {
    let mut number = numbers.next_number();
    loop {
        group.outbox_below(WAITING_MAX).await;
        pace.kept().await;
        for _ in 0..pace.allowed(BURST).await {
            match group.try_broadcast(encode(number)) {
                Ok(_) => number = numbers.next_number(),
                Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => break,
                Err(_) => return,
            }
        }
        group.capacity().await;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(per_second_max: Option<u32>) -> Pace {
        let (_, approved) = watch::channel(Approvals::default());
        Pace::new(approved, None, per_second_max.and_then(NonZeroU32::new))
    }

    /// Number of numbers that are taken in some time.
    async fn taken(pace: &mut Pace, burst_max: u32, time: Duration) -> u32 {
        let (began_at, mut numbers) = (Instant::now(), 0);
        loop {
            let burst = pace.allowed(burst_max).await;
            if began_at.elapsed() >= time {
                return numbers;
            }
            numbers += burst;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_at_any_burst() {
        for (per_second_max, burst_max) in [(1, BURST), (7, 1), (50_000, 1), (50_000, BURST), (1_000_000, BURST)] {
            let mut pace = pace(Some(per_second_max));
            let numbers = taken(&mut pace, burst_max, Duration::from_secs(10)).await;
            let (least, most) = (10 * per_second_max - per_second_max / 20, 10 * per_second_max + BURST);
            // A burst has at most BURST numbers, and a timer ticks a thousand times a second.
            let most_possible = 10 * BURSTS_PER_SECOND * BURST;
            assert!(numbers >= least.min(most_possible) && numbers <= most, "{per_second_max}: {numbers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_was_not_used_is_not_made_up_for() {
        let mut pace = pace(Some(1_000));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(taken(&mut pace, 1, Duration::from_millis(500)).await <= 500 + 20 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        let mut pace = pace(None);
        let began_at = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(pace.allowed(BURST).await, BURST);
        }
        assert_eq!(began_at.elapsed(), Duration::ZERO);
    }
}
