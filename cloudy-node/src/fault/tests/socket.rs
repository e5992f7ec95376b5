use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::Instant;

use super::{
    super::{FaultCounters, FaultSocket, FaultSocketError, Faults, MemoryNetwork, MemorySocket, REORDER_HOLD},
    addr, recv, recv_all, send, transmit,
};

/// A fault socket at `addr(1)` and a plain one at `addr(2)`, on a network without faults of its own.
fn fault_socket(faults: Faults) -> (Arc<FaultSocket>, Arc<MemorySocket>, MemoryNetwork) {
    let network = MemoryNetwork::new(0);
    network.set(Faults::none()).expect("valid");
    let inner = network.bind(addr(1)).expect("free");
    let b = network.bind(addr(2)).expect("free");
    (FaultSocket::wrap(inner, faults).expect("valid"), b, network)
}

#[tokio::test(start_paused = true)]
async fn without_faults_it_only_counts() {
    let (a, b, _network) = fault_socket(Faults::none());
    let start = Instant::now();
    send(&*a, addr(2), b"out");
    assert_eq!(recv(&*b).await.1, b"out");
    send(&*b, addr(1), b"in");
    assert_eq!(recv(&*a).await.1, b"in");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(a.local_addr().expect("bound"), addr(1));
    assert_eq!(a.max_transmit_segments(), 1);
    let counters = FaultCounters { sent: 1, ..FaultCounters::default() };
    assert_eq!(a.control().counters(), counters);
}

#[tokio::test(start_paused = true)]
async fn full_loss_sends_nothing_until_it_is_switched_off() {
    let (a, b, _network) = fault_socket(Faults { loss: 1.0, ..Faults::none() });
    a.try_send(&transmit(addr(2), b"aabbc", Some(2))).expect("lost, not refused");
    assert_eq!(recv_all(&*b).await, Vec::<Vec<u8>>::new());
    assert_eq!(a.control().counters().dropped, 3, "each segment by itself");

    a.control().set(Faults { loss: -1.0, ..Faults::none() }).expect_err("out of range");
    assert_eq!(a.control().faults().loss, 1.0);
    a.control().set(Faults::none()).expect("valid");
    send(&*a, addr(2), b"through");
    assert_eq!(recv_all(&*b).await, [b"through"]);
}

#[tokio::test(start_paused = true)]
async fn latency_reordering_and_duplication_apply_to_sent_datagrams() {
    let latency = Duration::from_millis(40);
    let (a, b, _network) = fault_socket(Faults { latency, ..Faults::none() });
    let control = a.control();
    let start = Instant::now();
    send(&*a, addr(2), b"first");
    assert_eq!(control.counters().sent, 0, "it is held");
    assert_eq!(recv(&*b).await.1, b"first");
    assert_eq!(start.elapsed(), latency);

    control.set(Faults { reorder: 1.0, ..Faults::none() }).expect("valid");
    let start = Instant::now();
    send(&*a, addr(2), b"held");
    control.set(Faults { duplicate: 1.0, ..Faults::none() }).expect("valid");
    send(&*a, addr(2), b"twice");
    let arrived: Vec<_> = [recv(&*b).await.1, recv(&*b).await.1].into();
    assert_eq!(arrived, [b"twice", b"twice"]);
    assert_eq!(recv(&*b).await.1, b"held");
    assert_eq!(start.elapsed(), REORDER_HOLD);
    let counters = FaultCounters { sent: 4, delayed: 2, duplicated: 1, reordered: 1, ..FaultCounters::default() };
    assert_eq!(control.counters(), counters);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_datagram_does_not_wait_for_a_delayed_one() {
    let slow = Faults { latency: Duration::from_secs(30), ..Faults::none() };
    let (a, b, _network) = fault_socket(slow);
    let start = Instant::now();
    send(&*a, addr(2), b"slow");
    tokio::time::advance(Duration::from_secs(1)).await;
    let fast = Faults { latency: Duration::from_secs(2), ..Faults::none() };
    a.control().set(fast).expect("valid");
    send(&*a, addr(2), b"fast");
    assert_eq!(recv(&*b).await.1, b"fast");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(recv(&*b).await.1, b"slow");
    assert_eq!(start.elapsed(), slow.latency);
}

#[tokio::test(start_paused = true)]
async fn a_partition_blocks_both_directions_and_delayed_datagrams() {
    let (a, b, network) = fault_socket(Faults { latency: Duration::from_millis(5), ..Faults::none() });
    let c = network.bind(addr(3)).expect("free");
    let control = a.control();
    send(&*a, addr(2), b"held");
    control.partition([addr(2)]);
    send(&*a, addr(2), b"lost");
    send(&*b, addr(1), b"lost");
    send(&*c, addr(1), b"c to a");
    send(&*b, addr(1), b"lost");
    send(&*a, addr(3), b"a to c");
    assert_eq!(recv_all(&*a).await, [b"c to a"]);
    assert_eq!(recv_all(&*c).await, [b"a to c"]);
    assert_eq!(recv_all(&*b).await, Vec::<Vec<u8>>::new());
    assert_eq!(control.counters().blocked, 4);

    control.heal();
    send(&*a, addr(2), b"out");
    send(&*b, addr(1), b"in");
    assert_eq!(recv_all(&*b).await, [b"out"]);
    assert_eq!(recv_all(&*a).await, [b"in"]);
}

#[tokio::test(start_paused = true)]
async fn datagrams_of_a_blocked_peer_are_removed_from_a_batch() {
    let (a, b, network) = fault_socket(Faults::none());
    let c = network.bind(addr(3)).expect("free");
    a.control().partition([addr(2)]);
    for (from, contents) in [(&b, b"b1"), (&c, b"c1"), (&b, b"b2"), (&c, b"c2")] {
        send(&**from, addr(1), contents);
    }
    let mut storage = [[0; 16]; 4];
    let mut meta = [RecvMeta::default(); 4];
    let mut bufs = storage.each_mut().map(|one| IoSliceMut::new(one));
    let received = std::future::poll_fn(|cx| a.poll_recv(cx, &mut bufs, &mut meta)).await;
    assert_eq!(received.expect("received"), 2);
    for (nth, contents) in [(0, b"c1"), (1, b"c2")] {
        assert_eq!(meta[nth].addr, addr(3));
        assert_eq!(&storage[nth][..meta[nth].len], contents);
    }
    assert_eq!(a.control().counters().blocked, 2);
}

#[tokio::test(start_paused = true)]
async fn one_peer_in_two_spellings_is_one_peer() {
    let (a, b, _network) = fault_socket(Faults::none());
    let mapped: SocketAddr = "[::ffff:10.0.0.2]:4433".parse().expect("an address");
    a.control().partition([mapped]);
    send(&*a, addr(2), b"lost");
    assert_eq!(recv_all(&*b).await, Vec::<Vec<u8>>::new());
    assert_eq!(a.control().counters().blocked, 1);
}

/// A socket that takes no more datagrams than it accepts.
#[derive(Debug)]
struct Narrow {
    inner: Arc<MemorySocket>,
    capacity: AtomicUsize,
}

impl Narrow {
    /// With none, at `addr(1)`; a plain socket is at `addr(2)`.
    fn full() -> (Arc<Self>, Arc<MemorySocket>) {
        let network = MemoryNetwork::new(0);
        let inner = network.bind(addr(1)).expect("free");
        let b = network.bind(addr(2)).expect("free");
        let capacity = AtomicUsize::new(0);
        (Arc::new(Self { inner, capacity }), b)
    }

    fn set_capacity(&self, datagrams: usize) {
        self.capacity.store(datagrams, Ordering::Relaxed);
    }
}

impl AsyncUdpSocket for Narrow {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Emptied(self))
    }
    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let left = capacity.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        self.set_capacity(left);
        self.inner.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Waiting for capacity gives some, for one datagram.
