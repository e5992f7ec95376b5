//! The order and the timing of starts do not matter, and a wait that is over says whom it was for.

use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::{
    Awaited, ClusterKey, ConnectError, CreateGroupError, CreationEvent, GroupConfig, Identity, Index, JoinError, Node,
    PendingGroup, SessionPlan,
};
use tokio::task::JoinHandle;

use crate::common::{key, start, start_all, within};
use crate::help::{config, start_cuttable};
use crate::hosts::{on_disk, start_hosts};

/// Of a wait that is to be over.
const SOON: Duration = Duration::from_millis(400);

/// An address that nothing listens at, for a node that is started later.
fn free_address() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn start_at(key: &ClusterKey, address: SocketAddr) -> Node {
    Node::builder().cluster_key(key).bind(address).start().await.unwrap()
}

fn joining(node: &Node, at: SocketAddr) -> JoinHandle<Result<cloudy_node::Group, JoinError>> {
    let node = node.clone();
    tokio::spawn(async move { node.join_group_at("early", at).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_at_any_time_before_or_after_the_creation() {
    let key = key();
    let at = free_address();
    let others = start_all(&key, 4).await;
    let before_start = joining(&others[0], at);
    let late = others[1].join_group_at("early", at).timeout(SOON).await.unwrap_err();
    let JoinError::TimedOut(late) = late else { panic!("{late}") };
    assert_eq!(late.answers()[0].from, Awaited::Address(at), "{late}");
    let creator = start_at(&key, at).await;
    let before_creation = joining(&others[1], at);
    // A node that requests to join at this point learns that there is no such group.
    let too_early = within("the answer", others[2].join_group_at("early", at).timeout(SOON)).await.unwrap_err();
    let JoinError::TimedOut(late) = &too_early else { panic!("{too_early}") };
    let of_creator = late.answers().iter().find(|answer| answer.from == Awaited::Node(creator.id())).unwrap();
    assert!(of_creator.words.contains("is in no group \"early\""), "{too_early}");
    assert!(too_early.to_string().contains("was not joined within 400ms"), "{too_early}");
    let group = within("it is created", creator.create_group("early", 3, GroupConfig::default())).await.unwrap();
    let after = within("it joins", others[3].join_group_at("early", at)).await.unwrap();
    let mut groups = vec![group, after];
    for joined in [before_start, before_creation] {
        groups.push(within("it joins", joined).await.unwrap().unwrap());
    }
    within("an approval", groups[3].broadcast("by all").await.unwrap().into_future()).await.unwrap();
    assert!(groups.iter().all(|joined| joined.id() == groups[0].id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_on_disk_find_each_other() {
    for _ in 0..3 {
        let key = key();
        let (_hosts, processes) = start_hosts(&key, 3).await;
        let at = processes[0].node.local_addr();
        let joins: Vec<_> = processes[1..].iter().map(|process| joining(&process.node, at)).collect();
        let created = processes[0].node.create_group("early", 3, on_disk());
        let group = within("it is created", created).await.unwrap();
        for join in joins {
            assert_eq!(within("it joins", join).await.unwrap().unwrap().id(), group.id());
        }
    }
}

#[tokio::test]
async fn an_observer_waits_for_the_group_to_begin() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let creation = nodes[0].prepare_group("seen", GroupConfig::default()).await.unwrap();
    let early = nodes[1].observe_group("seen", nodes[0].local_addr(), Index(1)).timeout(SOON).await.unwrap_err();
    assert!(early.to_string().contains("has not begun"), "{early}");
    let observed = nodes[1].observe_group("seen", nodes[0].local_addr(), Index(1));
    let (created, observed) = within("both", async { tokio::join!(creation.create(None), observed) }).await;
    assert_eq!(created.unwrap().id(), observed.unwrap().id());
}

#[tokio::test]
async fn a_creator_names_the_nodes_that_came_and_those_that_did_not_in_time() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let joined = joining(&nodes[1], nodes[0].local_addr());
    let created = nodes[0].create_group("early", 3, GroupConfig::default()).timeout(SOON);
    let error = within("its time is over", created).await.unwrap_err();
    let CreateGroupError::TimedOut(late) = &error else { panic!("{error}") };
    assert_eq!(late.waited(), SOON);
    assert!(error.to_string().contains("group \"early\" was not created: 1 of 2 other members joined"), "{error}");
    // The other waits for the next attempt.
    let created = nodes[0].create_group("early", 2, GroupConfig::default());
    let (created, joined) = within("both", async { tokio::join!(created, joined) }).await;
    assert_eq!(created.unwrap().id(), joined.unwrap().unwrap().id());
}

#[tokio::test]
async fn a_node_that_accepted_and_was_shut_down_does_not_count_as_a_member() {
    let key = key();
    let nodes = start_all(&key, 4).await;
    let at = nodes[0].local_addr();
    let creator = nodes[0].clone();
    let created = tokio::spawn(async move { creator.create_group("early", 3, GroupConfig::default()).await });
    let late = within("it accepts", nodes[1].join_group_at("early", at).timeout(SOON)).await.unwrap_err();
    assert!(late.to_string().contains("accepted its invitation, and it has not created the group"), "{late}");
    nodes[1].shutdown().await;
    let joins: Vec<_> = nodes[2..].iter().map(|node| joining(node, at)).collect();
    let group = within("it is created", created).await.unwrap().unwrap();
    let ring: Vec<_> = group.status().await.unwrap().view.unwrap().ring.iter().map(|member| member.node).collect();
    let mut expected = [nodes[0].id(), nodes[2].id(), nodes[3].id()];
    expected.sort_unstable();
    assert_eq!(ring, expected);
    for join in joins {
        assert_eq!(within("it joins", join).await.unwrap().unwrap().id(), group.id());
    }
}

#[tokio::test]
async fn a_group_of_the_name_that_a_node_is_leaving_is_created_once_it_has_left() {
    let key = key();
    let (first, (second, cut)) = (start(&key).await, start_cuttable(&key, EndpointLimits::default()).await);
    let created = first.create_group("early", 2, GroupConfig::default());
    let joined = second.join_group_at("early", first.local_addr());
    let (created, joined) = within("both", async { tokio::join!(created, joined) }).await;
    let (_created, group) = (created.unwrap(), joined.unwrap());
    cut.partition([first.local_addr()]);
    let leaving = tokio::spawn(async move { group.leave().await });
    let error = loop {
        match second.prepare_group("early", GroupConfig::default()).await.unwrap_err() {
            // The task that leaves has not begun.
            CreateGroupError::NameTaken { .. } => tokio::task::yield_now().await,
            error => break error,
        }
    };
    assert_eq!(error, CreateGroupError::Leaving { name: "early".to_owned() });
    let error = second.create_group("early", 1, GroupConfig::default()).timeout(SOON).await.unwrap_err();
    let CreateGroupError::TimedOut(late) = &error else { panic!("{error}") };
    assert_eq!(late.answers()[0].words, "this node is leaving a group of that name", "{error}");
    cut.heal();
    within("it is created", second.create_group("early", 1, GroupConfig::default())).await.unwrap();
    within("it leaves", leaving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_that_cannot_take_part_is_named_by_the_creator() {
    let key = key();
    let (_hosts, processes) = start_hosts(&key, 1).await;
    let without = start(&key).await;
    let joined = joining(&without, processes[0].node.local_addr());
    let created = processes[0].node.create_group("early", 2, on_disk()).timeout(SOON);
    let error = within("its time is over", created).await.unwrap_err();
    let CreateGroupError::TimedOut(late) = &error else { panic!("{error}") };
    assert_eq!(late.answers()[0].from, Awaited::Node(without.id()));
    assert!(late.answers()[0].words.contains("has no data directory"), "{error}");
    assert_eq!(
        within("it is notified", joined).await.unwrap().unwrap_err(),
        JoinError::NeedsDataDir { name: "early".to_owned() }
    );
}

#[tokio::test]
async fn a_node_that_is_not_taken_in_at_first_joins_the_group_that_runs() {
    let key = key();
    let nodes = start_all(&key, 4).await;
    let joins: Vec<_> = nodes[1..].iter().map(|node| joining(node, nodes[0].local_addr())).collect();
    let group = within("it is created", nodes[0].create_group("early", 2, config(|_| {}))).await.unwrap();
    for join in joins {
        assert_eq!(within("it joins", join).await.unwrap().unwrap().id(), group.id());
    }
}

#[tokio::test]
async fn connecting_waits_for_a_node_that_starts_later_and_not_for_one_that_refuses() {
    let key = key();
    let (node, at) = (start(&key).await, free_address());
    let error = within("its time is over", node.connect(at).timeout(SOON)).await.unwrap_err();
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    let (linked, later) = tokio::join!(within("the link", node.connect(at)), async {
        // It dials before any other node is there.
        tokio::task::yield_now().await;
        start_at(&key, at).await
    });
    assert_eq!(linked, Ok(later.id()));
    let stranger = start(&self::key()).await;
    let refused = within("the refusal", stranger.connect(at).without_timeout()).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Link { .. }), "{refused}");
}

#[tokio::test]
async fn an_invitation_is_waited_for_as_long_as_every_other_wait() {
    let node = Node::builder().cluster_key(&key()).wait_timeout(SOON).start().await.unwrap();
    let joining = node.join_group("uninvited").await.unwrap();
    let late = within("the end of the wait", joining.joined()).await.unwrap_err();
    assert!(matches!(&late, JoinError::TimedOut(late) if late.waited() == SOON), "{late}");
    let forever = node.join_group("uninvited").await.unwrap().joined().without_timeout();
    assert!(tokio::time::timeout(2 * SOON, forever).await.is_err(), "it waits");
}

/// Gathers members, until one node has accepted its invitation.
async fn gathers(node: &Node, config: GroupConfig) -> PendingGroup {
    let mut creation = node.prepare_group("early", config).await.unwrap();
    loop {
        match within("a node comes", creation.next_event()).await.unwrap() {
            CreationEvent::AskedToJoin { node } => creation.invite(node),
            CreationEvent::Accepted { .. } => return creation,
            event => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_joiner_waits_for_a_creator_that_was_started_again_with_its_identity() {
    let key = key();
    let (identity, at) = (Identity::generate(&key).unwrap(), free_address());
    let start_creator = async || Node::builder().identity(identity.clone()).bind(at).start().await.unwrap();
    let (first, other) = (start_creator().await, start(&key).await);
    let joined = joining(&other, at);
    let creation = gathers(&first, GroupConfig::default()).await;
    first.shutdown().await;
    drop(creation);
    let again = start_creator().await;
    let created = within("it is created", again.create_group("early", 2, GroupConfig::default())).await.unwrap();
    assert_eq!(within("it joins", joined).await.unwrap().unwrap().id(), created.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_waits_for_a_creator_that_was_killed_and_started_again_with_its_data_directory() {
    let key = key();
    let (mut hosts, mut processes) = start_hosts(&key, 2).await;
    let joined = joining(&processes[1].node, processes[0].node.local_addr());
    let creation = gathers(&processes[0].node, on_disk()).await;
    processes.swap_remove(0).kill();
    drop(creation);
    let again = hosts[0].start(&key).await;
    let created = within("it is created", again.node.create_group("early", 2, on_disk())).await.unwrap();
    assert_eq!(within("it joins", joined).await.unwrap().unwrap().id(), created.id());
}

#[tokio::test]
async fn a_joiner_that_has_accepted_reports_its_wait() {
    let nodes = start_all(&key(), 2).await;
    let joined = nodes[1].join_group_at("early", nodes[0].local_addr()).timeout(SOON);
    let (creation, late) = tokio::join!(gathers(&nodes[0], GroupConfig::default()), joined);
    let late = late.unwrap_err();
    assert!(late.to_string().contains("accepted its invitation, and it has not created the group"), "{late}");
    drop(creation);
}

#[tokio::test]
async fn a_dropped_join_blocks_no_later_one() {
    let nodes = start_all(&key(), 2).await;
    let at = nodes[0].local_addr();
    let first = joining(&nodes[1], at);
    let creation = gathers(&nodes[0], GroupConfig::default()).await;
    first.abort();
    // It leaves the group that it accepted before, and comes into it again.
    let second = joining(&nodes[1], at);
    let group = within("it is created", creation.create(None)).await.unwrap();
    assert_eq!(within("it joins", second).await.unwrap().unwrap().id(), group.id());
}

#[tokio::test]
async fn a_join_into_a_running_group_that_was_dropped_blocks_no_later_one() {
    let nodes = start_all(&key(), 2).await;
    let at = nodes[0].local_addr();
    let group = nodes[0].create_group("early", 1, GroupConfig::default()).await.unwrap();
    for millis in [0, 1, 2, 5, 10, 20, 40] {
        // Dropped somewhere on its way.
        drop(tokio::time::timeout(Duration::from_millis(millis), nodes[1].join_group_at("early", at)).await);
        let joined = within("it joins", nodes[1].join_group_at("early", at)).await.unwrap();
        assert_eq!(joined.id(), group.id());
        within("it leaves", joined.leave()).await.unwrap();
    }
}

#[tokio::test]
async fn settings_that_members_cannot_decode_are_rejected_at_the_creator() {
    let node = start(&key()).await;
    let stall = config(|parameters| parameters.stall_timeout = Duration::MAX);
    let refused = node.create_group("early", 1, stall).await.unwrap_err();
    assert!(refused.to_string().contains("stall_timeout is"), "{refused}");
    let second = Duration::from_secs(1);
    let plan = SessionPlan::new(second, Duration::MAX, second).seed(0);
    let session = config(|parameters| parameters.session = true);
    let refused = node.prepare_group("early", session).await.unwrap().create(Some(plan)).await.unwrap_err();
    assert!(
        matches!(refused, CreateGroupError::Parameters(_)) && refused.to_string().contains("grace is"),
        "{refused}"
    );
}
