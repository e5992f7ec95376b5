//! The seeds of a group that is opened: their names are resolved, and their addresses dialled, again and again.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloudy_proto::NodeId;
use cloudy_proto::wire::ReportedSeed;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::driver::Known;
use crate::link_error::ConnectError;
use crate::node::Node;
use crate::wait::{Backoff, jittered};

/// Between two attempts by a name, at last.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);
/// Between two looks at a seed that was reached: its name may lead elsewhere.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The outcome of the latest attempt to reach a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SeedState {
    /// None was finished.
    Untried,
    /// Its name does not resolve.
    Unresolved(String),
    /// No address of its name leads to a node.
    Unreachable(String),
    /// It is this node.
    Itself,
    /// It leads to this node, which is linked.
    Node(NodeId),
}

impl fmt::Display for SeedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untried => f.write_str("it is being dialled, and has not answered"),
            Self::Unresolved(why) | Self::Unreachable(why) => f.write_str(why),
            Self::Itself => f.write_str("it is this node"),
            Self::Node(node) => write!(f, "it is node {}", node.short()),
        }
    }
}

/// The seeds of all nodes that open the group, of which more than half create it.
pub(super) struct Universe {
    /// How many there are.
    pub(super) size: usize,
    /// Those of them that are known by their id.
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Universe {
    /// Equal texts are one seed, and so are those that lead to one node. A seed that has not led to a node may be any.
    pub(super) fn of(own: &[ReportedSeed], known: &Known, me: NodeId) -> Self {
        let theirs =
            known.reports().filter_map(|(_, report)| report.opening.as_ref()).flat_map(|opening| &opening.seeds);
        let mut seeds: BTreeMap<u64, Option<NodeId>> = BTreeMap::new();
        for seed in own.iter().chain(theirs) {
            let node = seeds.entry(seed.name).or_default();
            *node = node.or(seed.node);
        }
        if seeds.is_empty() {
            return Self { size: 1, nodes: BTreeSet::from([me]) };
        }
        let unknown = seeds.values().filter(|node| node.is_none()).count();
        let nodes: BTreeSet<NodeId> = seeds.into_values().flatten().collect();
        Self { size: nodes.len() + unknown, nodes }
    }
}

/// The information about seeds for other nodes.
pub(super) fn reported(seeds: &[String], states: &[SeedState], me: NodeId) -> Vec<ReportedSeed> {
    let named = seeds.iter().map(|seed| xxhash_rust::xxh3::xxh3_64(seed.to_ascii_lowercase().as_bytes()));
    named.zip(states).map(|(name, state)| ReportedSeed { name, node: state.node(me) }).collect()
}

impl SeedState {
    pub(super) fn is_reached(&self) -> bool {
        matches!(self, Self::Node(_) | Self::Itself)
    }

    fn node(&self, me: NodeId) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(*node),
            Self::Itself => Some(me),
            _ => None,
        }
    }
}

/// Tries a seed until the task is aborted.
pub(super) async fn follow(
    (node, mut known): (Node, watch::Receiver<Known>),
    at: usize,
    seed: String,
    states: watch::Sender<Vec<SeedState>>,
) {
    let mut backoff = Backoff::up_to(AGAIN_AFTER_MAX);
    loop {
        let state = reach(&node, &seed).await;
        let reached = state.is_reached();
        states.send_if_modified(|states| std::mem::replace(&mut states[at], state.clone()) != state);
        if reached {
            backoff = Backoff::up_to(AGAIN_AFTER_MAX);
            // sleep: a name service announces nothing.
            tokio::time::sleep(jittered(CHECK_EVERY)).await;
        } else {
            let peers = known.borrow_and_update().peers.len();
            let linked = known.wait_for(|known| known.peers.len() > peers);
            // A node that has just linked may be this seed.
            tokio::select! {
                () = backoff.pause() => {}
                _ = linked => {}
            }
        }
    }
}

/// One attempt: the name is resolved, and all of its addresses are dialled side by side.
async fn reach(node: &Node, seed: &str) -> SeedState {
    let addresses = match node.resolve(seed).await {
        Ok(addresses) => addresses,
        Err(error) => return SeedState::Unresolved(error.to_string()),
    };
    if addresses.contains(&node.local_addr()) {
        return SeedState::Itself;
    }
    let mut dials = JoinSet::new();
    for address in addresses {
        let node = node.clone();
        dials.spawn(async move { node.connect_beside(address, true).await });
    }
    let mut failed = SeedState::Unreachable("it has no address".to_owned());
    while let Some(dialled) = dials.join_next().await {
        match dialled {
            Ok(Ok(peer)) => return SeedState::Node(peer),
            Ok(Err(ConnectError::Itself { .. })) => return SeedState::Itself,
            Ok(Err(error)) => failed = SeedState::Unreachable(error.to_string()),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    failed
}
