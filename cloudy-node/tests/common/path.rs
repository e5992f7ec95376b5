//! Groups whose nodes are linked by a path with a round trip and a bandwidth, in virtual time: CPU costs nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::SERVER_NAME;
use cloudy_node::fault::{Bandwidth, MemoryNetwork};
use cloudy_node::internals::{self, EndpointSocket};
use cloudy_node::{ClusterKey, Group, GroupConfig, Identity, Node};
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The size of one read of a bare stream.
const CHUNK_BYTES: usize = 256 << 10;

/// A path between any two nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) round_trip: Duration,
    /// Of each node's link; none for no limit.
    pub(crate) megabits: Option<u64>,
    /// The maximum queue before a link.
    pub(crate) queue: Duration,
}

impl Path {
    pub(crate) fn of(round_trip_ms: u64, megabits: Option<u64>) -> Self {
        Self { round_trip: Duration::from_millis(round_trip_ms), megabits, queue: Bandwidth::megabits(1).queue }
    }

    pub(crate) fn network(self) -> MemoryNetwork {
        let network = MemoryNetwork::new(1);
        network.set(network.faults().latency(self.round_trip / 2)).unwrap();
        network
    }

    fn socket(self, network: &MemoryNetwork, host: u8) -> Arc<cloudy_node::fault::MemorySocket> {
        let bandwidth = |megabits| Bandwidth::megabits(megabits).queue(self.queue);
        network.set_bandwidth(address(host), self.megabits.map(bandwidth));
        network.bind(address(host)).unwrap()
    }

    pub(crate) async fn node(self, network: &MemoryNetwork, key: &ClusterKey, host: u8) -> Node {
        self.node_with(&GroupConfig::default(), network, key, host).await
    }

    /// A node with a configuration for the groups that it joins.
    async fn node_with(self, config: &GroupConfig, network: &MemoryNetwork, key: &ClusterKey, host: u8) -> Node {
        let builder = Node::builder().cluster_key(key).join_config(config.clone());
        builder.socket(self.socket(network, host)).rng_seed([host; 32]).start().await.unwrap()
    }

    /// The members of a group, and the handle of each.
    pub(crate) async fn group_of(
        self,
        members: u8,
        network: &MemoryNetwork,
        key: &ClusterKey,
    ) -> (Vec<Node>, Vec<Group>) {
        self.group_with(GroupConfig::default(), members, network, key).await
    }

    /// The same with a configuration, which each node has.
    pub(crate) async fn group_with(
        self,
        config: GroupConfig,
        members: u8,
        network: &MemoryNetwork,
        key: &ClusterKey,
    ) -> (Vec<Node>, Vec<Group>) {
        let nodes = join_all((1..=members).map(|host| self.node_with(&config, network, key, host))).await;
        let others = nodes[1..].iter().map(|node| node.join_group_at("load", address(1)));
        let creates = async { nodes[0].create_group("load", members.into(), config).await };
        let (creator, others) = tokio::join!(creates, join_all(others));
        let groups =
            std::iter::once(creator).map(Result::unwrap).chain(others.into_iter().map(Result::unwrap)).collect();
        (nodes, groups)
    }
}

pub(crate) fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7_000))
}

pub(crate) async fn index(group: &Group) -> u64 {
    group.status().await.map_or(0, |status| status.index.0)
}

/// The time that one stream between two bare endpoints needs for a number of bytes, the handshake included.
pub(crate) async fn streamed_in(path: Path, bytes: usize) -> Duration {
    let (network, key) = (path.network(), ClusterKey::generate().unwrap());
    let open = |host| {
        let identity = Identity::generate(&key).unwrap();
        let socket = EndpointSocket::Abstract(path.socket(&network, host), Arc::new(quinn::TokioRuntime));
        internals::open(&identity, socket, &EndpointLimits::default(), Some([host; 32])).unwrap()
    };
    let (one, other) = (open(1), open(2));
    let started = Instant::now();
    let sends = tokio::spawn(async move {
        let connection = one.accept().await.unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        let chunk = vec![7; CHUNK_BYTES];
        for _ in 0..bytes.div_ceil(CHUNK_BYTES) {
            stream.write_all(&chunk).await.unwrap();
        }
        stream.finish().unwrap();
        connection.closed().await;
    });
    let connection = other.connect(address(1), SERVER_NAME).unwrap().await.unwrap();
    let mut stream = connection.accept_uni().await.unwrap();
    let mut read = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
        read += chunk.bytes.len();
    }
    let took = started.elapsed();
    assert!(read >= bytes);
    connection.close(0_u32.into(), b"");
    sends.await.unwrap();
    took
}

