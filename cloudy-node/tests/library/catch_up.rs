//! Catching up over paths as they are, in virtual time. `cargo bench -p cloudy-node --bench catch_up` measures more of them.

#[path = "../common/path.rs"]
mod path;

use std::time::Duration;

use path::{Absence, Path, fetched_in, returns, streamed_in};

const PAYLOAD_BYTES: usize = 16 << 10;

/// A newcomer gets its history nearly as fast as one stream carries it, however long the round trip. What it says before it
/// may fetch takes some round trips.
#[tokio::test(start_paused = true)]
async fn a_newcomer_fetches_nearly_as_fast_as_one_stream() {
    for (round_trip_ms, megabits, megabytes) in [(1, 100, 4), (50, 100, 6), (100, 10, 2), (300, 10, 2)] {
        let path = Path::of(round_trip_ms, Some(megabits));
        let count = megabytes * 64;
        let streamed = streamed_in(path, count as usize * PAYLOAD_BYTES).await;
        let fetched = fetched_in(path, PAYLOAD_BYTES, count).await;
        let most = streamed.mul_f64(1.25) + 8 * path.round_trip + Duration::from_millis(200);
        assert!(fetched <= most, "{path:?}: {fetched:?}, a stream takes {streamed:?}");
    }
}

/// A member that was away while the others broadcast comes back.
#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_comes_back_under_load() {
    for (round_trip_ms, payload_bytes) in [(10, PAYLOAD_BYTES), (50, 1_000)] {
        let came = returns(Absence {
            path: Path::of(round_trip_ms, None),
            payload_bytes,
            bytes_per_second: 2_000_000,
            away: Duration::from_secs(2),
            patience: Duration::from_secs(30),
        })
        .await;
        let is_short = came.longest_gap < Duration::from_secs(4);
        assert!(came.back_after.is_some() && is_short, "{round_trip_ms} ms: {came:?}");
    }
}
