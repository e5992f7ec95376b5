//! Resources that peers can make a node hold, and the time for which it holds them.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::LinkFailure;
use cloudy_node::fault::MemoryNetwork;
use cloudy_node::internals::{EndpointSocket, UNI_STREAMS_MAX};
use cloudy_node::{ClusterKey, ConnectError, GroupConfig, GroupId, Incarnation, Node};
use cloudy_proto::Durability;
use cloudy_proto::wire::{ControlFrame, NodeFrame, Stream};
use futures_util::FutureExt;

use crate::common::{create, impatient, key, start, start_all, until, within};
use crate::goes_on;
use crate::hostile::{BREACH, Hostile, OVERFLOW, closed, closed_or_reset, control, header, hello, node, open};

fn few(connections_max: usize, connections_per_address_max: usize) -> EndpointLimits {
    impatient().connections_max(connections_max).connections_per_address_max(connections_per_address_max)
}

#[tokio::test]
async fn a_peer_without_a_hello_is_disconnected() {
    let key = key();
    let limits = impatient().handshake_timeout(Duration::from_millis(200));
    let target = Node::builder().cluster_key(&key).limits(limits).start().await.unwrap();
    let hostile = Hostile::new(&key);
    let expected = (BREACH, "no hello within the timeout of a handshake".to_owned());
    // It opens nothing; lets the node open nothing; says half a hello.
    let silent = hostile.connect(target.local_addr()).await;
    assert_eq!(closed(&silent).await, expected);
    let stingy = hostile.connect_stingily(target.local_addr(), 0, 1 << 20).await;
    let _hello = hello(&stingy).await;
    assert_eq!(closed(&stingy).await, expected);
    let half = hostile.connect(target.local_addr()).await;
    let _half = open(&half, &header(GroupId([0; 16]), Incarnation(0), Stream::Node)).await;
    assert_eq!(closed(&half).await, expected);
}

#[tokio::test]
async fn connections_are_bounded_for_each_address_as_long_as_they_last() {
    let key = key();
    for limits in [few(2, 2), few(100, 2)] {
        let target = Node::builder().cluster_key(&key).limits(limits).start().await.unwrap();
        let hostiles = [Hostile::new(&key), Hostile::new(&key), Hostile::new(&key)];
        let first = hostiles[0].link(target.local_addr()).await;
        let second = hostiles[1].link(target.local_addr()).await;
        let third = hostiles[2].endpoint.connect(target.local_addr(), "cloudy").unwrap();
        let refused = within("the refusal", third).await.unwrap_err();
        assert_eq!(LinkFailure::from(refused), LinkFailure::Full);
        let honest = start(&key).await;
        let refused = within("the refusal", honest.connect(target.local_addr())).await.unwrap_err();
        let address = target.local_addr();
        assert_eq!(refused, ConnectError::Link { address, failure: LinkFailure::Full });
        // A place is free again once a connection has ended.
        first.0.close(0_u32.into(), b"");
        until("there is room", async || honest.connect(address).await.is_ok()).await;
        drop(second);
    }
}

