//! Both sockets under quinn: a handshake and a megabyte through a lossy network.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
    rustls,
};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::TLS13,
};
use tokio::time::timeout;

use super::{
    super::{FaultCounters, FaultSocket, Faults, MemoryNetwork},
    addr,
};

const TRANSFER_BYTES: usize = 1_000_000;

/// A server and a client that trust each other's name `test`.
fn configs() -> (ServerConfig, ClientConfig) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let mut params = rcgen::CertificateParams::new(vec!["test".into()]).expect("name");
    // A random one varies in length, and so would the handshake.
    params.serial_number = Some(1_u64.into());
    let cert: CertificateDer<'static> = params.self_signed(&key).expect("sign").into();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(ring::default_provider());

    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![cert.clone()], key)
        .expect("certificate");
    let mut roots = RootCertStore::empty();
    roots.add(cert).expect("root");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).expect("suite"))),
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).expect("suite"))),
    )
}

fn endpoint(socket: Arc<dyn AsyncUdpSocket>, server: Option<ServerConfig>, seed: u8) -> Endpoint {
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed; 32]));
    Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).expect("endpoint")
}

/// Sends a megabyte from one socket to the other over QUIC and requires that it arrives as it was.
async fn transfer(a: Arc<dyn AsyncUdpSocket>, b: Arc<dyn AsyncUdpSocket>, to: SocketAddr) {
    let (server, client) = configs();
    let receiver = endpoint(b, Some(server), 1);
    let sender = endpoint(a, None, 2);
    let sent: Vec<u8> = (0..TRANSFER_BYTES).map(|nth| (nth % 251) as u8).collect();

    let receiving = tokio::spawn({
        let receiver = receiver.clone();
        async move {
            let connection = receiver.accept().await.expect("open").await.expect("handshake");
            let mut stream = connection.accept_uni().await.expect("stream");
            stream.read_to_end(TRANSFER_BYTES).await.expect("transfer")
        }
    });
    let connecting = sender.connect_with(client, to, "test").expect("valid");
    let connection = connecting.await.expect("handshake");
    let mut stream = connection.open_uni().await.expect("stream");
    stream.write_all(&sent).await.expect("transfer");
    stream.finish().expect("open");
    let received = receiving.await.expect("received");
    assert!(received == sent, "{} bytes arrived, or other ones", received.len());
    connection.close(0_u8.into(), b"");
    for endpoint in [receiver, sender] {
        endpoint.close(0_u8.into(), b"");
        endpoint.wait_idle().await;
    }
}

async fn transfer_in_memory(seed: u64) -> FaultCounters {
    let network = MemoryNetwork::new(seed);
    let faults = Faults {
        loss: 0.1,
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(2),
        reorder: 0.05,
        duplicate: 0.05,
        seed,
    };
    network.set(faults).expect("valid");
    let a = network.bind(addr(1)).expect("free");
    let b = network.bind(addr(2)).expect("free");
    transfer(a, b, addr(2)).await;
    network.counters()
}

#[tokio::test(start_paused = true)]
async fn a_megabyte_crosses_a_lossy_memory_network_the_same_way_for_the_same_seed() {
    let first = transfer_in_memory(1).await;
    let share = first.dropped as f64 / (first.dropped + first.sent) as f64;
    assert!((0.05..0.15).contains(&share), "{first:?}");
    assert!(first.reordered > 10 && first.duplicated > 10, "{first:?}");
    assert_eq!(first, transfer_in_memory(1).await);
    assert_ne!(first, transfer_in_memory(2).await);
}

#[tokio::test]
async fn a_megabyte_crosses_a_lossy_loopback() {
    let socket = |seed| {
        let faults = Faults {
            loss: 0.1,
            latency: Duration::from_millis(2),
            reorder: 0.05,
            duplicate: 0.05,
            seed,
            ..Faults::none()
        };
        FaultSocket::bind(([127, 0, 0, 1], 0).into(), faults).expect("free")
    };
    let (a, b) = (socket(1), socket(2));
    let controls = [a.control(), b.control()];
    let to = b.local_addr().expect("bound");
    // A bound against hanging, not a measure of speed.
    timeout(Duration::from_secs(60), transfer(a, b, to)).await.expect("the transfer ends");
    let sender = controls[0].counters();
    assert!(sender.sent > 500 && sender.dropped > 20, "{sender:?}");
    assert!(sender.delayed > 500 && sender.duplicated > 10 && sender.reordered > 10, "{sender:?}");
    assert!(controls[1].counters().sent > 0, "the acknowledgements");
}
