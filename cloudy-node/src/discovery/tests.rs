//! All tests use the loopback interface, each with its own group, so that tests do not answer each other.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::time::Duration;

use cloudy_proto::NodeId;
use socket2::{InterfaceIndexOrAddress, Socket};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::datagram::{
    DATAGRAM_BYTES_MAX, Nonce, QUERY_BYTES_MIN, Reply, decode_query, decode_reply, encode_query, encode_reply,
};
use super::*;
use crate::ClusterKey;
use crate::cluster_keys::ClusterKeys;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than any test needs: a timeout is a failure.
const LONG: Duration = Duration::from_secs(20);

fn place(number: u8) -> Multicast {
    let process = (std::process::id() % 1_000) as u16;
    let group = Ipv4Addr::new(239, 255, process as u8, number);
    Multicast { group: SocketAddrV4::new(group, 19_700 + 13 * process + u16::from(number)), interface: LOOPBACK }
}

fn keys(number: u8) -> DiscoveryKeys {
    DiscoveryKeys::from(&ClusterKeys::from(ClusterKey::from_bytes(&[number; 32])))
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn advertised(port: u16) -> Advertisement {
    let mut node = NodeId([0; 32]);
    node.0[..2].copy_from_slice(&port.to_be_bytes());
    Advertisement { node, address: address(port), label: format!("label-{port}") }
}

fn responder(number: u8, port: u16) -> Responder {
    Responder::start(keys(1), place(number), advertised(port)).expect("starts")
}

fn finder(number: u8) -> Finder {
    Finder::start(keys(1), place(number), LONG).expect("starts")
}

async fn found(finder: &mut Finder, count: usize) -> BTreeSet<SocketAddr> {
    let mut hints = BTreeSet::new();
    while hints.len() < count {
        let hint = finder.next().await.expect("a hint before the deadline");
        assert_eq!(hint.label, format!("label-{}", hint.address.port()));
        assert!(hints.insert(hint.address), "each node is named once");
    }
    hints
}

/// A socket of another program on the link: it receives all queries, and can send any datagram.
fn on_the_link(number: u8) -> UdpSocket {
    let SocketAddr::V4(group) = place(number).group.into() else { unreachable!("IPv4") };
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.set_reuse_address(true).expect("shared");
    #[cfg(unix)]
    socket.set_reuse_port(true).expect("shared");
    socket.bind(&SocketAddr::from(group).into()).expect("binds");
    let joined = socket.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Address(Ipv4Addr::LOCALHOST));
    joined.expect("joins");
    UdpSocket::from_std(socket.into()).expect("a tokio socket")
}

async fn asker() -> UdpSocket {
    let socket = UdpSocket::bind((LOOPBACK, 0)).await.expect("binds");
    socket2::SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("an interface");
    socket
}

#[tokio::test]
async fn every_responder_on_the_host_is_found() {
    let ports = 10_502..10_510;
    let expected: BTreeSet<_> = ports.clone().map(address).collect();
    let _responders: Vec<_> = ports.map(|port| responder(1, port)).collect();
    // Two at a time, so that each has to distinguish its replies from the other's.
    let (mut one, mut other) = (finder(1), finder(1));
    let (one, other) = tokio::join!(found(&mut one, expected.len()), found(&mut other, expected.len()));
    assert_eq!(one, expected);
    assert_eq!(other, expected);
}

#[tokio::test]
async fn a_responder_that_starts_late_is_found_by_a_later_query() {
    let mut finder = finder(2);
    // The first query had no receiver, because no responder had joined.
    let _responder = responder(2, 10_502);
    assert_eq!(finder.next().await.map(|hint| hint.address), Some(address(10_502)));
}

#[tokio::test]
async fn an_unspecified_address_becomes_that_of_the_interface() {
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        let on_all = Multicast { interface: any, ..place(3) };
        let advertised = Advertisement { address: SocketAddr::new(any, 10_502), ..advertised(10_502) };
        let _responder = Responder::start(keys(1), on_all, advertised).expect("starts");
        assert_eq!(finder(3).next().await.map(|hint| hint.address), Some(address(10_502)));
    }
}

