//! Real QUIC over a network in memory that loses, repeats and reorders, in tokio's paused time: all results are equal
//! and complete in any case (`protocol.md` P1 to P4).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::fault::{FaultCounters, Faults, MemoryNetwork};
use cloudy_node::{
    Approval, ApprovedItem, ClusterKey, CreateGroupError, Event, Group, GroupConfig, Identity, Index, Node, OnFailure,
    Parameters, Payloads, Receipt, RingKind,
};
use futures_util::future::join_all;

const NODES: usize = 4;
/// In virtual time: far above the longest run.
const HANGS_AFTER: Duration = Duration::from_secs(600);

/// Four nodes in one group. The node at a place has the rank of that place.
struct World {
    network: MemoryNetwork,
    identities: Vec<Identity>,
    nodes: Vec<Node>,
    groups: Vec<Group>,
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + at as u8], 4_433))
}

async fn start(network: &MemoryNetwork, at: usize, identity: Identity, seed: u64) -> Node {
    let socket = network.bind(address(at)).unwrap();
    let mut rng_seed = [at as u8; 32];
    rng_seed[..8].copy_from_slice(&seed.to_le_bytes());
    // The network's own maximum, so that QUIC loses no probes of larger datagrams: with those, runs are not repeatable.
    let limits = EndpointLimits::default().datagram_bytes_max(1_472);
    Node::builder().identity(identity).socket(socket).rng_seed(rng_seed).limits(limits).start().await.unwrap()
}

async fn create(seed: u64, loss: f64, ring: RingKind, on_failure: OnFailure) -> World {
    // Printed where a test fails.
    eprintln!("seed {seed}, loss {loss}, {ring:?}");
    let network = MemoryNetwork::new(seed);
    let faults = Faults::none()
        .loss(loss)
        .latency(Duration::from_millis(5))
        .jitter(Duration::from_millis(2))
        .reorder(if loss > 0.0 { 0.05 } else { 0.0 })
        .duplicate(if loss > 0.0 { 0.05 } else { 0.0 })
        .seed(seed);
    network.set(faults).unwrap();
    let key = ClusterKey::generate().unwrap();
    let mut identities: Vec<Identity> = (0..NODES).map(|_| Identity::generate(&key).unwrap()).collect();
    identities.sort_by_key(|identity| identity.node_id());
    let mut nodes = Vec::new();
    for (at, identity) in identities.iter().enumerate() {
        nodes.push(start(&network, at, identity.clone(), seed).await);
    }
    let parameters = Parameters::default()
        .ring(ring)
        .slot_payloads_max(if ring == RingKind::Token { 1 } else { 8 })
        // A cut is not to end the group here.
        .coordinator_timeout(Duration::from_secs(60))
        .on_failure(on_failure);
    let config = GroupConfig::default().parameters(parameters);
    let create = nodes[0].create_group("lossy", NODES, config);
    let joins = join_all(nodes[1..].iter().map(|node| node.join_group_at("lossy", address(0))));
    let (creator, others) = within("the creation", async { tokio::join!(create, joins) }).await;
    let groups = std::iter::once(creator.unwrap()).chain(others.into_iter().map(Result::unwrap)).collect();
    World { network, identities, nodes, groups }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS_AFTER, future).await.unwrap_or_else(|_| panic!("it does not come: {what}"))
}

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !reached().await {
            // Of virtual time, which continues only where nothing else can happen.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The outcome of one run: the messages in their order, and the counts of the network.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Vec<String>,
    network: FaultCounters,
}

impl World {
    /// Every node broadcasts at least this number of messages, as fast as it can, and continues while a future runs.
    async fn broadcast(&self, messages: usize, meanwhile: impl Future<Output = ()>) -> Vec<Vec<Receipt>> {
        let receipts: RefCell<Vec<Vec<Receipt>>> = RefCell::new((0..NODES).map(|_| Vec::new()).collect());
        let over = Cell::new(false);
        let meanwhile = async {
            meanwhile.await;
            over.set(true);
        };
        let all = self.groups.iter().enumerate().map(async |(at, group)| {
            for number in (0..).take_while(|number| *number < messages || !over.get()) {
                let receipt = group.broadcast(format!("{at}:{number}")).await.unwrap();
                receipts.borrow_mut()[at].push(receipt);
                if number % 16 == 15 {
                    group.flush().await.unwrap();
                }
            }
        });
        within("all is broadcast", async { tokio::join!(join_all(all), meanwhile) }).await;
        receipts.into_inner()
    }

