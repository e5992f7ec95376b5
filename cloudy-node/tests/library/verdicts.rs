//! Message ids and verdicts are right from the moment that they are given out (`protocol.md` §2).

use std::time::Duration;

use cloudy_node::{BroadcastError, Group, GroupConfig, Incarnation, Index, MessageId, Outcome, Receipt, Seq};
use futures_util::FutureExt;

use crate::common::{create, key, read, read_final, start, start_all, until, within};
use crate::help::texts;
use crate::hosts::{Process, on_disk, start_again, start_hosts};

async fn approved(group: &Group, text: &str) -> MessageId {
    let receipt = within("it is listed", group.broadcast(text)).await.unwrap();
    approved_under_its_id(receipt).await
}

async fn approved_under_its_id(receipt: Receipt) -> MessageId {
    let id = receipt.id();
    let approval = within("the approval", receipt.into_future()).await.unwrap();
    assert_eq!(approval.id, id, "a receipt names the message as the result does");
    id
}

/// An id that no node was given.
fn never_given(id: MessageId) -> MessageId {
    MessageId { incarnation: Incarnation(0), ..id }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_started_again_names_its_first_broadcast_as_the_result_does() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 1).await;
    let group = processes[0].node.create_group("ledger", 1, on_disk()).await.unwrap();
    let mut ids = vec![approved(&group, "0").await];
    for round in 1..4 {
        processes.drain(..).for_each(Process::kill);
        processes = start_again(&mut hosts, &key).await;
        ids.push(approved(&processes[0].resumed(), &round.to_string()).await);
    }
    let group = processes[0].resumed();
    for id in &ids {
        assert_eq!(group.outcome(*id).await, Ok(Outcome::Approved));
        assert_eq!(group.outcome(never_given(*id)).await, Ok(Outcome::Open));
    }
    let [.., before, last] = ids[..] else { panic!() };
    let next = |id: MessageId| MessageId { seq: id.seq.next(), ..id };
    assert_eq!(group.outcome(next(before)).await, Ok(Outcome::Rejected), "its incarnation is over");
    assert_eq!(group.outcome(next(last)).await, Ok(Outcome::Open), "it may still be broadcast");
    group.end();
    assert_eq!(texts(&read_final(&group).await), ["0", "1", "2", "3"]);
    until("the group has ended", async || group.has_ended()).await;
    for id in &ids {
        assert_eq!(group.outcome(*id).await, Ok(Outcome::Approved), "also after the end");
        assert_eq!(group.outcome(never_given(*id)).await, Ok(Outcome::Open), "also after the end");
    }
    assert_eq!(group.outcome(next(last)).await, Ok(Outcome::Rejected), "there is nothing after the end");
    assert_eq!(group.outcome(MessageId { seq: Seq(0), ..last }).await, Ok(Outcome::Open), "nobody gave out number 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_the_group_does_not_list_yet_waits_and_has_sent_nothing() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let nodes: Vec<_> = processes.iter().map(|process| process.node.clone()).collect();
    let groups = create(&nodes, "ledger", on_disk()).await;
    until("all vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    approved(&groups[2], "first").await;
    drop((nodes, groups));
    processes.drain(..).for_each(Process::kill);
    // Alone it is no majority of the voters, so no log lists it.
    let service = hosts[2].start(&key).await;
    let group = service.resumed();
    assert_eq!(group.try_broadcast("too early").unwrap_err(), BroadcastError::NotListed);
    assert!(group.capacity().now_or_never().is_none());
    let abandoned = tokio::time::timeout(Duration::from_millis(50), group.broadcast("abandoned")).await;
    assert!(abandoned.is_err(), "it waits");
    let waiting = tokio::spawn({
        let group = group.clone();
        async move { group.broadcast("second").await }
    });
    let mut others = Vec::new();
    for host in &mut hosts[..2] {
        others.push(host.start(&key).await);
    }
    let second = approved_under_its_id(within("it is listed", waiting).await.unwrap().unwrap()).await;
    let all: Vec<Group> = others.iter().chain([&service]).map(Process::resumed).collect();
    for group in &all {
        assert_eq!(texts(&read(group, 1, 2).await), ["first", "second"]);
        assert_eq!(group.outcome(second).await, Ok(Outcome::Approved));
    }
    all[0].end();
    for group in &all {
        assert_eq!(texts(&read_final(group).await), ["first", "second"], "what was abandoned was not sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_rejects_ended_incarnations_but_no_message_before_its_start() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 1).await;
    let group = processes[0].node.create_group("ledger", 1, on_disk()).await.unwrap();
    let (one, two) = (approved(&group, "one").await, approved(&group, "two").await);
    drop(group);
    processes.drain(..).for_each(Process::kill);
    let process = hosts[0].start(&key).await;
    let group = process.resumed();
    let three = approved(&group, "three").await;
    let observer = start(&key).await;
    let at = process.node.local_addr();
    let whole = within("it observes", observer.observe_group("ledger", at, Index(1))).await.unwrap();
    let other = start(&key).await;
    let late = within("it observes", other.observe_group("ledger", at, Index(3))).await.unwrap();
    let never_sent = MessageId { seq: two.seq.next(), ..two };
    until("a verdict", async || whole.outcome(never_sent).await == Ok(Outcome::Rejected)).await;
    until("a verdict", async || late.outcome(three).await == Ok(Outcome::Approved)).await;
    group.end();
    for observed in [&whole, &late] {
        within("the end", async {
            while !observed.has_ended() {
                observed.events().next().await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    for id in [one, two, three] {
        assert_eq!(whole.outcome(id).await, Ok(Outcome::Approved));
        assert_ne!(late.outcome(id).await, Ok(Outcome::Rejected), "it never saw the numbers before index 3");
    }
    assert_eq!(whole.outcome(never_sent).await, Ok(Outcome::Rejected));
}

#[tokio::test]
async fn a_creator_outside_the_ring_broadcasts_nothing_and_gets_an_error() {
    let nodes = start_all(&key(), 2).await;
    let config = GroupConfig::default().creator_is_member(false);
    let joins = nodes[1].join_group_at("watched", nodes[0].local_addr());
    let (creator, member) = tokio::join!(nodes[0].create_group("watched", 1, config), joins);
    let (creator, member) = (creator.unwrap(), member.unwrap());
    assert_eq!(within("the answer", creator.broadcast("x")).await.unwrap_err(), BroadcastError::Observes);
    approved(&member, "y").await;
}
