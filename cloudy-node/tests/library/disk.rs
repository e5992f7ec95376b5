//! Groups that outlive every process (`protocol.md` P7, §6.2, §7).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudy_node::discovery::{Advertisement, GROUP, Multicast, Responder};
use cloudy_node::{
    ApprovedError, ApprovedItem, CreateGroupError, Durability, EndReason, Group, Index, JoinError, Lookup, MessageId,
    Node, Outcome,
};
use tempfile::TempDir;

use crate::common::{Message, create, key, messages, read, read_final, start, until, within};
use crate::help::texts;
use crate::hosts::{Host, Names, Process, on_disk, opened, start_again, start_hosts};
use crate::joins::three_vote;

async fn found_on(processes: &[Process], name: &str) -> Vec<Group> {
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    create(&nodes, name, on_disk()).await
}

/// Broadcasts, and waits until all is approved.
async fn approved(group: &Group, what: &str, count: usize) -> Vec<MessageId> {
    let mut receipts = Vec::new();
    for number in 0..count {
        receipts.push(group.broadcast(format!("{what} {number}")).await.unwrap());
    }
    let mut ids = Vec::new();
    for receipt in receipts {
        let approval = within("the approval", receipt.into_future()).await.unwrap();
        assert_eq!(approval.durability, Durability::Disk);
        ids.push(approval.id);
    }
    ids
}

async fn all_are_back(groups: &[Group]) {
    until("all are on the ring", async || {
        for group in groups {
            let status = group.status().await;
            if status.and_then(|status| Some((status.rank?, status.view?.members()))).map(|(_, of)| of)
                != Some(groups.len())
            {
                return false;
            }
        }
        true
    })
    .await;
}

fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(|message| message.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_approved_message_survives_when_all_processes_are_killed_at_once() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let mut groups = found_on(&processes, "ledger").await;
    let mut known = approved(&groups[0], "first", 20).await;
    known.extend(approved(&groups[2], "third", 20).await);
    for round in 0..2 {
        // Messages in flight may be approved or not, at all alike.
        for number in 0..50 {
            let _receipt = groups[1].broadcast(format!("in flight {round} {number}")).await.unwrap();
        }
        processes.into_iter().for_each(Process::kill);
        processes = start_again(&mut hosts, &key).await;
        groups = processes.iter().map(Process::resumed).collect();
        all_are_back(&groups).await;
        known.extend(approved(&groups[1], "again", 20).await);
        // Another member learns a little later than the sender that an entry is approved.
        let index = groups[1].status().await.unwrap().index;
        until("it is up to date", async || groups[0].status().await.is_some_and(|status| status.index >= index)).await;
        for id in &known {
            assert_eq!(groups[0].outcome(*id).await, Ok(Outcome::Approved), "round {round}");
        }
    }
    groups[0].end();
    let first = read_final(&groups[0]).await;
    let found = ids(&first);
    assert!(known.iter().all(|id| found.contains(id)), "something approved is missing");
    let mut once = found.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), found.len(), "something is there twice");
    for group in &groups[1..] {
        assert!(read_final(group).await == first, "the results differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_restarts_from_its_disk_and_the_others_continue() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let mut groups = found_on(&processes, "ledger").await;
    approved(&groups[0], "before", 20).await;
    for killed in [2, 0] {
        // From here on no single loss stops the group.
        three_vote(&groups).await;
        processes.remove(killed).kill();
        groups.remove(killed);
        approved(&groups[0], "meanwhile", 20).await;
        processes.insert(killed, hosts[killed].start(&key).await);
        groups.insert(killed, processes[killed].resumed());
        all_are_back(&groups).await;
        approved(&groups[killed], "back", 20).await;
    }
    groups[1].end();
    let first = read_final(&groups[0]).await;
    assert_eq!(first.len(), 100);
    for group in &groups[1..] {
        assert!(read_final(group).await == first, "the results differ");
    }
}

/// Kills one of four members, then the three that have evicted it; starts two of those and the first again on other ports,
/// and waits until the group works without the creator, who coordinated it.
async fn finds_itself_again(prepare: impl Fn(usize, &mut Host), look_up: impl AsyncFn(&[Process])) {
    let key = key();
    let mut hosts: Vec<Host> = (0..4).map(|_| Host::new()).collect();
    hosts.iter_mut().enumerate().for_each(|(at, host)| prepare(at, host));
    let mut processes = start_again(&mut hosts, &key).await;
    let mut groups = found_on(&processes, "ledger").await;
    all_are_back(&groups).await;
    approved(&groups[3], "first", 1).await;
    // Of two voters none may be lost.
    three_vote(&groups).await;
    drop(groups.pop());
    processes.pop().into_iter().for_each(Process::kill);
    let before = approved(&groups[0], "before", 20).await;
    // Each has on its disk that the three that run vote.
    until("those that run vote", async || {
        for group in &groups {
            let voters = group.status().await.expect("the group lives").voters;
            if voters.len() != 3 || processes.iter().any(|process| !voters.contains(&process.node.id())) {
                return false;
            }
        }
        true
    })
    .await;
    drop(groups);
    processes.into_iter().for_each(Process::kill);
    hosts.iter_mut().for_each(Host::moves);
    let processes = start_again(&mut hosts[1..], &key).await;
    look_up(&processes).await;
    let groups: Vec<Group> = processes.iter().map(Process::resumed).collect();
    all_are_back(&groups).await;
    for group in &groups {
        approved(group, "after", 20).await;
    }
    groups[0].end();
    let found = ids(&read_final(&groups[2]).await);
    assert_eq!(found.len(), 81);
    assert!(before.iter().all(|id| found.contains(id)), "something approved is missing");
}

/// The node whose name they have cannot coordinate: it misses the entries that the others made without it. It does not
/// know the coordinator either.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_have_all_moved_find_one_by_its_name_and_hear_from_it_where_the_other_is() {
    finds_itself_again(
        |_, _| {},
        async |processes| {
            let [members @ .., named] = processes else { panic!("three processes") };
            let name = format!("localhost:{}", named.node.local_addr().port());
            for process in members {
                // `.invalid` never resolves (RFC 2606 §2).
                let names = vec!["no-such-host.invalid:1".to_owned(), name.clone()];
                process.node.look_up(Lookup::default().names(names)).unwrap();
            }
        },
    )
    .await;
}

