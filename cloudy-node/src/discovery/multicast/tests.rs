//! On the loopback interface, each test of each process in a group of its own, so that tests do not answer each other.

use std::collections::BTreeSet;

use super::super::REPLIES_PER_SECOND_MAX;
use super::super::datagram::QUERY_BYTES_MIN;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than any test needs: reaching it is a failure.
const LONG: Duration = Duration::from_secs(20);

fn group(number: u8) -> SocketAddrV4 {
    let process = (std::process::id() % 1_000) as u16;
    SocketAddrV4::new(Ipv4Addr::new(239, 255, process as u8, number), 20_000 + 12 * process + u16::from(number))
}

fn node(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn found(finder: &mut Finder, count: usize) -> BTreeSet<SocketAddr> {
    let mut hints = BTreeSet::new();
    while hints.len() < count {
        assert!(hints.insert(finder.next().await.expect("a hint before the deadline")), "each hint comes once");
    }
    hints
}

#[tokio::test]
async fn every_responder_on_the_host_is_found() {
    let nodes: BTreeSet<_> = (10_502..10_510).map(node).collect();
    let _responders: Vec<_> =
        nodes.iter().map(|node| Responder::start_in(group(1), LOOPBACK, *node).expect("starts")).collect();
    // Two at a time, so that each has to tell its replies from the other's.
    let mut one = Finder::start_in(group(1), LOOPBACK, LONG).expect("starts");
    let mut other = Finder::start_in(group(1), LOOPBACK, LONG).expect("starts");
    let (one, other) = tokio::join!(found(&mut one, nodes.len()), found(&mut other, nodes.len()));
    assert_eq!(one, nodes);
    assert_eq!(other, nodes);
}

#[tokio::test]
async fn a_responder_that_starts_late_is_found_by_a_later_query() {
    let mut finder = Finder::start_in(group(2), LOOPBACK, LONG).expect("starts");
    // The first query went nowhere, since nobody had joined.
    let _responder = Responder::start_in(group(2), LOOPBACK, node(10_502)).expect("starts");
    assert_eq!(finder.next().await, Some(node(10_502)));
    assert!(finder.queries_sent > 1);
}

#[tokio::test]
async fn an_unspecified_address_stands_for_the_source() {
    let any = SocketAddr::from(([0, 0, 0, 0], 10_502));
    let _responder = Responder::start_in(group(3), LOOPBACK, any).expect("starts");
    let mut finder = Finder::start_in(group(3), LOOPBACK, LONG).expect("starts");
    assert_eq!(finder.next().await, Some(node(10_502)));
}

#[tokio::test]
async fn a_dropped_responder_lets_go_of_its_socket() {
    let responder = Responder::start_in(group(4), LOOPBACK, node(10_502)).expect("starts");
    let exclusive = || {
        let socket = datagram_socket()?;
        socket.bind(&SockAddr::from(group(4)))
    };
    assert!(exclusive().is_err(), "the responder holds the port");
    drop(responder);
    let deadline = Instant::now() + LONG;
    while exclusive().is_err() {
        assert!(Instant::now() < deadline, "the port stays taken");
        tokio::task::yield_now().await;
    }
}

/// Nobody answers, so a test can be the one who does.
async fn finder_and_its_query(number: u8) -> (Finder, UdpSocket, QueryToken, SocketAddr) {
    let socket = bound_to(group(number)).expect("binds");
    let Ok(()) = joined(&socket, group(number), Ipv4Addr::LOCALHOST) else { panic!("cannot join on loopback") };
    let socket = UdpSocket::from_std(socket.into()).expect("a tokio socket");
    let finder = Finder::start_in(group(number), LOOPBACK, LONG).expect("starts");
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let (length, source) = socket.recv_from(&mut buffer).await.expect("the query");
    let token = decode_query(&buffer[..length]).expect("a query");
    (finder, socket, token, source)
}

#[tokio::test]
async fn wrong_tokens_and_garbage_are_no_hints() {
    let (mut finder, socket, token, source) = finder_and_its_query(5).await;
    let forged = QueryToken(token.0.map(|byte| !byte));
    let too_long = [encode_reply(&Reply { token, advertised: node(2) }), vec![0; 300]].concat();
    for datagram in [
        encode_reply(&Reply { token: forged, advertised: node(1) }),
        too_long,
        b"hello".to_vec(),
        Vec::new(),
        encode_query(token),
        encode_reply(&Reply { token, advertised: node(0) }),
        encode_reply(&Reply { token, advertised: node(3) }),
        encode_reply(&Reply { token, advertised: node(3) }),
        encode_reply(&Reply { token, advertised: node(4) }),
    ] {
        socket.send_to(&datagram, source).await.expect("sends");
    }
    assert_eq!(finder.next().await, Some(node(3)));
    assert_eq!(finder.next().await, Some(node(4)));
}

#[tokio::test]
async fn a_finder_gives_a_bounded_number_of_hints() {
    let (mut finder, _socket, token, source) = finder_and_its_query(6).await;
    let replies = (1..).map(|port| encode_reply(&Reply { token, advertised: node(port) }));
    let given = replies.take(HINTS_MAX).filter(|reply| finder.hint(reply, source).is_some()).count();
    assert_eq!(given, HINTS_MAX);
    // Its deadline is far away: it ends because it is full.
    assert_eq!(tokio::time::timeout(LONG / 2, finder.next()).await, Ok(None));
}

#[tokio::test]
async fn short_queries_and_garbage_are_not_answered_and_replies_are_rate_limited() {
    let _responder = Responder::start_in(group(7), LOOPBACK, node(10_502)).expect("starts");
    let token = QueryToken([1; 16]);
    let socket = asking(group(7), Ipv4Addr::LOCALHOST, token).expect("asks");
    let socket = UdpSocket::from_std(socket.into()).expect("a tokio socket");
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let (length, _) = socket.recv_from(&mut buffer).await.expect("a reply");
    assert!(length <= QUERY_BYTES_MIN);

    let ask = async |token: QueryToken, bytes: usize| {
        socket.send_to(&encode_query(token)[..bytes], SocketAddr::from(group(7))).await.expect("sends");
    };
    // Datagrams on loopback keep their order: a reply to a short query would come before the reply to a whole one.
    ask(QueryToken([2; 16]), QUERY_BYTES_MIN - 1).await;
    socket.send_to(b"garbage", SocketAddr::from(group(7))).await.expect("sends");
    ask(QueryToken([3; 16]), QUERY_BYTES_MIN).await;
    let (length, _) = socket.recv_from(&mut buffer).await.expect("a reply");
    assert_eq!(decode_reply(&buffer[..length]).expect("a reply").token, QueryToken([3; 16]));

    let started_at = Instant::now();
    let flood = 4 * REPLIES_PER_SECOND_MAX;
    for _ in 0..flood {
        ask(QueryToken([4; 16]), QUERY_BYTES_MIN).await;
        tokio::task::yield_now().await;
    }
    let mut replies = 0;
    while tokio::time::timeout(ERROR_PAUSE, socket.recv_from(&mut buffer)).await.is_ok() {
        replies += 1;
        let allowed = REPLIES_PER_SECOND_MAX * (2 + started_at.elapsed().as_secs() as u32);
        assert!(replies <= allowed, "{replies} replies are over the rate");
    }
    assert!(replies > 0, "no reply to {flood} queries");
}

#[tokio::test(start_paused = true)]
async fn a_finder_asks_on_schedule_and_ends_at_its_deadline() {
    let timeout = Duration::from_millis(1_800);
    let mut finder = Finder::start_in(group(8), LOOPBACK, timeout).expect("starts");
    assert_eq!(finder.next().await, None);
    assert_eq!(finder.started_at.elapsed(), timeout);
    // At 0, 50, 150, 350, 750 and 1,750 ms.
    assert_eq!(finder.queries_sent, 6);
}

#[tokio::test]
async fn what_cannot_work_is_an_error_that_says_so() {
    let v6 = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
    let unicast = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 24_670);
    // TEST-NET-3 (RFC 5737) is nobody's.
    let elsewhere = IpAddr::from([203, 0, 113, 1]);
    let said = |error: DiscoveryError| error.to_string();
    let error = said(Responder::start(v6, node(1)).expect_err("IPv6"));
    assert!(error.contains("IPv4 interfaces only, and ::1 is IPv6"), "{error}");
    let error = said(Finder::start(v6, LONG).expect_err("IPv6"));
    assert!(error.contains("IPv4 interfaces only, and ::1 is IPv6"), "{error}");
    let error = said(Responder::start_in(group(9), LOOPBACK, node(0)).expect_err("port 0"));
    assert!(error.contains("port 0 cannot be advertised"), "{error}");
    let error = said(Finder::start_in(unicast, LOOPBACK, LONG).expect_err("no group"));
    assert!(error.contains("127.0.0.1:24670 is not a multicast group"), "{error}");
    let error = said(Responder::start_in(group(9), elsewhere, node(1)).expect_err("not here"));
    assert!(error.contains("interface of 203.0.113.1 failed"), "{error}");
    let error = said(Finder::start_in(group(9), elsewhere, LONG).expect_err("not here"));
    assert!(error.contains("interface of 203.0.113.1 failed"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_not_shared_is_named() {
    let socket = datagram_socket().expect("a socket");
    socket.bind(&SockAddr::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, group(10).port()))).expect("binds");
    let error = Responder::start_in(group(10), LOOPBACK, node(1)).expect_err("taken").to_string();
    assert!(error.starts_with(&format!("cannot share UDP port {}", group(10).port())), "{error}");
}

#[test]
fn queries_follow_the_schedule_and_then_the_interval() {
    let times: Vec<_> = (0..8).map(|number| query_time(number).as_millis()).collect();
    assert_eq!(times, [0, 50, 150, 350, 750, 1_750, 2_750, 3_750]);
}
