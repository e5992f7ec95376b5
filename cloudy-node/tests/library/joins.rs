//! Nodes come into groups that run: newcomers, restarted processes, observers (`protocol.md` §7).

use std::time::Duration;

use cloudy_node::NodeKey;
use cloudy_node::{
    ApprovedError, ApprovedItem, BroadcastError, ClusterKey, EndReason, Event, Group, GroupConfig, Identity, Index,
    JoinError, Node,
};
use cloudy_proto::wire::COUNTER_MAX;
use tokio::task::JoinHandle;

use crate::common::{Message, create, key, messages, read_final, start, start_all, until, within};
use crate::help::{config, event, texts};

/// Of a wait whose end is not waited for.
const SOON: Duration = Duration::from_millis(300);

/// Broadcasts until it is stopped; returns the number.
fn load(group: &Group, name: &str) -> JoinHandle<usize> {
    let (group, name) = (group.clone(), name.to_owned());
    tokio::spawn(async move {
        let mut sent = 0;
        while group.broadcast(format!("{name} {sent}")).await.is_ok() {
            sent += 1;
            if sent % 16 == 0 {
                // Other tasks run in between.
                tokio::task::yield_now().await;
            }
        }
        sent
    })
}

async fn members(group: &Group) -> usize {
    group.status().await.and_then(|status| status.view).map_or(0, |view| view.members())
}

async fn all_have_members(groups: &[Group], count: usize) {
    until("all are on the ring", async || {
        for group in groups {
            if members(group).await != count {
                return false;
            }
        }
        true
    })
    .await;
}

/// Waits until the loss of any one is survived.
pub(crate) async fn three_vote(groups: &[Group]) {
    until("three vote", async || {
        for group in groups {
            if group.status().await.expect("the group lives").voters.len() != 3 {
                return false;
            }
        }
        true
    })
    .await;
}

/// Waits until a result has grown by so much.
async fn grows(group: &Group, by: u64) {
    let from = group.status().await.expect("the group lives").index;
    until("the result grows", async || group.status().await.is_some_and(|status| status.index.0 >= from.0 + by)).await;
}

async fn final_checkpoint(group: &Group) -> cloudy_node::Checkpoint {
    event(group, "the final result", |event| match event {
        Event::Final { result } => Some(result),
        _ => None,
    })
    .await
}

/// Ends the group, and checks that all have the same result from index 1 on.
async fn end_equal(groups: &[Group]) -> Vec<Message> {
    groups[0].end();
    let first = read_final(&groups[0]).await;
    assert!(first.iter().enumerate().all(|(at, message)| message.index.0 == at as u64 + 1));
    for group in &groups[1..] {
        assert!(read_final(group).await == first, "the results differ");
        assert_eq!(final_checkpoint(group).await, final_checkpoint(&groups[0]).await);
    }
    first
}

fn of(result: &[Message], group: &Group) -> usize {
    result.iter().filter(|message| message.id.origin == group.node_id()).count()
}

pub(crate) async fn restart(key: &ClusterKey, node_key: &NodeKey) -> Node {
    Node::builder().identity(Identity::with_node_key(key, node_key).unwrap()).start().await.unwrap()
}

