use std::net::Ipv4Addr;

use futures_util::FutureExt;
use quinn::SendDatagramError;

use super::*;
use crate::cluster_key::ClusterKey;
use crate::identity::SERVER_NAME;
use crate::identity::chain::provider;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs a test with a timeout, so that one that hangs fails.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs") });
}

struct TestNode {
    endpoint: Endpoint,
    identity: Identity,
    admission: Admission,
    limits: EndpointLimits,
}

fn key(byte: u8) -> ClusterKey {
    ClusterKey::from_bytes(&[byte; 32])
}

fn node(key: &ClusterKey, limits: EndpointLimits) -> TestNode {
    let identity = Identity::generate(key).unwrap();
    let socket = EndpointSocket::Udp(bind(ANY).unwrap());
    let endpoint = open(&identity, socket, &limits, Some([5; 32])).unwrap();
    TestNode { endpoint, identity, admission: Admission::new(&limits), limits }
}

impl TestNode {
    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn accept(&self) -> Result<(Connection, AdmissionGuard), NotAdmitted> {
        let (connecting, mut guard) = self.admission.admit(self.endpoint.accept().await.unwrap())?;
        let connection = handshake(connecting, &self.limits).await?;
        guard.established(peer_id(&connection).unwrap())?;
        Ok((connection, guard))
    }

    async fn dial(&self, to: &TestNode) -> Result<Connection, LinkFailure> {
        let config = client_config(&self.identity, &self.limits).unwrap();
        self.dial_with(config, to).await
    }

    async fn dial_with(&self, config: ClientConfig, to: &TestNode) -> Result<Connection, LinkFailure> {
        let connecting = self.endpoint.connect_with(config, to.address(), SERVER_NAME)?;
        handshake(connecting, &self.limits).await
    }
}

fn refusal<T>(result: Result<T, NotAdmitted>) -> LinkFailure {
    match result {
        Err(NotAdmitted::Failed(failure)) => failure,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("was accepted"),
    }
}

/// The outcome for the dialler: a refusal may arrive after its own handshake.
async fn fate(dialled: Result<Connection, LinkFailure>) -> LinkFailure {
    match dialled {
        Ok(connection) => connection.closed().await.into(),
        Err(failure) => failure,
    }
}

#[test]
fn holders_of_one_key_connect_and_know_each_other() {
    run(async {
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(1), EndpointLimits::default()));
        let (dialled, accepted) = tokio::join!(one.dial(&other), other.accept());
        let (dialled, (accepted, guard)) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(peer_id(&dialled).unwrap(), other.identity.node_id());
        assert_eq!(peer_id(&accepted).unwrap(), one.identity.node_id());
        let data = dialled.handshake_data().unwrap().downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
        assert_eq!(data.protocol, Some(tls::ALPN.to_vec()));
        assert_eq!((other.admission.connections(), other.admission.handshakes()), (1, 0));
        drop(guard);
        assert_eq!(other.admission.connections(), 0);

        dialled.close(VarInt::from_u32(7), b"the session is over");
        let ended = LinkFailure::from(accepted.closed().await);
        assert_eq!(ended.to_string(), "closed by the other node: the session is over (code 7)");
        assert_eq!(LinkFailure::from(dialled.closed().await), LinkFailure::ClosedHere);
    });
}

#[test]
fn another_cluster_key_is_rejected_with_the_reason_on_both_sides() {
    run(async {
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(2), EndpointLimits::default()));
        let (dialled, accepted) = tokio::join!(async { fate(one.dial(&other).await).await }, other.accept());
        for failure in [dialled, refusal(accepted)] {
            assert_eq!(failure, LinkFailure::OtherClusterKey);
            assert!(failure.to_string().contains("another cluster key"), "{failure}");
            assert!(failure.is_refusal());
        }
        assert_eq!(other.admission.connections(), 0);
    });
}