#[tokio::test]
async fn nodes_on_ipv6_loopback_find_each_other() {
    let loopback = Multicast { interface: Ipv6Addr::LOCALHOST.into(), ..place(4) };
    let listens = SocketAddr::from((Ipv6Addr::LOCALHOST, 10_502));
    let advertised = Advertisement { address: listens, ..advertised(10_502) };
    let _responder = Responder::start(keys(1), loopback, advertised).expect("starts");
    let mut finder = Finder::start(keys(1), loopback, LONG).expect("starts");
    assert_eq!(finder.next().await.map(|hint| hint.address), Some(listens));
}

#[tokio::test]
async fn a_dropped_responder_closes_its_socket() {
    let responder = responder(5, 10_502);
    let exclusive = || StdSocket::bind(place(5).group);
    assert!(exclusive().is_err(), "the responder holds the port");
    drop(responder);
    let deadline = Instant::now() + LONG;
    while exclusive().is_err() {
        assert!(Instant::now() < deadline, "the port stays taken");
        tokio::task::yield_now().await;
    }
}

/// The keys of a rotation from key 1 to key 2.
fn rotation(step: usize) -> ClusterKeys {
    let mut keys = ClusterKeys::from(ClusterKey::from_bytes(&[1; 32]));
    if step > 0 {
        keys.begin_rotation(ClusterKey::from_bytes(&[2; 32])).expect("step 1");
    }
    if step > 1 {
        keys.switch().expect("step 2");
    }
    if step > 2 {
        keys.finish().expect("step 3");
    }
    keys
}

#[tokio::test]
async fn nodes_find_each_other_in_every_step_of_a_key_rotation_without_a_restart() {
    let (asks, answers) = (DiscoveryKeys::from(&rotation(0)), DiscoveryKeys::from(&rotation(0)));
    let _responder = Responder::start(answers.clone(), place(6), advertised(10_502)).expect("starts");
    for step in [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (3, 3), (3, 2)] {
        asks.replace(DiscoveryKeys::from(&rotation(step.0)).all());
        answers.replace(DiscoveryKeys::from(&rotation(step.1)).all());
        let mut finder = Finder::start(asks.clone(), place(6), LONG).expect("starts");
        assert!(finder.next().await.is_some(), "steps {step:?}");
    }
}

/// No responder answers, so the test can.
async fn finder_and_its_query(number: u8) -> (Finder, UdpSocket, Nonce, SocketAddr) {
    let socket = on_the_link(number);
    let finder = finder(number);
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let (length, source) = socket.recv_from(&mut buffer).await.expect("the query");
    let keys = keys(1).all();
    let (nonce, _) = decode_query(&keys, &buffer[..length], source).expect("a query");
    (finder, socket, nonce, source)
}

#[tokio::test]
async fn forged_and_strange_replies_are_no_hints() {
    let (mut finder, socket, nonce, source) = finder_and_its_query(7).await;
    let (own, other) = (&keys(1).all()[0], &keys(2).all()[0]);
    let reply = |port| {
        let Advertisement { node, address, label } = advertised(port);
        Reply { nonce, node, address, label }
    };
    let stale = Reply { nonce: Nonce(nonce.0.map(|byte| !byte)), ..reply(1) };
    for datagram in [
        encode_reply(own, &stale),
        encode_reply(other, &reply(2)),
        [encode_reply(own, &reply(2)), vec![0; 300]].concat(),
        b"hello".to_vec(),
        Vec::new(),
        encode_query(own, nonce, source),
        encode_reply(own, &Reply { address: address(0), ..reply(2) }),
        encode_reply(own, &reply(3)),
        encode_reply(own, &reply(3)),
        encode_reply(own, &reply(4)),
    ] {
        socket.send_to(&datagram, source).await.expect("sends");
    }
    assert_eq!(finder.next().await.map(|hint| hint.address), Some(address(3)));
    assert_eq!(finder.next().await.map(|hint| hint.address), Some(address(4)));
}

