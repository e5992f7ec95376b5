//! Many groups of the same nodes.

use std::net::SocketAddr;
use std::time::Duration;

use cloudy_node::fault::MemoryNetwork;
use cloudy_node::{CreateGroupError, CreationEvent, GROUPS_MAX, Group, GroupConfig, JoinError, Node};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use crate::common::{key, start, until, within};

/// Creates a group of all nodes.
async fn create(nodes: &[Node], name: String) -> Vec<Group> {
    let mut creation = nodes[0].prepare_group(&name, GroupConfig::default()).await.unwrap();
    let join = nodes[1..].iter().map(|node| node.join_group_at(&name, nodes[0].local_addr()));
    let gather = async {
        let mut accepted = 0;
        while accepted < nodes.len() - 1 {
            match creation.next_event().await.unwrap() {
                CreationEvent::AskedToJoin { node } => creation.invite(node),
                CreationEvent::Accepted { .. } => accepted += 1,
                CreationEvent::Refused { node, reason } => panic!("{}: {reason}", node.short()),
                event => panic!("{event:?}"),
            }
        }
        creation.create(None).await
    };
    let (creator, others) = within("the group is created", async { tokio::join!(gather, join_all(join)) }).await;
    std::iter::once(creator.unwrap()).chain(others.into_iter().map(Result::unwrap)).collect()
}

/// In paused time, so that a slow machine changes nothing.
#[tokio::test(start_paused = true)]
async fn three_hundred_groups_of_three_nodes_work_side_by_side() {
    const GROUPS: usize = 300;
    let (key, network) = (key(), MemoryNetwork::new(1));
    let mut nodes = Vec::new();
    for last in 1..=3 {
        let socket = network.bind(SocketAddr::from(([10, 0, 0, last], 1))).unwrap();
        nodes.push(Node::builder().cluster_key(&key).socket(socket).start().await.unwrap());
    }
    let names = (0..GROUPS).map(|at| create(&nodes, format!("group {at}")));
    let groups: Vec<Vec<Group>> = stream::iter(names).buffered(16).collect().await;
    for group in &groups {
        let receipts = join_all(group.iter().map(|member| member.broadcast("x"))).await;
        for receipt in receipts {
            within("the approval", receipt.unwrap().into_future()).await.unwrap();
        }
    }
    // A member is evicted from all of them at once, and comes back to all.
    let [one, other, third] = [0, 1, 2].map(|at: usize| nodes[at].local_addr());
    [one, other].into_iter().for_each(|rest| network.cut(rest, third));
    let members = async |group: &Group| group.status().await.unwrap().view.unwrap().members();
    for group in &groups {
        until("it is evicted", async || members(&group[0]).await == 2).await;
    }
    [one, other].into_iter().for_each(|rest| network.heal(rest, third));
    for group in &groups {
        until("it is back", async || members(&group[0]).await == 3).await;
        within("the approval", group[2].broadcast("y").await.unwrap().into_future()).await.unwrap();
    }
}

#[tokio::test]
async fn more_groups_than_a_node_may_be_in_are_refused_by_name() {
    let key = key();
    let (node, other) = (start(&key).await, start(&key).await);
    let mut waiting = Vec::new();
    for at in 0..GROUPS_MAX - 1 {
        waiting.push(node.join_group(&format!("group {at}")).await.unwrap());
    }
    let group = node.create_group("the last", 1, GroupConfig::default()).await.unwrap();
    let refused = node.create_group("one more", 1, GroupConfig::default()).await.unwrap_err();
    assert_eq!(refused, CreateGroupError::TooManyGroups);
    assert!(refused.to_string().contains("512 groups"), "{refused}");
    let joined = node.join_group_at("one more", other.local_addr()).await;
    assert_eq!(joined.unwrap_err(), JoinError::TooManyGroups);
    // Withdrawn, so there is a place.
    waiting.pop();
    drop(group);
    let joined = node.join_group_at("one more", other.local_addr()).timeout(Duration::from_millis(500)).await;
    assert!(matches!(joined, Err(JoinError::TimedOut(_))), "{joined:?}");
}