    /// Ends the group, and requires that every message is approved and that all results are equal, each message in it
    /// once, those of one node in their order.
    async fn finish(self, receipts: Vec<Vec<Receipt>>, in_one_view: bool) -> Outcome {
        let messages: usize = receipts.iter().map(Vec::len).sum();
        let mut places = Vec::new();
        for (at, receipts) in receipts.into_iter().enumerate() {
            for (number, receipt) in receipts.into_iter().enumerate() {
                let approved = within("a receipt", receipt.into_future()).await;
                let Approval { index, confirmed, .. } =
                    approved.unwrap_or_else(|error| panic!("{at}:{number}: {error}"));
                // A view change takes the place of confirmations that it does not wait for.
                assert!(!in_one_view || confirmed.len() == NODES, "{confirmed:?}");
                places.push((index, format!("{at}:{number}")));
            }
        }
        self.groups[0].end();
        let results = within("the final results", join_all(self.groups.iter().map(read_final))).await;
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        let result = results.into_iter().next().unwrap();
        assert_eq!(result.len(), messages);
        places.sort_unstable();
        let indexes = (1..=messages as u64).map(Index);
        assert!(places.into_iter().eq(indexes.zip(result.iter().cloned())));
        for at in 0..NODES {
            let own = result.iter().filter_map(|text| text.strip_prefix(&format!("{at}:")));
            assert!(own.map(|number| number.parse::<usize>().unwrap()).is_sorted());
        }
        join_all(self.nodes.iter().map(|node| node.shutdown())).await;
        Outcome { result, network: self.network.counters() }
    }

    async fn index(&self, at: usize) -> usize {
        self.groups[at].status().await.unwrap().index.0 as usize
    }

    async fn linked(&self, a: usize, b: usize) -> bool {
        let status = self.groups[a].status().await.unwrap();
        status.members.iter().any(|member| member.node == self.nodes[b].id() && member.linked)
    }

    /// Cuts two nodes off from each other until both have noticed, and waits until they are linked again.
    async fn cut(&self, a: usize, b: usize) {
        self.network.cut(address(a), address(b));
        until("both notice the cut", async || !self.linked(a, b).await && !self.linked(b, a).await).await;
        self.network.heal(address(a), address(b));
        until("both are linked again", async || self.linked(a, b).await && self.linked(b, a).await).await;
    }

    /// Has a node's connection to another one closed outright, by one with the same identity that takes its place.
    async fn close(&self, of: usize, with: usize, seed: u64) {
        let double = start(&self.network, NODES + of, self.identities[of].clone(), seed).await;
        assert_eq!(within("the double is linked", double.connect(address(with))).await, Ok(self.nodes[with].id()));
        // A link that is lost and replaced in one turn of the driver is never seen to be down. But the double ends only once
        // the other node has closed the older link.
        let has_ended = async || {
            matches!(double.prepare_group("any", GroupConfig::default()).await, Err(CreateGroupError::SameIdentity))
        };
        until("the node has lost its link", async || !self.linked(of, with).await || has_ended().await).await;
        within("the double goes", double.shutdown()).await;
        until("both are linked again", async || self.linked(of, with).await && self.linked(with, of).await).await;
    }
}

async fn read_final(group: &Group) -> Vec<String> {
    let mut approved = group.approved_from(Index(1));
    let mut read = Vec::new();
    while let Some(item) = approved.next_batch().await {
        if let ApprovedItem::Batch(entry) = item.unwrap() {
            let payloads = Payloads::of(entry.batch.body);
            read.extend(payloads.map(|payload| String::from_utf8(payload.to_vec()).unwrap()));
        }
    }
    read
}

async fn run(seed: u64, loss: f64, ring: RingKind, messages: usize) -> Outcome {
    let world = create(seed, loss, ring, OnFailure::Evict).await;
    let receipts = world.broadcast(messages, async {}).await;
    let outcome = world.finish(receipts, true).await;
    let FaultCounters { sent, dropped, duplicated, reordered, .. } = outcome.network;
    if loss > 0.0 {
        let share = dropped as f64 / (dropped + sent) as f64;
        assert!((loss / 2.0..loss * 2.0).contains(&share), "{share} of {sent}");
        assert!(duplicated > sent / 50 && reordered > sent / 50, "{:?}", outcome.network);
    }
    outcome
}

