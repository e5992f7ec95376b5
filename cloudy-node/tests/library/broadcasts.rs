//! Broadcasts, their receipts, and their delays.

use std::time::Duration;

use cloudy_node::{Approval, BroadcastError, FlushError, Group, GroupConfig, Index, OnFailure, Seq, ViewId};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::common::{create, impatient, key, read, start_all, until, within};
use crate::help::{config, linked, start_cuttable, texts};

#[tokio::test]
async fn a_receipt_gives_the_index_and_the_time_of_each_confirmation() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "receipts", GroupConfig::default()).await;
    let mut receipts = Vec::new();
    for at in 0..50 {
        receipts.push(groups[1].broadcast(format!("{at}")).await.unwrap());
    }
    let result = read(&groups[2], 1, 50).await;
    let members: Vec<_> =
        groups[0].status().await.unwrap().view.unwrap().ring.iter().map(|member| member.node).collect();
    for (at, receipt) in receipts.into_iter().enumerate() {
        let id = receipt.id();
        let Approval { id: approved, index, view, confirmed, durability, .. } =
            within("the approval", receipt.into_future()).await.unwrap();
        assert_eq!(durability, cloudy_node::Durability::Memory);
        assert_eq!((id, approved.seq, view), (approved, Seq(at as u64 + 1), ViewId(1)));
        assert_eq!(result[index.0 as usize - 1].id, id);
        assert_eq!(result[index.0 as usize - 1].payload, at.to_string());
        assert_eq!(confirmed.iter().map(|(node, _)| *node).collect::<Vec<_>>(), members);
        let (own, others): (Vec<_>, Vec<_>) = confirmed.iter().partition(|(node, _)| *node == groups[1].node_id());
        assert!(others.iter().all(|(_, after)| *after > own[0].1), "{confirmed:?}");
    }
}

#[tokio::test]
async fn a_receipt_that_is_dropped_withdraws_nothing_and_flush_waits_for_all() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "flush", GroupConfig::default()).await;
    groups[0].flush().await.unwrap();
    for at in 0..2_000 {
        drop(groups[at % 3].broadcast(format!("{at}")).await.unwrap());
    }
    within("the flush", join_all(groups.iter().map(|group| group.flush())))
        .await
        .into_iter()
        .for_each(|flushed| flushed.unwrap());
    let first = read(&groups[0], 1, 2_000).await;
    assert!(groups.iter().all(|group| group.outbox_payloads() == 0));
    for group in &groups {
        assert_eq!(read(group, 1, 2_000).await, first);
        // In the order of their broadcasting.
        let own = first.iter().filter(|message| message.id.origin == group.node_id());
        let numbers: Vec<usize> =
            own.map(|message| String::from_utf8_lossy(&message.payload).parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers.len() > 600);
    }
}

/// Bounded by the caller, the waits for a full outbox take neither a payload nor a sequence number.
async fn cancelled_waits_consume_nothing(group: &Group) {
    let (payloads, soon) = (group.outbox_payloads(), Duration::from_millis(10));
    for _ in 0..3 {
        assert!(tokio::time::timeout(soon, group.broadcast("given up")).await.is_err());
        assert!(tokio::time::timeout(soon, group.capacity()).await.is_err());
        assert!(tokio::time::timeout(soon, group.outbox_below(payloads)).await.is_err());
    }
    assert_eq!(group.outbox_payloads(), payloads);
}

