//! Strangers without the cluster's key that begin handshakes and let them sit, or are refused again and again.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_node::EndpointLimits;
use cloudy_node::SERVER_NAME;
use cloudy_node::fault::MemoryNetwork;
use cloudy_node::internals::{self, EndpointSocket};
use cloudy_node::{ClusterKey, Identity, Node};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, TokioRuntime, UdpPoller};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::common::{key, until};

/// Lets the first flight of each handshake pass, once without and once with the token of a Retry, and nothing after that.
#[derive(Debug)]
struct FirstFlights {
    inner: Arc<dyn AsyncUdpSocket>,
    /// By the dialler's connection id: first packets without and with a token.
    passed: Mutex<BTreeMap<Vec<u8>, [bool; 2]>>,
}

/// The dialler's connection id, and whether there is a token; none if it is no first packet (RFC 9000 §17.2.2).
fn initial(datagram: &[u8]) -> Option<(Vec<u8>, bool)> {
    let first = *datagram.first()?;
    if first & 0x80 == 0 || (first >> 4) & 3 != 0 {
        return None;
    }
    let at = 6 + usize::from(*datagram.get(5)?);
    let length = usize::from(*datagram.get(at)?);
    let id = datagram.get(at + 1..at + 1 + length)?.to_vec();
    Some((id, *datagram.get(at + 1 + length)? != 0))
}

impl AsyncUdpSocket for FirstFlights {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let Some((id, token)) = initial(transmit.contents) else { return Ok(()) };
        let passed =
            std::mem::replace(&mut self.passed.lock().unwrap().entry(id).or_default()[usize::from(token)], true);
        if passed { Ok(()) } else { self.inner.try_send(transmit) }
    }
    fn poll_recv(
        &self,
        cx: &mut Context,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Begins `rate` handshakes a second in all from each of these addresses in turn, none of which is finished.
fn flood(
    network: &MemoryNetwork,
    from: &[SocketAddr],
    target: SocketAddr,
    rate: u32,
) -> (JoinSet<()>, Arc<AtomicUsize>) {
    let stranger = Identity::generate(&ClusterKey::generate().unwrap()).unwrap();
    let (begun, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let each = Duration::from_secs(1) * from.len() as u32 / rate;
    for &address in from {
        let inner = network.bind(address).unwrap();
        let socket = Arc::new(FirstFlights { inner, passed: Mutex::default() });
        let socket = EndpointSocket::Abstract(socket, Arc::new(TokioRuntime));
        let endpoint = internals::open(&stranger, socket, &EndpointLimits::default(), None).unwrap();
        let begun = Arc::clone(&begun);
        tasks.spawn(async move {
            let (mut tick, mut open) = (interval(each), JoinSet::new());
            loop {
                tick.tick().await;
                let connecting = endpoint.connect(target, SERVER_NAME).unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
                open.spawn(timeout(Duration::from_secs(5), connecting));
                while open.try_join_next().is_some() {}
            }
        });
    }
    (tasks, begun)
}

/// Newcomers with the key dial a node that is flooded for some seconds. All are linked at their first call.
async fn newcomers_get_in(flooders: &[SocketAddr], rate: u32, newcomers: &[IpAddr], seconds: u64) {
    let (key, network) = (key(), MemoryNetwork::new(1));
    let target = SocketAddr::new(newcomers[0], 1);
    let node = Node::builder().cluster_key(&key).socket(network.bind(target).unwrap()).start().await.unwrap();
    let (_flood, begun) = flood(&network, flooders, target, rate);
    let (mut kept, began) = (Vec::new(), Instant::now());
    for port in 2.. {
        // One newcomer for each quarter of a second's handshakes.
        let due = begun.load(Ordering::Relaxed) + rate as usize / 4;
        until("the flood continues", async || begun.load(Ordering::Relaxed) >= due).await;
        let socket = network.bind(SocketAddr::new(newcomers[usize::from(port) % newcomers.len()], port)).unwrap();
        let newcomer = Node::builder().cluster_key(&key).socket(socket).start().await.unwrap();
        let linked = newcomer.connect(target).await;
        assert_eq!(linked, Ok(node.id()), "newcomer {port}, after {:?}", began.elapsed());
        kept.push(newcomer);
        if began.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    let begun = begun.load(Ordering::Relaxed);
    assert!(begun as u64 >= u64::from(rate) * seconds / 2, "the flood is one: {begun} handshakes");
}

#[tokio::test(start_paused = true)]
async fn newcomers_get_in_beside_a_thousand_half_open_handshakes_a_second_from_one_network() {
    let flooders: Vec<SocketAddr> = (1..=8).map(|at| format!("[2001:db8::{at}]:9999").parse().unwrap()).collect();
    // From elsewhere, and from the same network.
    let newcomers = ["2001:db8:1::1", "2001:db8::ffff"].map(|address| address.parse().unwrap());
    newcomers_get_in(&flooders, 1_000, &newcomers, 3).await;
}

#[tokio::test(start_paused = true)]
async fn newcomers_get_in_beside_sixty_half_open_handshakes_a_second_from_their_own_address() {
    newcomers_get_in(&["10.0.0.1:9999".parse().unwrap()], 60, &["10.0.0.1".parse().unwrap()], 6).await;
}
