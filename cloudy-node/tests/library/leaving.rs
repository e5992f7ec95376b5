//! Members leave, groups are closed while others are away, and votes are lost (`protocol.md` §6.6, §6.8, §6.9).

use std::time::Duration;

use cloudy_node::{
    BroadcastError, EndReason, Event, ForgetError, Group, GroupConfig, Index, JoinError, LeaveError, LeaveLimits,
    LeaveWait, Node,
};
use futures_util::future::join_all;

use crate::common::{create, impatient, key, read_final, start, start_all, until, within};
use crate::help::{config, event, start_cuttable, texts};
use crate::hosts::{Process, on_disk, start_again, start_hosts};
use crate::joins::three_vote;

async fn ring(group: &Group) -> usize {
    group.status().await.and_then(|status| status.view).map_or(0, |view| view.members())
}

async fn approved(group: &Group, payload: &str) -> Index {
    within("the approval", group.broadcast(payload).await.unwrap().into_future()).await.unwrap().index
}

#[tokio::test]
async fn the_last_leaving_member_hands_over_to_an_evicted_one_and_names_it_while_waiting() {
    let key = key();
    let first = start(&key).await;
    let (second, control) = start_cuttable(&key, impatient()).await;
    let nodes = [first, second];
    let groups = create(&nodes, "two", GroupConfig::default()).await;
    approved(&groups[1], "before").await;
    control.partition([nodes[0].local_addr()]);
    until("the other is evicted", async || ring(&groups[0]).await == 1).await;
    approved(&groups[0], "alone").await;
    let late = groups[0].leave_within(Duration::from_millis(300)).await.unwrap_err();
    let LeaveError::Late { waits_for: Some(LeaveWait::Heir { evicted, .. }), unapproved: 0, .. } = &late else {
        panic!("{late}")
    };
    assert_eq!(*evicted, [nodes[1].id()]);
    assert!(late.to_string().contains(&nodes[1].id().short()), "{late}");
    assert_eq!(groups[0].broadcast("late").await.unwrap_err(), BroadcastError::Leaving);
    control.heal();
    within("the leaving", groups[0].leave()).await.unwrap();
    // Its process may end at once: messages approved there are at the member that stays.
    nodes[0].shutdown().await;
    assert_eq!(approved(&groups[1], "after").await, Index(3));
    assert!(!groups[1].has_ended());
    groups[1].end();
    assert_eq!(texts(&read_final(&groups[1]).await), ["before", "alone", "after"]);
}

#[tokio::test]
async fn the_last_member_gives_up_soon_where_the_evicted_one_is_dead_and_waits_for_one_that_lives() {
    let key = key();
    let first = start(&key).await;
    let (second, control) = start_cuttable(&key, impatient()).await;
    let nodes = [first, second];
    let groups = create(&nodes, "alone", GroupConfig::default()).await;
    approved(&groups[1], "before").await;
    control.partition([nodes[0].local_addr()]);
    until("the other is evicted", async || ring(&groups[0]).await == 1).await;
    let soon = LeaveLimits::default().heir_timeout(Duration::from_millis(300));
    let error = within("an answer", groups[0].leave_with(soon)).await.unwrap_err();
    let LeaveError::NoHeir { evicted, waited } = &error else { panic!("{error}") };
    assert!(*evicted == [nodes[1].id()] && *waited >= soon.heir_timeout, "{error}");
    assert!(error.to_string().contains(&nodes[1].id().short()), "{error}");
    // It has not left: the other one lives after all.
    control.heal();
    within("the leaving", groups[0].leave()).await.unwrap();
    assert!(!groups[1].has_ended());
}

#[tokio::test]
async fn members_that_leave_at_once_beside_a_dead_one_leave_but_for_the_last() {
    let mut nodes = start_all(&key(), 3).await;
    let mut groups = create(&nodes, "beside", GroupConfig::default()).await;
    three_vote(&groups).await;
    join_all(groups.iter().map(|group| approved(group, "all"))).await;
    nodes.pop().unwrap().shutdown().await;
    groups.pop();
    until("it is evicted", async || ring(&groups[0]).await == 2).await;
    let limits = LeaveLimits::default().heir_timeout(Duration::from_millis(500));
    let left = nodes.iter().zip(&groups).map(async |(node, group)| {
        let left = group.leave_with(limits).await;
        node.shutdown().await;
        left
    });
    let left = within("both", join_all(left)).await;
    let are_left = left.iter().filter(|left| left.is_ok()).count();
    let are_alone = left.iter().filter(|left| matches!(left, Err(LeaveError::NoHeir { .. }))).count();
    assert_eq!((are_left, are_alone), (1, 1), "{left:?}");
}

