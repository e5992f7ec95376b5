//! A message costs no separate allocation on its way from a broadcast to a reader, only a share in those of its slot
//! and packets: counted by the allocator in the whole process, so in a separate binary.

use std::alloc::System;
use std::time::Duration;

use cloudy_node::{Approved, ApprovedItem, ClusterKey, Group, GroupConfig, Index, Node, payload_slices};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PAYLOAD: [u8; 8] = [7; 8];
/// Messages broadcast before anything is awaited: a few slots.
const BURST: u64 = 4_000;
const WARM_UP_BURSTS: u64 = 5;
const BURSTS: u64 = 20;
/// Maximum allocations of a broadcast for its caller, and of a message for its reader: their share in the cost of a
/// slot.
const CALL_MAX: f64 = 0.005;
/// Maximum allocations of a message in the whole process, links, QUIC and both nodes: the share in the cost of packets,
/// hundreds of messages each.
const ALL_MAX: f64 = 0.05;
/// Against hanging: far above the test's usual time.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Two members in this process, and their readers.
struct Pair {
    groups: [Group; 2],
    readers: [Approved; 2],
    _nodes: [Node; 2],
}

/// Allocations of the caller's own steps; no other task runs between them.
#[derive(Default)]
struct Calls {
    broadcasting: usize,
    reading: usize,
}

fn allocations(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

impl Pair {
    async fn start() -> Self {
        let key = ClusterKey::generate().unwrap();
        let nodes = [
            Node::builder().cluster_key(&key).start().await.unwrap(),
            Node::builder().cluster_key(&key).start().await.unwrap(),
        ];
        let (creator, joiner) = tokio::join!(
            nodes[0].create_group("counted", 2, GroupConfig::default()),
            nodes[1].join_group_at("counted", nodes[0].local_addr())
        );
        let groups = [creator.unwrap(), joiner.unwrap()];
        let readers = [groups[0].approved_from(Index(1)), groups[1].approved_from(Index(1))];
        Self { groups, readers, _nodes: nodes }
    }

    /// Both broadcast a burst, and read the result.
    async fn burst(&mut self, calls: &mut Calls) {
        let region = Region::new(ALLOCATOR);
        for _ in 0..BURST {
            for group in &self.groups {
                drop(group.try_broadcast(PAYLOAD).unwrap());
            }
        }
        calls.broadcasting += allocations(&region);
        for group in &self.groups {
            group.flush().await.unwrap();
        }
        for reader in &mut self.readers {
            let mut left = 2 * BURST;
            while left > 0 {
                left -= read(reader, calls).await;
            }
        }
    }
}

/// Reads a batch, and counts its payloads.
async fn read(reader: &mut Approved, calls: &mut Calls) -> u64 {
    let Some(Ok(ApprovedItem::Batch(entry))) = reader.next_batch().await else { return 0 };
    let region = Region::new(ALLOCATOR);
    let payloads = payload_slices(&entry.batch.body).filter(|payload| *payload == PAYLOAD).count();
    calls.reading += allocations(&region);
    payloads as u64
}

#[tokio::test]
async fn messages_cost_no_allocation_of_their_own() {
    let counted = async {
        let mut pair = Pair::start().await;
        for _ in 0..WARM_UP_BURSTS {
            pair.burst(&mut Calls::default()).await;
        }
        let (region, mut calls) = (Region::new(ALLOCATOR), Calls::default());
        for _ in 0..BURSTS {
            pair.burst(&mut calls).await;
        }
        let messages = (BURSTS * 2 * BURST) as f64;
        let shares = [
            ("the callers of broadcast", calls.broadcasting, CALL_MAX),
            ("the readers, iterating", calls.reading, CALL_MAX),
            ("the whole process", allocations(&region), ALL_MAX),
        ];
        for (who, count, most) in shares {
            let each = count as f64 / messages;
            println!("{who}: {each:.5} allocations a message");
            assert!(each < most, "{who}: {each} allocations a message, at most {most}");
        }
    };
    tokio::time::timeout(HANGS_AFTER, counted).await.expect("it hangs");
}