/// The time from a newcomer's start until it has a result of a number of payloads.
pub(crate) async fn fetched_in(path: Path, payload_bytes: usize, count: u64) -> Duration {
    let (network, key) = (path.network(), ClusterKey::generate().unwrap());
    let creator = path.node(&network, &key, 1).await;
    let config = GroupConfig::default().retain_bytes(1 << 30);
    let group = creator.create_group("history", 1, config.clone()).await.unwrap();
    let payload = vec![7; payload_bytes];
    for _ in 0..count {
        let _receipt = group.broadcast(&payload).await.unwrap();
    }
    group.flush().await.unwrap();
    let newcomer = path.node(&network, &key, 2).await;
    let started = Instant::now();
    let joined = newcomer.join_group_at("history", address(1)).await.unwrap();
    while index(&joined).await < count {
        sleep(LOOK_EVERY).await;
    }
    started.elapsed()
}

/// Three members, of which the first two broadcast so many bytes a second all the time; the third is cut off for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absence {
    pub(crate) path: Path,
    pub(crate) payload_bytes: usize,
    pub(crate) bytes_per_second: u64,
    pub(crate) away: Duration,
    /// When to give up.
    pub(crate) patience: Duration,
}

/// The outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Return {
    /// From when on it is on the ring, no more than a second behind, for five seconds; since its path healed.
    pub(crate) back_after: Option<Duration>,
    /// The longest time without an approval at a member that was not away, since the path healed.
    pub(crate) longest_gap: Duration,
}

/// Broadcasts as fast as the group accepts it; broadcasts that were not accepted in time are not made up for.
pub(crate) fn load(group: &Group, payload: Vec<u8>, bytes_per_second: u64) -> JoinHandle<()> {
    let (group, payload_bytes) = (group.clone(), payload.len());
    tokio::spawn(async move {
        // Not more often than the timer ticks.
        let per_tick = (bytes_per_second / payload_bytes as u64 / 500).max(1);
        let nanos = payload_bytes as u64 * per_tick * 1_000_000_000 / bytes_per_second;
        let mut tick = interval(Duration::from_nanos(nanos));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            for _ in 0..per_tick {
                if group.broadcast(&payload).await.is_err() {
                    return;
                }
            }
        }
    })
}

/// Measures how a member comes back under load.
pub(crate) async fn returns(absence: Absence) -> Return {
    let Absence { path, payload_bytes, bytes_per_second, away, patience } = absence;
    let (network, key) = (path.network(), ClusterKey::generate().unwrap());
    let (nodes, groups) = path.group_of(3, &network, &key).await;
    let loads = [&groups[0], &groups[1]].map(|group| load(group, vec![7; payload_bytes], bytes_per_second / 2));
    sleep(Duration::from_secs(3)).await;
    [1, 2].into_iter().for_each(|host| network.cut(address(host), address(3)));
    sleep(away).await;
    [1, 2].into_iter().for_each(|host| network.heal(address(host), address(3)));
    let healed = Instant::now();
    let mut grown = (index(&groups[0]).await, Instant::now());
    let (mut longest_gap, mut there_since) = (Duration::ZERO, None);
    let mut recent = std::collections::VecDeque::new();
    let mut back_after = None;
    while healed.elapsed() < patience && !groups[2].has_ended() {
        sleep(Duration::from_millis(50)).await;
        let (here, there) = (index(&groups[0]).await, index(&groups[2]).await);
        longest_gap = longest_gap.max(grown.1.elapsed());
        if here > grown.0 {
            grown = (here, Instant::now());
        }
        recent.push_back(here);
        if recent.len() > 20 {
            recent.pop_front();
        }
        let view = groups[0].status().await.and_then(|status| status.view);
        let on_ring = view.is_some_and(|view| view.ring.iter().any(|member| member.node == nodes[2].id()));
        if !on_ring || there < recent[0] {
            there_since = None;
            continue;
        }
        let since: Instant = *there_since.get_or_insert_with(Instant::now);
        if since.elapsed() > Duration::from_secs(5) {
            back_after = Some(since - healed);
            break;
        }
    }
    loads.iter().for_each(JoinHandle::abort);
    Return { back_after, longest_gap }
}
