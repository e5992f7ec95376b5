//! Writes to three nodes of `kv`, etcd or NATS on this machine, side by side: a row of a table for each run.
//!
//! ```console
//! $ cargo build --release -p cloudy-examples --bins
//! $ target/release/compare --system kv --storage disk --clients 16 --directory /var/tmp/compare
//! $ target/release/compare --system etcd --storage disk --clients 16 --directory /var/tmp/compare --kill
//! ```
//!
//! `etcd` and `nats-server` have to be installed. With `--storage memory`, etcd has its data in the directory, which
//! should then be one in memory (`/dev/shm`), because it has no other storage.

mod client;
mod cluster;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use client::Connection;
use cluster::Cluster;

/// Before the measurement.
const WARM_UP: Duration = Duration::from_secs(2);
/// Before a client connects again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// The number of keys that are written.
const KEYS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    Kv,
    Etcd,
    Nats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Storage {
    Memory,
    Disk,
}

/// Compares stores under writes of 100 bytes.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    system: System,
    #[arg(long)]
    storage: Storage,
    /// Clients, each with one write at a time, spread over the nodes
    #[arg(long)]
    clients: usize,
    /// An empty directory for the data of the nodes
    #[arg(long)]
    directory: PathBuf,
    /// Seconds of the measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Kill a node in the middle, the leader where there is one, and write to the others only
    #[arg(long)]
    kill: bool,
}

/// The writes of one client: when each was answered, and after which time.
type Writes = Vec<(Instant, Duration)>;

fn writes(system: System, node: SocketAddr, client: u64, is_over: &AtomicBool) -> Writes {
    let (mut writes, mut connection) = (Vec::new(), None);
    let mut key = client;
    while !is_over.load(Ordering::Relaxed) {
        // The constants of a well-known generator (MMIX).
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let called = Instant::now();
        let written = match &mut connection {
            None => Connection::open(system, node, client).map(|open| {
                connection = Some(open);
                false
            }),
            Some(open) => open.put((key >> 33) % KEYS),
        };
        match written {
            Ok(true) => writes.push((Instant::now(), called.elapsed())),
            Ok(false) => {}
            Err(_) => {
                connection = None;
                // sleep: a node that was killed is not asked all the time.
                sleep(AGAIN_AFTER);
            }
        }
    }
    writes
}

/// The time at a share of sorted times.
fn at_share(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// The longest time without an answered write.
fn longest_gap(answered: &[Instant], from: Instant, to: Instant) -> Duration {
    let times: Vec<Instant> = [from].into_iter().chain(answered.iter().copied()).chain([to]).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

fn waits(time: Duration) {
    // sleep: a measurement takes a fixed time.
    sleep(time);
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut cluster = Cluster::start(args.system, args.storage, &args.directory)?;
    let victim = if args.kill { Some(cluster.leader()?) } else { None };
    let nodes: Vec<SocketAddr> =
        cluster.clients().into_iter().enumerate().filter(|(at, _)| Some(*at) != victim).map(|(_, node)| node).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<Writes>> = (0..args.clients)
        .map(|client| {
            let (system, node, is_over) = (args.system, nodes[client % nodes.len()], Arc::clone(&is_over));
            thread::spawn(move || writes(system, node, client as u64 + 1, &is_over))
        })
        .collect();
    waits(WARM_UP);
    let (from, measured) = (Instant::now(), Duration::from_secs(args.seconds));
    waits(measured / 2);
    if let Some(victim) = victim {
        cluster.kill(victim)?;
    }
    waits(measured / 2);
    let to = Instant::now();
    is_over.store(true, Ordering::Relaxed);
    let mut writes: Writes = Vec::new();
    for client in clients {
        writes.extend(client.join().map_err(|_| "a client panicked")?);
    }
    writes.retain(|(answered, _)| (from..to).contains(answered));
    writes.sort_unstable();
    let answered: Vec<Instant> = writes.iter().map(|(answered, _)| *answered).collect();
    let mut times: Vec<Duration> = writes.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    println!(
        "| {:?} | {:?} | {} | {:.0} | {:.2} | {:.2} | {:.1} | {:.0} |",
        args.system,
        args.storage,
        args.clients,
        answered.len() as f64 / (to - from).as_secs_f64(),
        at_share(&times, 0.5),
        at_share(&times, 0.99),
        at_share(&times, 1.0),
        longest_gap(&answered, from, to).as_secs_f64() * 1e3,
    );
    Ok(())
}