/// No seeds: the names are in the last view that each has on its disk.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_have_all_moved_find_each_other_by_the_names_that_they_advertise() {
    let names = Names::default();
    let prepare = |at, host: &mut Host| host.advertised = Some((format!("node-{at}.example:7400"), Arc::clone(&names)));
    finds_itself_again(prepare, async |processes| {
        for process in processes {
            let group = process.resumed();
            until("the view", async || group.status().await.is_some_and(|status| status.view.is_some())).await;
            let view = group.status().await.unwrap().view.unwrap();
            assert!(view.ring.iter().all(|member| member.advertised.is_some()), "{view:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_is_not_advertised() {
    for name in ["node-1.example", "node-1:0", "::1:7400", "nöde:7400", &format!("{}:7400", "n".repeat(300))] {
        let error = Node::builder().cluster_key(&key()).advertise(name).start().await.unwrap_err();
        let words = error.to_string();
        assert!(words.starts_with("the advertised name") && words.contains(&name[..4]), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_have_all_moved_find_each_other_by_multicast() {
    let responders = Mutex::new(Vec::new());
    finds_itself_again(
        |_, _| {},
        async |processes| {
            let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let group = SocketAddrV4::new(*GROUP.ip(), port);
            let multicast = Multicast::new(group, Ipv4Addr::LOCALHOST.into());
            for process in processes {
                let (node, address) = (process.node.id(), process.node.local_addr());
                let advertised = Advertisement::new(node, address, "");
                let responder = Responder::start(process.node.discovery_keys(), multicast, advertised).unwrap();
                responders.lock().unwrap().push(responder);
                process.node.look_up(Lookup::default().multicast(Some(multicast))).unwrap();
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_one_is_a_log_that_outlives_its_process() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 1).await;
    let groups = found_on(&processes, "diary").await;
    approved(&groups[0], "day", 10).await;
    processes.into_iter().for_each(Process::kill);
    let again = hosts[0].start(&key).await;
    let diary = again.resumed();
    assert_eq!(diary.name(), "diary");
    within("it is back", async { approved(&diary, "night", 10).await }).await;
    let read = texts(&read(&diary, 1, 20).await);
    assert_eq!((read[0].as_str(), read[19].as_str()), ("day 0", "night 9"));
    diary.end();
    read_final(&diary).await;
    again.kill();
    let ended = hosts[0].start(&key).await;
    assert_eq!(read_final(&ended.resumed()).await.len(), 20, "a result that is final is there too");
    let id = ended.resumed().id();
    ended.node.forget_group(id).await.unwrap();
    ended.node.shutdown().await;
    let empty = hosts[0].start(&key).await;
    assert!(empty.node.resumed_groups().is_empty());
}

/// The texts that a group of one broadcast, also those that it no longer keeps in memory.
fn numbered(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{what} {number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_only_disks_retain_reach_joiners_observers_and_absent_nodes() {
    const COUNT: usize = 1_000;
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 2).await;
    let creator = processes[0].node.clone();
    // Some thirty messages.
    let forgetful = on_disk().retain_bytes(10_000);
    let group = creator.create_group("ledger", 1, forgetful).await.unwrap();
    approved(&group, "before", COUNT).await;
    // Its own readers read from the disk as well, from anywhere.
    assert_eq!(texts(&read(&group, 1, COUNT).await), numbered("before", COUNT));
    assert_eq!(texts(&read(&group, 500, COUNT - 499).await), numbered("before", COUNT)[499..]);
    let joined = within("it joins", processes[1].node.join_group_at("ledger", creator.local_addr())).await.unwrap();
    assert_eq!(texts(&read(&joined, 1, COUNT).await), numbered("before", COUNT));
    // It is away while the other continues by itself.
    drop(joined);
    processes.pop().unwrap().kill();
    approved(&group, "meanwhile", COUNT).await;
    processes.push(hosts[1].start(&key).await);
    let back = processes[1].resumed();
    let all = [numbered("before", COUNT), numbered("meanwhile", COUNT)].concat();
    assert_eq!(texts(&within("it comes back", read(&back, 1, 2 * COUNT)).await), all);
    // An observer keeps nothing, and reads all.
    let observer = start(&key).await;
    let seen =
        within("it reads along", observer.observe_group("ledger", creator.local_addr(), Index(1))).await.unwrap();
    assert_eq!(texts(&read(&seen, 1, 2 * COUNT).await), all);
    group.end();
    assert_eq!(texts(&read_final(&back).await), all);
    assert_eq!(texts(&read_final(&seen).await), all);
}

/// The items of a final result from an index on, as text.
async fn items(group: &Group, from: u64) -> Vec<String> {
    let mut approved = group.approved_from(Index(from));
    let mut items = Vec::new();
    while let Some(item) = within("the final result", approved.next_batch()).await {
        match item.unwrap() {
            ApprovedItem::View(installed) => {
                let members: Vec<String> = installed.view.ring.iter().map(|member| member.node.to_string()).collect();
                items.push(format!("view {} before {}: {}", installed.id(), installed.first, members.join(" ")));
            }
            item => {
                items.extend(messages(item).iter().map(|message| format!("{} {:?}", message.index, message.payload)))
            }
        }
    }
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_read_at_one_place_from_memory_from_disks_and_from_other_members() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 3).await;
    let first = processes[0].node.clone();
    // Memory keeps next to nothing: readers of members read from the disk.
    let group = first.create_group("views", 1, on_disk().retain_bytes(1)).await.unwrap();
    let live = tokio::spawn({
        let group = group.clone();
        async move { items(&group, 1).await }
    });
    approved(&group, "alone", 5).await;
    let at = first.local_addr();
    let second = within("it joins", processes[1].node.join_group_at("views", at)).await.unwrap();
    all_are_back(&[group.clone(), second.clone()]).await;
    approved(&second, "two", 5).await;
    // A view without a message: it joins and leaves.
    let third = within("it joins", processes[2].node.join_group_at("views", at)).await.unwrap();
    all_are_back(&[group.clone(), second.clone(), third.clone()]).await;
    within("it leaves", third.leave()).await.unwrap();
    all_are_back(&[group.clone(), second]).await;
    processes.remove(1).kill();
    processes.insert(1, hosts[1].start(&key).await);
    let back = processes[1].resumed();
    all_are_back(&[group.clone(), back.clone()]).await;
    approved(&back, "again", 5).await;
    let observer = start(&key).await;
    let whole = within("it observes", observer.observe_group("views", at, Index(1))).await.unwrap();
    let late = start(&key).await;
    let part = within("it observes", late.observe_group("views", at, Index(8))).await.unwrap();
    until("all is read", async || part.status().await.is_some_and(|status| status.index == Index(15))).await;
    group.end();
    let expected = within("all is read", live).await.unwrap();
    let views: Vec<&String> = expected.iter().filter(|item| item.starts_with("view")).collect();
    assert!(views.len() >= 6 && expected.len() == views.len() + 15, "{expected:#?}");
    assert!(views[0].starts_with("view 1 before 1:") && views[1].starts_with("view 2 before 6:"), "{views:#?}");
    for group in [&group, &back, &whole] {
        assert_eq!(items(group, 1).await, expected);
    }
    // From inside of a view: first the one in force.
    let from = expected.iter().position(|item| item.starts_with("8 ")).unwrap();
    for group in [&group, &back, &whole, &part] {
        let read = items(group, 8).await;
        assert!(read[0].starts_with("view 2 before 6:"), "{read:#?}");
        assert_eq!(read[1..], expected[from..]);
    }
}

#[tokio::test]
async fn a_node_without_a_data_directory_does_not_take_part() {
    let key = key();
    let (_hosts, processes) = start_hosts(&key, 1).await;
    let without = start(&key).await;
    let created = without.create_group("kept", 1, on_disk()).await;
    assert!(matches!(created, Err(CreateGroupError::NeedsDataDir { name }) if name == "kept"));
    let groups = found_on(&processes, "kept").await;
    let joined = within("the answer", without.join_group_at("kept", processes[0].node.local_addr())).await;
    assert_eq!(joined.err(), Some(JoinError::NeedsDataDir { name: "kept".to_owned() }));
    // An observer keeps nothing.
    let at = processes[0].node.local_addr();
    let seen = within("it reads along", without.observe_group("kept", at, cloudy_node::Index(1))).await.unwrap();
    approved(&groups[0], "seen", 3).await;
    assert_eq!(read(&seen, 1, 3).await.len(), 3);
}

#[tokio::test]
async fn a_data_directory_of_another_node_is_refused() {
    let key = key();
    let (mine, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let identity = opened(other.path()).await.identity(&key).unwrap();
    let started = Node::builder().identity(identity).data_dir(opened(mine.path()).await).start().await;
    assert!(matches!(started, Err(cloudy_node::StartError::OtherNode { .. })));
}

#[tokio::test]
async fn a_group_that_is_forgotten_ends_here() {
    let key = key();
    let (_hosts, mut processes) = start_hosts(&key, 2).await;
    let groups = found_on(&processes, "gone").await;
    // Of two members the creator votes: the other cannot leave without it.
    processes.remove(0).kill();
    groups[1].leave_within(Duration::ZERO).await.unwrap_err();
    processes[0].node.forget_group(groups[1].id()).await.unwrap();
    let mut approved = groups[1].approved_from(cloudy_node::Index(1));
    let ended = loop {
        match within("its end", approved.next_batch()).await {
            Some(Ok(ApprovedItem::View(_))) => {}
            ended => break ended,
        }
    };
    assert!(matches!(ended, Some(Err(ApprovedError::Ended(EndReason::Deleted)))), "{ended:?}");
}