#[tokio::test]
async fn a_fourth_node_joins_under_load_by_any_member() {
    let key = key();
    let nodes = start_all(&key, 3).await;
    let mut groups = create(&nodes, "grows", GroupConfig::default()).await;
    let loads: Vec<_> = groups.iter().zip(["a", "b", "c"]).map(|(group, name)| load(group, name)).collect();
    grows(&groups[0], 1_000).await;
    // The creator coordinates, and another node is asked.
    let late = start(&key).await;
    let joined = within("it joins", late.join_group_at("grows", nodes[2].local_addr())).await.unwrap();
    assert_eq!((joined.creator(), joined.id()), (nodes[0].id(), groups[0].id()));
    groups.push(joined);
    all_have_members(&groups, 4).await;
    let approval = within("its own is approved", groups[3].broadcast("d").await.unwrap().into_future()).await.unwrap();
    assert!(approval.index.0 > 1_000 && approval.id.incarnation.0 > 0);
    grows(&groups[3], 1_000).await;
    let result = end_equal(&groups).await;
    assert_eq!(of(&result, &groups[3]), 1);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_killed_and_restarted_process_rejoins_as_a_new_incarnation() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let node_key = NodeKey::generate().unwrap();
    nodes.push(restart(&key, &node_key).await);
    let mut groups = create(&nodes, "again", GroupConfig::default()).await;
    let before = groups.pop().unwrap();
    let old = within("it is approved", before.broadcast("before").await.unwrap().into_future()).await.unwrap();
    let loads: Vec<_> = groups.iter().zip(["a", "b"]).map(|(group, name)| load(group, name)).collect();
    for round in 0..3 {
        nodes.pop().unwrap().shutdown().await;
        // At once: the others have not missed it yet.
        nodes.push(restart(&key, &node_key).await);
        let back = within("it joins", nodes[2].join_group_at("again", nodes[1].local_addr())).await.unwrap();
        assert_eq!(back.node_id(), node_key.node_id());
        let own = back.broadcast(format!("run {round}")).await.unwrap();
        let approval = within("it is approved", own.into_future()).await.unwrap();
        assert!(approval.id.incarnation > old.id.incarnation && approval.id.seq.0 == 1, "a run of its own");
        if round == 2 {
            groups.push(back);
        }
    }
    all_have_members(&groups, 3).await;
    let result = end_equal(&groups).await;
    let own: Vec<Message> = result.into_iter().filter(|message| message.id.origin == node_key.node_id()).collect();
    assert_eq!(texts(&own), ["before", "run 0", "run 1", "run 2"]);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_restarted_creator_rejoins_as_a_member() {
    let key = key();
    let node_key = NodeKey::generate().unwrap();
    let mut nodes = vec![restart(&key, &node_key).await];
    nodes.extend(start_all(&key, 2).await);
    let mut groups = create(&nodes, "creator", GroupConfig::default()).await;
    within("it is approved", groups[0].broadcast("first").await.unwrap().into_future()).await.unwrap();
    three_vote(&groups).await;
    nodes[0].shutdown().await;
    nodes[0] = restart(&key, &node_key).await;
    groups[0] = within("it joins", nodes[0].join_group_at("creator", nodes[2].local_addr())).await.unwrap();
    all_have_members(&groups, 3).await;
    within("it is approved", groups[0].broadcast("second").await.unwrap().into_future()).await.unwrap();
    assert_eq!(texts(&end_equal(&groups).await), ["first", "second"]);
}

#[tokio::test]
async fn a_join_continues_while_the_coordinator_is_killed() {
    let key = key();
    let nodes = start_all(&key, 4).await;
    let mut groups = create(&nodes, "headless", GroupConfig::default()).await;
    let loads: Vec<_> = groups[1..].iter().zip(["b", "c", "d"]).map(|(group, name)| load(group, name)).collect();
    grows(&groups[1], 200).await;
    three_vote(&groups).await;
    let late = start(&key).await;
    let kill = async {
        assert_eq!(groups[1].status().await.unwrap().coordinator, Some(nodes[0].id()));
        nodes[0].shutdown().await;
    };
    let (joined, ()) = tokio::join!(within("it joins", late.join_group_at("headless", nodes[1].local_addr())), kill);
    groups.remove(0);
    groups.push(joined.unwrap());
    all_have_members(&groups, 4).await;
    within("it is approved", groups[3].broadcast("late").await.unwrap().into_future()).await.unwrap();
    let result = end_equal(&groups).await;
    assert_eq!(of(&result, &groups[3]), 1);
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn many_join_at_once() {
    let key = key();
    let first = start(&key).await;
    let mut groups = create(std::slice::from_ref(&first), "many", GroupConfig::default()).await;
    let others = start_all(&key, 6).await;
    let joins = others.iter().map(|node| node.join_group_at("many", first.local_addr()));
    for joined in within("all join", futures_util::future::join_all(joins)).await {
        groups.push(joined.unwrap());
    }
    all_have_members(&groups, 7).await;
    for group in &groups {
        within("it is approved", group.broadcast("x").await.unwrap().into_future()).await.unwrap();
    }
    assert_eq!(end_equal(&groups).await.len(), 7);
}

#[tokio::test]
async fn an_observer_reads_all_messages_and_delays_no_member() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "seen", GroupConfig::default()).await;
    within("it is approved", groups[0].broadcast("first").await.unwrap().into_future()).await.unwrap();
    let observer = start(&key).await;
    let address = nodes[1].local_addr();
    let seen = within("it observes", observer.observe_group("seen", address, Index(1))).await.unwrap();
    let later = start(&key).await;
    let partly = within("it observes", later.observe_group("seen", address, Index(2))).await.unwrap();
    assert_eq!(seen.broadcast("x").await.unwrap_err(), BroadcastError::Observes);
    let loads: Vec<_> = groups.iter().zip(["a", "b"]).map(|(group, name)| load(group, name)).collect();
    grows(&seen, 1_000).await;
    until("it hears how far the members are", async || seen.progress().len() == 2).await;
    assert_eq!(members(&groups[0]).await, 2, "no member");
    // One that is gone is not missed.
    let third = start(&key).await;
    drop(within("it observes", third.observe_group("seen", address, Index(1))).await.unwrap());
    third.shutdown().await;
    grows(&groups[0], 1_000).await;
    let all = [&groups[..], std::slice::from_ref(&seen)].concat();
    let result = end_equal(&all).await;
    let mut rest = Vec::new();
    let mut approved = partly.approved_from(Index(2));
    while let Some(item) = within("the rest", approved.next_batch()).await {
        rest.extend(messages(item.unwrap()));
    }
    assert!(rest == result[1..], "from index 2 on");
    for load in loads {
        assert!(load.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn an_observer_outlives_the_coordinator_and_may_end_the_group() {
    let key = key();
    let nodes = start_all(&key, 3).await;
    let groups = create(&nodes, "outlived", GroupConfig::default()).await;
    let observer = start(&key).await;
    let address = nodes[0].local_addr();
    let seen = within("it observes", observer.observe_group("outlived", address, Index(1))).await.unwrap();
    three_vote(&groups).await;
    nodes[0].shutdown().await;
    within("it continues", groups[1].broadcast("on").await.unwrap().into_future()).await.unwrap();
    until("it is seen", async || seen.status().await.unwrap().index == Index(1)).await;
    until("another coordinates", async || seen.status().await.unwrap().coordinator.is_some()).await;
    seen.end();
    assert_eq!(texts(&read_final(&groups[1]).await), ["on"]);
    assert_eq!(texts(&read_final(&seen).await), ["on"]);
}

#[tokio::test]
async fn a_joiner_too_late_for_the_first_entries_gets_an_error_with_the_remedy() {
    let key = key();
    let node = start(&key).await;
    let small = GroupConfig::default().retain_bytes(1_000);
    let group = node.create_group("short", 1, small).await.unwrap();
    for at in 0..200 {
        within("it is approved", group.broadcast(format!("{at:020}")).await.unwrap().into_future()).await.unwrap();
    }
    let late = start(&key).await;
    let refused = within("the refusal", late.join_group_at("short", node.local_addr())).await.unwrap_err();
    let JoinError::Truncated { first, .. } = &refused else { panic!("{refused}") };
    assert!(first.0 > 100 && first.0 <= 200, "{refused}");
    assert!(refused.to_string().contains("raise retain_bytes"), "{refused}");
    // An observer may begin where there is something.
    let all = within("it observes", late.observe_group("short", node.local_addr(), Index(1))).await.unwrap();
    let mut approved = all.approved_from(Index(1));
    let ended = loop {
        match within("the end", approved.next_batch()).await {
            Some(Ok(ApprovedItem::View(_))) => {}
            other => break other,
        }
    };
    let Some(Err(ApprovedError::Ended(EndReason::Truncated { first }))) = ended else { panic!("{ended:?}") };
    let rest = within("it observes", late.observe_group("short", node.local_addr(), first)).await.unwrap();
    let read = crate::common::read(&rest, first.0, (201 - first.0) as usize).await;
    assert_eq!(read.last().unwrap().index, Index(200));
}

#[tokio::test]
async fn a_closed_group_accepts_only_its_former_members() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let node_key = NodeKey::generate().unwrap();
    nodes.push(restart(&key, &node_key).await);
    let mut groups = create(&nodes, "closed", config(|parameters| parameters.open = false)).await;
    let stranger = start(&key).await;
    for node in &nodes {
        let refused = within("the refusal", stranger.join_group_at("closed", node.local_addr())).await.unwrap_err();
        let JoinError::Refused { reason, .. } = &refused else { panic!("{refused}") };
        assert!(reason.contains("takes no newcomers"), "{refused}");
    }
    let unknown =
        within("the refusal", stranger.join_group_at("open", nodes[0].local_addr()).timeout(SOON)).await.unwrap_err();
    assert!(unknown.to_string().contains("is in no group"), "{unknown}");
    let creation = nodes[0].prepare_group("begins", GroupConfig::default()).await.unwrap();
    let early = stranger.observe_group("begins", nodes[0].local_addr(), Index(1)).timeout(SOON);
    let early = within("the refusal", early).await.unwrap_err();
    assert!(early.to_string().contains("has not begun"), "{early}");
    drop(creation);
    nodes[2].shutdown().await;
    nodes[2] = restart(&key, &node_key).await;
    groups[2] = within("it joins", nodes[2].join_group_at("closed", nodes[1].local_addr())).await.unwrap();
    all_have_members(&groups, 3).await;
    within("it is approved", groups[2].broadcast("back").await.unwrap().into_future()).await.unwrap();
    assert_eq!(texts(&end_equal(&groups).await), ["back"]);
}

#[tokio::test]
async fn an_index_that_no_result_can_have_is_refused_before_anything_is_sent() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let shared = create(&nodes, "shared", GroupConfig::default()).await;
    within("it is created", nodes[0].create_group("alone", 1, GroupConfig::default())).await.unwrap();
    let at = nodes[0].local_addr();
    for from in [COUNTER_MAX + 1, u64::MAX] {
        let refused = within("the refusal", nodes[1].observe_group("alone", at, Index(from))).await.unwrap_err();
        assert_eq!(refused, JoinError::NoSuchIndex { from: Index(from) });
    }
    // The largest one is none that costs the link, which the nodes' other group shares.
    let seen = within("it observes", nodes[1].observe_group("alone", at, Index(COUNTER_MAX))).await.unwrap();
    let datagrams = nodes[1].traffic().await.datagrams_sent;
    until("it asks for the result", async || nodes[1].traffic().await.datagrams_sent >= datagrams + 50).await;
    within("it is approved", shared[1].broadcast("on").await.unwrap().into_future()).await.unwrap();
    assert_eq!(members(&shared[0]).await, 2);
    drop(seen);
}

#[tokio::test]
async fn an_observer_from_an_index_beyond_the_result_gets_the_length_of_the_result() {
    let key = key();
    let node = start(&key).await;
    let group = within("it is created", node.create_group("short", 1, GroupConfig::default())).await.unwrap();
    within("it is approved", group.broadcast("only").await.unwrap().into_future()).await.unwrap();
    let observer = start(&key).await;
    let seen = within("it observes", observer.observe_group("short", node.local_addr(), Index(1_000))).await.unwrap();
    group.end();
    let theirs = final_checkpoint(&group).await;
    assert_eq!(theirs.index, Index(1));
    assert_eq!(final_checkpoint(&seen).await, theirs);
    let mut approved = seen.approved_from(Index(1_000));
    while let Some(item) = within("the end", approved.next_batch()).await {
        assert!(matches!(item, Ok(ApprovedItem::View(_))), "{item:?}");
    }
}
