//! What a slave broadcasts, and when.

use cloudy_proto::{RingKind, SessionPlan};
use tokio::sync::watch;

use super::numbers::{Numbers, encode};
use super::slave_watch::Approvals;
use crate::group::{BroadcastError, Group};

/// Numbers broadcast before other tasks get a turn: what arrives goes before what could be sent.
const BURST: usize = 256;
/// Own numbers that wait for a slot, at most: enough to fill the next slots, few enough to be gone soon after SEND.
const WAITING_MAX: u64 = 8_192;

/// How far this slave's own result file may be behind the result before it broadcasts nothing more for a while: well
/// within what is retained, or a disk slower than the network would end every file early.
const BEHIND_MAX: u64 = 1 << 18;

/// Where a session stands, as far as a producer cares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    /// It has not begun.
    Start,
    /// Broadcast.
    Send {
        /// The periods and the seed.
        plan: SessionPlan,
        /// Which of the seed's streams; none for an observer.
        stream: Option<u64>,
        /// When a member may send.
        ring: RingKind,
    },
    /// Broadcast nothing more.
    Over,
}

/// Keeps a slave from broadcasting faster than it can write down.
pub(super) struct Pace {
    approved: watch::Receiver<Approvals>,
    /// The last index written; none without a file.
    written: Option<watch::Receiver<u64>>,
}

impl Pace {
    pub(super) fn new(approved: watch::Receiver<Approvals>, written: Option<watch::Receiver<u64>>) -> Self {
        Self { approved, written }
    }

    /// Waits until the file is close behind the result.
    async fn kept(&mut self) {
        let Some(written) = &mut self.written else { return };
        let approved = &self.approved;
        let close = |written: &u64| approved.borrow().sum.count().saturating_sub(*written) <= BEHIND_MAX;
        if written.wait_for(close).await.is_err() {
            // The file is done with, whole or not.
            self.written = None;
        }
    }
}

/// Broadcasts random numbers during SEND.
pub(super) async fn produce(group: &Group, mut stage: watch::Receiver<Stage>, mut pace: Pace) {
    let begun = stage.wait_for(|stage| *stage != Stage::Start).await.map(|stage| *stage);
    let Ok(Stage::Send { plan, stream: Some(stream), ring }) = begun else { return };
    let mut numbers = Numbers::new(plan.seed, stream);
    let over = async {
        // An error means that the session is gone: over as well.
        let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
    };
    tokio::select! {
        biased;
        () = over => {}
        () = async {
            match ring {
                RingKind::Token => one_at_a_time(group, &mut numbers, &mut pace).await,
                RingKind::Pipelined => as_room_allows(group, &mut numbers, &mut pace).await,
            }
        } => {}
    }
}

/// The next number only once the one before has a slot: each turn of the token takes one.
async fn one_at_a_time(group: &Group, numbers: &mut Numbers, pace: &mut Pace) {
    while group.broadcast(encode(numbers.next_number())).await.is_ok() {
        group.outbox_below(1).await;
        pace.kept().await;
    }
}

async fn as_room_allows(group: &Group, numbers: &mut Numbers, pace: &mut Pace) {
    let mut number = numbers.next_number();
    loop {
        group.outbox_below(WAITING_MAX).await;
        pace.kept().await;
        for _ in 0..BURST {
            match group.try_broadcast(encode(number)) {
                Ok(_) => number = numbers.next_number(),
                Err(BroadcastError::OutboxFull) => break,
                Err(_) => return,
            }
        }
        group.room().await;
        tokio::task::yield_now().await;
    }
}