#[tokio::test]
async fn a_responder_answers_authentic_queries_once_and_at_a_bounded_rate() {
    let _responder = responder(9, 10_502);
    let (asks, copies) = (asker().await, asker().await);
    let local = asks.local_addr().expect("an address");
    let all = keys(1).all();
    let group = SocketAddr::from(place(9).group);
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    // Loopback keeps the order of datagrams: a reply to a bad query would arrive before the reply to the good one.
    let good = encode_query(&all[0], Nonce([3; 16]), local);
    let short = &encode_query(&all[0], Nonce([2; 16]), local)[..QUERY_BYTES_MIN - 1];
    let elsewhere = encode_query(&all[0], Nonce([1; 16]), address(1));
    for query in [short, b"garbage", &elsewhere, &good, &good] {
        asks.send_to(query, group).await.expect("sends");
    }
    // The same bytes from another address of the host are ignored as well.
    copies.send_to(&good, group).await.expect("sends");
    let next = encode_query(&all[0], Nonce([4; 16]), local);
    asks.send_to(&next, group).await.expect("sends");
    for expected in [3, 4] {
        let (length, _) = asks.recv_from(&mut buffer).await.expect("a reply");
        assert_eq!(decode_reply(&all, &buffer[..length]).expect("a reply").nonce, Nonce([expected; 16]));
    }
    assert!(copies.try_recv_from(&mut buffer).is_err(), "a captured query was answered");

    let started_at = Instant::now();
    for number in 0..4 * REPLIES_PER_SECOND_TO_ONE_MAX {
        let nonce = Nonce(std::array::from_fn(|at| if at < 4 { number.to_be_bytes()[at] } else { 9 }));
        asks.send_to(&encode_query(&all[0], nonce, local), group).await.expect("sends");
    }
    let mut replies = 0;
    while tokio::time::timeout(Duration::from_millis(100), asks.recv_from(&mut buffer)).await.is_ok() {
        replies += 1;
        let allowed = REPLIES_PER_SECOND_TO_ONE_MAX * (2 + started_at.elapsed().as_secs() as u32);
        assert!(replies <= allowed, "{replies} replies are over the rate");
    }
    assert!(replies > 0, "no reply at all");
}

#[tokio::test]
async fn invalid_arguments_are_errors_with_the_reason() {
    let unicast = Multicast { group: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 24_670), ..place(11) };
    let said = |error: DiscoveryError| error.to_string();
    let error = said(Finder::start(keys(1), unicast, LONG).expect_err("no group"));
    assert!(error.contains("127.0.0.1:24670 is not a multicast group"), "{error}");
    let error = said(Finder::start(DiscoveryKeys::default(), place(11), LONG).expect_err("no key"));
    assert!(error.contains("needs a cluster key"), "{error}");
    let error = said(Responder::start(keys(1), place(11), advertised(0)).expect_err("port 0"));
    assert!(error.contains("port 0 cannot be advertised"), "{error}");
    let long = Advertisement { label: "x".repeat(65), ..advertised(1) };
    let error = said(Responder::start(keys(1), place(11), long).expect_err("a long label"));
    assert!(error.contains("65 bytes; use at most 64"), "{error}");
}

#[tokio::test]
async fn an_address_that_no_interface_has_is_waited_for_and_named_at_the_end() {
    // TEST-NET-3 (RFC 5737) belongs to no host.
    let elsewhere = Multicast { interface: IpAddr::from([203, 0, 113, 1]), ..place(11) };
    let _responder = Responder::start(keys(1), elsewhere, advertised(1)).expect("starts, and waits");
    let mut finder = Finder::start(keys(1), elsewhere, Duration::from_millis(100)).expect("starts, and waits");
    assert_eq!(finder.next().await, None);
    let error = finder.failure().expect("no query has left").to_string();
    assert!(error.contains("multicast on 203.0.113.1 failed (no interface of this machine has"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_not_shared_is_named() {
    let _holder = StdSocket::bind((Ipv4Addr::UNSPECIFIED, place(12).group.port())).expect("binds");
    let error = Responder::start(keys(1), place(12), advertised(1)).expect_err("taken");
    assert!(matches!(&error, DiscoveryError::Port { cause, .. } if cause.kind() == io::ErrorKind::AddrInUse));
    assert!(error.to_string().starts_with(&format!("cannot share UDP port {}", place(12).group.port())), "{error}");
}
