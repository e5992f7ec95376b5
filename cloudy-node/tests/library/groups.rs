//! Groups come together, or say why not.

use std::iter::once;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloudy_node::{
    CreateGroupError, CreationEvent, Event, Group, GroupConfig, GroupId, Incarnation, JoinError, Node, NodeId, Phase,
    ViewId,
};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::common::{create, impatient, key, read, start, start_all, until, within};
use crate::help::{config, event, linked, start_cuttable, texts};

#[tokio::test]
async fn all_members_see_the_same_group() {
    let nodes = start_all(&key(), 4).await;
    let groups = create(&nodes, "four", GroupConfig::default()).await;
    let mut ids: Vec<NodeId> = nodes.iter().map(|node| node.id()).collect();
    ids.sort_unstable();
    for (group, node) in groups.iter().zip(&nodes) {
        assert_eq!((group.name(), group.node_id(), group.creator()), ("four", node.id(), nodes[0].id()));
        assert_eq!(group.id(), groups[0].id());
        let status = group.status().await.unwrap();
        let view = status.view.unwrap();
        assert_eq!(view.id, ViewId(1));
        assert_eq!(view.ring.iter().map(|member| member.node).collect::<Vec<_>>(), ids);
        assert_eq!(status.rank, view.rank_of(node.id()));
        assert_eq!((status.phase, status.members.len()), (Phase::Send, 4));
        assert!(view.ring.iter().all(|member| member.incarnation > Incarnation(0)));
    }
}

#[tokio::test]
async fn a_creation_that_is_dropped_before_it_is_answered_leaves_the_name_free() {
    let node = start(&key()).await;
    for _ in 0..3 {
        // The driver has the command, and its answer has no receiver.
        assert!(node.prepare_group("alone", GroupConfig::default()).now_or_never().is_none());
        // It has answered before it is asked for this.
        within("the driver answers", node.traffic()).await;
    }
    let creation = within("the name is free", node.prepare_group("alone", GroupConfig::default())).await.unwrap();
    within("the group is created", creation.create(None)).await.unwrap();
}

#[tokio::test]
async fn a_group_of_one_approves_its_own() {
    let node = start(&key()).await;
    let group = node.create_group("alone", 1, GroupConfig::default()).await.unwrap();
    let approval = within("the approval", group.broadcast("x").await.unwrap().into_future()).await.unwrap();
    assert_eq!(approval.confirmed.iter().map(|(node, _)| *node).collect::<Vec<_>>(), [node.id()]);
    assert_eq!(texts(&read(&group, 1, 1).await), ["x"]);
}

#[tokio::test]
async fn a_late_joiner_learns_that_the_group_is_closed() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "full", config(|parameters| parameters.open = false)).await;
    let late = start(&key).await;
    for node in &nodes {
        let refused = within("the refusal", late.join_group_at("full", node.local_addr())).await.unwrap_err();
        let JoinError::Refused { name, reason } = &refused else { panic!("{refused}") };
        assert_eq!(name, "full");
        assert!(reason.contains("takes no newcomers"), "{refused}");
    }
    drop(groups[0].broadcast("on").await.unwrap());
    assert_eq!(texts(&read(&groups[1], 1, 1).await), ["on"]);
}

#[tokio::test]
async fn a_group_name_is_used_once_at_each_node() {
    let nodes = start_all(&key(), 2).await;
    let creation = nodes[0].prepare_group("mine", GroupConfig::default()).await.unwrap();
    let again = nodes[0].prepare_group("mine", GroupConfig::default()).await.unwrap_err();
    assert_eq!(again, CreateGroupError::NameTaken { name: "mine".to_owned() });
    drop(creation);

    let waiting = nodes[1].join_group("mine").await.unwrap();
    let second = nodes[1].join_group("mine").await.unwrap();
    let taken = JoinError::NameTaken { name: "mine".to_owned() };
    assert_eq!(second.joined().await.unwrap_err(), taken);
    // Dropped, it is free again.
    drop(waiting);
    let groups = create(&nodes, "mine", GroupConfig::default()).await;
    assert_eq!(nodes[1].join_group("mine").await.unwrap().joined().await.unwrap_err(), taken);
    assert_eq!(groups.len(), 2);
}

