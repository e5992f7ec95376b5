//! The ends of groups and nodes.

use std::time::Duration;

use cloudy_node::{
    ApprovedError, BroadcastError, CloseReason, ConnectError, CreateGroupError, EndReason, Event, FlushError,
    GroupConfig, Index, JoinError, LeaveError, OnFailure, Receipt, ReceiptError, StartError, Traffic,
};
use futures_util::future::join_all;

use crate::common::{Message, create, impatient, key, read_final, start_all, until, within};
use crate::help::{assert_no_task_panicked, config, event, linked, start_cuttable, texts, watch_for_panics};

/// Awaits receipts: the approved ones must equal the result's messages of their node, in order, and the others are
/// rejected.
async fn assert_split(result: &[Message], receipts: Vec<Receipt>) -> usize {
    let count = receipts.len();
    let mut approved = 0;
    for receipt in receipts {
        let id = receipt.id();
        match within("the receipt", receipt.into_future()).await {
            Ok(approval) => {
                assert_eq!(approved, id.seq.0 as usize - 1, "approved after a rejected one");
                approved += 1;
                assert_eq!(result[approval.index.0 as usize - 1].id, id);
            }
            Err(error) => {
                assert_eq!(error, ReceiptError::Rejected(id));
                assert!(result.iter().all(|message| message.id != id));
            }
        }
    }
    approved.min(count)
}

#[tokio::test]
async fn the_creator_ends_a_group_in_the_midst_and_all_have_one_result() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "ends", config(|parameters| parameters.window_slots = 2)).await;
    let mut receipts: Vec<Vec<Receipt>> = groups.iter().map(|_| Vec::new()).collect();
    for at in 0..60 {
        for (group, receipts) in groups.iter().zip(&mut receipts) {
            // More than a window, so that some are not sent yet when the group ends.
            receipts.push(group.broadcast(format!("{at}").repeat(3_000)).await.unwrap());
        }
    }
    groups[0].end();
    let results = join_all(groups.iter().map(read_final)).await;
    assert!(results.iter().all(|result| *result == results[0]));
    let mut approved = 0;
    for receipts in receipts {
        approved += assert_split(&results[0], receipts).await;
    }
    assert_eq!(approved, results[0].len());
    assert!(approved < 180, "the cut left something out");
    let mut finals = Vec::new();
    for group in &groups {
        let last = event(group, "the final result", |event| match event {
            Event::Final { result } => Some(result),
            _ => None,
        });
        finals.push(last.await);
        assert_eq!(group.try_broadcast("late").unwrap_err(), BroadcastError::Ended(EndReason::Final));
        assert_eq!(group.broadcast("late").await.unwrap_err(), BroadcastError::Ended(EndReason::Final));
        assert_eq!(within("the flush", group.flush()).await, Err(FlushError::Ended(EndReason::Final)));
        group.report(group.node_id().to_string().into());
    }
    assert!(finals.iter().all(|last| *last == finals[0] && last.index == Index(approved as u64)));
    // Every member reports, so the group closes, and its name is free.
    event(&groups[0], "the group is closed", |event| (event == Event::Closed).then_some(())).await;
    let mut events = groups[0].events();
    let mut reports = Vec::new();
    while let Some(Ok(event)) = within("the events end", events.next()).await {
        if let Event::Reported { node, result, report } = event {
            assert_eq!((result, report), (finals[0], node.to_string().into()));
            reports.push(node);
        }
    }
    reports.sort_unstable();
    let mut ids: Vec<_> = nodes.iter().map(|node| node.id()).collect();
    ids.sort_unstable();
    assert_eq!(reports, ids);
    until("all have let go of it", async || {
        join_all(groups.iter().map(|group| group.status())).await.iter().all(Option::is_none)
    })
    .await;
    create(&nodes, "ends", GroupConfig::default()).await;
}

