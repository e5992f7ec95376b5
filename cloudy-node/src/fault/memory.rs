//! A network within one process, repeatable in paused time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Bandwidth, FaultCounters, Faults, FaultsError, LINE_BYTES_MAX, LINE_DATAGRAMS_MAX,
    bandwidth::Queue,
    dice::{Dice, Treatment},
    line::{Datagram, Line},
    lock, segments,
};

/// The default latency of a network: one tick of tokio's timer.
pub const MEMORY_LATENCY: Duration = Duration::from_millis(1);

/// The default maximum of a datagram, in bytes of UDP payload.
pub const MEMORY_DATAGRAM_BYTES_MAX: usize = 1_500;

/// A network of [`MemorySocket`]s with one set of [`Faults`] for all. Clones are the same network.
///
/// On a current-thread runtime in tokio's paused time, and with [`quinn::EndpointConfig::rng_seed`] set, equal
/// seeds give equal runs: one generator for all sockets, deliveries in order of (due time, order of sending).
///
/// ```
/// use cloudy_node::fault::{Faults, MemoryNetwork};
///
/// let network = MemoryNetwork::new(7);
/// network.set(network.faults().loss(0.05).seed(7))?;
/// let alice = network.bind("10.0.0.1:4433".parse()?)?;
/// let bob = network.bind("10.0.0.2:4433".parse()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

/// One address of a [`MemoryNetwork`], free again when dropped.
///
/// It is always writable: a datagram without capacity is lost, as on a real network. One task at a time can wait for
/// datagrams, like a [`quinn::Endpoint`].
pub struct MemorySocket {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Wakes the receiving task when the first datagram is due. Created by the first wait, so that sockets can be bound
    /// outside a runtime.
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

/// The reason for which a [`MemoryNetwork`] has no socket for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryBindError {
    /// Another socket has the address.
    #[error("{0} is in use: drop its socket first, or choose another address")]
    Taken(SocketAddr),
    /// The address is not a single one.
    #[error("{0} is not a single address: give an IP address and a port, both other than zero")]
    NotOnePlace(SocketAddr),
}

#[derive(Debug)]
struct State {
    dice: Dice,
    counters: FaultCounters,
    datagram_bytes_max: usize,
    receivers: BTreeMap<SocketAddr, Receiver>,
    /// The queues of each address: for sent and for received datagrams.
    queues: BTreeMap<SocketAddr, (Queue, Queue)>,
    /// Pairs with the smaller address first.
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
}

/// The datagrams for one socket: on their way, or waiting to be read.
#[derive(Debug)]
struct Receiver {
    line: Line,
    waker: Option<Waker>,
}

