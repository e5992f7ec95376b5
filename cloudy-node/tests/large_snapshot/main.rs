//! A snapshot that is larger than the memory which its source and its receiver may use: each is a process of its own, and
//! the datagrams between them pass a slow link.
//!
//! `CLOUDY_SNAPSHOT_MIB` sets the size of the state, `CLOUDY_SNAPSHOT_MBIT` the rate of the link.

mod link;
mod state;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use cloudy_node::{ClusterKey, DataDir, Durability, GroupConfig, Index, Node, Parameters, Replica, ReplicaConfig};

use state::Large;

/// The role of this process, if it is not the test itself.
const ROLE: &str = "CLOUDY_SNAPSHOT_ROLE";
const KEY: &str = "CLOUDY_SNAPSHOT_KEY";
const CONTACT: &str = "CLOUDY_SNAPSHOT_CONTACT";
const MIB: &str = "CLOUDY_SNAPSHOT_MIB";
const MBIT: &str = "CLOUDY_SNAPSHOT_MBIT";

/// Three times what a group in memory allows.
const MIB_DEFAULT: u64 = 96;
const MBIT_DEFAULT: u64 = 1_000;
/// Maximum resident memory of the source and of the receiver, whatever the size of the state (`performance.md`).
const RESIDENT_MIB_MAX: u64 = 224;
const COMMAND_BYTES: usize = 128 << 10;
/// Commands before the receiver comes: several checkpoints, so that the beginning of the result is deleted.
const COMMANDS: u64 = 100;
const SNAPSHOT_EVERY_BYTES: u64 = 6 << 20;
/// Between two commands of the load.
const LOAD_EVERY: Duration = Duration::from_millis(10);
/// Against hanging: far above the test's usual time, beside the transfer.
const HANGS_AFTER: Duration = Duration::from_secs(240);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// The most memory that this process has had, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

fn config() -> (GroupConfig, ReplicaConfig) {
    let parameters = Parameters::default().durability(Durability::Disk);
    let group = GroupConfig::default().parameters(parameters).retain_bytes(8 << 20);
    (group, ReplicaConfig::default().snapshot_every_bytes(SNAPSHOT_EVERY_BYTES))
}

async fn node(data: &tempfile::TempDir) -> Node {
    let key: ClusterKey = env::var(KEY).unwrap().parse().unwrap();
    let data_dir = DataDir::open(data.path(), true).unwrap();
    let identity = data_dir.identity(&key).unwrap();
    Node::builder()
        .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .identity(identity)
        .data_dir(data_dir)
        .start()
        .await
        .unwrap()
}

fn tell(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Takes a snapshot of the state, then submits commands until its standard input ends.
async fn source() {
    let data = tempfile::tempdir().unwrap();
    let node = node(&data).await;
    let (group, config) = config();
    let group = node.create_group("large", 1, group).await.unwrap();
    let state = Large::new(number(MIB, MIB_DEFAULT) << 20);
    let replica = Replica::start_with(group, state, config).await.unwrap();
    for _ in 0..COMMANDS {
        replica.submit(vec![7; COMMAND_BYTES]).await.unwrap();
    }
    let begun = Instant::now();
    while replica.status().await.snapshot.is_none() {
        let status = replica.status().await;
        assert_eq!(status.snapshot_error, None);
        assert!(begun.elapsed() < HANGS_AFTER, "{status:?}");
        replica.submit(vec![7; 1]).await.unwrap();
    }
    tell(&format!("address {}", node.local_addr()));
    let ends = std::thread::spawn(|| std::io::stdin().read_line(&mut String::new()));
    let (mut submitted, mut slowest) = (0, Duration::ZERO);
    while !ends.is_finished() {
        let at = Instant::now();
        // An approval does not wait for the state, which may be busy with a snapshot.
        replica.group().broadcast(vec![9; 100]).await.unwrap().await.unwrap();
        slowest = slowest.max(at.elapsed());
        submitted += 1;
        tokio::time::sleep(LOAD_EVERY).await;
    }
    tell(&format!("approved {submitted} slowest {} ms", slowest.as_millis()));
    tell(&format!("resident {}", resident_mib()));
}

/// Joins, and restores the snapshot.
async fn receiver() {
    let data = tempfile::tempdir().unwrap();
    let node = node(&data).await;
    let (_, config) = config();
    let contact: SocketAddr = env::var(CONTACT).unwrap().parse().unwrap();
    let begun = Instant::now();
    let group = node.join_group_at("large", contact).without_timeout().await.unwrap();
    tell(&format!("joined {} ms", begun.elapsed().as_millis()));
    let replica = Replica::start_with(group, Large::new(0), config).await.unwrap();
    // It may be on the ring before it has the snapshot.
    let restored = *replica.watch().wait_for(|applied| *applied > Index(0)).await.unwrap();
    let length = replica.read(Large::length).await.unwrap();
    assert_eq!(length, number(MIB, MIB_DEFAULT) << 20, "its state is that of the snapshot");
    tell(&format!("restored {} ms", begun.elapsed().as_millis()));
    // It applies what comes after the snapshot.
    let approved = replica.status().await.approved;
    replica.watch().wait_for(|applied| *applied >= approved && *applied > restored).await.unwrap();
    tell(&format!("resident {}", resident_mib()));
}

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, key: &str, contact: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_large_snapshot_is_transferred_in_bounded_memory", "--nocapture"])
            .envs([(ROLE, role), (KEY, key), (CONTACT, contact)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What follows a word at the beginning of a line.
    fn said(&mut self, word: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
        panic!("the process ended before it said {word:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_large_snapshot_is_transferred_in_bounded_memory() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match env::var(ROLE).as_deref() {
        Ok("source") => return runtime().block_on(source()),
        Ok(_) => return runtime().block_on(receiver()),
        Err(_) => {}
    }
    let (mib, mbit) = (number(MIB, MIB_DEFAULT), number(MBIT, MBIT_DEFAULT));
    let key = ClusterKey::generate().unwrap().to_text();
    let mut source = Process::start("source", &key, "");
    let address = source.said("address").parse().unwrap();
    let link = link::Link::start(address, mbit * 1_000_000 / 8);
    let mut receiver = Process::start("receiver", &key, &link.address().to_string());
    let (joined, restored) = (receiver.said("joined"), receiver.said("restored"));
    let receiver_mib: u64 = receiver.said("resident").parse().unwrap();
    drop(source.child.stdin.take());
    let approved = source.said("approved");
    let source_mib: u64 = source.said("resident").parse().unwrap();
    println!(
        "state {mib} MiB at {mbit} Mbit/s: joined after {joined}, restored after {restored}; source {source_mib} MiB, receiver {receiver_mib} MiB; approved meanwhile: {approved}"
    );
    assert!(link.forwarded() > mib << 20, "all of it passed the link");
    assert!(source_mib <= RESIDENT_MIB_MAX && receiver_mib <= RESIDENT_MIB_MAX);
}