/// Far below the timeout of a leave: all members answer.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);

/// All members leave at once, and each ends as soon as it has left.
async fn all_leave_at_once(members: usize, apart: Duration) {
    let nodes = start_all(&key(), members).await;
    let groups = create(&nodes, "together", GroupConfig::default()).await;
    join_all(groups.iter().map(|group| approved(group, "all"))).await;
    let left = nodes.iter().zip(&groups).enumerate().map(async |(at, (node, group))| {
        // sleep: the requests meet in different orders.
        tokio::time::sleep(apart * at as u32).await;
        let left = group.leave_within(LEAVES_WITHIN).await;
        node.shutdown().await;
        left
    });
    let left = join_all(left).await;
    assert!(left.iter().all(Result::is_ok), "of {members}, {apart:?} apart: {left:?}");
}

#[tokio::test]
async fn members_that_leave_at_once_wait_for_no_timeout() {
    for apart in [0, 4, 8, 16] {
        for members in [2, 3] {
            all_leave_at_once(members, Duration::from_millis(apart)).await;
        }
    }
}

#[tokio::test]
async fn an_evicted_member_leaves_and_does_not_rejoin() {
    let key = key();
    let mut nodes = start_all(&key, 2).await;
    let (cut_off, control) = start_cuttable(&key, impatient()).await;
    nodes.push(cut_off);
    let groups = create(&nodes, "evicted", GroupConfig::default()).await;
    three_vote(&groups).await;
    control.partition(nodes[..2].iter().map(|node| node.local_addr()));
    until("it is evicted", async || ring(&groups[0]).await == 2).await;
    let late = groups[2].leave_within(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(late, LeaveError::Late { .. }), "{late}");
    control.heal();
    within("the leaving", groups[2].leave()).await.unwrap();
    let gone = nodes[2].id();
    event(&groups[0], "the others learn it", |event| (event == Event::Left { node: gone }).then_some(())).await;
    nodes[2].shutdown().await;
    approved(&groups[0], "on").await;
    assert_eq!(ring(&groups[0]).await, 2);
    for group in &groups[..2] {
        within("the others leave", group.leave()).await.unwrap();
    }
    assert!(matches!(groups[1].broadcast("x").await, Err(BroadcastError::Ended(_))));
}

#[tokio::test]
async fn members_that_leave_while_all_are_cut_off_do_not_end_the_group_of_the_others() {
    let key = key();
    let (mut nodes, mut controls) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (node, control) = start_cuttable(&key, impatient()).await;
        nodes.push(node);
        controls.push(control);
    }
    let groups = create(&nodes, "outage", GroupConfig::default()).await;
    three_vote(&groups).await;
    approved(&groups[0], "before").await;
    for (at, control) in controls.iter().enumerate() {
        control
            .partition(nodes.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, node)| node.local_addr()));
    }
    let unheard = groups[0].broadcast("unheard").await.unwrap();
    for leaver in &groups[..2] {
        let late = leaver.leave_within(Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(late, LeaveError::Late { .. }), "{late}");
    }
    controls.iter().for_each(cloudy_node::fault::FaultControl::heal);
    for leaver in &groups[..2] {
        within("the leaving", leaver.leave()).await.unwrap();
    }
    within("the receipt", unheard.into_future()).await.unwrap();
    for node in &nodes[..2] {
        // Messages approved there are at those that stay.
        node.shutdown().await;
    }
    until("the others are the ring", async || ring(&groups[2]).await == 2 && ring(&groups[3]).await == 2).await;
    approved(&groups[3], "after").await;
    assert!(!groups[2].has_ended() && !groups[3].has_ended());
    groups[2].end();
    assert_eq!(texts(&read_final(&groups[3]).await), ["before", "unheard", "after"]);
}

