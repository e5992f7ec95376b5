use futures_util::FutureExt;

use super::*;

fn limits(connections_max: usize, connections_per_address_max: usize, before_retry: usize) -> EndpointLimits {
    EndpointLimits {
        connections_max,
        connections_per_address_max,
        handshakes_before_retry: before_retry,
        ..EndpointLimits::default()
    }
}

fn at(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 4433)
}

fn node(byte: u8) -> NodeId {
    NodeId([byte; 32])
}

impl Admission {
    fn handshake(&self, from: &str) -> Result<AdmissionGuard, NotAdmitted> {
        self.decide(at(from), true, false)
    }

    fn connection(&self, from: &str, peer: NodeId) -> Result<AdmissionGuard, NotAdmitted> {
        let mut guard = self.handshake(from)?;
        guard.established(peer)?;
        Ok(guard)
    }
}

fn network(ip: &str) -> Network {
    Network::from(ip.parse::<IpAddr>().unwrap())
}

#[test]
fn the_total_and_each_address_are_bounded() {
    let admission = Admission::new(&limits(3, 2, 100));
    let first = admission.connection("10.0.0.1", node(1)).unwrap();
    // The same address, in the form of an IPv6 socket.
    let _second = admission.connection("::ffff:10.0.0.1", node(2)).unwrap();
    let refused = admission.handshake("10.0.0.1").unwrap_err();
    assert_eq!(refused, NotAdmitted::AddressFull { network: network("10.0.0.1"), max: 2 });
    assert_eq!((admission.connections(), admission.handshakes()), (2, 0));

    let third = admission.connection("10.0.0.2", node(3)).unwrap();
    let refused = admission.handshake("10.0.0.3").unwrap_err();
    assert_eq!(refused, NotAdmitted::Full { network: network("10.0.0.3"), max: 3 });
    assert_eq!(admission.0.lock().per_network.len(), 2, "a refused dialler leaves no entry");

    drop(first);
    let again = admission.connection("10.0.0.1", node(1)).unwrap();
    drop((third, again));
    assert_eq!((admission.connections(), admission.handshakes()), (1, 0));
    assert_eq!(admission.0.lock().per_network.len(), 1);
}

#[test]
fn an_ipv6_network_of_64_bits_counts_as_one_address() {
    let admission = Admission::new(&limits(100, 2, 100));
    let _first = admission.connection("2001:db8::1", node(1)).unwrap();
    let _second = admission.connection("2001:db8::ffff:2", node(2)).unwrap();
    let refused = admission.handshake("2001:db8::3").unwrap_err();
    assert_eq!(refused.to_string(), "refused 2001:db8::/64: it has 2 connections, the maximum of one address");
    admission.connection("2001:db8:0:1::3", node(3)).unwrap();
}

#[test]
fn an_address_is_to_be_proven_while_many_handshakes_are_open() {
    let admission = Admission::new(&limits(10, 10, 2));
    let mut first = admission.decide(at("10.0.0.1"), false, true).unwrap();
    let second = admission.decide(at("10.0.0.2"), false, true).unwrap();
    let retry = admission.decide(at("10.0.0.3"), false, true).unwrap_err();
    assert_eq!(retry, NotAdmitted::Retry { address: at("10.0.0.3").ip() });
    let third = admission.decide(at("10.0.0.3"), true, false).unwrap();
    assert_eq!(admission.handshakes(), 3);

    first.established(node(1)).unwrap();
    first.established(node(1)).unwrap();
    assert_eq!((admission.connections(), admission.handshakes()), (1, 2));
    drop(second);
    admission.decide(at("10.0.0.4"), false, true).unwrap();
    drop((first, third));
    assert_eq!((admission.connections(), admission.handshakes()), (0, 0));
    assert!(admission.0.lock().per_network.is_empty());
}

#[test]
fn strangers_displace_no_connection_only_their_own_oldest_handshakes() {
    let admission = Admission::new(&EndpointLimits { handshakes_max: 8, ..limits(100, 8, 100) });
    let mut newcomer = admission.handshake("10.0.0.9").unwrap();
    let mut flood: Vec<_> = (0..1_000).map(|at| admission.handshake(&format!("2001:db8::{at}")).unwrap()).collect();
    assert_eq!((admission.connections(), admission.handshakes()), (0, 8));
    assert!(newcomer.gives_way().now_or_never().is_none(), "a newcomer from elsewhere stays");
    newcomer.established(node(1)).unwrap();
    assert!(flood[991].gives_way().now_or_never().is_some());
    // Within one network it has the time in which the pool fills once.
    let mut neighbour = admission.handshake("2001:db8::ffff").unwrap();
    flood.extend((0..6).map(|at| admission.handshake(&format!("2001:db8::1:{at}")).unwrap()));
    assert!(neighbour.gives_way().now_or_never().is_none());
    neighbour.established(node(2)).unwrap();
    drop((flood, newcomer, neighbour));
    assert_eq!((admission.connections(), admission.handshakes()), (0, 0));
}

#[test]
fn known_nodes_have_places_that_no_other_holder_of_the_key_gets() {
    let known = KnownNodes::default();
    known.insert(node(1), &[at("10.0.0.1")]);
    let limits = EndpointLimits { handshakes_max: 1, ..limits(8, 8, 100) };
    let admission = Admission::with_known(&limits, known);
    let others: Vec<_> = (2..8).map(|peer| admission.connection("10.0.0.2", node(peer)).unwrap()).collect();
    let refused = admission.handshake("10.0.0.2").unwrap_err();
    assert_eq!(refused, NotAdmitted::Full { network: network("10.0.0.2"), max: 6 });
    // On the host of a known node the certificate decides.
    let refused = admission.connection("10.0.0.1", node(9)).unwrap_err();
    assert_eq!(refused, NotAdmitted::Full { network: network("10.0.0.1"), max: 6 });
    let mut member = admission.handshake("10.0.0.1").unwrap();
    // Another port belongs to the common pool, of one place.
    let elsewhere = |port| admission.decide(SocketAddr::new(at("10.0.0.1").ip(), port), true, false).unwrap();
    let (mut first, mut second) = (elsewhere(1), elsewhere(2));
    assert!(first.gives_way().now_or_never().is_some() && second.gives_way().now_or_never().is_none());
    assert!(member.gives_way().now_or_never().is_none(), "nobody takes its place in the handshake");
    member.established(node(1)).unwrap();
    assert_eq!(admission.connections(), 7);
    drop(others);
}

#[test]
fn concurrent_decisions_keep_the_bounds() {
    const TRIES: usize = 200;
    let admission = Admission::new(&limits(5, 4, 100));
    let kept: Vec<Vec<AdmissionGuard>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let tries = || (0..TRIES).filter_map(|_| admission.connection("::1", node(1)).ok()).collect();
                scope.spawn(tries)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 4);
    assert_eq!(admission.connections(), 4);
    drop(kept);
    assert_eq!(admission.connections(), 0);
    assert!(admission.0.lock().per_network.is_empty());
}
