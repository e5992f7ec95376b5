//! Histories of clients are linearizable, and a check of them finds reads that are not.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use todc_utils::Specification;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use tokio::time::{Instant, sleep, timeout};

use super::super::{Applied, Index, Replica, ReplicaConfig, StateMachine, SubmitError};
use crate::fault::MemoryNetwork;
use crate::{ClusterKey, GroupConfig, Node};

/// A register: the response is the value before.
#[derive(Debug, Default)]
struct Register(u64);

impl StateMachine for Register {
    type Command = u64;
    type Response = u64;

    fn apply(&mut self, _at: Applied, value: u64) -> u64 {
        std::mem::replace(&mut self.0, value)
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0.to_le_bytes())
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

/// An operation of a client, with what it returned if that is known.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Swap(u64, Option<u64>),
    Get(Option<u64>),
}

impl Specification for Register {
    type State = u64;
    type Operation = Operation;

    fn init() -> u64 {
        0
    }

    fn apply(operation: &Operation, state: &u64) -> (bool, u64) {
        match operation {
            Operation::Swap(value, before) => (before.is_none_or(|before| before == *state), *value),
            Operation::Get(value) => (value.is_none_or(|value| value == *state), *state),
        }
    }
}

/// How clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Linearizable,
    /// With a barrier that was broadcast before the read began.
    EarlierBarrier,
    Local,
}

/// An event at a client.
type Recorded = (usize, Action<Operation>);

/// What clients call and what they get, in order.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<Recorded>>>);

impl Recorder {
    fn record(&self, client: usize, action: Action<Operation>) {
        self.0.lock().unwrap().push((client, action));
    }

    /// Operations without a response are concurrent with all that follows them.
    fn history(&self) -> History<Operation> {
        let mut actions = self.0.lock().unwrap().clone();
        let mut open = BTreeMap::new();
        for (client, action) in &actions {
            match action {
                Action::Call(operation) => open.insert(*client, *operation),
                Action::Response(_) => open.remove(client),
            };
        }
        actions.extend(open.into_iter().map(|(client, operation)| (client, Action::Response(operation))));
        History::from_actions(actions)
    }
}

const MEMBERS: u8 = 3;
/// Clients that read, of each member.
const READERS: usize = 3;
const RUN: Duration = Duration::from_secs(3);

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7_000))
}

/// A group whose members are the given nodes.
async fn replicas(nodes: &[Node]) -> Vec<Replica<Register>> {
    let joins = nodes[1..].iter().map(|node| node.join_group_at("register", address(1)));
    let creates = async { nodes[0].create_group("register", nodes.len(), GroupConfig::default()).await };
    let (created, joined) = tokio::join!(creates, join_all(joins));
    let config = ReplicaConfig::default().snapshot_every_bytes(2_000);
    let groups = std::iter::once(created.unwrap()).chain(joined.into_iter().map(Result::unwrap));
    let starts = groups.map(|group| Replica::start_with(group, Register::default(), config.clone()));
    join_all(starts).await.into_iter().map(Result::unwrap).collect()
}

/// Cuts pairs of members for a moment, and one member for so long that it is evicted.
async fn faults(network: MemoryNetwork, mut random: ChaCha8Rng) {
    for round in 1.. {
        let host = random.random_range(1..=MEMBERS);
        let others: Vec<u8> = (1..=MEMBERS).filter(|other| *other != host).collect();
        let (others, lasts) = match round % 12 {
            0 => (&others[..], 1_200),
            _ => (&others[..1], random.random_range(20..150)),
        };
        others.iter().for_each(|other| network.cut(address(host), address(*other)));
        // sleep: the fault lasts.
        sleep(Duration::from_millis(lasts)).await;
        others.iter().for_each(|other| network.heal(address(host), address(*other)));
        // sleep: until the next fault.
        sleep(Duration::from_millis(random.random_range(20..100))).await;
    }
}

async fn writes(replica: Replica<Register>, recorder: Recorder, client: usize, until: Instant) {
    for at in 1.. {
        if Instant::now() >= until {
            return;
        }
        let value = client as u64 * 1_000_000 + at;
        recorder.record(client, Action::Call(Operation::Swap(value, None)));
        match replica.submit(value).timeout(Duration::from_secs(5)).await {
            Ok(before) => recorder.record(client, Action::Response(Operation::Swap(value, Some(before)))),
            // It may take effect at any time.
            Err(SubmitError::Unknown { .. } | SubmitError::ResponseLost(_)) => return,
            Err(error) => panic!("{error}"),
        }
        // sleep: a member that is alone answers at once; virtual time passes only in waits.
        sleep(Duration::from_millis(1)).await;
    }
}

async fn reads(replica: Replica<Register>, recorder: Recorder, client: usize, (until, how): (Instant, Reads)) {
    let mut random = ChaCha8Rng::seed_from_u64(client as u64);
    while Instant::now() < until {
        let earlier = match how {
            Reads::EarlierBarrier => replica.inner.barrier().await.unwrap(),
            Reads::Linearizable | Reads::Local => Index(0),
        };
        // sleep: reads come at different times.
        sleep(Duration::from_millis(random.random_range(1..40))).await;
        recorder.record(client, Action::Call(Operation::Get(None)));
        let value = match how {
            Reads::Local => replica.read(|register| register.0).await.ok(),
            Reads::Linearizable => {
                replica.read_linearizable(|register| register.0).timeout(Duration::from_secs(5)).await.ok()
            }
            Reads::EarlierBarrier => {
                replica.inner.reached(earlier).await.unwrap();
                replica.read(|register| register.0).await.ok()
            }
        };
        recorder.record(client, Action::Response(Operation::Get(value)));
    }
}

/// Whether the history of clients at all members is linearizable, in virtual time.
async fn is_linearizable(seed: u64, how: Reads) -> bool {
    let (network, key) = (MemoryNetwork::new(seed), ClusterKey::generate().unwrap());
    network.set(network.faults().latency(Duration::from_millis(3))).unwrap();
    let nodes = join_all((1..=MEMBERS).map(async |host| {
        let builder = Node::builder().cluster_key(&key).socket(network.bind(address(host)).unwrap());
        builder.rng_seed([host; 32]).start().await.unwrap()
    }));
    let nodes = nodes.await;
    let replicas = replicas(&nodes).await;
    let (recorder, until) = (Recorder::default(), Instant::now() + RUN);
    let faults = tokio::spawn(faults(network, ChaCha8Rng::seed_from_u64(seed)));
    let mut clients = Vec::new();
    for replica in &replicas {
        clients.push(tokio::spawn(writes(replica.clone(), recorder.clone(), clients.len(), until)));
        for _ in 0..READERS {
            clients.push(tokio::spawn(reads(replica.clone(), recorder.clone(), clients.len(), (until, how))));
        }
    }
    for client in clients {
        timeout(Duration::from_secs(60), client).await.expect("each operation ends").unwrap();
    }
    faults.abort();
    WGLChecker::<Register>::is_linearizable(recorder.history())
}

#[tokio::test(start_paused = true)]
async fn histories_are_linearizable_under_faults() {
    for seed in 1..=5 {
        assert!(is_linearizable(seed, Reads::Linearizable).await, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_check_finds_local_reads() {
    assert!(!is_linearizable(1, Reads::Local).await);
}

#[tokio::test(start_paused = true)]
async fn the_check_finds_reads_with_a_barrier_that_was_broadcast_before_they_began() {
    assert!(!is_linearizable(1, Reads::EarlierBarrier).await);
}