/// The member that is cut off coordinates, or does not.
async fn learns_the_end(who: usize) {
    let key = key();
    let (mut nodes, mut controls) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (node, control) = start_cuttable(&key, impatient()).await;
        nodes.push(node);
        controls.push(control);
    }
    let groups = create(&nodes, "ends", GroupConfig::default()).await;
    three_vote(&groups).await;
    approved(&groups[who], "before").await;
    let others: Vec<usize> = (0..3).filter(|at| *at != who).collect();
    controls[who].partition(others.iter().map(|at| nodes[*at].local_addr()));
    until("the others continue", async || ring(&groups[others[0]]).await == 2).await;
    approved(&groups[others[0]], "without it").await;
    groups[others[0]].end();
    for at in &others {
        event(&groups[*at], "it is closed", |event| (event == Event::Closed).then_some(())).await;
    }
    controls[who].heal();
    let result = within("the final result", read_final(&groups[who])).await;
    assert_eq!(texts(&result), ["before", "without it"]);
    until("its group ends", async || groups[who].has_ended()).await;
    assert_eq!(groups[who].broadcast("x").await.unwrap_err(), BroadcastError::Ended(EndReason::Final));
}

#[tokio::test]
async fn a_coordinator_that_was_cut_off_while_the_group_ended_gets_the_final_result() {
    learns_the_end(0).await;
}

#[tokio::test]
async fn a_member_that_was_cut_off_while_the_group_ended_gets_the_final_result() {
    learns_the_end(2).await;
}

#[tokio::test]
async fn an_observer_that_comes_after_the_end_gets_the_final_result_and_a_newcomer_learns_of_it() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "over", GroupConfig::default()).await;
    approved(&groups[1], "all").await;
    groups[0].end();
    for group in &groups {
        event(group, "it is closed", |event| (event == Event::Closed).then_some(())).await;
    }
    let late = start(&key).await;
    for node in &nodes {
        let seen = within("it observes", late.observe_group("over", node.local_addr(), Index(1))).await.unwrap();
        assert_eq!(texts(&within("the result", read_final(&seen)).await), ["all"]);
        until("it has ended", async || seen.has_ended()).await;
    }
    // Another group of that name may be created, so the wait for one continues until its time is over.
    let join = late.join_group_at("over", nodes[1].local_addr()).timeout(std::time::Duration::from_millis(300));
    let refused = within("the refusal", join).await.unwrap_err();
    assert!(refused.to_string().contains("has ended at node"), "{refused}");
}

