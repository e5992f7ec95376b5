//! Recovery of a group from one data directory, after the other members are lost.

use std::time::Duration;

use cloudy_node::data::{self, DataError, MEMBER_ANSWER_TIMEOUT, StoredNode};
use cloudy_node::{ClusterKeys, DataDir, Durability, Group, GroupConfig, Index, Node, Parameters};
use tempfile::TempDir;

use crate::common::{create, key, until, within};
use crate::hosts::opened;

const COUNT: u64 = 60;
/// Where nothing answers, the time to wait for it does not matter.
const UNANSWERED: Duration = Duration::from_millis(100);

async fn start(keys: &ClusterKeys, dir: &TempDir) -> Node {
    let data = DataDir::open(dir.path(), true).unwrap();
    let identity = data.identity(keys.primary()).unwrap();
    Node::builder().identity(identity).data_dir(data).start().await.unwrap()
}

/// Three members on disk with messages, and their directories.
async fn three(keys: &ClusterKeys) -> (Vec<TempDir>, Vec<Node>, Vec<Group>) {
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    for dir in &dirs {
        nodes.push(start(keys, dir).await);
    }
    let parameters = Parameters::default().durability(Durability::Disk);
    let groups = create(&nodes, "orders", GroupConfig::default().parameters(parameters)).await;
    for number in 0..COUNT {
        drop(groups[number as usize % 3].broadcast(format!("order {number}")).await.unwrap());
    }
    for group in &groups {
        within("all are approved", group.flush().into_future()).await.unwrap();
    }
    for group in &groups {
        until("it has all", async || group.status().await.is_some_and(|status| status.index == Index(COUNT))).await;
    }
    (dirs, nodes, groups)
}

fn payloads(dir: &TempDir) -> Vec<Vec<u8>> {
    let node = StoredNode::open(dir.path()).unwrap();
    let group = node.group(None).unwrap();
    let (mut result, mut payloads) = (node.read(&group, Index(1)).unwrap(), Vec::new());
    while let Some(part) = result.next_part().unwrap() {
        for item in part {
            if let cloudy_node::ApprovedItem::Batch(entry) = item {
                payloads.extend(cloudy_node::payload_slices(&entry.batch.body).map(<[u8]>::to_vec));
            }
        }
    }
    payloads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_other_members_are_lost_continues_as_a_new_one_with_every_approved_message() {
    let keys = ClusterKeys::from(key());
    let (dirs, nodes, groups) = three(&keys).await;
    let former = groups[0].id();
    drop(groups);
    // Without their handles the nodes end, and announce nothing.
    drop(nodes);
    for dir in &dirs {
        drop(opened(dir.path()).await);
    }
    let asked = data::ask_members(dirs[0].path(), None, &keys, &[], UNANSWERED).await.unwrap();
    assert_eq!((asked.answers.len(), asked.others.len()), (0, 2), "{asked:?}");
    let recovered = asked.recover().await.unwrap();
    assert_eq!((recovered.former, recovered.excluded.len()), (former, 2));
    assert!(recovered.group != former && recovered.last == Index(COUNT), "{recovered:?}");
    assert!(recovered.backup.is_file(), "the former database is kept");
    let all = payloads(&dirs[0]);
    assert_eq!(all.len() as u64, COUNT);
    assert_eq!(data::verify(dirs[0].path()).unwrap().damage, []);
    // It runs, and others join it; the former members, which return, are in their own group.
    let node = start(&keys, &dirs[0]).await;
    let group = node.resumed_groups()[0].clone();
    assert_eq!((node.resumed_groups().len(), group.id()), (1, recovered.group));
    let approval = within("approved alone", group.broadcast("later").await.unwrap().into_future()).await.unwrap();
    assert_eq!((approval.index, approval.confirmed.len()), (Index(COUNT + 1), 1));
    let joiner = start(&keys, &tempfile::tempdir().unwrap()).await;
    let joined = within("joined", joiner.join_group_at("orders", node.local_addr()).into_future()).await.unwrap();
    let returned = start(&keys, &dirs[1]).await;
    assert_eq!(returned.resumed_groups()[0].id(), former);
    returned.connect(node.local_addr()).await.unwrap();
    let receipt = group.broadcast("to both").await.unwrap();
    let approval = within("approved by both", receipt.into_future()).await.unwrap();
    assert_eq!((approval.index, approval.confirmed.len()), (Index(COUNT + 2), 2));
    until("the joiner has it", async || joined.status().await.is_some_and(|status| status.index == approval.index))
        .await;
    assert_eq!(
        returned.resumed_groups()[0].status().await.unwrap().index,
        Index(COUNT),
        "the former group is as it was"
    );
    for node in [node, joiner, returned] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_which_a_member_answers_is_not_recovered() {
    let keys = ClusterKeys::from(key());
    let (dirs, nodes, groups) = three(&keys).await;
    drop(groups);
    nodes[0].shutdown().await;
    let before = std::fs::read(dirs[0].path().join("cloudy.redb")).unwrap();
    let asked = data::ask_members(dirs[0].path(), Some("orders"), &keys, &[], MEMBER_ANSWER_TIMEOUT).await.unwrap();
    assert_eq!(asked.answers.len(), 2, "{asked:?}");
    assert!(asked.answers[0].contains("and is a member"), "{asked:?}");
    let refused = asked.recover().await.unwrap_err();
    assert!(matches!(refused, DataError::MembersAnswer { .. }), "{refused}");
    // A node with another key at a known address is no proof that the member is gone.
    let others = ClusterKeys::from(key());
    let asked = data::ask_members(dirs[0].path(), None, &others, &[], MEMBER_ANSWER_TIMEOUT).await.unwrap();
    assert!(asked.answers.iter().all(|answer| answer.contains("refuses the link")), "{asked:?}");
    assert_eq!(asked.answers.len(), 2, "{asked:?}");
    assert!(std::fs::read(dirs[0].path().join("cloudy.redb")).unwrap() == before, "the directory was changed");
    for node in &nodes {
        node.shutdown().await;
    }
}