impl MemoryNetwork {
    /// A network without faults, with a latency of [`MEMORY_LATENCY`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let faults = Faults { latency: MEMORY_LATENCY, seed, ..Faults::none() };
        let state = State {
            dice: Dice::new(faults).expect("a latency of 1 ms is within its range"),
            counters: FaultCounters::default(),
            datagram_bytes_max: MEMORY_DATAGRAM_BYTES_MAX,
            receivers: BTreeMap::new(),
            queues: BTreeMap::new(),
            cuts: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Binds a socket at `addr`. Address and port must be given; none is assigned.
    ///
    /// # Errors
    /// [`MemoryBindError`]; the network is unchanged.
    pub fn bind(&self, addr: SocketAddr) -> Result<Arc<MemorySocket>, MemoryBindError> {
        if addr.port() == 0 || addr.ip().is_unspecified() {
            return Err(MemoryBindError::NotOnePlace(addr));
        }
        let mut state = lock(&self.state);
        if state.receivers.contains_key(&addr) {
            return Err(MemoryBindError::Taken(addr));
        }
        let receiver = Receiver { line: Line::new(LINE_DATAGRAMS_MAX, LINE_BYTES_MAX), waker: None };
        state.receivers.insert(addr, receiver);
        Ok(Arc::new(MemorySocket { addr, state: Arc::clone(&self.state), timer: Mutex::new(None) }))
    }

    /// Replaces the faults, including the latency, and restarts the random numbers from `faults.seed`. Datagrams on
    /// their way keep their due time.
    ///
    /// # Errors
    /// [`FaultsError`]; the faults are unchanged.
    pub fn set(&self, faults: Faults) -> Result<(), FaultsError> {
        let dice = Dice::new(faults)?;
        lock(&self.state).dice = dice;
        Ok(())
    }

    /// The present faults.
    pub fn faults(&self) -> Faults {
        lock(&self.state).dice.faults()
    }

    /// Sets the maximum of a datagram, in bytes of UDP payload; larger ones are lost and counted as `undeliverable`.
    pub fn set_datagram_bytes_max(&self, bytes_max: usize) {
        lock(&self.state).datagram_bytes_max = bytes_max;
    }

    /// Sets the bandwidth of an address, or removes the limit. The queues start empty. Datagrams on their way keep
    /// their due time.
    pub fn set_bandwidth(&self, addr: SocketAddr, bandwidth: Option<Bandwidth>) {
        let queues = bandwidth.map(|bandwidth| (Queue::new(bandwidth), Queue::new(bandwidth)));
        let mut state = lock(&self.state);
        match queues {
            Some(queues) => state.queues.insert(addr, queues),
            None => state.queues.remove(&addr),
        };
    }

    /// Cuts `a` and `b` off from each other, in both directions; datagrams on their way between them are lost.
    pub fn cut(&self, a: SocketAddr, b: SocketAddr) {
        lock(&self.state).cuts.insert(pair(a, b));
    }

    /// Ends the cut between `a` and `b`, if there is one.
    pub fn heal(&self, a: SocketAddr, b: SocketAddr) {
        lock(&self.state).cuts.remove(&pair(a, b));
    }

    /// The counters from the creation of the network, for all sockets.
    pub fn counters(&self) -> FaultCounters {
        lock(&self.state).counters
    }
}

impl AsyncUdpSocket for MemorySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let mut wakers = Vec::new();
        {
            let mut state = lock(&self.state);
            for contents in segments(transmit) {
                let datagram = Datagram {
                    source: self.addr,
                    destination: transmit.destination,
                    ecn: transmit.ecn,
                    src_ip: None,
                    contents: contents.into(),
                };
                wakers.extend(state.send(datagram));
            }
        }
        // After the lock is released: a waker may poll at once.
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut state = lock(&self.state);
            let received = state.receive(self.addr, bufs, meta);
            if received > 0 {
                return Poll::Ready(Ok(received));
            }
            let Some(receiver) = state.receivers.get_mut(&self.addr) else {
                return Poll::Pending;
            };
            receiver.waker = Some(cx.waker().clone());
            let Some(due) = receiver.line.next_due() else {
                return Poll::Pending;
            };
            drop(state);
            // A timer that fires at once leaves no waker behind, so the loop polls again.
            if self.poll_timer(cx, due).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl MemorySocket {
    fn poll_timer(&self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let mut timer = lock(&self.timer);
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        lock(&self.state).receivers.remove(&self.addr);
    }
}

impl fmt::Debug for MemorySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state belongs to the whole network.
        f.debug_struct("MemorySocket").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl State {
    /// Sends or loses one datagram at random; returns the receiver's waker if it has to wake earlier.
    fn send(&mut self, datagram: Datagram) -> Option<Waker> {
        if self.is_cut(&datagram) {
            self.counters.blocked += 1;
            return None;
        }
        let treatment = self.dice.roll();
        treatment.count(&mut self.counters);
        let Treatment::Pass { delay, copy, .. } = treatment else {
            return None;
        };
        let again = copy.map(|delay| (delay, datagram.clone()));
        let first = self.hold(delay, datagram);
        let second = again.and_then(|(delay, datagram)| self.hold(delay, datagram));
        // There is one receiver, so both have the same waker.
        first.or(second)
    }

    fn hold(&mut self, delay: Duration, datagram: Datagram) -> Option<Waker> {
        let bytes_max = self.datagram_bytes_max;
        let Some(due) = self.due(delay, &datagram) else {
            self.counters.overflowed += 1;
            return None;
        };
        let Some(receiver) =
            self.receivers.get_mut(&datagram.destination).filter(|_| datagram.contents.len() <= bytes_max)
        else {
            self.counters.undeliverable += 1;
            return None;
        };
        let first = receiver.line.next_due().is_none_or(|next| due < next);
        if !receiver.line.push(due, datagram) {
            self.counters.overflowed += 1;
            return None;
        }
        receiver.waker.take_if(|_| first)
    }

    /// The time at which a datagram arrives; none if it is lost in a queue.
    fn due(&mut self, delay: Duration, datagram: &Datagram) -> Option<Instant> {
        let (mut due, bytes) = (Instant::now(), datagram.contents.len());
        if let Some((up, _)) = self.queues.get_mut(&datagram.source) {
            due = up.pass(due, bytes)?;
        }
        due += delay;
        match self.queues.get_mut(&datagram.destination) {
            Some((_, down)) => down.pass(due, bytes),
            None => Some(due),
        }
    }

    /// Fills the buffers with due datagrams for `addr`; returns the number of filled ones.
    fn receive(&mut self, addr: SocketAddr, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let now = Instant::now();
        let mut received = 0;
        while received < bufs.len().min(meta.len()) {
            let due = self.receivers.get_mut(&addr).and_then(|receiver| receiver.line.pop_due(now));
            let Some(datagram) = due else { break };
            if self.is_cut(&datagram) {
                self.counters.blocked += 1;
                continue;
            }
            // Like UDP, cuts a datagram that is longer than the reader's buffer.
            let len = datagram.contents.len().min(bufs[received].len());
            bufs[received][..len].copy_from_slice(&datagram.contents[..len]);
            meta[received] =
                RecvMeta { addr: datagram.source, len, stride: len, ecn: datagram.ecn, dst_ip: Some(addr.ip()) };
            self.counters.sent += 1;
            received += 1;
        }
        received
    }

    fn is_cut(&self, datagram: &Datagram) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&pair(datagram.source, datagram.destination))
    }
}

fn pair(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    (a.min(b), a.max(b))
}

/// Memory is never full: datagrams beyond a receiver's maximum are lost.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
