//! Every outcome can be learned: outcomes by name, deadlines, leaving, and the member that delays the group.

use std::time::Duration;

use cloudy_node::{BroadcastError, EndReason, Event, GroupConfig, MessageId, OnFailure, Outcome, ReceiptError, Seq};

use crate::common::{create, impatient, key, read, read_final, start_all, until, within};
use crate::help::{config, event, start_cuttable, texts};

#[tokio::test]
async fn any_member_answers_for_an_outcome_by_message_id() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (cut_off, control) = start_cuttable(&key, impatient()).await;
    nodes.push(cut_off);
    let groups = create(&nodes, "asked", GroupConfig::default()).await;
    let first = groups[2].broadcast("first").await.unwrap();
    let id = first.id();
    within("the approval", first.into_future()).await.unwrap();
    for group in &groups {
        within("every member has it", read(group, 1, 1)).await;
        assert_eq!(group.outcome(id).await, Ok(Outcome::Approved));
    }
    until("all vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    control.partition(nodes[..2].iter().map(|node| node.local_addr()));
    let second = groups[2].broadcast("second").await.unwrap();
    let late = second.timeout(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(late, ReceiptError::Late { id: second.id(), waited: Duration::from_millis(20) });
    assert!(late.to_string().contains("outcome"), "{late}");
    assert_eq!(groups[2].outcome(second.id()).await, Ok(Outcome::Open));
    // The others go on without it, and it may still come back: its run is not over.
    event(&groups[0], "it is evicted", |event| matches!(event, Event::Silent { .. }).then_some(())).await;
    assert_eq!(groups[0].outcome(second.id()).await, Ok(Outcome::Open));
    control.heal();
    let approval = within("the approval", second.into_future()).await.unwrap();
    assert_eq!(approval.index.0, 2, "sent again under its name, once");
    let never = MessageId { seq: Seq(3), ..approval.id };
    groups[0].end();
    for group in &groups {
        assert_eq!(texts(&read_final(group).await), ["first", "second"]);
        assert_eq!(group.outcome(approval.id).await, Ok(Outcome::Approved), "also when the group is over");
        assert_eq!(group.outcome(never).await, Ok(Outcome::Rejected));
    }
}

#[tokio::test]
async fn a_member_leaves_without_a_timeout_and_others_take_over() {
    let nodes = start_all(&key(), 4).await;
    // No member ever fails by a timeout.
    let patient = config(|parameters| parameters.on_failure = OnFailure::Wait);
    let groups = create(&nodes, "leaves", patient).await;
    // The creator coordinates, and goes first.
    for (leaver, rest) in [(0, 1..4), (1, 2..4), (2, 3..4)] {
        let last = groups[leaver].broadcast(format!("{leaver} goes")).await.unwrap();
        within("the leaving", groups[leaver].leave()).await.unwrap();
        let last = within("the receipt", last.into_future()).await.unwrap();
        let never = MessageId { seq: Seq(last.id.seq.0 + 1), ..last.id };
        assert_eq!(groups[leaver].broadcast("x").await.unwrap_err(), BroadcastError::Ended(EndReason::Left));
        for group in &groups[rest] {
            let gone = nodes[leaver].id();
            until("the others know", async || {
                let status = group.status().await.unwrap();
                status.members.iter().all(|member| member.node != gone) && status.coordinator.is_some()
            })
            .await;
            assert_eq!(group.outcome(last.id).await, Ok(Outcome::Approved));
            until("it is over", async || group.outcome(never).await == Ok(Outcome::Rejected)).await;
            within("it continues", group.broadcast("more").await.unwrap().into_future()).await.unwrap();
        }
    }
    within("the last one ends the group", groups[3].leave()).await.unwrap();
    let result = texts(&read_final(&groups[3]).await);
    let left: Vec<&String> = result.iter().filter(|text| text.ends_with("goes")).collect();
    assert_eq!(left, ["0 goes", "1 goes", "2 goes"]);
    assert_eq!(result.len(), 3 + 3 + 2 + 1);
}

#[tokio::test]
async fn a_stalling_member_is_named_and_the_minimum_ring_is_kept() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (cut_off, control) = start_cuttable(&key, impatient()).await;
    nodes.push(cut_off);
    let groups = create(&nodes, "least", config(|parameters| parameters.ring_min = 3)).await;
    until("all vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    control.partition(nodes[..2].iter().map(|node| node.local_addr()));
    let waits = groups[0].broadcast("waits").await.unwrap();
    let waiting = event(&groups[1], "it is named", |event| match event {
        Event::Waits(waiting) => Some(waiting),
        _ => None,
    });
    let waiting = waiting.await;
    // By their ranks: the approval of a slot that one member does not confirm, or that one's own slot.
    let may_wait_for = [nodes[0].id(), nodes[2].id()];
    assert!(waiting.index.0 == 1 && may_wait_for.contains(&waiting.node), "{waiting:?}");
    let pending = groups[0].status().await.unwrap().pending;
    assert_eq!(pending[0].waits_for, [nodes[2].id()]);
    // Two are too few: approvals wait, for any time.
    until("the least ring is named as what the group waits for", async || {
        let waiting = groups[0].status().await.unwrap().waits_for;
        waiting.is_some_and(|waiting| {
            waiting.least_ring.map(|ring| (ring.in_reach, ring.ring_min)) == Some((2, 3))
                && waiting.node == nodes[2].id()
        })
    })
    .await;
    let waiting = groups[0].status().await.unwrap().waits_for.unwrap();
    assert!(waiting.to_string().contains("2 members are in reach and ring_min is 3"), "{waiting}");
    let late = waits.timeout(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(late, ReceiptError::Late { .. }), "{late}");
    assert_eq!(groups[0].status().await.unwrap().view.unwrap().id.0, 1);
    control.heal();
    within("the approval", waits.into_future()).await.unwrap();
    let waiting = groups[0].status().await.unwrap().waits_for;
    assert!(waiting.is_none_or(|waiting| waiting.least_ring.is_none()), "{waiting:?}");
}
