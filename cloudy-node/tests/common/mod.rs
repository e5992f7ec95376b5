//! Nodes and groups on loopback for the tests of the library.

use std::time::Duration;

use bytes::Bytes;
use cloudy_node::EndpointLimits;
use cloudy_node::{ApprovedItem, ClusterKey, Group, GroupConfig, Index, MessageId, Node, Payloads, Seq};
use futures_util::future::join_all;

/// Against hanging: far above the usual time of any test here.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// Between two looks at a state that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits for an event that must come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS_AFTER, future).await.unwrap_or_else(|_| panic!("it does not come: {what}"))
}

/// Waits until a state is reached that nothing announces.
pub(crate) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !reached().await {
            // sleep: between two checks of a state that no event announces.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

pub(crate) fn key() -> ClusterKey {
    ClusterKey::generate().unwrap()
}

pub(crate) async fn start(key: &ClusterKey) -> Node {
    Node::builder().cluster_key(key).start().await.unwrap()
}

pub(crate) async fn start_all(key: &ClusterKey, count: usize) -> Vec<Node> {
    join_all((0..count).map(|_| start(key))).await
}

/// Short enough to wait for in a test.
pub(crate) fn impatient() -> EndpointLimits {
    EndpointLimits::default()
        .handshake_timeout(Duration::from_secs(1))
        .idle_timeout(Duration::from_millis(800))
        .keep_alive(Duration::from_millis(100))
}

/// The first node creates the group, and all others join it.
pub(crate) async fn create(nodes: &[Node], name: &str, config: GroupConfig) -> Vec<Group> {
    let others = nodes[1..].iter().map(|node| node.join_group_at(name, nodes[0].local_addr()));
    let all = async { tokio::join!(nodes[0].create_group(name, nodes.len(), config), join_all(others)) };
    let (creator, others) = within("the group is created", all).await;
    std::iter::once(creator.unwrap()).chain(others.into_iter().map(Result::unwrap)).collect()
}

/// A message of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) index: Index,
    pub(crate) id: MessageId,
    pub(crate) payload: Bytes,
}

/// The messages of an item.
pub(crate) fn messages(item: ApprovedItem) -> Vec<Message> {
    let ApprovedItem::Batch(entry) = item else { return Vec::new() };
    let first_seq = entry.batch.first_seq;
    let numbered = Payloads::of(entry.batch.body).enumerate();
    numbered
        .map(|(at, payload)| Message {
            index: Index(entry.first_index.0 + at as u64),
            id: MessageId { origin: entry.origin, incarnation: entry.incarnation, seq: Seq(first_seq.0 + at as u64) },
            payload,
        })
        .collect()
}

/// Reads a number of messages of the result at one node, from an index on.
pub(crate) async fn read(group: &Group, from: u64, count: usize) -> Vec<Message> {
    let mut approved = group.approved_from(Index(from));
    let mut read = Vec::new();
    while read.len() < count {
        let item = within("the next batch", approved.next_batch()).await.expect("the result is not final").unwrap();
        read.extend(messages(item));
    }
    assert_eq!(read.len(), count, "more than was broadcast");
    read
}

/// The whole of a result that is final or about to be.
pub(crate) async fn read_final(group: &Group) -> Vec<Message> {
    let mut approved = group.approved_from(Index(1));
    let mut read = Vec::new();
    while let Some(item) = within("the final result", approved.next_batch()).await {
        read.extend(messages(item.unwrap()));
    }
    read
}
