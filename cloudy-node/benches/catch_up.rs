//! Measures catching up over a grid of paths, in virtual time: `cargo bench -p cloudy-node --bench catch_up`. Arguments
//! select cases: `rates`, `returns`, `states`, `payloads`, `newcomer` or `slots`.

#[path = "../tests/common/large.rs"]
mod large;
#[path = "../tests/common/path.rs"]
mod path;

use std::time::Duration;

use large::{Newcomer, Slots, StateTransfer, payloads_fetched_in};
use path::{Absence, Path, fetched_in, returns, streamed_in};

const PAYLOAD_BYTES: usize = 16 << 10;
const MEGABYTES_MAX: u64 = 64;
/// The length of the history, in seconds of the link's rate.
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
    if wants("states") {
        states();
    }
    if wants("payloads") {
        payloads();
    }
    if wants("newcomer") {
        newcomer();
    }
    if wants("slots") {
        slots();
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

/// Of newcomers that begin with a snapshot of a large state.
fn states() {
    println!("| state | link | load | retained | one snapshot's bytes | joined | snapshots meanwhile |");
    println!("|---|---|---|---|---|---|---|");
    for (state_mb, megabits, kilobytes, retain_mb, is_narrow) in [
        (32, 100, 0, 64, false),
        (32, 100, 3_000, 64, false),
        (32, 100, 6_500, 64, false),
        (32, 100, 6_500, 64, true),
        (32, 100, 9_000, 64, false),
        (8, 30, 0, 64, false),
        (8, 30, 2_000, 64, false),
        (32, 100, 6_500, 24, false),
        (32, 100, 9_000, 24, false),
    ] {
        let link = Path::of(20, Some(megabits));
        let transfer = StateTransfer {
            members: 2,
            paths: (if is_narrow { link } else { Path::of(20, None) }, link),
            state_bytes: state_mb << 20,
            snapshot_every_bytes: 16 << 20,
            retain_bytes: retain_mb << 20,
            payload_bytes: 200,
            bytes_per_second: kilobytes * 1_000,
            patience: Duration::from_secs(60),
        };
        let came = in_virtual_time(transfer.run());
        let bytes_took = (state_mb << 20) as f64 / (megabits * 125_000) as f64;
        assert_eq!(came.restored, came.joined_after.is_ok());
        let joined = came.joined_after.map(|after| format!("{:.1} s", after.as_secs_f64()));
        println!(
            "| {state_mb} MiB | {megabits} Mbit/s{} | {:.1} MB/s | {retain_mb} MiB | {bytes_took:.1} s | {} | {} |",
            if is_narrow { ", members too" } else { "" },
            came.grown_per_second / 1e6,
            joined.unwrap_or_else(|error| error),
            came.taken,
        );
    }
}

/// Of newcomers that fetch payloads of the greatest size.
fn payloads() {
    println!("| payloads | link | sources | their bytes | fetched after |");
    println!("|---|---|---|---|---|");
    for (megabytes, count, megabits, members) in [(4, 8, 100, 3), (16, 3, 30, 1), (16, 3, 30, 3), (16, 3, 5, 3)] {
        let bytes = (megabytes << 20) - 64;
        let path = Path::of(20, Some(megabits));
        let took = in_virtual_time(payloads_fetched_in(path, members, (bytes, count), Duration::from_secs(300)));
        let bytes_took = (bytes as u64 * count) as f64 / (megabits * 125_000) as f64;
        let took = took.map_or("never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        println!("| {count} of {megabytes} MiB | {megabits} Mbit/s | {members} | {bytes_took:.1} s | {took} |");
    }
}

/// Of a newcomer after a long history, under load.
fn newcomer() {
    println!("| history | link | joined after | longest gap | view changes |");
    println!("|---|---|---|---|---|");
    for megabits in [None, Some(100), Some(30)] {
        let newcomer = Newcomer {
            members: 3,
            paths: (Path::of(50, None), Path::of(50, megabits)),
            payload_bytes: 6 << 10,
            history: 9_216,
            bytes_per_second: 384_000,
            patience: Duration::from_secs(120),
        };
        let came = in_virtual_time(newcomer.comes());
        let link = megabits.map_or("no limit".to_owned(), |megabits| format!("{megabits} Mbit/s"));
        let joined = came.joined_after.map_or("never".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        println!("| 54 MiB | {link} | {joined} | {:.2} s | {} |", came.longest_gap.as_secs_f64(), came.views);
    }
}

/// Of payloads of the greatest size over slow links of all members.
fn slots() {
    println!("| payloads | link | queue | senders | their bytes | approved after | view changes |");
    println!("|---|---|---|---|---|---|---|");
    let payload_bytes = (16 << 20) - 64;
    for (megabits, queue_ms, senders, count) in [
        (100, 100, 1, 2),
        (30, 100, 1, 2),
        (10, 100, 1, 1),
        (10, 2_000, 1, 1),
        (10, 100, 3, 1),
        (5, 100, 1, 1),
        (2, 100, 1, 1),
        (2, 2_000, 1, 1),
        (1, 100, 1, 1),
    ] {
        let path = Path { queue: Duration::from_millis(queue_ms), ..Path::of(50, Some(megabits)) };
        let patience = Duration::from_secs(600);
        let sent = in_virtual_time(Slots { members: 3, path, payload_bytes, senders, count, patience }.run());
        // A link carries the data that its node sends to two others, or that two others send to it.
        let bytes_took = (2 * payload_bytes as u64 * count) as f64 / (megabits * 125_000) as f64;
        let took = sent.approved_after.map_or("never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        println!(
            "| {count} of 16 MiB | {megabits} Mbit/s | {queue_ms} ms | {senders} | {bytes_took:.1} s | {took} | {} |",
            sent.views
        );
    }
}