#[tokio::test(start_paused = true)]
async fn pipelined_results_are_equal_and_complete_at_any_loss() {
    for (seed, loss) in [(1, 0.0), (2, 0.01), (3, 0.05), (4, 0.1), (5, 0.2)] {
        run(seed, loss, RingKind::Pipelined, 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn relay_results_are_equal_and_complete_at_any_loss() {
    for (seed, loss) in [(71, 0.0), (72, 0.01), (73, 0.05), (74, 0.1), (75, 0.2)] {
        run(seed, loss, RingKind::Relay, 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn token_results_are_equal_and_complete_at_any_loss() {
    for (seed, loss) in [(11, 0.0), (12, 0.01), (13, 0.05), (14, 0.1), (15, 0.2)] {
        let outcome = run(seed, loss, RingKind::Token, 32).await;
        // Every node has messages until the end, so index i is always from rank (i − 1) mod n (§9).
        let origins: Vec<usize> = outcome.result.iter().map(|text| text[..1].parse().unwrap()).collect();
        let in_turn = origins.iter().enumerate().take_while(|(at, origin)| at % NODES == **origin).count();
        assert!(in_turn >= 16 * NODES, "{origins:?}");
    }
}

async fn run_with_cuts(seed: u64, loss: f64, ring: RingKind, messages: usize) {
    let world = create(seed, loss, ring, OnFailure::Wait).await;
    let disturb = async {
        until("a quarter is approved", async || world.index(0).await > NODES * messages / 4).await;
        // Between a member and the creator, and between two members; each as it has dialled the other.
        world.close(3, 0, seed).await;
        world.cut(1, 2).await;
        world.cut(0, 3).await;
        world.close(1, 3, seed).await;
    };
    let receipts = world.broadcast(messages, disturb).await;
    world.finish(receipts, true).await;
}

/// Cuts one member off from all others until they go on without it, and requires that it comes back by itself.
async fn run_with_an_eviction(seed: u64, loss: f64, ring: RingKind, messages: usize) {
    let world = create(seed, loss, ring, OnFailure::Evict).await;
    let members = async |at: usize| {
        let view = world.groups[at].status().await.unwrap().view.unwrap();
        (view.members(), view.id)
    };
    let disturb = async {
        until("a quarter is approved", async || world.index(0).await > NODES * messages / 4).await;
        (0..NODES - 1).for_each(|at| world.network.cut(address(at), address(NODES - 1)));
        until("the others go on without it", async || members(0).await.0 == NODES - 1).await;
        let before = world.index(0).await;
        until("messages are approved meanwhile", async || world.index(0).await > before).await;
        (0..NODES - 1).for_each(|at| world.network.heal(address(at), address(NODES - 1)));
        until("it is back on the ring", async || members(NODES - 1).await.0 == NODES).await;
        until("all agree on that", async || members(NODES - 1).await == members(0).await).await;
    };
    let receipts = world.broadcast(messages, disturb).await;
    let mut events = world.groups[NODES - 1].events();
    let evicted = async {
        while let Some(Ok(event)) = events.next().await {
            if matches!(event, Event::Evicted { .. }) {
                return;
            }
        }
    };
    within("the evicted node is notified", evicted).await;
    world.finish(receipts, false).await;
}

#[tokio::test(start_paused = true)]
async fn pipelined_a_partitioned_member_is_evicted_and_rejoins() {
    for (seed, loss) in [(51, 0.0), (52, 0.05), (53, 0.2)] {
        run_with_an_eviction(seed, loss, RingKind::Pipelined, 400).await;
    }
}

#[tokio::test(start_paused = true)]
async fn relay_a_partitioned_member_is_evicted_and_rejoins() {
    for (seed, loss) in [(81, 0.0), (82, 0.05), (83, 0.2)] {
        run_with_an_eviction(seed, loss, RingKind::Relay, 400).await;
    }
}

#[tokio::test(start_paused = true)]
async fn token_a_partitioned_member_is_evicted_and_rejoins() {
    for (seed, loss) in [(61, 0.0), (62, 0.05)] {
        run_with_an_eviction(seed, loss, RingKind::Token, 64).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_nothing_is_lost_by_cuts_and_closed_connections() {
    for (seed, loss) in [(21, 0.0), (22, 0.05), (23, 0.2)] {
        run_with_cuts(seed, loss, RingKind::Pipelined, 400).await;
    }
}

#[tokio::test(start_paused = true)]
async fn relay_nothing_is_lost_by_cuts_and_closed_connections() {
    for (seed, loss) in [(91, 0.0), (92, 0.05), (93, 0.2)] {
        run_with_cuts(seed, loss, RingKind::Relay, 400).await;
    }
}

#[tokio::test(start_paused = true)]
async fn token_nothing_is_lost_by_cuts_and_closed_connections() {
    for (seed, loss) in [(31, 0.0), (32, 0.05), (33, 0.2)] {
        run_with_cuts(seed, loss, RingKind::Token, 64).await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_seeds_give_equal_runs() {
    let first = run(41, 0.1, RingKind::Pipelined, 64).await;
    assert_eq!(run(41, 0.1, RingKind::Pipelined, 64).await, first);
    assert_ne!(run(42, 0.1, RingKind::Pipelined, 64).await, first);
}
