//! Large things over slow links, in virtual time: states, payloads, and newcomers of groups under load.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloudy_node::{Applied, ClusterKey, GroupConfig, Index, Replica, ReplicaConfig, StateMachine};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::path::{Path, address, index, load};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Messages between two checkpoints, which snapshots begin at.
const CHECKPOINT_MESSAGES: u64 = 65_536;
/// The host of the newcomer.
const NEWCOMER: u8 = 9;

/// A state of many bytes, which are different after each message.
pub(crate) struct State {
    bytes: usize,
    count: u64,
    taken: Arc<AtomicU64>,
}

impl State {
    fn filled(&self) -> Vec<u8> {
        let mut word = self.count | 1;
        let mut bytes = Vec::with_capacity(self.bytes);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        while bytes.len() < self.bytes {
            word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).rotate_left(17);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl StateMachine for State {
    type Command = Bytes;
    type Response = ();

    fn apply(&mut self, at: Applied, _payload: Bytes) {
        self.count = at.index.0;
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        to.write_all(&self.filled())
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        let mut snapshot = Vec::new();
        from.read_to_end(&mut snapshot)?;
        let count = snapshot.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        let state = Self { bytes: snapshot.len(), count, taken: Arc::default() };
        if state.filled() == snapshot { Ok(state) } else { Err(io::Error::other("its bytes are others")) }
    }
}

/// The payload of a command of so many bytes: its kind, and its encoding.
fn command(payload_bytes: usize) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(postcard::to_stdvec(&vec![7_u8; payload_bytes - 3]).unwrap());
    payload
}

/// Members that keep a large state and broadcast all the time, and a newcomer that has to begin with a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateTransfer {
    pub(crate) members: u8,
    /// Of the members, and of the newcomer.
    pub(crate) paths: (Path, Path),
    pub(crate) state_bytes: usize,
    pub(crate) snapshot_every_bytes: u64,
    pub(crate) retain_bytes: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) bytes_per_second: u64,
    /// When to give up.
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Transferred {
    /// From the newcomer's start until it has joined, or why it has not.
    pub(crate) joined_after: Result<Duration, String>,
    /// Snapshots that each member took meanwhile.
    pub(crate) taken: u64,
    /// The newcomer started from a snapshot.
    pub(crate) restored: bool,
    /// Bytes by which the result grew in a second meanwhile.
    pub(crate) grown_per_second: f64,
}

impl StateTransfer {
    pub(crate) async fn run(self) -> Transferred {
        let (network, key) = (self.paths.0.network(), ClusterKey::generate().unwrap());
        let config = GroupConfig::default().retain_bytes(self.retain_bytes);
        let (_nodes, groups) = self.paths.0.group_with(config, self.members, &network, &key).await;
        let taken = Arc::new(AtomicU64::new(0));
        let state = || State { bytes: self.state_bytes, count: 0, taken: taken.clone() };
        let config = ReplicaConfig::default().snapshot_every_bytes(self.snapshot_every_bytes);
        let mut replicas = Vec::new();
        for group in groups.clone() {
            replicas.push(Replica::start_with(group, state(), config.clone()).await.unwrap());
        }
        let payload = command(self.payload_bytes);
        // The beginning is gone from memory.
        for at in 0..self.retain_bytes * 5 / 4 / payload.len() as u64 + CHECKPOINT_MESSAGES {
            let _receipt = groups[0].broadcast(&payload).await.unwrap();
            if at % 1_024 == 0 {
                groups[0].flush().await.unwrap();
            }
        }
        groups[0].flush().await.unwrap();
        let share = self.bytes_per_second / u64::from(self.members);
        let loads = groups.iter().filter(|_| share > 0).map(|group| load(group, payload.clone(), share));
        let loads: Vec<_> = loads.collect();
        sleep(Duration::from_secs(2)).await;
        let newcomer = self.paths.1.node(&network, &key, NEWCOMER).await;
        let (started, before) = (Instant::now(), (taken.load(Ordering::Relaxed), index(&groups[0]).await));
        let joins = newcomer.join_group_at("load", address(1)).without_timeout();
        let joined = timeout(self.patience, joins).await;
        let took = started.elapsed();
        let mut restored = false;
        let joined_after = match joined {
            Ok(Ok(group)) => {
                // Only a snapshot says what comes before the retained part.
                let replica = Replica::start_with(group, state(), config).await.unwrap();
                restored = *replica.watch().borrow() > Index(0);
                Ok(took)
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it has not joined in time".to_owned()),
        };
        loads.iter().for_each(JoinHandle::abort);
        let grown = (index(&groups[0]).await - before.1) * self.payload_bytes as u64;
        Transferred {
            joined_after,
            taken: (taken.load(Ordering::Relaxed) - before.0) / u64::from(self.members),
            restored,
            grown_per_second: grown as f64 / took.as_secs_f64(),
        }
    }
}

/// How long it takes a newcomer to have a few payloads of the greatest size.
pub(crate) async fn payloads_fetched_in(
    path: Path,
    members: u8,
    (bytes, count): (usize, u64),
    patience: Duration,
) -> Option<Duration> {
    let free = Path { megabits: None, ..path };
    let (network, key) = (free.network(), ClusterKey::generate().unwrap());
    let config = GroupConfig::default().retain_bytes(1 << 30).outbox_bytes_max(64 << 20);
    let (_nodes, groups) = free.group_with(config, members, &network, &key).await;
    for _ in 0..count {
        groups[0].broadcast(vec![7; bytes]).await.unwrap().await.unwrap();
    }
    let newcomer = path.node(&network, &key, NEWCOMER).await;
    let started = Instant::now();
    let fetched = timeout(patience, async {
        let joined = newcomer.join_group_at("load", address(1)).without_timeout().await.unwrap();
        while index(&joined).await < count {
            sleep(LOOK_EVERY).await;
        }
    });
    fetched.await.ok().map(|()| started.elapsed())
}

/// Members that broadcast after a long history, and a newcomer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub(crate) members: u8,
    /// Of the members, and of the newcomer.
    pub(crate) paths: (Path, Path),
    pub(crate) payload_bytes: usize,
    pub(crate) history: u64,
    /// Of each member.
    pub(crate) bytes_per_second: u64,
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// From its start until it has joined, and has what was approved then.
    pub(crate) joined_after: Option<Duration>,
    /// The longest time without an approval at a member.
    pub(crate) longest_gap: Duration,
    /// View changes.
    pub(crate) views: u64,
}

