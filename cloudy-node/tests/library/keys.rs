//! A cluster changes its key, and shuts nodes out.

use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::LinkFailure;
use cloudy_node::NodeKey;
use cloudy_node::{
    ApprovedError, ClusterKeys, ConnectError, CreateGroupError, EndReason, Event, Group, GroupConfig, Identity,
    JoinError, Node, NodeId, StartError,
};
use futures_util::future::join_all;

use crate::common::{create, impatient, key, read, until, within};
use crate::help::{event, linked, start_cuttable};

async fn start(keys: &ClusterKeys) -> Node {
    start_with(keys, EndpointLimits::default()).await
}

async fn start_with(keys: &ClusterKeys, limits: EndpointLimits) -> Node {
    Node::builder().cluster_keys(keys).limits(limits).start().await.unwrap()
}

/// The keys before a change, and after each of its steps.
fn steps() -> [ClusterKeys; 4] {
    let before = ClusterKeys::from(key());
    let mut begun = before.clone();
    begun.begin_rotation(key()).unwrap();
    let mut switched = begun.clone();
    switched.switch().unwrap();
    let mut finished = switched.clone();
    finished.finish().unwrap();
    [before, begun, switched, finished]
}

fn failure(result: Result<NodeId, ConnectError>) -> LinkFailure {
    match result {
        Err(ConnectError::Link { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

/// A dialler may have a link for a moment before the other side refuses it.
async fn refused(from: &Node, to: &Node) -> LinkFailure {
    within("it is refused", async {
        loop {
            if let Err(ConnectError::Link { failure, .. }) = from.connect(to.local_addr()).await {
                return failure;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Broadcasts once at each, and waits for the approvals.
async fn all_go_on(groups: &[Group]) {
    let approvals = groups.iter().map(async |group| {
        let receipt = group.broadcast("continues").await.unwrap();
        within("it is approved", receipt.into_future()).await.unwrap();
    });
    join_all(approvals).await;
}

async fn views(groups: &[Group]) -> Vec<u64> {
    join_all(groups.iter().map(async |group| group.status().await.unwrap().view.unwrap().id.0)).await
}

/// The bytes sent by the links that are up: the sum grows as long as none of them goes down.
async fn sent(nodes: &[Node]) -> Vec<u64> {
    join_all(nodes.iter().map(async |node| node.traffic().await.bytes_sent)).await
}

async fn loses(groups: &[Group], node: NodeId) {
    for group in groups {
        event(group, "a view without it", |event| match event {
            Event::ViewInstalled { view, .. } => view.rank_of(node).is_none().then_some(()),
            _ => None,
        })
        .await;
    }
}

async fn ended(group: &Group) -> EndReason {
    let mut approved = group.approved_from(cloudy_node::Index(1));
    loop {
        match within("the group ends here", approved.next_batch()).await {
            Some(Err(ApprovedError::Ended(reason))) => return reason,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nodes_that_are_one_step_apart_link_both_ways_and_no_others() {
    let steps = steps();
    let nodes = join_all(steps.iter().map(start)).await;
    for (from, dialler) in nodes.iter().enumerate() {
        for (to, dialled) in nodes.iter().enumerate().filter(|&(to, _)| to != from) {
            if from.abs_diff(to) == 1 {
                assert_eq!(dialler.connect(dialled.local_addr()).await, Ok(dialled.id()), "{from} {to}");
            } else {
                assert_eq!(refused(dialler, dialled).await, LinkFailure::OtherClusterKey, "{from} {to}");
            }
        }
    }
}

#[tokio::test]
async fn a_live_group_changes_its_key_and_loses_no_link() {
    let steps = steps();
    let nodes = join_all([&steps[0]; 3].map(start)).await;
    let groups = create(&nodes, "rotates", GroupConfig::default()).await;
    // Enough bytes to notice a link that begins anew.
    for _ in 0..20 {
        let receipt = groups[0].broadcast(vec![7; 50_000]).await.unwrap();
        within("it is approved", receipt.into_future()).await.unwrap();
    }
    until("all are linked", async || {
        for (group, node) in groups.iter().flat_map(|group| nodes.iter().map(move |node| (group, node))) {
            if group.node_id() != node.id() && !linked(group, node.id()).await {
                return false;
            }
        }
        true
    })
    .await;
    let before = (views(&groups).await, sent(&nodes).await);
    for (number, keys) in steps.iter().enumerate().skip(1) {
        for node in &nodes {
            node.set_keys(keys).await.unwrap();
            all_go_on(&groups).await;
            // Each new node finds one that takes it, with the keys of this step and of the one before.
            for newcomer in [&steps[number - 1], keys] {
                assert_eq!(start(newcomer).await.connect(node.local_addr()).await, Ok(node.id()));
            }
        }
    }
    assert_eq!(views(&groups).await, before.0, "no view has changed");
    for (at, (before, after)) in before.1.iter().zip(sent(&nodes).await).enumerate() {
        assert!(after >= *before, "a link of node {at} was lost: {before} bytes, then {after}");
    }
    let stranger = start(&steps[0]).await;
    assert_eq!(refused(&stranger, &nodes[1]).await, LinkFailure::OtherClusterKey);
    assert_eq!(refused(&nodes[1], &stranger).await, LinkFailure::OtherClusterKey);
    let newcomer = start(&steps[3]).await;
    let joined = within("it joins", newcomer.join_group_at("rotates", nodes[1].local_addr())).await.unwrap();
    let result = read(&joined, 1, 20 + 9 * 3).await;
    assert_eq!(read(&groups[2], 1, result.len()).await, result);
}

#[tokio::test]
async fn a_node_that_the_change_has_missed_is_cut_off_and_evicted() {
    let steps = steps();
    let nodes = join_all([&steps[0]; 4].map(|keys| start_with(keys, impatient()))).await;
    let groups = create(&nodes, "missed", GroupConfig::default()).await;
    let (missed, missed_group) = (&nodes[3], &groups[3]);
    all_go_on(&groups).await;
    for keys in &steps[1..] {
        for node in &nodes[..3] {
            node.set_keys(keys).await.unwrap();
        }
        if *keys == steps[1] {
            assert!(linked(missed_group, nodes[0].id()).await, "while its key is accepted it is linked");
        }
    }
    loses(&groups[..3], missed.id()).await;
    assert_eq!(refused(missed, &nodes[0]).await, LinkFailure::OtherClusterKey);
    all_go_on(&groups[..3]).await;
    // The last step of the change is all that it lacks.
    missed.set_keys(&steps[3]).await.unwrap();
    within("it comes back", async { all_go_on(std::slice::from_ref(missed_group)).await }).await;
}

#[tokio::test]
async fn a_revoked_member_is_disconnected_evicted_notified_and_not_readmitted() {
    let keys = ClusterKeys::from(key());
    let nodes = join_all([&keys; 4].map(|keys| start_with(keys, impatient()))).await;
    let groups = create(&nodes, "revokes", GroupConfig::default()).await;
    let (out, stay) = (&nodes[3], &nodes[..3]);
    all_go_on(&groups).await;
    // While the log passes two voters, the loss of either stops the group (docs/reference/guarantees.md).
    until("three vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    stay[1].revoke(out.id()).await.unwrap();
    assert_eq!(ended(&groups[3]).await, EndReason::Revoked);
    loses(&groups[..3], out.id()).await;
    all_go_on(&groups[..3]).await;
    for node in stay {
        until("it has learned it", async || node.revoked().contains(&out.id())).await;
        // Of the words each side hears its own.
        assert_eq!(failure(node.connect(out.local_addr()).await), LinkFailure::RevokedThere);
        let words = refused(out, node).await;
        assert_eq!(words, LinkFailure::RevokedHere);
        assert!(words.to_string().contains("this node's identity was revoked") && words.is_refusal(), "{words}");
    }
    // It has given up: nothing is left that would wait or dial.
    assert_eq!(out.join_group("revokes").await.unwrap().joined().await.unwrap_err(), JoinError::Revoked);
    assert_eq!(out.prepare_group("own", GroupConfig::default()).await.unwrap_err(), CreateGroupError::Revoked);
    // Once more changes nothing.
    stay[0].revoke(out.id()).await.unwrap();
    all_go_on(&groups[..3]).await;
}

#[tokio::test]
async fn a_revoked_member_and_the_others_leave_each_other_alone() {
    let key = key();
    let keys = ClusterKeys::from(key.clone());
    let (out, at_out) = start_cuttable(&key, impatient()).await;
    let nodes = [start_with(&keys, impatient()).await, start_with(&keys, impatient()).await, out];
    let groups = create(&nodes, "quiet", GroupConfig::default()).await;
    all_go_on(&groups).await;
    // While the log passes two voters, the loss of either stops the group (docs/reference/guarantees.md).
    until("three vote", async || groups[0].status().await.unwrap().voters.len() == 3).await;
    // Cut off as well, so that it learns it from its own dialling, when the others have missed it already.
    at_out.partition(nodes[..2].iter().map(Node::local_addr));
    nodes[0].revoke(nodes[2].id()).await.unwrap();
    loses(&groups[..2], nodes[2].id()).await;
    at_out.heal();
    assert_eq!(ended(&groups[2]).await, EndReason::Revoked);
    // No node dials: the longest back-off passes without a datagram from it; one from the others would be answered.
    let mut before = u64::MAX;
    until("it falls silent", async || {
        // sleep: longer than any back-off of a node that dials again.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        std::mem::replace(&mut before, at_out.counters().sent) == at_out.counters().sent
    })
    .await;
    all_go_on(&groups[..2]).await;
}

#[tokio::test]
async fn a_revocation_reaches_all_linked_nodes_and_later_ones() {
    let keys = ClusterKeys::from(key());
    // A line: the first and the last have no link.
    let nodes = join_all([&keys; 4].map(start)).await;
    nodes[0].connect(nodes[1].local_addr()).await.unwrap();
    nodes[1].connect(nodes[2].local_addr()).await.unwrap();
    nodes[3].connect(nodes[2].local_addr()).await.unwrap();
    let waiting = nodes[3].join_group("never").await.unwrap();
    nodes[0].revoke(nodes[3].id()).await.unwrap();
    until("the third has learned it", async || nodes[2].revoked().contains(&nodes[3].id())).await;
    assert_eq!(within("it is cut off", waiting.joined()).await.unwrap_err(), JoinError::Revoked);
    let late = start(&keys).await;
    late.connect(nodes[2].local_addr()).await.unwrap();
    until("a node that comes learns it", async || late.revoked().contains(&nodes[3].id())).await;
    assert_eq!(failure(nodes[3].connect(late.local_addr()).await), LinkFailure::RevokedHere);
}

#[tokio::test]
async fn a_revoked_node_learns_it_when_it_dials_and_when_it_is_dialled() {
    for dials in [true, false] {
        let mut keys = ClusterKeys::from(key());
        let out = start(&keys).await;
        let waiting = out.join_group("never").await.unwrap();
        keys.revoke(out.id()).unwrap();
        let other = start(&keys).await;
        if dials {
            assert_eq!(failure(out.connect(other.local_addr()).await), LinkFailure::RevokedHere);
        } else {
            assert_eq!(failure(other.connect(out.local_addr()).await), LinkFailure::RevokedThere);
        }
        assert_eq!(within("it is notified", waiting.joined()).await.unwrap_err(), JoinError::Revoked);
    }
}

#[tokio::test]
async fn keys_that_revoke_a_node_shut_it_out_and_do_not_start_it() {
    let mut keys = ClusterKeys::from(key());
    let node_key = NodeKey::generate().unwrap();
    let identity = || Identity::with_node_key(keys.primary(), &node_key).unwrap();
    let (out, other) = (Node::builder().identity(identity()).start().await.unwrap(), start(&keys).await);
    out.connect(other.local_addr()).await.unwrap();
    let waiting = out.join_group("never").await.unwrap();
    let again = Node::builder().identity(identity());
    keys.revoke(out.id()).unwrap();
    other.set_keys(&keys).await.unwrap();
    assert_eq!(within("it is notified", waiting.joined()).await.unwrap_err(), JoinError::Revoked);
    let error = again.cluster_keys(&keys).start().await.unwrap_err();
    assert!(matches!(error, StartError::Revoked { node } if node == out.id()), "{error}");
    // Keys without it do not let it in again.
    let forgetful = ClusterKeys::from(keys.primary().clone());
    other.set_keys(&forgetful).await.unwrap();
    assert_eq!(failure(out.connect(other.local_addr()).await), LinkFailure::RevokedHere);
    // A node that finds itself in its keys gives up as well, and passes it on.
    let late = start(&forgetful).await;
    other.connect(late.local_addr()).await.unwrap();
    keys.revoke(other.id()).unwrap();
    other.set_keys(&keys).await.unwrap();
    until("it is passed on", async || late.revoked().contains(&other.id())).await;
    assert_eq!(other.prepare_group("own", GroupConfig::default()).await.unwrap_err(), CreateGroupError::Revoked);
}
