//! The part of a stored result that a node reads when it starts costs as much as `retain_bytes` allows, for any length
//! of the result: counted by the allocator, in a separate binary.

use std::alloc::System;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloudy_node::DataDir;
use cloudy_node::internals::STORE_CACHE_BYTES;
use cloudy_node::{ApprovedItem, ClusterKey, Durability, Group, GroupConfig, Index, Node, Parameters};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RETAIN_BYTES: u64 = 4 << 20;
const PAYLOAD_BYTES: usize = 256 << 10;
/// All of them are much larger than the store's cache, and than the retained part.
const MESSAGES: u64 = 640;
/// The size of one read with its copies, and the node's other memory.
const UNDER_WAY_BYTES: u64 = 24 << 20;
/// Against hanging: far above the test's usual time.
const HANGS_AFTER: Duration = Duration::from_secs(120);

async fn start(key: &ClusterKey, path: &Path) -> Node {
    let data_dir = DataDir::open(path, true).unwrap();
    let identity = data_dir.identity(key).unwrap();
    Node::builder().identity(identity).data_dir(data_dir).start().await.unwrap()
}

/// The most that was allocated at any time until it is stopped.
fn watch_most(stop: &AtomicBool) -> u64 {
    let region = Region::new(ALLOCATOR);
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        let change = region.change();
        most = most.max(change.bytes_allocated.saturating_sub(change.bytes_deallocated) as u64);
        std::thread::yield_now();
    }
    most
}

async fn reads_all(group: &Group) {
    let mut approved = group.approved_from(Index(1));
    let mut count = 0;
    while count < MESSAGES {
        if let ApprovedItem::Batch(entry) = approved.next_batch().await.unwrap().unwrap() {
            assert_eq!(entry.first_index, Index(count + 1));
            count += u64::from(entry.batch.count);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_with_no_more_of_a_stored_result_than_it_retains() {
    let counted = async {
        let (key, data) = (ClusterKey::generate().unwrap(), TempDir::new().unwrap());
        let node = start(&key, data.path()).await;
        let parameters = Parameters::default().durability(Durability::Disk);
        let small = GroupConfig::default().parameters(parameters).retain_bytes(RETAIN_BYTES);
        let group = node.create_group("large", 1, small).await.unwrap();
        for at in 0..MESSAGES {
            let receipt = group.broadcast(vec![at as u8; PAYLOAD_BYTES]).await.unwrap();
            receipt.await.unwrap();
        }
        node.shutdown().await;
        drop((group, node));
        let stop = Arc::new(AtomicBool::new(false));
        let most = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || watch_most(&stop)
        });
        let node = start(&key, data.path()).await;
        stop.store(true, Ordering::Relaxed);
        let most = most.join().unwrap();
        // For members and for readers, before they share it.
        let allowed = STORE_CACHE_BYTES as u64 + 2 * RETAIN_BYTES + UNDER_WAY_BYTES;
        assert!(allowed < MESSAGES * PAYLOAD_BYTES as u64, "the test shows nothing");
        assert!(most < allowed, "{most} bytes, {allowed} allowed");
        reads_all(&node.resumed_groups()[0]).await;
    };
    tokio::time::timeout(HANGS_AFTER, counted).await.expect("it hangs");
}