#[tokio::test]
async fn a_node_silent_at_the_close_gets_the_result_and_rejections_of_its_messages() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (silent, control) = start_cuttable(&key, cloudy_node::EndpointLimits::default()).await;
    nodes.push(silent);
    // No member is evicted before the end.
    let waits = config(|parameters| parameters.on_failure = OnFailure::Wait);
    let groups = create(&nodes, "silent", waits).await;
    // While the log passes two voters, the loss of either stops the group (docs/reference/guarantees.md).
    until("three vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    groups[2].broadcast("heard").await.unwrap().await.unwrap();
    control.partition(nodes[..2].iter().map(|node| node.local_addr()));
    let unheard = groups[2].broadcast("unheard").await.unwrap();
    let unconfirmed = groups[0].broadcast("unconfirmed by one").await.unwrap();
    until("the other holds it", async || groups[1].status().await.unwrap().waits_for.is_some()).await;
    groups[0].end();
    let named = event(&groups[0], "it is missed", |event| match event {
        Event::Silent { node } => Some(node),
        _ => None,
    });
    assert_eq!(named.await, nodes[2].id());
    control.heal();
    let results = join_all(groups.iter().map(read_final)).await;
    // Every survivor holds it, so the last view change approves it (`protocol.md` §6.4).
    assert_eq!(texts(&results[0]), ["heard", "unconfirmed by one"]);
    assert!(results.iter().all(|result| *result == results[0]));
    let approval = within("the receipt", unconfirmed.into_future()).await.unwrap();
    assert!(approval.confirmed.iter().all(|(node, _)| *node != nodes[2].id()), "{approval:?}");
    let id = unheard.id();
    assert_eq!(within("the receipt", unheard.into_future()).await, Err(ReceiptError::Rejected(id)));
}

#[tokio::test]
async fn a_member_requests_the_creator_to_close() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "asks", GroupConfig::default()).await;
    groups[1].broadcast("x").await.unwrap().await.unwrap();
    groups[1].end();
    assert_eq!(texts(&read_final(&groups[0]).await), ["x"]);
    assert_eq!(read_final(&groups[1]).await, read_final(&groups[0]).await);
}

/// Far longer than the test takes.
const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_node_shuts_down_cleanly_and_the_others_notice() {
    watch_for_panics();
    let mut nodes = start_all(&key(), 3).await;
    let patient = config(|of| (of.failure_timeout, of.timeout_max) = (LONG, LONG));
    let mut groups = create(&nodes, "leaves", patient).await;
    groups[2].broadcast("before").await.unwrap().await.unwrap();
    // The others have it too: written bytes arrive.
    let reader = groups[2].approved_from(Index(2));
    within("the shutdown", nodes[2].shutdown()).await;
    until("the others notice", async || {
        !linked(&groups[0], nodes[2].id()).await && !linked(&groups[1], nodes[2].id()).await
    })
    .await;
    let status = groups[0].status().await.unwrap();
    assert_eq!(status.members.len(), 2, "it announced that it stops");
    groups[0].broadcast("with two").await.unwrap().await.unwrap();

    let ended = EndReason::ShutDown;
    assert_eq!(groups[2].broadcast("after").await.unwrap_err(), BroadcastError::Ended(ended.clone()));
    assert_eq!(groups[2].flush().await, Ok(()));
    assert!(groups[2].status().await.is_none());
    let mut items: Vec<_> = futures_util::StreamExt::collect(reader).await;
    assert_eq!(items.pop().unwrap().unwrap_err(), ApprovedError::Ended(ended));
    assert!(matches!(nodes[2].connect(nodes[0].local_addr()).await, Err(ConnectError::ShutDown)));
    let join = nodes[2].join_group("x").await.unwrap().joined().await;
    assert_eq!(join.unwrap_err(), JoinError::ShutDown);
    within("a second shutdown", nodes[2].shutdown()).await;
    // Its port is free.
    std::net::UdpSocket::bind(nodes[2].local_addr()).unwrap();

    // Without its handles a node ends, and announces nothing.
    drop((nodes.remove(1), groups.remove(1)));
    let waits = groups[0].broadcast("waits for both").await.unwrap();
    within("the shutdown", nodes[0].shutdown()).await;
    let id = waits.id();
    let unknown = within("the receipt", waits.into_future()).await.unwrap_err();
    assert_eq!(unknown, ReceiptError::Unknown { id, reason: EndReason::ShutDown });
    assert_no_task_panicked();
}

