//! Measures catching up over a grid of paths, in virtual time: `cargo bench -p cloudy-node --bench catch_up`. With
//! arguments, only what their words name: `rates` or `returns`.

#[path = "../tests/common/path.rs"]
mod path;

use std::time::Duration;

use path::{Absence, Path, fetched_in, returns, streamed_in};

const PAYLOAD_BYTES: usize = 16 << 10;
const MEGABYTES_MAX: u64 = 64;
/// How many seconds of the link's rate the history takes.
const SECONDS: u64 = 6;

fn in_virtual_time<T>(measured: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(measured)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |word: &str| words.is_empty() || words.iter().any(|wanted| wanted == word);
    if wants("rates") {
        rates();
    }
    if wants("returns") {
        returned();
    }
}

/// Of a newcomer, beside a bare stream.
fn rates() {
    println!("| round trip | link | history | one stream | newcomer | part |");
    println!("|---|---|---|---|---|---|");
    for round_trip_ms in [1, 10, 50, 100, 300] {
        for megabits in [10, 100, 1_000] {
            let path = Path::of(round_trip_ms, Some(megabits));
            let bytes = (megabits * 125_000 * SECONDS).min(MEGABYTES_MAX << 20);
            let count = bytes / PAYLOAD_BYTES as u64;
            let streamed = in_virtual_time(streamed_in(path, bytes as usize));
            let fetched = in_virtual_time(fetched_in(path, PAYLOAD_BYTES, count));
            let rate = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
            println!(
                "| {round_trip_ms} ms | {megabits} Mbit/s | {} MB | {:.2} MB/s | {:.2} MB/s | {:.2} |",
                bytes / 1_000_000,
                rate(streamed),
                rate(fetched),
                rate(fetched) / rate(streamed),
            );
        }
    }
}

/// Of a member that was cut off for three seconds under load.
fn returned() {
    println!("| payload, load | round trip | link | back after | longest gap |");
    println!("|---|---|---|---|---|");
    for (payload_bytes, kilobytes) in [(16 << 10, 1_000), (16 << 10, 5_000), (1_000, 5_000), (100, 2_000)] {
        for round_trip_ms in [1, 10, 50, 100] {
            let absence = Absence {
                path: Path::of(round_trip_ms, None),
                payload_bytes,
                bytes_per_second: kilobytes * 1_000,
                away: Duration::from_secs(3),
                patience: Duration::from_secs(60),
            };
            let came = in_virtual_time(returns(absence));
            let back = came.back_after.map_or("never".to_owned(), |back| format!("{:.1} s", back.as_secs_f64()));
            println!(
                "| {payload_bytes} B, {kilobytes} kB/s | {round_trip_ms} ms | | {back} | {:.2} s |",
                came.longest_gap.as_secs_f64()
            );
        }
    }
}