#[tokio::test]
async fn invalid_arguments_are_rejected_before_anything_is_sent() {
    let node = start(&key()).await;
    let name = "n".repeat(129);
    assert_eq!(node.prepare_group(&name, GroupConfig::default()).await.unwrap_err(), CreateGroupError::NameTooLong);
    assert_eq!(node.join_group(&name).await.unwrap_err(), JoinError::NameTooLong);
    let mut config = GroupConfig::default();
    config.parameters.window_slots = 0;
    let refused = node.prepare_group("x", config).await.unwrap_err();
    assert_eq!(refused.to_string(), "window_slots must be at least 1");
    let observer = GroupConfig::default().creator_is_member(false);
    let refused = node.prepare_group("x", observer).await.unwrap().create(None).await.unwrap_err();
    assert_eq!(refused, CreateGroupError::NoMembers);
    let itself = node.connect(node.local_addr()).await.unwrap_err();
    assert!(itself.to_string().ends_with("is this node itself"), "{itself}");
}

#[tokio::test]
async fn an_unexpected_invitation_is_rejected_with_the_reason_every_time() {
    let nodes = start_all(&key(), 2).await;
    let guest = nodes[0].connect(nodes[1].local_addr()).await.unwrap();
    // More than the streams of a link: a refusal must not keep one.
    for round in 0..150 {
        let mut creation = nodes[0].prepare_group(&format!("group {round}"), GroupConfig::default()).await.unwrap();
        creation.invite(guest);
        let event = within("the refusal", creation.next_event()).await.unwrap();
        let CreationEvent::Refused { node, reason } = event else { panic!("{event:?}") };
        assert_eq!(node, guest);
        assert!(reason.contains("does not wait for an invitation"), "{reason}");
    }
    let groups = create(&nodes, "at last", GroupConfig::default()).await;
    let mut creation = nodes[0].prepare_group("another", GroupConfig::default()).await.unwrap();
    let other = nodes[1].join_group("another").await.unwrap();
    creation.invite(guest);
    let accepted = within("the acceptance", creation.next_event()).await.unwrap();
    assert_eq!(accepted, CreationEvent::Accepted { node: guest });
    let (created, joined) = tokio::join!(creation.create(None), other.joined());
    assert_ne!(created.unwrap().id(), groups[0].id());
    joined.unwrap();
}

#[tokio::test]
async fn a_dropped_creation_notifies_its_joiners_and_they_wait_for_the_next() {
    let nodes = start_all(&key(), 4).await;
    let address = nodes[0].local_addr();
    let mut creation = nodes[0].prepare_group("given up", GroupConfig::default()).await.unwrap();
    let joins = join_all(nodes[1..3].iter().map(|node| node.join_group_at("given up", address)));
    let gather = async {
        let mut asked = Vec::new();
        while asked.len() < 2 {
            match creation.next_event().await.unwrap() {
                CreationEvent::AskedToJoin { node } => asked.push(node),
                event => panic!("{event:?}"),
            }
        }
        // One has accepted, the other is left without an answer.
        creation.invite(asked[0]);
        assert_eq!(creation.next_event().await.unwrap(), CreationEvent::Accepted { node: asked[0] });
        drop(creation);
    };
    // Both ask again, and the name is free again.
    let again = async {
        gather.await;
        nodes[0].create_group("given up", 3, GroupConfig::default()).await.unwrap()
    };
    let (group, joined) = within("both join", async { tokio::join!(again, joins) }).await;
    assert!(joined.into_iter().all(|joined| joined.unwrap().id() == group.id()));
}