#[tokio::test]
async fn a_peer_opens_no_more_streams_than_it_may() {
    let key = key();
    let target = start(&key).await;
    let hostile = Hostile::new(&key);
    let (connection, _node_stream) = hostile.link(target.local_addr()).await;
    let mut streams = Vec::new();
    // All wait for their headers.
    for _ in 1..UNI_STREAMS_MAX {
        streams.push(open(&connection, b"cloudy").await);
    }
    assert!(connection.open_uni().now_or_never().is_none(), "one more than it may");
    assert!(connection.open_bi().now_or_never().is_none(), "none may go both ways");
    // Once some have ended, others may come; a new limit is sent once it is worth a frame.
    for stream in &mut streams[..UNI_STREAMS_MAX as usize / 4] {
        stream.write_all(&header(GroupId([7; 16]), Incarnation(0), Stream::Control)[6..]).await.unwrap();
        stream.finish().unwrap();
    }
    within("another stream", connection.open_uni()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_header_closes_its_link() {
    let key = key();
    let network = MemoryNetwork::new(1);
    let address = |last| SocketAddr::from(([10, 0, 0, last], 1));
    let socket = network.bind(address(1)).unwrap();
    let target = Node::builder().cluster_key(&key).socket(socket).start().await.unwrap();
    let socket = EndpointSocket::Abstract(network.bind(address(2)).unwrap(), Arc::new(quinn::TokioRuntime));
    let hostile = Hostile::on(&key, socket);
    let (connection, _node_stream) = hostile.link(target.local_addr()).await;
    let _stream = open(&connection, b"cloudy").await;
    let started = tokio::time::Instant::now();
    assert_eq!(closed(&connection).await, (BREACH, "a stream without a header".to_owned()));
    assert!((9..12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_peer_that_sends_requests_without_reading_the_answers_loses_its_link() {
    let key = key();
    let nodes = start_all(&key, 2).await;
    let groups = create(&nodes, "ours", GroupConfig::default()).await;
    let hostile = Hostile::new(&key);
    // Each question is answered on the node stream, of which it reads nothing.
    let asks = hostile.connect_stingily(nodes[0].local_addr(), 64, 1_000).await;
    let mut node_stream = hello(&asks).await;
    let question = node(&NodeFrame::Join { name: "nothing".to_owned() }).repeat(200);
    let flood = async {
        while node_stream.write_all(&question).await.is_ok() {
            // On the one thread of this test the flood would keep its own end from hearing that the link is closed.
            tokio::task::yield_now().await;
        }
    };
    within("the flood ends", flood).await;
    let overflow = (OVERFLOW, "this peer receives too slowly".to_owned());
    let why = closed_or_reset(&asks).await;
    assert!(why.is_none() || why.as_ref() == Some(&overflow), "{why:?}");
    // Each invitation is refused on a separate stream, and it accepts none.
    let invites = hostile.connect_stingily(nodes[0].local_addr(), 2, 1 << 20).await;
    let _node_stream = hello(&invites).await;
    let flood = async {
        for round in 0_u128.. {
            let group = GroupId(round.to_le_bytes());
            let invite = control(&ControlFrame::Invite { name: "mine".to_owned(), durability: Durability::Memory });
            let Ok(mut stream) = invites.open_uni().await else { return };
            let bytes = [&header(group, Incarnation(0), Stream::Control)[..], &invite[..]].concat();
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
            // Fails only on a stream that is closed.
            let _ = stream.finish();
            tokio::task::yield_now().await;
        }
    };
    within("the flood ends", flood).await;
    let why = closed_or_reset(&invites).await;
    assert!(why.is_none_or(|(code, _)| code == OVERFLOW));
    goes_on(&groups, 100).await;
}

/// The first datagram of a handshake, as a dialler sends it.
async fn initial(key: &ClusterKey) -> Vec<u8> {
    let dialled = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = dialled.local_addr().unwrap();
    let hostile = Hostile::new(key);
    let dialling = hostile.endpoint.connect(address, "cloudy").unwrap();
    dialled.set_nonblocking(true).unwrap();
    let mut datagram = vec![0; 2_000];
    let mut bytes = 0;
    until("the dialler speaks", async || {
        bytes = dialled.recv(&mut datagram).unwrap_or(0);
        bytes > 0
    })
    .await;
    drop(dialling);
    datagram.truncate(bytes);
    datagram
}

/// A new sender, who answers nothing: how many datagrams it got rid of.
fn disturb(round: usize, ports: &[SocketAddr], initials: &[Vec<u8>]) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut garbage: Vec<u8> = (0..1 + round * 37 % 1_400).map(|at| (at * round) as u8).collect();
    garbage[0] = round as u8;
    let initial = &initials[round % initials.len()];
    // Another connection id: keys no longer fit.
    let mut forged = initial.clone();
    forged[6 + round % 8] ^= round as u8;
    let datagrams = ports.iter().flat_map(|port| [(port, &garbage), (port, initial), (port, &forged)]);
    // A full buffer loses some, which is as well.
    datagrams.filter(|(port, datagram)| socket.send_to(datagram, port).is_ok()).count()
}

#[tokio::test]
async fn garbage_and_half_open_handshakes_at_every_port_disturb_no_member() {
    let key = key();
    let nodes = start_all(&key, 3).await;
    let groups = create(&nodes, "calm", GroupConfig::default()).await;
    let mut initials = Vec::new();
    for _ in 0..8 {
        initials.push(initial(&key).await);
    }
    let ports: Vec<SocketAddr> = nodes.iter().map(|node| node.local_addr()).collect();
    let (calm, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let flood = std::thread::spawn({
        let (calm, sent, ports) = (Arc::clone(&calm), Arc::clone(&sent), ports.clone());
        move || {
            (0..).take_while(|_| !calm.load(Ordering::Relaxed)).for_each(|round| {
                sent.fetch_add(disturb(round, &ports, &initials), Ordering::Relaxed);
            })
        }
    });
    until("the flood has begun", async || sent.load(Ordering::Relaxed) > 100).await;
    let before = sent.load(Ordering::Relaxed);
    goes_on(&groups, 3_000).await;
    assert!(sent.load(Ordering::Relaxed) > before, "the flood continues");
    calm.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    let late = start(&key).await;
    let linked = within("who is honest gets in", late.connect(ports[0])).await;
    assert_eq!(linked, Ok(nodes[0].id()));
}