/// The others serve the result from memory, or, started again as well, from their disks.
async fn learns_the_end_after_a_restart(others_restart: bool) {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    let groups = create(&nodes, "ledger", on_disk()).await;
    three_vote(&groups).await;
    approved(&groups[2], "before").await;
    processes.pop().unwrap().kill();
    until("the others continue", async || ring(&groups[0]).await == 2).await;
    approved(&groups[0], "without it").await;
    groups[0].end();
    for group in &groups[..2] {
        event(group, "it is closed", |event| (event == Event::Closed).then_some(())).await;
    }
    let away = if others_restart {
        drop(groups);
        for process in &processes {
            // So that their disks record that the group is closed.
            process.node.shutdown().await;
        }
        processes.into_iter().for_each(Process::kill);
        processes = start_again(&mut hosts, &key).await;
        processes[2].resumed()
    } else {
        processes.push(hosts[2].start(&key).await);
        processes[2].resumed()
    };
    assert_eq!(texts(&within("the final result", read_final(&away)).await), ["before", "without it"]);
    until("its group ends", async || away.has_ended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_killed_before_the_end_gets_the_final_result_from_nodes_that_run() {
    learns_the_end_after_a_restart(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_killed_before_the_end_gets_the_final_result_from_the_disks_of_others() {
    learns_the_end_after_a_restart(true).await;
}

#[tokio::test]
async fn every_receipt_that_is_kept_gives_its_approval_however_many_follow() {
    let node = start(&key()).await;
    let group = within("it is created", node.create_group("many", 1, config(|of| of.slot_payloads_max = 1))).await;
    let group = group.unwrap();
    let mut receipts = Vec::new();
    for at in 0..5_000_u32 {
        receipts.push(group.broadcast(at.to_le_bytes()).await.unwrap());
    }
    within("all are approved", group.flush()).await.unwrap();
    for (at, receipt) in receipts.into_iter().enumerate() {
        let approval = within("the receipt", receipt.into_future()).await.unwrap();
        assert_eq!(approval.index, Index(at as u64 + 1));
    }
}

#[tokio::test]
async fn a_memory_group_with_restarted_voters_reports_that_it_has_stopped() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    let groups = create(&nodes, "stuck", config(|of| of.coordinator_timeout = Duration::from_millis(500))).await;
    three_vote(&groups).await;
    processes.drain(1..).for_each(Process::kill);
    let mut joins = Vec::new();
    for host in &mut hosts[1..] {
        let process = host.start(&key).await;
        let (node, contact) = (process.node.clone(), nodes[0].local_addr());
        processes.push(process);
        joins.push(tokio::spawn(async move { node.join_group_at("stuck", contact).await }));
    }
    let lost = event(&groups[0], "it is said", |event| match event {
        Event::VotesLost(lost) => Some(lost),
        _ => None,
    });
    let lost = lost.await;
    assert_eq!((lost.lost.len(), lost.voters), (2, 3));
    assert!(lost.to_string().contains("create another group"), "{lost}");
    assert_eq!(groups[0].status().await.unwrap().votes_lost, Some(lost));
    for join in joins {
        let refused = within("the refusal", join).await.unwrap().unwrap_err();
        assert!(matches!(refused, JoinError::Gone { .. }), "{refused}");
        assert!(refused.to_string().contains("has stopped for good"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_group_is_forgotten_only_after_leaving_and_that_is_no_leaving() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "kept", GroupConfig::default()).await;
    let refused = nodes[1].forget_group(groups[1].id()).await.unwrap_err();
    assert_eq!(refused, ForgetError::Running { name: "kept".to_owned() });
    assert!(refused.to_string().contains("call Group::leave first"), "{refused}");
    approved(&groups[1], "it still takes part").await;
    // Of two members the creator votes. It is gone, so the other cannot leave, and gives the group up.
    nodes[0].shutdown().await;
    let late = groups[1].leave_within(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(late, LeaveError::Late { .. }), "{late}");
    let (waiting, forgotten) = tokio::join!(groups[1].leave(), nodes[1].forget_group(groups[1].id()));
    forgotten.unwrap();
    assert_eq!(waiting, Err(LeaveError::Ended(EndReason::Deleted)));
    assert_eq!(groups[1].leave().await, Err(LeaveError::Ended(EndReason::Deleted)));
    // The name is free.
    within("it is created", nodes[1].create_group("kept", 1, GroupConfig::default())).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_group_does_not_wait_for_a_member_that_leaves_a_least_ring() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "least", config(|of| of.ring_min = 3)).await;
    approved(&groups[0], "before").await;
    let late = groups[2].leave_within(Duration::from_millis(500)).await.unwrap_err();
    let LeaveError::Late { waits_for: Some(LeaveWait::LeastRing { members: 3, ring_min: 3 }), .. } = &late else {
        panic!("{late}")
    };
    assert!(late.to_string().contains("ring_min is 3"), "{late}");
    groups[0].end();
    for group in &groups {
        assert_eq!(texts(&read_final(group).await), ["before"]);
    }
}

/// Longer than the failure timeout and the wait for answers to `Wedge`.
const MISSED_AFTER: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_end_of_a_group_does_not_wait_for_a_member_of_a_least_ring_that_was_shut_down() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "least", config(|of| of.ring_min = 3)).await;
    three_vote(&groups).await;
    approved(&groups[0], "before").await;
    nodes[2].shutdown().await;
    let waits = groups[0].broadcast("waits").await.unwrap();
    // By then the view change that `ring_min` holds up has begun.
    let misses = |event: Event| matches!(event, Event::Waits(waiting) if waiting.age >= MISSED_AFTER).then_some(());
    event(&groups[0], "it is missed", misses).await;
    groups[1].end();
    for group in &groups[..2] {
        assert_eq!(texts(&read_final(group).await)[0], "before");
    }
    drop(waits);
}