#[derive(Debug)]
struct Emptied(Arc<Narrow>);

impl UdpPoller for Emptied {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.set_capacity(1);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_socket_gives_back_pressure_and_keeps_the_dice() {
    let (narrow, b) = Narrow::full();
    let faults = Faults { loss: 0.5, seed: 11, ..Faults::none() };
    let inner: Arc<dyn AsyncUdpSocket> = Arc::<Narrow>::clone(&narrow);
    let a = FaultSocket::wrap(inner, faults).expect("valid");

    let mut refused = 0;
    for nth in 0_u8..200 {
        narrow.set_capacity(0);
        if let Err(error) = a.try_send(&transmit(addr(2), &[nth], None)) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            refused += 1;
            narrow.set_capacity(1);
            a.try_send(&transmit(addr(2), &[nth], None)).expect("capacity");
        }
    }
    // Judged once each: a datagram that was refused had passed the dice, and passes them when tried again.
    let counters = a.control().counters();
    assert_eq!(counters.sent, refused);
    assert_eq!(counters.sent + counters.dropped, 200);
    assert_eq!(recv_all(&*b).await.len() as u64, refused);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_fills_up_between_segments_sends_each_once() {
    let (narrow, b) = Narrow::full();
    narrow.set_capacity(1);
    let a = FaultSocket::wrap(narrow, Faults::none()).expect("valid");
    a.try_send(&transmit(addr(2), b"aabbc", Some(2))).expect("capacity for the first");
    assert_eq!(recv_all(&*b).await, [&b"aa"[..], b"bb", b"c"]);
    assert_eq!(a.control().counters().sent, 3);
}

#[tokio::test(start_paused = true)]
async fn held_datagrams_wait_while_the_socket_is_full() {
    let (narrow, b) = Narrow::full();
    let faults = Faults { latency: Duration::from_millis(1), ..Faults::none() };
    let a = FaultSocket::wrap(narrow, faults).expect("valid");
    send(&*a, addr(2), b"patient");
    assert_eq!(recv_all(&*b).await, [b"patient"]);
    assert_eq!(a.control().counters().sent, 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_socket_ends_its_task_and_frees_its_address() {
    let (a, b, network) = fault_socket(Faults { latency: Duration::from_secs(1), ..Faults::none() });
    let control = a.control();
    let task = a.sender.clone();
    send(&*a, addr(2), b"held");
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    drop(a);
    assert_eq!(recv_all(&*b).await, Vec::<Vec<u8>>::new());
    assert!(task.is_finished());
    network.bind(addr(1)).expect("free again, though a control is left");
    assert_eq!(control.counters().delayed, 1);
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let socket = FaultSocket::bind(([127, 0, 0, 1], 0).into(), Faults::none());
    assert!(matches!(socket, Err(FaultSocketError::NoRuntime)));
}

#[tokio::test]
async fn a_taken_port_and_faults_out_of_range_are_errors() {
    let localhost = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = FaultSocket::bind(localhost, Faults::none()).expect("free");
    let taken = socket.local_addr().expect("bound");
    let error = FaultSocket::bind(taken, Faults::none()).expect_err("taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    let faults = Faults { duplicate: 3.0, ..Faults::none() };
    let error = FaultSocket::bind(localhost, faults).expect_err("out of range");
    assert!(matches!(error, FaultSocketError::Faults(_)), "{error}");
}
