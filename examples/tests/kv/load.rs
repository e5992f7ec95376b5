//! Clients at all nodes while nodes are killed, paused, evicted, leave and join.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::client::{Answer, NoAnswer, get, put, request};
use super::cluster::{Cluster, until};
use super::history::{Expects, Operation, Outcome, Recorder};
#[cfg(target_os = "linux")]
use super::network::Network;

/// Keys that clients compete for.
const KEYS: usize = 8;
/// Clients of each node that compete, beside one that writes keys of its own.
const CLIENTS: usize = 2;
/// Operations between two faults.
const OPERATIONS: usize = 150;
/// The number of rounds with drawn faults.
const ROUNDS: &str = "CLOUDY_KV_ROUNDS";

fn number(body: &str) -> Option<u64> {
    body.trim().parse().ok()
}

fn before(answer: &Answer) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["before"].as_u64()
}

/// The outcome of a write.
fn written(answer: Result<Answer, NoAnswer>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == 200 => Outcome::Written { revision: answer.revision, before: before(&answer) },
        Ok(answer) if answer.status == 412 => Outcome::Conflict { before: before(&answer) },
        Ok(Answer { status: 503, .. }) | Err(NoAnswer::NotSent) => Outcome::Nothing,
        Ok(Answer { status: 504, .. }) | Err(NoAnswer::Lost) => Outcome::Unknown,
        Ok(answer) => panic!("{answer:?}"),
    }
}

/// The outcome of a read.
fn shown(answer: Result<Answer, NoAnswer>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == 200 => Outcome::Is(number(&answer.body), answer.revision),
        Ok(Answer { status: 404, .. }) => Outcome::Is(None, None),
        _ => Outcome::Nothing,
    }
}

pub(crate) async fn read(node: SocketAddr, recorder: &Recorder, key: usize, consistency: &str) -> Outcome {
    let call = recorder.call(key, Operation::Read);
    let outcome = shown(get(node, &format!("/kv/key-{key}?consistency={consistency}")).await);
    recorder.answer(call, outcome);
    outcome
}

pub(crate) async fn write(node: SocketAddr, recorder: &Recorder, key: usize, value: u64) -> Outcome {
    let call = recorder.call(key, Operation::Write { value: Some(value), expects: Expects::Anything });
    let outcome = written(put(node, &format!("/kv/key-{key}"), &value.to_string()).await);
    recorder.answer(call, outcome);
    outcome
}

/// Clients that run until they are stopped.
struct Load {
    recorder: Recorder,
    /// Keys that were acknowledged.
    acknowledged: Arc<Mutex<Vec<u64>>>,
    next: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(nodes: &[SocketAddr], seed: u64) -> Self {
        let mut load = Self {
            recorder: Recorder::default(),
            acknowledged: Arc::default(),
            next: Arc::new(AtomicU64::new(1)),
            is_over: Arc::default(),
            clients: Vec::new(),
        };
        for (at, node) in nodes.iter().enumerate() {
            for client in 0..CLIENTS {
                let random = ChaCha8Rng::seed_from_u64(seed * 1_000 + (at * CLIENTS + client) as u64);
                load.clients.push(tokio::spawn(load.client(*node).compete(random)));
            }
            load.clients.push(tokio::spawn(load.client(*node).put_own_keys(Arc::clone(&load.acknowledged))));
        }
        load
    }

    fn client(&self, node: SocketAddr) -> Client {
        let (recorder, next) = (self.recorder.clone(), Arc::clone(&self.next));
        Client { node, recorder, next, is_over: Arc::clone(&self.is_over) }
    }

    /// Waits for a number of further answers.
    async fn progresses(&self) {
        let end = self.recorder.answered() + OPERATIONS;
        until("the clients get answers", async || self.recorder.answered() >= end).await;
    }

    async fn stop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in join_all(self.clients.drain(..)).await {
            client.unwrap();
        }
    }
}

