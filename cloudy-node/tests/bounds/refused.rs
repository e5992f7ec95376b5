//! Peers that are refused again and again leave a bounded number of lines in the log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::SERVER_NAME;
use cloudy_node::fault::MemoryNetwork;
use cloudy_node::internals::{self, EndpointSocket};
use cloudy_node::{ClusterKey, ClusterKeys, GroupConfig, Identity, Node};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, TokioRuntime};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::common::{create, key};
use crate::hostile::{Hostile, open};

/// Keeps the lines written at the default level.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("cloudy")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(message.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Lines {
    fn with(&self, words: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect()
    }
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

async fn node(network: &MemoryNetwork, key: &ClusterKey, last: u8) -> Node {
    Node::builder().cluster_key(key).socket(network.bind(at(last)).unwrap()).start().await.unwrap()
}

fn dialler(network: &MemoryNetwork, identity: &Identity, last: u8) -> Endpoint {
    let socket = EndpointSocket::Abstract(network.bind(at(last)).unwrap(), Arc::new(TokioRuntime));
    internals::open(identity, socket, &EndpointLimits::default(), None).unwrap()
}

/// The attempts that these lines stand for.
fn attempts(lines: &[String]) -> u64 {
    let of_line = |line: &String| match line.split("repeated ").nth(1) {
        None => 1,
        Some(rest) if rest.starts_with("once more") => 1,
        Some(rest) => rest.split(' ').next().unwrap().parse::<u64>().unwrap(),
    };
    lines.iter().map(of_line).sum()
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_refused_for_ten_minutes_leave_few_lines_with_counts() {
    const ATTEMPTS: u64 = 300;
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let (key, network) = (key(), MemoryNetwork::new(1));
    let target = node(&network, &key, 1).await;
    let other_key = dialler(&network, &Identity::generate(&ClusterKey::generate().unwrap()).unwrap(), 2);
    let identity = Identity::generate(&key).unwrap();
    let other_version = dialler(&network, &identity, 3);
    let mut tls = internals::tls_client_config(&identity).unwrap();
    tls.alpn_protocols = vec![b"cloudy/6".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let on = |last| EndpointSocket::Abstract(network.bind(at(last)).unwrap(), Arc::new(TokioRuntime));
    let (revoked, babbler) = (Hostile::on(&key, on(4)), Hostile::on(&key, on(5)));
    target.revoke(revoked.id).await.unwrap();
    for _ in 0..ATTEMPTS {
        let dialled = other_key.connect(at(1), SERVER_NAME).unwrap().await;
        assert!(dialled.is_err());
        // Its own handshake may be finished before it is refused.
        let dialled = other_version.connect_with(config.clone(), at(1), SERVER_NAME).unwrap().await;
        assert!(dialled.is_err());
        revoked.connect(at(1)).await.closed().await;
        let (connection, _node_stream) = babbler.link(at(1)).await;
        let _stream = open(&connection, b"GET / HTTP/1.1\r\n").await;
        connection.closed().await;
        // sleep: of virtual time, between two rounds of attempts.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    target.shutdown().await;
    let causes = [
        "holds another cluster key",
        "newer than release 0.2",
        "identity was revoked",
        "the peer sends malformed data",
    ];
    for cause in causes {
        let of_cause = lines.with(cause);
        assert!((3..8).contains(&of_cause.len()), "{cause}: {:#?}", lines.with(""));
        assert_eq!(attempts(&of_cause), ATTEMPTS, "{of_cause:#?}");
    }
    assert!(lines.with("").len() < 30, "{:#?}", lines.with(""));
}

#[tokio::test(start_paused = true)]
async fn a_member_rejected_for_ten_minutes_logs_few_lines_with_counts() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let (key, network) = (key(), MemoryNetwork::new(1));
    let nodes = [node(&network, &key, 1).await, node(&network, &key, 2).await];
    let _groups = create(&nodes, "ours", GroupConfig::default()).await;
    // The key changes at one of them only, so either refuses the other.
    nodes[0].set_keys(&ClusterKeys::from(ClusterKey::generate().unwrap())).await.unwrap();
    // sleep: of virtual time, in which both dial again and again.
    tokio::time::sleep(Duration::from_secs(600)).await;
    for node in nodes {
        node.shutdown().await;
    }
    let (refused, refusing) = (lines.with("no link to a member"), lines.with("a node was refused"));
    for of_cause in [refused, refusing] {
        assert!((3..16).contains(&of_cause.len()), "{of_cause:#?}");
        assert!(attempts(&of_cause) > 100, "it went on: {of_cause:#?}");
    }
    assert!(lines.with("").len() < 60, "{:#?}", lines.with(""));
}