#[tokio::test]
async fn the_ring_has_the_requested_size_and_the_other_nodes_are_notified() {
    for _ in 0..10 {
        let nodes = start_all(&key(), 5).await;
        let address = nodes[0].local_addr();
        let joins = join_all(nodes[1..].iter().map(|node| node.join_group_at("three", address)));
        // A node that asks after the creation is not admitted as a newcomer.
        let create = nodes[0].create_group("three", 3, config(|parameters| parameters.open = false));
        let (created, joined) = within("every node is notified", async { tokio::join!(create, joins) }).await;
        let view = created.unwrap().status().await.unwrap().view.unwrap();
        assert_eq!(view.members(), 3);
        for (node, joined) in nodes[1..].iter().zip(joined) {
            assert_eq!(joined.is_ok(), view.rank_of(node.id()).is_some(), "{joined:?}");
        }
    }
}

#[tokio::test]
async fn a_joiner_retries_until_its_timeout_and_reports_a_lost_creator() {
    let nodes = start_all(&key(), 2).await;
    let mut creation = nodes[0].prepare_group("never", GroupConfig::default()).await.unwrap();
    let leave = async {
        let asked = creation.next_event().await.unwrap();
        assert_eq!(asked, CreationEvent::AskedToJoin { node: nodes[1].id() });
        nodes[0].shutdown().await;
    };
    let join = nodes[1].join_group_at("never", nodes[0].local_addr()).timeout(Duration::from_millis(300));
    let (joined, ()) = within("the joiner is notified", async { tokio::join!(join, leave) }).await;
    let JoinError::TimedOut(late) = joined.unwrap_err() else { panic!("it gave up") };
    assert!(late.to_string().contains(&format!("node {}: the link to it broke", nodes[0].id().short())), "{late}");
    assert_eq!(nodes[0].prepare_group("again", GroupConfig::default()).await.unwrap_err(), CreateGroupError::ShutDown);
}

#[tokio::test]
async fn groups_share_links_and_nothing_else() {
    let nodes = start_all(&key(), 3).await;
    let (red, blue) = tokio::join!(
        create(&nodes, "red", GroupConfig::default()),
        // Created by another node, and without one of them.
        create(&nodes[1..], "blue", GroupConfig::default())
    );
    for at in 0..100 {
        for (name, groups) in [("red", &red), ("blue", &blue)] {
            for group in groups {
                drop(group.broadcast(format!("{name} {at}")).await.unwrap());
            }
        }
    }
    for (name, groups) in [("red", &red), ("blue", &blue)] {
        let results = join_all(groups.iter().map(|group| read(group, 1, 100 * groups.len()))).await;
        assert!(results.iter().all(|result| *result == results[0]));
        assert!(texts(&results[0]).iter().all(|text| text.starts_with(name)));
    }
    assert_ne!(red[0].id(), blue[0].id());
    // One ends, the other continues.
    blue[0].end();
    event(&blue[1], "blue is final", |event| matches!(event, Event::Final { .. }).then_some(())).await;
    assert!(blue[1].try_broadcast("too late").is_err());
    within("red continues", red[2].broadcast("on").await.unwrap().into_future()).await.unwrap();
}

#[tokio::test]
async fn dialling_twice_at_once_gives_one_link() {
    let nodes = start_all(&key(), 2).await;
    let creation = nodes[0].prepare_group("pair", GroupConfig::default());
    let dials = (0..8).map(|_| nodes[1].connect(nodes[0].local_addr()));
    let back = (0..8).map(|_| nodes[0].connect(nodes[1].local_addr()));
    let all = async { tokio::join!(creation, join_all(dials), join_all(back)) };
    let (creation, dialled, back) = within("all dials", all).await;
    assert!(dialled.iter().all(|id| *id == Ok(nodes[0].id())), "{dialled:?}");
    assert!(back.iter().all(|id| *id == Ok(nodes[1].id())), "{back:?}");
    drop(creation.unwrap());
    let groups = create(&nodes, "pair", GroupConfig::default()).await;
    drop(groups[1].broadcast("x").await.unwrap());
    assert_eq!(texts(&read(&groups[0], 1, 1).await), ["x"]);
}

