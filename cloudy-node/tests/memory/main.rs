//! The part of the result that a node keeps costs as much as `retain_bytes` allows: counted by the allocator, in a
//! separate binary.

use std::alloc::System;
use std::time::Duration;

use cloudy_node::{ApprovedError, ApprovedItem, ClusterKey, Group, GroupConfig, Index, Node};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// At the creator; the joiner retains far more than this test broadcasts.
const RETAIN_BYTES: u64 = 1 << 20;
const PAYLOAD_BYTES: usize = 100;
/// Several times the creator's bound.
const MESSAGES: u64 = 12_000;
/// Maximum difference in links, queues and receipts between two moments.
const UNDER_WAY_BYTES: u64 = 512 << 10;
/// Against hanging: far above the test's usual time.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// The allocated bytes of the whole process.
fn live_bytes(region: &Region<'_, System>) -> u64 {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated) as u64
}

/// Broadcasts from both in turn, a message at a time: every one is a separate slot. Then both have all.
async fn broadcast(groups: &[Group; 2], messages: u64) {
    for at in 0..messages {
        let receipt = groups[at as usize % 2].broadcast([at as u8; PAYLOAD_BYTES]).await.unwrap();
        receipt.await.unwrap();
    }
    groups[0].broadcast("the last").await.unwrap().await.unwrap();
    groups[1].broadcast("the last").await.unwrap().await.unwrap();
}

async fn oldest(group: &Group) -> u64 {
    match group.approved_from(Index(1)).next_batch().await.unwrap() {
        Err(ApprovedError::Lagged { resume_from }) => resume_from.0,
        other => panic!("the beginning is there: {other:?}"),
    }
}

/// The cost of one message by the library's own account.
async fn kept_bytes(group: &Group) -> u64 {
    let mut approved = group.approved_from(Index(2));
    loop {
        if let ApprovedItem::Batch(entry) = approved.next_batch().await.unwrap().unwrap() {
            assert_eq!(entry.batch.count, 1, "a slot for each message");
            return entry.kept_bytes();
        }
    }
}

#[tokio::test]
async fn small_messages_use_no_more_memory_than_the_retention_bound() {
    let counted = async {
        let key = ClusterKey::generate().unwrap();
        let nodes = [
            Node::builder().cluster_key(&key).start().await.unwrap(),
            Node::builder().cluster_key(&key).start().await.unwrap(),
        ];
        let small = GroupConfig::default().retain_bytes(RETAIN_BYTES);
        let (creator, joiner) = tokio::join!(
            nodes[0].create_group("small", 2, small),
            nodes[1].join_group_at("small", nodes[0].local_addr())
        );
        let groups = [creator.unwrap(), joiner.unwrap()];
        broadcast(&groups, 100).await;
        let each = kept_bytes(&groups[1]).await;
        let region = Region::new(ALLOCATOR);
        broadcast(&groups, MESSAGES).await;
        let live = live_bytes(&region);
        // The creator keeps as much for readers as for members that miss something; the joiner keeps all, twice as
        // well.
        let allowed = 2 * RETAIN_BYTES + 2 * MESSAGES * each;
        assert!(live < allowed + UNDER_WAY_BYTES, "{live} bytes live, {allowed} allowed");
        // And the retained part has that size: a quarter of the bound is payloads, and the rest of the result is gone.
        let kept = MESSAGES - oldest(&groups[0]).await;
        assert!(kept * PAYLOAD_BYTES as u64 > RETAIN_BYTES / 5 && kept < MESSAGES / 2, "{kept} messages kept");
    };
    tokio::time::timeout(HANGS_AFTER, counted).await.expect("it hangs");
}
