//! Memory that one peer of the cluster can make a node hold: counted by the allocator, in a separate binary.

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "of what other tests share, this needs a part")]
mod common;
#[path = "../bounds/hostile.rs"]
#[allow(dead_code, reason = "of what other tests share, this needs a part")]
mod hostile;

use std::alloc::System;
use std::time::Duration;

use bytes::Bytes;
use cloudy_node::{Group, GroupConfig, GroupId, Incarnation, Index, ViewId};
use cloudy_proto::wire::{ControlFrame, Fetch, Stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Mutex;

use crate::common::{create, key, start, start_all, within};
use crate::hostile::{BREACH, Hostile, closed, control, header, hello, open};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One test at a time counts.
static COUNTED: Mutex<()> = Mutex::const_new(());
const MIB: usize = 1 << 20;

/// The bytes allocated in the whole process since the region began.
fn live_bytes(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

#[tokio::test]
async fn unfinished_frames_use_at_most_the_limit_of_one_connection() {
    let _counted = COUNTED.lock().await;
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    let (connection, _node_stream) = hostile.link(target.local_addr()).await;
    let region = Region::new(ALLOCATOR);
    // Each promises 2 MiB, and does not say its last byte.
    let piece = Bytes::from(vec![1; 64 << 10]);
    let mut streams = Vec::new();
    for _ in 0..64 {
        let bytes = [&header(GroupId([7; 16]), Incarnation(0), Stream::Control)[..], &(2_u32 << 20).to_le_bytes()];
        streams.push(open(&connection, &bytes.concat()).await);
    }
    let (mut peak, mut sent) = (0, 0);
    'flood: for _ in 0..255 {
        for stream in &mut streams {
            if within("the node reads", stream.write_chunk(piece.clone())).await.is_err() {
                break 'flood;
            }
            sent += piece.len();
            peak = peak.max(live_bytes(&region));
        }
    }
    let (code, words) = closed(&connection).await;
    assert!(code == BREACH && words.contains("bytes of unfinished frames"), "{code} {words}");
    // The window, as much again and a frame; allocations are up to twice the arrived bytes. The sender shares its
    // pieces.
    assert!(peak < 100 * MIB, "{} MiB were live, after {} MiB", peak / MIB, sent / MIB);
    assert!(sent < 80 * MIB, "{} MiB were taken", sent / MIB);
}

/// A group of two with some megabytes of result.
async fn group_with_result(nodes: &[cloudy_node::Node]) -> Vec<Group> {
    let groups = create(nodes, "ours", GroupConfig::default()).await;
    let mut receipts = Vec::new();
    for _ in 0..256 {
        receipts.push(groups[0].broadcast(vec![9; 32 << 10]).await.unwrap());
    }
    for receipt in receipts {
        within("the approval", receipt.into_future()).await.unwrap();
    }
    groups
}

#[tokio::test]
async fn a_peer_that_requests_without_reading_costs_little_and_delays_no_member() {
    let _counted = COUNTED.lock().await;
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = group_with_result(&nodes).await;
    let hostile = Hostile::new(&key);
    let region = Region::new(ALLOCATOR);
    let connection = hostile.connect_stingily(nodes[0].local_addr(), 64, 1_000).await;
    let _node_stream = hello(&connection).await;
    // Everything again and again: a hundred bytes of questions for each answer of 64 KiB, on many streams.
    let questions = [
        ControlFrame::Fetch(Fetch { number: 1, from: Index(1), credit: u64::MAX, ..Fetch::default() }),
        ControlFrame::Follow {
            next: cloudy_proto::LogIndex(1),
            voter: cloudy_proto::ConsensusId(0),
            level: cloudy_node::WIRE_VERSION,
        },
        ControlFrame::Join {
            run: 1,
            observer: true,
            result: cloudy_proto::Checkpoint::default(),
            level: cloudy_node::WIRE_VERSION,
        },
        ControlFrame::Fetch(Fetch { number: 2, from: Index(1), credit: u64::MAX, ..Fetch::default() }),
    ];
    let questions: Vec<u8> = questions.iter().flat_map(|question| control(question).to_vec()).collect();
    let questions = questions.repeat(1_000);
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut stream = open(&connection, &header(groups[0].id(), Incarnation(0), Stream::Control)).await;
        let questions = questions.clone();
        floods.spawn(async move {
            while stream.write_all(&questions).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
    }
    let (mut peak, mut slowest) = (0, Duration::ZERO);
    for at in 0..300_u32 {
        let began = tokio::time::Instant::now();
        let receipt = groups[at as usize % 2].broadcast(at.to_le_bytes()).await.unwrap();
        within("the approval", receipt.into_future()).await.unwrap();
        (peak, slowest) = (peak.max(live_bytes(&region)), slowest.max(began.elapsed()));
    }
    assert!(peak < 64 * MIB, "{} MiB were live", peak / MIB);
    for group in &groups {
        assert_eq!(group.status().await.unwrap().view.unwrap().id, ViewId(1), "no member was evicted");
    }
    assert_eq!(connection.close_reason(), None, "it is let wait");
    floods.shutdown().await;
    println!("peak {} MiB, slowest approval {slowest:?}", peak / MIB);
}
