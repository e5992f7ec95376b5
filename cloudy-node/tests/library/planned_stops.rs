//! A node stops and returns: the others wait for no timeout (`protocol.md` §6.8).

use std::time::Duration;

use cloudy_node::{BroadcastError, EndReason, Event, Group, GroupConfig, Node};

use crate::common::{create, key, start_all, until, within};
use crate::help::event;
use crate::hosts::{Process, on_disk, start_hosts};

async fn ring(group: &Group) -> usize {
    group.status().await.and_then(|status| status.view).map_or(0, |view| view.members())
}

async fn approved(group: &Group, payload: &str) {
    within("the approval", group.broadcast(payload).await.unwrap().into_future()).await.unwrap();
}

/// The failure timeout is far longer than the test waits: only an announcement makes the others continue.
fn patient(config: GroupConfig) -> GroupConfig {
    let parameters = config.parameters.clone();
    config.parameters(parameters.failure_timeout(Duration::from_secs(600)).timeout_max(Duration::from_secs(600)))
}

#[tokio::test]
async fn a_group_continues_without_a_timeout_when_a_member_suspends_it() {
    let nodes = start_all(&key(), 3).await;
    let groups = create(&nodes, "stops", patient(GroupConfig::default())).await;
    within("the stop", groups[2].suspend()).await.unwrap();
    assert_eq!(groups[2].broadcast("late").await.unwrap_err(), BroadcastError::Ended(EndReason::Suspended));
    let id = nodes[2].id();
    event(&groups[0], "the name", |event| matches!(event, Event::Suspended { node } if node == id).then_some(())).await;
    approved(&groups[0], "after").await;
    assert_eq!(ring(&groups[0]).await, 2);
    nodes[1].shutdown().await;
    within("the smaller ring", async { until("it is alone", async || ring(&groups[0]).await == 1).await }).await;
    within("the last one", groups[0].suspend()).await.unwrap();
}

#[tokio::test]
async fn a_second_shutdown_does_not_end_the_wait_of_the_first() {
    let nodes = start_all(&key(), 2).await;
    let groups = create(&nodes, "twice", patient(GroupConfig::default())).await;
    let address = nodes[1].local_addr();
    let first = async {
        nodes[1].shutdown().await;
        // The node has closed: its port is free.
        std::net::UdpSocket::bind(address).unwrap();
    };
    within("both", async { tokio::join!(first, nodes[1].shutdown()) }).await;
    until("the other one continues alone", async || ring(&groups[0]).await == 1).await;
}

#[tokio::test]
async fn a_rolling_restart_of_nodes_on_disk_waits_for_no_timeout() {
    let key = key();
    let (mut hosts, processes) = start_hosts(&key, 3).await;
    let nodes: Vec<Node> = processes.iter().map(|process| process.node.clone()).collect();
    let mut groups = create(&nodes, "rolls", patient(on_disk())).await;
    let mut processes: Vec<Option<Process>> = processes.into_iter().map(Some).collect();
    for at in 0..3 {
        let other = groups[(at + 1) % 3].clone();
        let stops = processes[at].take().unwrap();
        let id = stops.node.id();
        within("the shutdown", stops.node.shutdown()).await;
        event(&other, "the name", |event| matches!(event, Event::Suspended { node } if node == id).then_some(())).await;
        stops.kill();
        approved(&other, "two").await;
        let process = hosts[at].start(&key).await;
        let group = process.resumed();
        within("the return", group.ready()).await.unwrap();
        approved(&group, "three").await;
        until("all are on the ring", async || ring(&other).await == 3).await;
        (groups[at], processes[at]) = (group, Some(process));
    }
}