#[tokio::test]
async fn a_full_outbox_is_reported_or_awaited_while_a_member_does_not_confirm() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (silent, control) = start_cuttable(&key, impatient()).await;
    nodes.push(silent);
    let mut small = config(|parameters| {
        parameters.window_slots = 1;
        parameters.on_failure = OnFailure::Wait;
    });
    small.outbox_bytes_max = 100;
    let groups = create(&nodes, "full", small).await;
    drop(groups[0].broadcast("before").await.unwrap());
    until("the next round of the one to be cut off is known to be skipped", async || {
        let members = groups[1].status().await.unwrap().members;
        members.iter().any(|member| member.node == nodes[2].id() && member.frontier > 1)
    })
    .await;
    join_all(groups.iter().map(|group| read(group, 1, 1))).await;

    control.partition(nodes[..2].iter().map(|node| node.local_addr()));
    let mut taken = 1;
    while let Ok(receipt) = groups[0].try_broadcast([b'x'; 20]) {
        drop(receipt);
        taken += 1;
        // The window takes one slot, the outbox five payloads: more cannot be.
        assert!(taken < 20, "nothing stops it");
        tokio::task::yield_now().await;
    }
    assert_eq!(groups[0].try_broadcast("y").unwrap_err(), BroadcastError::OutboxFull);
    let mut waiting = Box::pin(groups[0].broadcast("waits"));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(groups[0].capacity().now_or_never().is_none());
    assert!(groups[0].flush().now_or_never().is_none());
    cancelled_waits_consume_nothing(&groups[0]).await;
    let late = groups[0].flush().timeout(Duration::from_millis(50)).await.unwrap_err();
    let FlushError::TimedOut(late) = late else { panic!("{late}") };
    assert!(late.to_string().starts_with(&format!("{} broadcasts of this node", taken - 1)), "{late}");

    // The pending table names who is waited for, and so does the result's cursor.
    until("the pending table shows it", async || {
        let status = groups[0].status().await.unwrap();
        status.pending.first().is_some_and(|slot| slot.waits_for == [nodes[2].id()])
    })
    .await;
    let status = groups[0].status().await.unwrap();
    assert_eq!(status.pending_slots, 1);
    assert_eq!((status.pending[0].first_seq, status.index), (Seq(2), Index(1)));
    assert_eq!(1 + u64::from(status.pending[0].count) + groups[0].outbox_payloads(), taken);
    // The other member waits for the approval of its slot.
    until("the other sees whom it waits for", async || {
        groups[1].status().await.unwrap().waits_for.is_some_and(|waiting| waiting.node == nodes[0].id())
    })
    .await;
    let waiting_for = groups[1].status().await.unwrap().waits_for.unwrap();
    assert_eq!(waiting_for.index, Index(2));
    until("its link is seen as down", async || !linked(&groups[0], nodes[2].id()).await).await;
    assert!(waiting.as_mut().now_or_never().is_none());

    control.heal();
    let receipt = within("there is room again", waiting).await.unwrap();
    assert_eq!(receipt.id().seq, Seq(taken + 1), "the ones that were given up have used a number");
    within("it is approved", receipt.into_future()).await.unwrap();
    within("the flush", groups[0].flush()).await.unwrap();
    let results = join_all(groups.iter().map(|group| read(group, 1, taken as usize + 1))).await;
    assert!(results.iter().all(|result| *result == results[0]));
    assert_eq!(texts(&results[0]).last().unwrap(), "waits");
    assert!(linked(&groups[0], nodes[2].id()).await);
}

#[tokio::test]
async fn payloads_have_any_size_up_to_the_bound() {
    const MIB: usize = 1 << 20;
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "sizes", GroupConfig::default()).await;
    let slot_bytes = groups[0].status().await.unwrap().view.unwrap().parameters.slot_bytes_max as usize;
    // The payload, or the body with its length of three bytes, fills a slot exactly.
    let sizes = [0, 1, 127, 128, slot_bytes - 3, slot_bytes - 2, slot_bytes, MIB, 16 * MIB, 0];
    let payload = |at: usize| (0..sizes[at]).map(|byte| (byte + at) as u8).collect::<Vec<u8>>();
    let mut receipts = Vec::new();
    for at in 0..sizes.len() {
        receipts.push(groups[at % 3].broadcast(payload(at)).await.unwrap());
    }
    let large = groups[0].broadcast(vec![0; 16 * MIB + 1]).await.unwrap_err();
    assert_eq!(large, BroadcastError::TooLarge { bytes: 16 * MIB + 1, bytes_max: 16 * MIB });
    let mut indexes = Vec::new();
    for receipt in receipts {
        indexes.push(within("the approval", receipt.into_future()).await.unwrap().index);
    }
    for group in &groups {
        let result = read(group, 1, sizes.len()).await;
        for (at, index) in indexes.iter().enumerate() {
            assert!(result[index.0 as usize - 1].payload == payload(at), "of {} bytes", sizes[at]);
        }
    }
}

#[tokio::test]
async fn a_group_may_take_small_payloads_only() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "small", config(|parameters| parameters.payload_bytes_max = 10)).await;
    for group in &groups {
        assert_eq!(group.try_broadcast([0; 11]).unwrap_err(), BroadcastError::TooLarge { bytes: 11, bytes_max: 10 });
        let receipt = group.try_broadcast([0; 10]).unwrap();
        // A refused payload uses no number.
        assert_eq!(receipt.id().seq, Seq(1));
        within("the approval", receipt.into_future()).await.unwrap();
    }
}
