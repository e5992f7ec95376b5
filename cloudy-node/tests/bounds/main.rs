//! Attacks of a hostile peer at the level of QUIC, and their costs. It has the cluster's key: all others fail at the
//! handshake.

#[path = "../common/mod.rs"]
mod common;

mod floods;
mod hostile;
mod members;
mod refusals;
mod refused;
mod resources;
mod strangers;
mod trust;

use cloudy_node::Group;
use futures_util::future::join_all;

/// The group continues: this number of broadcasts is approved, in the same order at all nodes.
async fn goes_on(groups: &[Group], count: usize) {
    let before = groups[0].status().await.unwrap().index.0;
    let mut receipts = Vec::new();
    for at in 0..count {
        receipts.push(groups[at % groups.len()].broadcast(at.to_le_bytes()).await.unwrap());
    }
    for receipt in receipts {
        common::within("the approval", receipt.into_future()).await.unwrap();
    }
    let results = join_all(groups.iter().map(|group| common::read(group, before + 1, count))).await;
    assert!(results.iter().all(|result| *result == results[0]));
}