/// A dialler that trusts the server, which does not trust it: only the server refuses.
#[test]
fn the_dialled_side_checks_the_dialler() {
    run(async {
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(2), EndpointLimits::default()));
        let provider = provider();
        let trusting = || {
            let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
            let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
            builder.with_root_certificates(other.identity.roots().store())
        };
        let resolver = rustls::sign::SingleCertAndKey::from(one.identity.certified());
        let stranger = trusting().with_client_cert_resolver(Arc::new(resolver));
        let nobody = trusting().with_no_client_auth();
        for (mut config, expected) in [(stranger, LinkFailure::OtherClusterKey), (nobody, LinkFailure::NoCertificate)] {
            config.alpn_protocols = vec![tls::ALPN.to_vec()];
            let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
            let dial = async { fate(one.dial_with(config, &other).await).await };
            let (dialled, accepted) = tokio::join!(dial, other.accept());
            assert_eq!((dialled, refusal(accepted)), (expected.clone(), expected));
        }
    });
}

#[test]
fn another_protocol_is_rejected_with_the_reason_on_both_sides() {
    run(async {
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(1), EndpointLimits::default()));
        let mut earlier = tls::client_config(&one.identity).unwrap();
        earlier.alpn_protocols = vec![b"cloudy/6".to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(earlier).unwrap()));
        let dial = async { fate(one.dial_with(config, &other).await).await };
        let (dialled, accepted) = tokio::join!(dial, other.accept());
        for failure in [dialled, refusal(accepted)] {
            assert_eq!(failure, LinkFailure::OtherProtocol);
            assert!(failure.to_string().contains("another protocol"), "{failure}");
        }
    });
}

#[test]
fn one_address_gets_no_more_than_its_share() {
    run(async {
        let limits = EndpointLimits { connections_per_address_max: 2, ..EndpointLimits::default() };
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(1), limits));
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (dialled, accepted) = tokio::join!(one.dial(&other), other.accept());
            kept.push((dialled.unwrap(), accepted.unwrap()));
        }
        let (dialled, accepted) = tokio::join!(one.dial(&other), other.accept());
        assert_eq!(accepted.unwrap_err(), NotAdmitted::AddressFull { network: ANY.ip().into(), max: 2 });
        assert_eq!(dialled.unwrap_err(), LinkFailure::Full);
        kept.pop();
        let (dialled, accepted) = tokio::join!(one.dial(&other), other.accept());
        dialled.unwrap();
        accepted.unwrap();
    });
}

#[test]
fn a_dialler_proves_its_address_and_connects() {
    run(async {
        let limits = EndpointLimits { handshakes_before_retry: 0, ..EndpointLimits::default() };
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(1), limits));
        let accept_twice = async { (other.accept().await, other.accept().await) };
        let (dialled, (asked, accepted)) = tokio::join!(one.dial(&other), accept_twice);
        assert_eq!(asked.unwrap_err(), NotAdmitted::Retry { address: ANY.ip() });
        assert_eq!(peer_id(&accepted.unwrap().0).unwrap(), one.identity.node_id());
        dialled.unwrap();
    });
}

#[test]
fn a_handshake_has_its_time() {
    run(async {
        let limits = EndpointLimits { handshake_timeout: Duration::from_millis(30), ..EndpointLimits::default() };
        let one = node(&key(1), limits);
        let mute = bind(ANY).unwrap();
        let connecting = one.endpoint.connect(mute.local_addr().unwrap(), SERVER_NAME).unwrap();
        let failure = handshake(connecting, &one.limits).await.unwrap_err();
        assert_eq!(failure, LinkFailure::HandshakeTimeout { timeout: Duration::from_millis(30) });
        assert!(failure.to_string().contains("30 ms"), "{failure}");
        one.endpoint.wait_idle().await;
    });
}