#[tokio::test]
async fn the_group_continues_without_its_creator() {
    let key = key();
    // One creator announces its end, the other stops silently.
    for says_goodbye in [true, false] {
        let (creator, control) = start_cuttable(&key, impatient()).await;
        let mut nodes = vec![creator];
        nodes.extend(start_all(&key, 2).await);
        let groups = create(&nodes, "survives", GroupConfig::default()).await;
        groups[1].broadcast("before").await.unwrap().await.unwrap();
        until("all vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
        if says_goodbye {
            nodes[0].shutdown().await;
        } else {
            control.partition(nodes[1..].iter().map(|node| node.local_addr()));
        }
        let after = groups[1].broadcast("after").await.unwrap();
        let approval = within("the approval", after.into_future()).await.unwrap();
        assert!(approval.confirmed.iter().all(|(node, _)| *node != nodes[0].id()), "{approval:?}");
        for group in &groups[1..] {
            until("a view without it", async || group.status().await.unwrap().members.len() == 2).await;
            let coordinator = group.status().await.unwrap().coordinator;
            assert!(coordinator == Some(nodes[1].id()) || coordinator == Some(nodes[2].id()), "{coordinator:?}");
        }
        groups[2].end();
        for group in &groups[1..] {
            assert_eq!(texts(&read_final(group).await), ["before", "after"]);
        }
    }
}

#[tokio::test]
async fn members_report_the_loss_of_most_voters() {
    let impatient_group = || config(|parameters| parameters.coordinator_timeout = Duration::from_millis(200));
    let key = key();
    let (creator, control) = start_cuttable(&key, impatient()).await;
    let nodes = [vec![creator], start_all(&key, 1).await].concat();
    let groups = create(&nodes, "lost", impatient_group()).await;
    groups[1].broadcast("x").await.unwrap().await.unwrap();
    control.partition([nodes[1].local_addr()]);
    let unheard = groups[1].broadcast("y").await.unwrap();
    let node = event(&groups[1], "the loss is said", |event| match event {
        Event::CoordinatorLost { node } => Some(node),
        _ => None,
    });
    assert_eq!(node.await, nodes[0].id());
    assert_eq!(groups[1].status().await.unwrap().coordinator, None);
    // It waits, and continues by itself.
    control.heal();
    within("the approval", unheard.into_future()).await.unwrap();
    assert!(groups[1].status().await.unwrap().coordinator.is_some());
}

#[tokio::test]
async fn a_node_that_cannot_start_gives_the_reason() {
    let refused = cloudy_node::Node::builder().start().await.unwrap_err();
    assert!(matches!(refused, StartError::NoIdentity), "{refused}");
    let key = key();
    let node = crate::common::start(&key).await;
    let taken = cloudy_node::Node::builder().cluster_key(&key).bind(node.local_addr()).start().await.unwrap_err();
    assert!(taken.to_string().contains("is in use"), "{taken}");
}

#[test]
fn handles_of_a_node_with_a_dropped_runtime_report_closed() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let gone = runtime();
    let (node, group, creation, joining) = gone.block_on(async {
        let node = start_all(&key(), 1).await.remove(0);
        let group = node.create_group("runs", 1, GroupConfig::default()).await.unwrap();
        let creation = node.prepare_group("begins", GroupConfig::default()).await.unwrap();
        let joining = node.join_group("waits").await.unwrap();
        (node, group, creation, joining)
    });
    drop(gone);
    runtime().block_on(within("all answer", async {
        assert_eq!(node.closed().await, CloseReason::ShutDown);
        assert_eq!(node.close_reason(), Some(CloseReason::ShutDown));
        assert_eq!(node.prepare_group("more", GroupConfig::default()).await.unwrap_err(), CreateGroupError::ShutDown);
        assert_eq!(creation.create(None).await.unwrap_err(), CreateGroupError::ShutDown);
        assert_eq!(joining.joined().await.unwrap_err(), JoinError::ShutDown);
        assert_eq!(
            node.join_group_at("more", node.local_addr()).await.unwrap_err(),
            JoinError::Connect(ConnectError::ShutDown)
        );
        assert_eq!(node.forget_group(group.id()).await, Err(CloseReason::ShutDown.into()));
        assert_eq!(node.traffic().await, Traffic::default());
        assert_eq!(group.broadcast("x").await.unwrap_err(), BroadcastError::Ended(EndReason::ShutDown));
        assert_eq!(group.leave().await, Err(LeaveError::Ended(EndReason::ShutDown)));
        assert!(group.status().await.is_none());
        node.shutdown().await;
    }));
}
