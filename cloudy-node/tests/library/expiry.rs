//! Broadcasts that expire.

use std::time::Duration;

use cloudy_node::{BroadcastError, Group, GroupConfig, OnFailure, RingKind, Seq};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::common::{Message, create, impatient, key, read, start_all, within};
use crate::help::{config, start_cuttable, texts};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(300);

/// Fills the window of a node. Returns the number of messages that it took.
async fn fill(group: &Group) -> usize {
    let mut filled = 0;
    while group.broadcast_within("fills the window", Duration::from_millis(100)).await.is_ok() {
        filled += 1;
    }
    filled
}

#[tokio::test]
async fn a_payload_that_expires_while_the_group_waits_for_a_member_is_in_no_result() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (silent, control) = start_cuttable(&key, impatient()).await;
    nodes.push(silent);
    let waits = config(|parameters| {
        (parameters.window_slots, parameters.slot_payloads_max) = (4, 1);
        parameters.on_failure = OnFailure::Wait;
    });
    let groups = create(&nodes, "expiry", waits).await;
    let first = groups[0].broadcast_within("first", LONG).await.unwrap();
    within("it is approved", first.into_future()).await.unwrap();
    control.partition(nodes[..2].iter().map(|node| node.local_addr()));

    let payloads: Vec<String> = (0..200).map(|at| format!("{at}")).collect();
    let soon = Duration::from_millis(100);
    let sent = join_all(payloads.iter().map(|payload| groups[0].broadcast_within(payload, soon))).await;
    let (mut expected, mut expired) = (vec!["first".to_owned()], Vec::new());
    for (payload, sent) in payloads.iter().zip(sent) {
        match sent {
            Ok(receipt) => {
                // It is in a slot: its outcome is unknown, and it stays so.
                assert!(receipt.now_or_never().is_none());
                expected.push(payload.clone());
            }
            Err(error) => {
                assert_eq!(error, BroadcastError::Expired { waited: soon });
                assert!(error.to_string().contains("is in no result"), "{error}");
                expired.push(payload.clone());
            }
        }
    }
    assert!(!expired.is_empty(), "the window took all of them");
    assert_eq!(groups[0].outbox_payloads(), 0, "they wait without numbers");

    // A later broadcast waits for those before it, and not for those after it.
    let mut before = Box::pin(groups[0].broadcast_within("dropped", LONG));
    assert!(before.as_mut().now_or_never().is_none());
    let mut plain = Box::pin(groups[0].broadcast("plain"));
    assert!(plain.as_mut().now_or_never().is_none());
    assert_eq!(groups[0].try_broadcast("jumps the queue").unwrap_err(), BroadcastError::OutboxFull);
    let mut after = Box::pin(groups[0].broadcast_within("after", LONG));
    assert!(after.as_mut().now_or_never().is_none());
    drop(before);
    let plain = within("nothing is before it", plain).await.unwrap();
    assert_eq!(plain.id().seq, Seq(expected.len() as u64 + 1), "no payload that was withdrawn has used a number");
    expected.extend(["plain".to_owned(), "after".to_owned()]);

    // A node that leaves, or is shut down, withdraws them.
    let filled = fill(&groups[1]).await;
    let mut leaving = Box::pin(groups[1].broadcast_within("left", LONG));
    assert!(leaving.as_mut().now_or_never().is_none());
    assert!(groups[1].leave_within(Duration::ZERO).await.is_err());
    assert_eq!(within("it is withdrawn", leaving).await.unwrap_err(), BroadcastError::Leaving);

    control.heal();
    within("it is sent", after).await.unwrap().await.unwrap();
    within("the flush", groups[0].flush()).await.unwrap();
    for group in [&groups[0], &groups[2]] {
        let result = read(group, 1, expected.len() + filled).await;
        let own: Vec<Message> = result.into_iter().filter(|message| message.id.origin == groups[0].node_id()).collect();
        assert_eq!(texts(&own), expected);
    }
    let mut closed = Box::pin(groups[2].broadcast_within("closed", Duration::ZERO));
    nodes[2].shutdown().await;
    let error = within("it ends", closed.as_mut()).await.unwrap_err();
    assert!(matches!(error, BroadcastError::Ended(_)), "{error}");
}

#[tokio::test]
async fn payloads_that_expire_get_the_turn_of_an_idle_ring_and_share_slots() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "turns", config(|parameters| parameters.ring = RingKind::Token)).await;
    // Two of them do not hold the turn.
    for group in groups.iter().rev() {
        let sent = within("it gets the turn", group.broadcast_within("alone", LONG)).await.unwrap();
        within("the approval", sent.into_future()).await.unwrap();
    }
    let pipelined = create(&nodes, "slots", GroupConfig::default()).await;
    let sent = join_all((0..2_000).map(|at| pipelined[0].broadcast_within(format!("{at}"), LONG)));
    let sent = within("all are sent", sent).await;
    assert!(sent.into_iter().all(|sent| sent.is_ok()));
    let result = texts(&read(&pipelined[1], 1, 2_000).await);
    assert_eq!(result, (0..2_000).map(|at| format!("{at}")).collect::<Vec<_>>(), "in the order of the calls");
}
