//! Groups on disk that keep a bounded part of their result there (`protocol.md` §7.4, P7).

use cloudy_node::{ApprovedError, ApprovedItem, EndReason, Group, GroupConfig, Index, JoinError, Node};

use crate::common::{key, read, start, until, within};
use crate::hosts::{Host, Process, on_disk, start_hosts};

/// So small that checkpoints are 65,536 messages apart, and not 4 MiB.
const PAYLOAD_BYTES: usize = 60;
/// More than twice the messages between two checkpoints.
const MESSAGES: u64 = 150_000;

/// Some ten thousand messages in memory, and less on disk than there are.
fn bounded() -> GroupConfig {
    on_disk().retain_bytes(1 << 20).retain_disk_bytes(Some(4 << 20))
}

async fn broadcast(group: &Group, from: u64, to: u64) {
    let mut last = None;
    for at in from..to {
        let mut payload = [0; PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&at.to_le_bytes());
        last = Some(within("room", group.broadcast(payload)).await.unwrap());
    }
    within("the approval", last.unwrap().into_future()).await.unwrap();
}

/// The first index of the retained part.
async fn first(group: &Group) -> Index {
    let mut approved = group.approved_from(Index(1));
    loop {
        match within("the beginning", approved.next_batch()).await.unwrap() {
            Ok(ApprovedItem::View(_)) => {}
            Ok(ApprovedItem::Batch(entry)) => return entry.first_index,
            Err(ApprovedError::Lagged { resume_from }) => return resume_from,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The first index that the disk gives.
async fn first_on_disk(group: &Group) -> Index {
    let (mut gone, mut there) = (0, first(group).await.0);
    while there - gone > 1 {
        let middle = gone.midpoint(there);
        let mut approved = group.approved_from(Index(middle));
        match within("an answer", approved.next_batch()).await.unwrap() {
            Err(ApprovedError::Lagged { .. }) => gone = middle,
            _ => there = middle,
        }
    }
    Index(there)
}

/// The first index behind the next checkpoint.
fn after(begins: Index) -> Index {
    Index((begins.0 - 1).next_multiple_of(65_536) + 1)
}

/// The first index of the part on disk once the deleted part ends with a checkpoint and the slot of that is there, and
/// the last message. Each write deletes a piece, so more is written until then.
async fn deleted_up_to_a_checkpoint(group: &Group) -> (Index, u64) {
    let mut last = MESSAGES;
    loop {
        let begins = first_on_disk(group).await;
        let after = after(begins).0;
        if after - begins.0 < 1_000 && after < last {
            return (begins, last);
        }
        assert!(last < MESSAGES + 40_000, "it begins at {begins}");
        broadcast(group, last, last + 1_000).await;
        last += 1_000;
    }
}

async fn reads_from(group: &Group, first: Index, last: u64) {
    let messages = read(group, first.0, (last + 1 - first.0) as usize).await;
    for (at, message) in (first.0..).zip(&messages) {
        assert_eq!(message.index, Index(at));
        assert_eq!(message.payload[..8], (at - 1).to_le_bytes(), "index {at}");
    }
}

async fn alone(config: GroupConfig) -> (cloudy_node::ClusterKey, Host, Process, Group) {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 1).await;
    let process = processes.remove(0);
    let group = process.node.create_group("bounded", 1, config).await.unwrap();
    (key, hosts.remove(0), process, group)
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_over_the_bound_are_deleted_and_the_others_survive_a_restart() {
    let (key, mut host, process, group) = alone(bounded()).await;
    broadcast(&group, 0, MESSAGES).await;
    let (begins, last) = deleted_up_to_a_checkpoint(&group).await;
    assert!(begins.0 > 1, "it begins at {begins}");
    reads_from(&group, begins, last).await;
    let digest = group.status().await.unwrap().checkpoint;
    drop(group);
    process.kill();
    let again = host.start(&key).await;
    let group = again.resumed();
    assert_eq!(first_on_disk(&group).await, begins);
    reads_from(&group, begins, last).await;
    until("it continues", async || group.status().await.is_some_and(|status| status.rank.is_some())).await;
    let status = group.status().await.unwrap();
    assert!(status.checkpoint.index >= digest.index, "{status:?}");
    // A late joiner gets a clear error.
    let late: Node = start(&key).await;
    let refused = within("the answer", late.observe_group("bounded", again.node.local_addr(), Index(1))).await.unwrap();
    let mut approved = refused.approved_from(Index(1));
    let ended = loop {
        match within("the end", approved.next_batch()).await {
            Some(Ok(ApprovedItem::View(_))) => {}
            other => break other,
        }
    };
    let Some(Err(ApprovedError::Ended(EndReason::Truncated { first }))) = ended else { panic!("{ended:?}") };
    assert_eq!(first, after(begins));
    let seen = within("it observes", late.observe_group("bounded", again.node.local_addr(), first)).await.unwrap();
    reads_from(&seen, first, last).await;
    let mut other = Host::new();
    let other = other.start(&key).await;
    let refused = within("the answer", other.node.join_group_at("bounded", again.node.local_addr())).await.unwrap_err();
    let JoinError::Truncated { first, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*first, after(begins));
    assert!(refused.to_string().contains("raise retain_bytes"), "{refused}");
}
