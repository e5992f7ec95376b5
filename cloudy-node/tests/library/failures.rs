//! A defect in any task or thread of a node stops the node, and every handle says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cloudy_node::discovery::{Advertisement, GROUP, Multicast, Responder};
use cloudy_node::fault::panic_in;
use cloudy_node::{
    ApprovedError, ApprovedItem, BroadcastError, CloseReason, ConnectError, CreateGroupError, EndReason, EventsError,
    FlushError, GroupConfig, Index, JoinError, LeaveError, Lookup, Node, NodeFailure, OnFailure, ReceiptError,
};
use futures_util::FutureExt;

use crate::common::{create, key, start, start_all, until, within};
use crate::help::{config, start_cuttable};
use crate::hosts::{on_disk, start_hosts};

/// Why a node failed: never but with the name of the part.
async fn failure(node: &Node, part: &str) -> NodeFailure {
    let CloseReason::Failed(failure) = within(part, node.closed()).await else { panic!("{part}: it was shut down") };
    assert_eq!(failure.part(), part);
    assert_eq!(failure.cause(), format!("it panicked: injected into the {part}"));
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_driver_ends_every_handle_with_its_message() {
    let key = key();
    let (peer, control) = start_cuttable(&key, cloudy_node::EndpointLimits::default()).await;
    let node = start(&key).await;
    let nodes = [node.clone(), peer];
    let waits = config(|parameters| parameters.on_failure = OnFailure::Wait);
    let group = create(&nodes, "ends", waits).await.remove(0);
    within("an approval", group.broadcast("before").await.unwrap().into_future()).await.unwrap();
    control.partition([node.local_addr()]);
    // Everything that can wait, waits.
    let receipt = group.broadcast("unconfirmed").await.unwrap();
    let id = receipt.id();
    let mut reader = group.approved_from(Index(2));
    assert!(matches!(reader.next_batch().await, Some(Ok(ApprovedItem::View(_)))), "the view in force comes first");
    let mut events = group.events();
    while events.next().now_or_never().is_some() {}
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let joining = node.join_group("never").await.unwrap();
    let creation = node.prepare_group("nobody", GroupConfig::default()).await.unwrap();
    let waiters = async {
        tokio::join!(
            receipt.into_future(),
            async { reader.next_batch().await },
            async {
                loop {
                    match events.next().await {
                        Some(Ok(_)) => {}
                        ended => return ended,
                    }
                }
            },
            group.flush(),
            group.leave(),
            joining.joined(),
            node.join_group_at("unreachable", nobody),
            node.create_group("alone", 2, GroupConfig::default()),
            node.connect(nobody),
            node.closed(),
        )
    };
    let mut waiters = std::pin::pin!(waiters);
    assert!(waiters.as_mut().now_or_never().is_none(), "all of them wait");
    panic_in(&node, "driver");
    let (receipt, read, event, flushed, left, joined, asked, created, linked, closed) =
        within("every handle ends", waiters).await;
    let failure = failure(&node, "driver").await;
    let ended = EndReason::NodeFailed(failure.clone());
    assert_eq!(receipt.unwrap_err(), ReceiptError::Unknown { id, reason: ended.clone() });
    assert_eq!(read.unwrap().unwrap_err(), ApprovedError::Ended(ended.clone()));
    assert_eq!(event.unwrap().unwrap_err(), EventsError::Ended(ended.clone()));
    assert_eq!(flushed.unwrap_err(), FlushError::Ended(ended.clone()));
    assert_eq!(left.unwrap_err(), LeaveError::Ended(ended.clone()));
    assert_eq!(joined.unwrap_err(), JoinError::NodeFailed(failure.clone()));
    assert!(matches!(asked.unwrap_err(), JoinError::NodeFailed(_) | JoinError::Connect(ConnectError::NodeFailed(_))));
    assert_eq!(created.unwrap_err(), CreateGroupError::NodeFailed(failure.clone()));
    assert_eq!(linked.unwrap_err(), ConnectError::NodeFailed(failure.clone()));
    assert_eq!(closed, CloseReason::Failed(failure.clone()));
    // Later calls return the same.
    assert_eq!(node.close_reason(), Some(CloseReason::Failed(failure.clone())));
    assert!(group.has_ended());
    assert_eq!(group.broadcast("after").await.unwrap_err(), BroadcastError::Ended(ended.clone()));
    assert_eq!(group.outcome(id).await, Err(ended));
    assert_eq!(within("the status", group.status()).await, None);
    let created = within("created", creation.create(None)).await;
    assert_eq!(created.unwrap_err(), CreateGroupError::NodeFailed(failure.clone()));
    assert_eq!(within("connect", node.connect(nobody)).await.unwrap_err(), ConnectError::NodeFailed(failure.clone()));
    within("the shutdown", node.shutdown()).await;
    assert!(failure.to_string().contains("its driver failed: it panicked: injected into the driver"), "{failure}");
    until("its port is free", async || std::net::UdpSocket::bind(node.local_addr()).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_task_of_a_link_stops_the_node_by_name() {
    let parts = [
        "acceptor",
        "accepted link",
        "dialler",
        "link reader",
        "node stream reader",
        "node stream writer",
        "stream reader",
        "stream writer",
    ];
    for part in parts {
        let key = key();
        let nodes = start_all(&key, 2).await;
        let groups = create(&nodes, "works", GroupConfig::default()).await;
        panic_in(&nodes[0], part);
        // Each of these runs some part anew.
        until(part, async || {
            let other = start(&key).await;
            let soon = Duration::from_millis(200);
            let _ = other.join_group_at("works", nodes[0].local_addr()).timeout(soon).await;
            let _ = other.join_group_at("unknown", nodes[0].local_addr()).timeout(soon).await;
            let _ = nodes[0].connect(other.local_addr()).timeout(soon).await;
            let _ = nodes[0].join_group_at("elsewhere", other.local_addr()).timeout(soon).await;
            nodes[0].close_reason().is_some()
        })
        .await;
        let failure = failure(&nodes[0], part).await;
        let ended = EndReason::NodeFailed(failure);
        assert_eq!(groups[0].broadcast("after").await.unwrap_err(), BroadcastError::Ended(ended));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_discovery_stops_the_node_by_name() {
    let place = Multicast::new(GROUP, Ipv4Addr::LOCALHOST.into());
    for part in ["discovery responder", "lookup", "log summaries"] {
        let node = start(&key()).await;
        panic_in(&node, part);
        let advertised = Advertisement::new(node.id(), node.local_addr(), "");
        let _responder = Responder::start(node.discovery_keys(), place, advertised).unwrap();
        node.look_up(Lookup::default().names(vec!["localhost:9".to_owned()])).unwrap();
        // A stranger is refused, which the log reports.
        let stranger = start(&key()).await;
        futures_util::future::select(stranger.connect(node.local_addr()), Box::pin(failure(&node, part))).await;
        failure(&node, part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_thread_of_the_storage_stops_the_node_by_name() {
    for part in ["storage writer", "storage reader"] {
        let (_hosts, processes) = start_hosts(&key(), 1).await;
        let node = processes[0].node.clone();
        let small = on_disk().retain_bytes(1);
        let group = within("it is created", node.create_group("kept", 1, small)).await.unwrap();
        for number in 0..10 {
            within("an approval", group.broadcast(format!("{number}")).await.unwrap().into_future()).await.unwrap();
        }
        panic_in(&node, part);
        // Both threads have work: parts that memory does not keep are read from the disk.
        let pending = group.broadcast("last").await;
        let mut reader = group.approved_from(Index(1));
        let read = within("the reader ends", async {
            loop {
                match reader.next_batch().await {
                    Some(Ok(_)) => {}
                    Some(Err(ApprovedError::Lagged { .. })) => {}
                    ended => return ended,
                }
            }
        })
        .await;
        let failure = failure(&node, part).await;
        assert_eq!(read.unwrap().unwrap_err(), ApprovedError::Ended(EndReason::NodeFailed(failure)));
        if let Ok(receipt) = pending {
            // It was approved before, or its outcome is open.
            drop(within("the receipt", receipt.into_future()).await);
        }
        within("the shutdown", node.shutdown()).await;
    }
}