impl Newcomer {
    pub(crate) async fn comes(self) -> Came {
        let (network, key) = (self.paths.0.network(), ClusterKey::generate().unwrap());
        let (_nodes, groups) = self.paths.0.group_with(GroupConfig::default(), self.members, &network, &key).await;
        for _ in 0..self.history {
            let _receipt = groups[0].broadcast(&vec![7; self.payload_bytes]).await.unwrap();
        }
        groups[0].flush().await.unwrap();
        let loads = groups.iter().map(|group| load(group, vec![7; self.payload_bytes], self.bytes_per_second));
        let loads: Vec<_> = loads.collect();
        let view = async || groups[0].status().await.unwrap().view.unwrap().id.0;
        let before = view().await;
        let newcomer = self.paths.1.node(&network, &key, NEWCOMER).await;
        let started = Instant::now();
        let mut joins = std::pin::pin!(newcomer.join_group_at("load", address(1)).without_timeout().into_future());
        let (mut grown, mut longest_gap, mut joined) = ((index(&groups[0]).await, started), Duration::ZERO, None);
        let joined_after = loop {
            let here = index(&groups[0]).await;
            longest_gap = longest_gap.max(grown.1.elapsed());
            if here > grown.0 {
                grown = (here, Instant::now());
            }
            match &joined {
                _ if started.elapsed() > self.patience => break None,
                Some((group, at)) if index(group).await >= *at => break Some(started.elapsed()),
                Some(_) => sleep(LOOK_EVERY).await,
                None => {
                    if let Ok(group) = timeout(LOOK_EVERY, &mut joins).await {
                        joined = Some((group.unwrap(), index(&groups[0]).await));
                    }
                }
            }
        };
        loads.iter().for_each(JoinHandle::abort);
        Came { joined_after, longest_gap, views: view().await - before }
    }
}

/// Members of which some broadcast large payloads over links that take long for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    pub(crate) members: u8,
    pub(crate) path: Path,
    pub(crate) payload_bytes: usize,
    /// Each of so many members broadcasts so many.
    pub(crate) senders: usize,
    pub(crate) count: u64,
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Until all members have all payloads.
    pub(crate) approved_after: Option<Duration>,
    /// View changes.
    pub(crate) views: u64,
}

impl Slots {
    pub(crate) async fn run(self) -> Sent {
        let (network, key) = (self.path.network(), ClusterKey::generate().unwrap());
        let config = GroupConfig::default().retain_bytes(1 << 30).outbox_bytes_max(64 << 20);
        let (_nodes, groups) = self.path.group_with(config, self.members, &network, &key).await;
        // The group is idle for longer than the stall timeout.
        sleep(Duration::from_secs(3)).await;
        let view = async || groups[0].status().await.unwrap().view.unwrap().id.0;
        let (before, started) = (view().await, Instant::now());
        for group in &groups[..self.senders] {
            for _ in 0..self.count {
                let _receipt = group.broadcast(vec![7; self.payload_bytes]).await.unwrap();
            }
        }
        let all = self.count * self.senders as u64;
        let approved_after = loop {
            let mut has = u64::MAX;
            for group in &groups {
                has = has.min(index(group).await);
            }
            if has >= all {
                break Some(started.elapsed());
            }
            if started.elapsed() > self.patience {
                break None;
            }
            sleep(10 * LOOK_EVERY).await;
        };
        Sent { approved_after, views: view().await - before }
    }
}
