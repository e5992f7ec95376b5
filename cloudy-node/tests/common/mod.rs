//! Nodes and groups on loopback for the tests of the library.

use std::net::SocketAddr;
use std::sync::{Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use cloudy_node::endpoint::EndpointLimits;
use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::{
    ApprovedItem, ClusterKey, Event, Group, GroupConfig, Index, MessageId, Node, NodeId, Parameters, Payloads,
};
use futures_util::future::join_all;

/// Against hanging: far above what anything here takes.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Between two looks at a state that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits for what has to come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS_AFTER, future).await.unwrap_or_else(|_| panic!("it does not come: {what}"))
}

/// Waits until a state is reached that nothing announces.
pub async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !reached().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
}

pub fn key() -> ClusterKey {
    ClusterKey::generate().unwrap()
}

pub async fn start(key: &ClusterKey) -> Node {
    Node::builder().cluster_key(key).start().await.unwrap()
}

pub async fn start_all(key: &ClusterKey, count: usize) -> Vec<Node> {
    join_all((0..count).map(|_| start(key))).await
}

/// Short enough to wait for in a test.
pub fn impatient() -> EndpointLimits {
    EndpointLimits {
        handshake_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_millis(800),
        keep_alive: Duration::from_millis(100),
        ..EndpointLimits::default()
    }
}

/// A node that can be cut off.
pub async fn start_cuttable(key: &ClusterKey, limits: EndpointLimits) -> (Node, FaultControl) {
    let socket = FaultSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), Faults::none()).unwrap();
    let control = socket.control();
    let node = Node::builder().cluster_key(key).limits(limits).socket(socket).start().await.unwrap();
    (node, control)
}

/// The first node founds the group, and all others join it.
pub async fn found(nodes: &[Node], name: &str, config: GroupConfig) -> Vec<Group> {
    let others = nodes[1..].iter().map(|node| node.join_group_at(name, nodes[0].local_addr()));
    let all = async { tokio::join!(nodes[0].create_group(name, nodes.len(), config), join_all(others)) };
    let (founder, others) = within("the group is founded", all).await;
    std::iter::once(founder.unwrap()).chain(others.into_iter().map(Result::unwrap)).collect()
}

pub fn config(change: impl FnOnce(&mut Parameters)) -> GroupConfig {
    let mut config = GroupConfig::default();
    change(&mut config.parameters);
    config
}

/// A message of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub index: Index,
    pub id: MessageId,
    pub payload: Bytes,
}

/// The messages of an item.
pub fn messages(item: ApprovedItem) -> Vec<Message> {
    let ApprovedItem::Batch(entry) = item else { return Vec::new() };
    let first_seq = entry.batch.first_seq;
    let numbered = Payloads::of(entry.batch.body).enumerate();
    numbered
        .map(|(at, payload)| Message {
            index: Index(entry.first_index.0 + at as u64),
            id: MessageId {
                origin: entry.origin,
                incarnation: entry.incarnation,
                seq: cloudy_node::Seq(first_seq.0 + at as u64),
            },
            payload,
        })
        .collect()
}

/// So many messages of the result at one node, from an index on.
pub async fn read(group: &Group, from: u64, count: usize) -> Vec<Message> {
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
pub async fn read_final(group: &Group) -> Vec<Message> {
    let mut approved = group.approved_from(Index(1));
    let mut read = Vec::new();
    while let Some(item) = within("the final result", approved.next_batch()).await {
        read.extend(messages(item.unwrap()));
    }
    read
}

pub fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

/// Waits for an event of a group.
pub async fn event<T>(group: &Group, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
    let mut events = group.events();
    loop {
        let event = within(what, events.next()).await.unwrap_or_else(|| panic!("the group ended before: {what}"));
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

pub async fn linked(group: &Group, node: NodeId) -> bool {
    let status = group.status().await.expect("the group lives");
    status.members.iter().any(|member| member.node == node && member.linked)
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// From here on, panics in tasks of the library are noted.
pub fn watch_for_panics() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|at| at.file().contains("src/")) {
                PANICS.lock().unwrap().push(info.to_string());
            }
            before(info);
        }));
    });
}

/// None of them panicked.
pub fn assert_no_task_panicked() {
    assert_eq!(*PANICS.lock().unwrap(), Vec::<String>::new());
}
