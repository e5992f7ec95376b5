//! Members behind links that take long for one slot, in virtual time: slow is not stalled (`protocol.md` §6.1).

use std::time::Duration;

use crate::large::{Sent, Slots};
use crate::path::Path;

/// Broadcasts large payloads over links of all three members.
async fn sent(path: Path, payload_bytes: usize, senders: usize) -> Sent {
    let patience = Duration::from_secs(120);
    Slots { members: 3, path, payload_bytes, senders, count: 1, patience }.run().await
}

/// A slot that takes many stall timeouts is waited for as long as its bytes move.
#[tokio::test(start_paused = true)]
async fn slots_that_take_longer_than_the_stall_timeout_cost_no_member_its_place() {
    let sent = sent(Path::of(50, Some(5)), 4 << 20, 1).await;
    assert!(sent.approved_after.is_some_and(|after| after > Duration::from_secs(10)), "{sent:?}");
    assert_eq!(sent.views, 0, "{sent:?}");
}

/// The first message after idle time waits for the skips of the others, which take a round trip.
#[tokio::test(start_paused = true)]
async fn a_message_after_idle_time_finds_no_member_stalled() {
    let sent = sent(Path::of(200, None), 100, 1).await;
    assert!(sent.approved_after.is_some() && sent.views == 0, "{sent:?}");
}