/// A client of one node.
struct Client {
    node: SocketAddr,
    recorder: Recorder,
    /// The next value, which no other write has.
    next: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Client {
    /// Reads, puts, removes, and swaps what it has read.
    async fn compete(self, mut random: ChaCha8Rng) {
        let mut latest = [(None, None); KEYS];
        while !self.is_over.load(Ordering::Relaxed) {
            let key = random.random_range(0..KEYS);
            let outcome = match random.random_range(0..100) {
                0..40 => read(self.node, &self.recorder, key, "linearizable").await,
                40..75 => write(self.node, &self.recorder, key, self.next.fetch_add(1, Ordering::Relaxed)).await,
                75..97 => self.swap(key, latest[key]).await,
                _ => self.remove(key).await,
            };
            if let Outcome::Is(value, revision) = outcome {
                latest[key] = (value, revision);
            }
            self.pause(outcome).await;
        }
    }

    async fn swap(&self, key: usize, (expected, revision): (Option<u64>, Option<u64>)) -> Outcome {
        let value = self.next.fetch_add(1, Ordering::Relaxed);
        let operation = Operation::Write { value: Some(value), expects: Expects::This(expected) };
        let condition = match revision {
            Some(revision) => ("if-match", format!("\"{revision}\"")),
            None => ("if-none-match", "*".to_owned()),
        };
        let call = self.recorder.call(key, operation);
        let answer = request(self.node, &format!("PUT /kv/key-{key}"), &[condition], &value.to_string()).await;
        let outcome = written(answer);
        self.recorder.answer(call, outcome);
        outcome
    }

    async fn remove(&self, key: usize) -> Outcome {
        let call = self.recorder.call(key, Operation::Write { value: None, expects: Expects::Anything });
        let outcome = written(request(self.node, &format!("DELETE /kv/key-{key}"), &[], "").await);
        self.recorder.answer(call, outcome);
        outcome
    }

    /// Puts keys that no other client has, and notes those that are acknowledged.
    async fn put_own_keys(self, acknowledged: Arc<Mutex<Vec<u64>>>) {
        while !self.is_over.load(Ordering::Relaxed) {
            let value = self.next.fetch_add(1, Ordering::Relaxed);
            let outcome = written(put(self.node, &format!("/kv/own-{value}"), &value.to_string()).await);
            if let Outcome::Written { .. } = outcome {
                acknowledged.lock().unwrap().push(value);
            }
            self.pause(outcome).await;
        }
    }

    async fn pause(&self, outcome: Outcome) {
        let pause = if outcome == Outcome::Nothing { 50 } else { 4 };
        // sleep: the number of operations that the check takes has a bound; a node that is down is not asked all the time.
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// What happens to a node.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    KillAll,
    Pause,
    LeaveAndJoin,
    /// Each node is stopped in order and started again, one after the other.
    RollingRestart,
    /// A node starts again on a disk that is soon full.
    FullDisk,
    /// No packet between the node and the others arrives.
    #[cfg(target_os = "linux")]
    Partition(Network),
    /// No packet of the node arrives at the others, and theirs arrive.
    #[cfg(target_os = "linux")]
    Mute(Network),
    /// No packet of the others arrives at the node, and its packets arrive.
    #[cfg(target_os = "linux")]
    Deaf(Network),
}

#[cfg(target_os = "linux")]
async fn cut_off(cluster: &Cluster, network: Network, at: usize, (sends, receives): (bool, bool), load: &Load) {
    let count = cluster.https().len();
    for other in (0..count).filter(|other| *other != at) {
        let (node, other) = (Cluster::node_host(at), Cluster::node_host(other));
        if !sends {
            network.cut(node, other);
        }
        if !receives {
            network.cut(other, node);
        }
    }
    let other = (at + 1) % count;
    until("it is evicted", async || cluster.members(other).await == count - 1).await;
    load.progresses().await;
    network.heal();
}

async fn inflict(cluster: &mut Cluster, fault: Fault, at: usize, load: &Load) {
    match fault {
        Fault::Kill => {
            cluster.kill(at);
            load.progresses().await;
            cluster.spawn(at);
        }
        Fault::KillAll => {
            let count = cluster.https().len();
            (0..count).for_each(|at| cluster.kill(at));
            (0..count).for_each(|at| cluster.spawn(at));
        }
        Fault::Pause => {
            let (other, members) = ((at + 1) % cluster.https().len(), cluster.https().len() - 1);
            cluster.signal(at, Signal::STOP);
            until("it is evicted", async || cluster.members(other).await == members).await;
            load.progresses().await;
            cluster.signal(at, Signal::CONT);
        }
        Fault::LeaveAndJoin => {
            cluster.leave(at).await;
            load.progresses().await;
            cluster.spawn(at);
        }
        Fault::RollingRestart => {
            for at in 0..cluster.https().len() {
                cluster.stop(at).await;
                cluster.spawn(at);
                until("it is back", async || cluster.is_ready(at).await).await;
            }
        }
        Fault::FullDisk => {
            cluster.kill(at);
            cluster.spawn_with_small_disk(at);
            let (node, large) = (cluster.https()[at], "7".repeat(32 << 10));
            until("its disk is full", async || {
                // Until then it may accept it, and the others have it.
                drop(put(node, "/kv/large", &large).await);
                cluster.has_ended(at)
            })
            .await;
            load.progresses().await;
            cluster.spawn(at);
        }
        #[cfg(target_os = "linux")]
        Fault::Partition(network) => cut_off(cluster, network, at, (false, false), load).await,
        #[cfg(target_os = "linux")]
        Fault::Mute(network) => cut_off(cluster, network, at, (false, true), load).await,
        #[cfg(target_os = "linux")]
        Fault::Deaf(network) => cut_off(cluster, network, at, (true, false), load).await,
    }
    cluster.all_ready().await;
    load.progresses().await;
}

/// Every node has every key that was acknowledged.
async fn has_all(cluster: &Cluster, load: &Load) {
    let acknowledged = load.acknowledged.lock().unwrap().clone();
    assert!(!acknowledged.is_empty());
    for node in cluster.https() {
        // After a linearizable read the node has all.
        until("a read", async || get(node, "/kv/none").await.is_ok_and(|answer| answer.status == 404)).await;
        for key in &acknowledged {
            let answer = get(node, &format!("/kv/own-{key}?consistency=local")).await.unwrap();
            assert_eq!((answer.status, number(&answer.body)), (200, Some(*key)), "{node} lost key own-{key}");
        }
    }
}

/// A store under load with faults, one after the other: its histories are linearizable, and nothing acknowledged is lost.
async fn round(count: usize, on_disk: bool, faults: &[Fault], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut cluster = Cluster::start(count, on_disk).await;
    let mut load = Load::start(&cluster.https(), seed);
    load.progresses().await;
    for fault in faults {
        let at = random.random_range(0..count);
        inflict(&mut cluster, *fault, at, &load).await;
    }
    load.stop().await;
    assert_eq!(load.recorder.violations(), [0; 0], "seed {seed}: {faults:?} of {count} nodes");
    has_all(&cluster, &load).await;
    if on_disk {
        (0..count).for_each(|at| cluster.kill(at));
        (0..count).for_each(|at| cluster.spawn(at));
        cluster.all_ready().await;
        has_all(&cluster, &load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_on_disk_are_linearizable_and_keep_acknowledged_writes() {
    round(3, true, &[Fault::Kill, Fault::KillAll, Fault::Pause], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_rolling_restart_and_a_full_disk() {
    round(3, true, &[Fault::RollingRestart, Fault::FullDisk], 2).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_linearizable_through_partitions_of_two_directions_and_of_one() {
    let name = "load::three_nodes_are_linearizable_through_partitions_of_two_directions_and_of_one";
    let Some(network) = Network::of_test(name) else { return };
    round(3, false, &[Fault::Partition(network), Fault::Mute(network), Fault::Deaf(network)], 3).await;
}

/// One round of five nodes, unless the environment asks for more.
#[tokio::test(flavor = "multi_thread")]
async fn rounds_of_three_and_five_nodes_with_drawn_faults_are_linearizable() {
    let rounds: u64 = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    for seed in 1..=rounds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let count = [3, 5][seed as usize % 2];
        let on_disk = seed > 1 && random.random_range(0..2) == 0;
        let mut faults = vec![Fault::Kill, Fault::LeaveAndJoin];
        if seed > 1 {
            let drawn = (0..random.random_range(2..6)).map(|_| match random.random_range(0..4) {
                0 => Fault::Kill,
                1 if on_disk => Fault::KillAll,
                2 => Fault::LeaveAndJoin,
                _ => Fault::Pause,
            });
            faults = drawn.collect();
        }
        println!("round {seed}: {count} nodes, on disk: {on_disk}, {faults:?}");
        round(count, on_disk, &faults, seed).await;
    }
}

/// A node that was paused and evicted, and whose peers are paused when it runs again, cannot know of their writes.
#[tokio::test(flavor = "multi_thread")]
async fn local_reads_fail_the_check_where_linearizable_reads_wait() {
    let cluster = Cluster::start(3, false).await;
    let nodes = cluster.https();
    let (local, linearizable) = (Recorder::default(), Recorder::default());
    for recorder in [&local, &linearizable] {
        write(nodes[0], recorder, 0, 1).await;
    }
    until("node 2 has it", async || {
        get(nodes[2], "/kv/key-0?consistency=local").await.is_ok_and(|answer| number(&answer.body) == Some(1))
    })
    .await;
    cluster.signal(2, Signal::STOP);
    until("it is evicted", async || cluster.members(0).await == 2 && cluster.members(1).await == 2).await;
    for recorder in [&local, &linearizable] {
        let outcome = write(nodes[0], recorder, 0, 2).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
    }
    [0, 1].iter().for_each(|at| cluster.signal(*at, Signal::STOP));
    cluster.signal(2, Signal::CONT);
    assert!(matches!(read(nodes[2], &local, 0, "local").await, Outcome::Is(Some(1), _)), "it cannot know");
    assert_eq!(local.violations(), [0], "the check finds it");
    let waiting = tokio::spawn({
        let (node, recorder) = (nodes[2], linearizable.clone());
        async move { read(node, &recorder, 0, "linearizable").await }
    });
    [0, 1].iter().for_each(|at| cluster.signal(*at, Signal::CONT));
    let outcome = waiting.await.unwrap();
    assert!(matches!(outcome, Outcome::Is(Some(2), _) | Outcome::Nothing), "{outcome:?}");
    assert_eq!(linearizable.violations(), [0; 0]);
}
