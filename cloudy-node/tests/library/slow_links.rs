//! Members behind links that take long for one slot, in virtual time: slow is not stalled (`protocol.md` §6.1).

use std::time::Duration;

use crate::large::{Sent, Slots};
use crate::path::Path;

/// Broadcasts large payloads over links of all three members.
async fn sent(path: Path, payload_bytes: usize, senders: usize) -> Sent {
    let patience = Duration::from_secs(120);
    Slots { members: 3, path, payload_bytes, senders, count: 1, patience }.run().await
}

/// A slot that takes many stall timeouts is waited for as long as its bytes move, and no heartbeat waits behind them for longer
/// than a member may be silent: neither in the queue of a link, which is full after its last lost packet, nor in a deep one.
#[tokio::test(start_paused = true)]
async fn slots_that_take_longer_than_the_stall_timeout_cost_no_member_its_place() {
    for (megabits, queue_ms, senders) in [(5, 100, 1), (10, 100, 3), (5, 2_000, 1)] {
        let path = Path { queue: Duration::from_millis(queue_ms), ..Path::of(50, Some(megabits)) };
        let sent = sent(path, 4 << 20, senders).await;
        let is_slow = sent.approved_after.is_some_and(|after| after > Duration::from_secs(6));
        assert!(is_slow && sent.views == 0, "{path:?}, {senders}: {sent:?}");
    }
}

/// The first message after idle time waits for the skips of the others, which take a round trip.
#[tokio::test(start_paused = true)]
async fn a_message_after_idle_time_finds_no_member_stalled() {
    let sent = sent(Path::of(200, None), 100, 1).await;
    assert!(sent.approved_after.is_some() && sent.views == 0, "{sent:?}");
}