#[test]
fn streams_windows_and_datagrams_are_bounded() {
    run(async {
        let limits = EndpointLimits {
            stream_receive_window_bytes: 4 << 10,
            connection_receive_window_bytes: 6 << 10,
            ..EndpointLimits::default()
        };
        let (one, other) = (node(&key(1), EndpointLimits::default()), node(&key(1), limits));
        // A dialler without its own limits.
        let mut config = client_config(&one.identity, &one.limits).unwrap();
        config.transport_config(Arc::new(TransportConfig::default()));
        let (dialled, accepted) = tokio::join!(one.dial_with(config, &other), other.accept());
        let (dialled, _accepted) = (dialled.unwrap(), accepted.unwrap());
        assert!(dialled.open_bi().now_or_never().is_none());
        let error = dialled.send_datagram(b"x"[..].into()).unwrap_err();
        assert!(matches!(error, SendDatagramError::UnsupportedByPeer), "{error}");
        let mut streams = Vec::new();
        while let Some(stream) = dialled.open_uni().now_or_never() {
            streams.push(stream.unwrap());
        }
        assert_eq!(streams.len(), UNI_STREAMS_MAX as usize);
        let data = [0; 16 << 10];
        let taken: Vec<_> = streams[..3].iter_mut().map(|stream| stream.write(&data).now_or_never()).collect();
        let taken: Vec<_> = taken.into_iter().map(|taken| taken.map(Result::unwrap)).collect();
        assert_eq!(taken, [Some(4 << 10), Some(2 << 10), None]);
    });
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let good = EndpointLimits::default();
    transport_config(&good).unwrap();
    let cases = [
        (EndpointLimits { connections_per_address_max: 0, ..good.clone() }, LimitsError::Connections),
        (EndpointLimits { connections_max: 127, ..good.clone() }, LimitsError::Connections),
        (EndpointLimits { handshakes_max: 0, ..good.clone() }, LimitsError::Handshakes),
        (EndpointLimits { handshake_timeout: Duration::ZERO, ..good.clone() }, LimitsError::HandshakeTimeout),
        (EndpointLimits { stream_receive_window_bytes: 0, ..good.clone() }, LimitsError::Windows),
        (EndpointLimits { connection_receive_window_bytes: 1 << 20, ..good.clone() }, LimitsError::Windows),
        (EndpointLimits { datagram_bytes_max: 1_199, ..good.clone() }, LimitsError::Datagrams),
        (EndpointLimits { datagram_bytes_max: 6_541, ..good.clone() }, LimitsError::Datagrams),
        (EndpointLimits { keep_alive: Duration::ZERO, ..good.clone() }, LimitsError::IdleTimeout),
        (EndpointLimits { keep_alive: good.idle_timeout, ..good.clone() }, LimitsError::IdleTimeout),
        (EndpointLimits { idle_timeout: Duration::MAX, ..good }, LimitsError::IdleTimeout),
    ];
    for (limits, error) in cases {
        assert_eq!(transport_config(&limits).unwrap_err(), error, "{limits:?}");
    }
}

#[test]
fn a_socket_that_cannot_be_bound_is_explained() {
    let taken = bind(ANY).unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(matches!(error, BindError::PortInUse { .. }));
    let start = format!("port {} on 127.0.0.1 is in use: ", address.port());
    assert!(error.to_string().starts_with(&start), "{error}");

    // From the block set aside for documentation (RFC 5737).
    let error = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(matches!(error, BindError::NotLocal { .. }), "{error:?}");
    assert!(error.to_string().contains("192.0.2.1 is not an address of this machine"), "{error}");
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let identity = Identity::generate(&key(1)).unwrap();
    let socket = EndpointSocket::Udp(bind(ANY).unwrap());
    let opened = open(&identity, socket, &EndpointLimits::default(), None);
    assert!(matches!(opened, Err(OpenError::NoRuntime)));
}

#[test]
fn an_address_that_cannot_be_dialled_is_explained() {
    run(async {
        let one = node(&key(1), EndpointLimits::default());
        let failure = LinkFailure::from(one.endpoint.connect(ANY, SERVER_NAME).unwrap_err());
        assert_eq!(failure, LinkFailure::Address { address: ANY });
        assert!(failure.to_string().starts_with("127.0.0.1:0 cannot be dialled"), "{failure}");
        one.endpoint.close(VarInt::from_u32(0), b"");
        let failure = LinkFailure::from(one.endpoint.connect(ANY, SERVER_NAME).unwrap_err());
        assert_eq!(failure, LinkFailure::ShuttingDown);
    });
}
