//! What a slave broadcasts, and when.

use cloudy_proto::{RingKind, SessionPlan};
use tokio::sync::watch;

use super::numbers::{Numbers, encode};
use crate::group::{BroadcastError, Group};

/// Numbers broadcast before other tasks get a turn: what arrives goes before what could be sent.
const BURST: usize = 256;
/// Own numbers that wait for a slot, at most: enough to fill the next slots, few enough to be gone soon after SEND.
const WAITING_MAX: u64 = 8_192;

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

/// Broadcasts random numbers during SEND.
pub(super) async fn produce(group: &Group, mut stage: watch::Receiver<Stage>) {
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
                RingKind::Token => one_at_a_time(group, &mut numbers).await,
                RingKind::Pipelined => as_room_allows(group, &mut numbers).await,
            }
        } => {}
    }
}

/// The next number only once the one before has a slot: each turn of the token takes one.
async fn one_at_a_time(group: &Group, numbers: &mut Numbers) {
    while group.broadcast(encode(numbers.next_number())).await.is_ok() {
        group.outbox_below(1).await;
    }
}

async fn as_room_allows(group: &Group, numbers: &mut Numbers) {
    let mut number = numbers.next_number();
    loop {
        group.outbox_below(WAITING_MAX).await;
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