#[tokio::test]
async fn a_node_ends_with_its_last_handle() {
    let nodes = start_all(&key(), 2).await;
    let mut groups = create(&nodes, "pair", GroupConfig::default()).await;
    let (gone, address) = (nodes[1].id(), nodes[1].local_addr());
    let last = groups.pop().unwrap();
    let first = nodes[0].clone();
    drop(nodes);
    within("the group keeps its node", last.broadcast("x").await.unwrap().into_future()).await.unwrap();
    drop(last);
    until("the other side notices", async || !crate::help::linked(&groups[0], gone).await).await;
    until("the port is free", async || std::net::UdpSocket::bind(address).is_ok()).await;
    assert!(first.prepare_group("x", GroupConfig::default()).now_or_never().is_none(), "it lives");
    assert_ne!(groups[0].id(), GroupId([0; 16]));
}

#[tokio::test]
async fn nodes_of_both_families_that_listen_on_all_addresses_form_one_group() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let key = key();
    let listen =
        async |address: &str| Node::builder().cluster_key(&key).bind(address.parse().unwrap()).start().await.unwrap();
    let nodes = [
        listen("[::]:0").await,
        listen("0.0.0.0:0").await,
        listen("127.0.0.1:0").await,
        listen("[::ffff:127.0.0.1]:0").await,
        listen("[::]:0").await,
    ];
    assert!(nodes[3].local_addr().is_ipv4(), "{}", nodes[3].local_addr());
    let port = nodes[0].local_addr().port();
    let contacts = ["127.0.0.1", "127.0.0.1", "127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}"));
    let joining = nodes[1..].iter().zip(&contacts).map(|(node, at)| node.join_group_at("mixed", at.parse().unwrap()));
    let all =
        async { tokio::join!(nodes[0].create_group("mixed", nodes.len(), GroupConfig::default()), join_all(joining)) };
    let (creator, others) = within("the group is created", all).await;
    let groups: Vec<Group> = once(creator.unwrap()).chain(others.into_iter().map(Result::unwrap)).collect();
    for group in &groups {
        within("all confirm it", group.broadcast("hello").await.unwrap().into_future()).await.unwrap();
    }
    let view = groups[1].status().await.unwrap().view.unwrap();
    let named: Vec<SocketAddr> = view.ring.iter().flat_map(|member| member.addresses.clone()).collect();
    assert!(named.iter().all(|address| address.ip().to_canonical() == address.ip()), "{named:?}");
}

/// The idle timeout is 800 ms, and this group waits 3 s for a silent member: the link outlives the idle timeout, because
/// without it the member would be awaited for a shorter time.
#[tokio::test]
async fn a_link_stays_for_as_long_as_the_group_waits_for_a_silent_member() {
    let key = key();
    let (cut_off, control) = start_cuttable(&key, impatient()).await;
    let nodes = [start(&key).await, cut_off];
    let groups =
        create(&nodes, "patient", config(|parameters| parameters.failure_timeout = Duration::from_secs(3))).await;
    control.partition([nodes[0].local_addr()]);
    let (cut_at, unheard) = (Instant::now(), groups[1].broadcast("into the silence").await.unwrap());
    let mut unheard = std::pin::pin!(unheard.into_future());
    until("twice the idle timeout has passed", async || {
        assert!(linked(&groups[1], nodes[0].id()).await, "the group still waits for it");
        cut_at.elapsed() >= Duration::from_millis(1_600)
    })
    .await;
    assert!(unheard.as_mut().now_or_never().is_none(), "nothing arrives");
    control.partition([]);
    within("an approval over the same link", unheard).await.unwrap();
}
