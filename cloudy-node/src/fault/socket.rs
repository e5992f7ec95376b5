//! Faults of the datagrams that a real socket sends.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::SockRef;
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    FaultCounters, Faults, FaultsError, LINE_BYTES_MAX, LINE_DATAGRAMS_MAX,
    dice::{Dice, Treatment},
    line::{Datagram, Line},
    lock, segments,
};
use crate::endpoint::buffers;

/// Maximum of due datagrams that are sent before other tasks run.
const SEND_BATCH_MAX: usize = 64;

/// Maximum of receive calls with datagrams of blocked peers only, before other tasks run.
const BLOCKED_RECEIVES_MAX: usize = 32;

/// A UDP socket that injects [`Faults`] into the datagrams that it sends.
///
/// Received datagrams arrive unchanged, except from peers that [`FaultControl::partition`] cuts off. A drop loses one
/// datagram: segmentation offload is off, which costs throughput, so do not use this socket without faults.
///
/// Delayed datagrams are sent by one task, which ends when the socket is dropped; the datagrams that it holds are lost.
/// Close connections and wait for [`quinn::Endpoint::wait_idle`] before that.
#[derive(Debug)]
pub struct FaultSocket {
    shared: Arc<Shared>,
    pub(super) sender: AbortHandle,
}

/// The controls and counters of a [`FaultSocket`]. Clones control the same socket.
///
/// It does not keep the socket open; after that is dropped, the controls have no effect and the counters do not change.
#[derive(Clone, Debug)]
pub struct FaultControl {
    switches: Arc<Mutex<Switches>>,
}

/// The reason for which there is no [`FaultSocket`].
#[derive(Debug, thiserror::Error)]
pub enum FaultSocketError {
    /// The faults are outside their ranges.
    #[error(transparent)]
    Faults(#[from] FaultsError),
    /// There is no runtime for the task that sends delayed datagrams.
    #[error("a fault socket needs a tokio runtime: make it from within one")]
    NoRuntime,
    /// The operating system refused the socket.
    #[error("cannot open a UDP socket on {addr}: {cause}; choose a free local address")]
    Bind {
        /// The requested address.
        addr: SocketAddr,
        /// The operating system's error.
        cause: io::Error,
    },
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn AsyncUdpSocket>,
    local_addr: SocketAddr,
    switches: Arc<Mutex<Switches>>,
    line: Mutex<Line>,
    /// Wakes the sending task when a datagram is due before all others.
    earlier: Notify,
}

#[derive(Debug)]
struct Switches {
    dice: Dice,
    blocked_peers: BTreeSet<SocketAddr>,
    counters: FaultCounters,
}

impl FaultSocket {
    /// Opens a UDP socket on `addr` (port 0: any free one) and injects `faults` into sent datagrams.
    ///
    /// # Errors
    /// [`FaultSocketError`]; no socket is left open.
    pub fn bind(addr: SocketAddr, faults: Faults) -> Result<Arc<Self>, FaultSocketError> {
        Handle::try_current().map_err(|_| FaultSocketError::NoRuntime)?;
        let inner = std::net::UdpSocket::bind(addr)
            .inspect(|socket| buffers::enlarge(&SockRef::from(socket)))
            .and_then(|socket| TokioRuntime.wrap_udp_socket(socket))
            .map_err(|cause| FaultSocketError::Bind { addr, cause })?;
        Self::wrap(inner, faults)
    }

    /// Wraps `inner`, and injects `faults` into sent datagrams. `inner` is usually from [`Runtime::wrap_udp_socket`].
    ///
    /// # Errors
    /// [`FaultSocketError::Faults`], or [`FaultSocketError::NoRuntime`] outside a tokio runtime.
    pub fn wrap(inner: Arc<dyn AsyncUdpSocket>, faults: Faults) -> Result<Arc<Self>, FaultSocketError> {
        let runtime = Handle::try_current().map_err(|_| FaultSocketError::NoRuntime)?;
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let shared = Arc::new(Shared {
            local_addr: inner.local_addr().unwrap_or(unspecified),
            inner,
            switches: Arc::new(Mutex::new(Switches {
                dice: Dice::new(faults)?,
                blocked_peers: BTreeSet::new(),
                counters: FaultCounters::default(),
            })),
            line: Mutex::new(Line::new(LINE_DATAGRAMS_MAX, LINE_BYTES_MAX)),
            earlier: Notify::new(),
        });
        let sender = runtime.spawn(send_when_due(Arc::clone(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, sender }))
    }

    /// The controls and counters of this socket.
    pub fn control(&self) -> FaultControl {
        FaultControl { switches: Arc::clone(&self.shared.switches) }
    }
}

impl Drop for FaultSocket {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl FaultControl {
    /// Replaces the faults and restarts the random numbers from `faults.seed`. Held datagrams keep their due time.
    ///
    /// # Errors
    /// [`FaultsError`]; the faults are unchanged.
    pub fn set(&self, faults: Faults) -> Result<(), FaultsError> {
        let dice = Dice::new(faults)?;
        lock(&self.switches).dice = dice;
        Ok(())
    }

    /// The present faults.
    pub fn faults(&self) -> Faults {
        lock(&self.switches).dice.faults()
    }

    /// Cuts this socket off from `peers`, in both directions, held datagrams included. Replaces an earlier partition.
    /// One end suffices for a cut that both ends see.
    pub fn partition(&self, peers: impl IntoIterator<Item = SocketAddr>) {
        let peers = peers.into_iter().map(canonical).collect();
        lock(&self.switches).blocked_peers = peers;
    }

    /// Ends the partition. To end the other faults, [`set`](Self::set) [`Faults::none`].
    pub fn heal(&self) {
        lock(&self.switches).blocked_peers.clear();
    }

    /// The counters from the creation of the socket.
    pub fn counters(&self) -> FaultCounters {
        lock(&self.switches).counters
    }
}

impl AsyncUdpSocket for FaultSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.shared.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        for (nth, contents) in segments(transmit).enumerate() {
            let one = Transmit { contents, segment_size: None, ..transmit.clone() };
            match self.shared.send(&one) {
                // The caller would send the earlier segments again, so the rest is held here.
                Err(error) if nth > 0 && error.kind() == io::ErrorKind::WouldBlock => {
                    self.shared.hold(&one, Duration::ZERO);
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for _ in 0..BLOCKED_RECEIVES_MAX {
            let received = ready!(self.shared.inner.poll_recv(cx, bufs, meta))?;
            let kept = self.shared.keep_unblocked(&mut bufs[..received], meta);
            if kept > 0 || received == 0 {
                return Poll::Ready(Ok(kept));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.inner.local_addr()
    }

    fn max_receive_segments(&self) -> usize {
        self.shared.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.shared.inner.may_fragment()
    }
}

impl Shared {
    /// Sends, holds or loses one datagram, at random.
    fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let treatment = {
            let mut switches = lock(&self.switches);
            if switches.blocks(transmit.destination) {
                switches.counters.blocked += 1;
                return Ok(());
            }
            switches.dice.roll()
        };
        if let Treatment::Pass { delay, copy, .. } = treatment {
            if delay.is_zero() {
                if let Err(error) = self.inner.try_send(transmit) {
                    lock(&self.switches).dice.put_back(treatment);
                    return Err(error);
                }
                lock(&self.switches).counters.sent += 1;
            } else {
                self.hold(transmit, delay);
            }
            if let Some(delay) = copy {
                self.hold(transmit, delay);
            }
        }
        treatment.count(&mut lock(&self.switches).counters);
        Ok(())
    }

    fn hold(&self, transmit: &Transmit, delay: Duration) {
        let due = Instant::now() + delay;
        let datagram = Datagram {
            source: self.local_addr,
            destination: transmit.destination,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
            contents: transmit.contents.into(),
        };
        let (held, first) = {
            let mut line = lock(&self.line);
            let first = line.next_due().is_none_or(|next| due < next);
            (line.push(due, datagram), first)
        };
        if !held {
            lock(&self.switches).counters.overflowed += 1;
        } else if first {
            self.earlier.notify_one();
        }
    }

    /// Moves datagrams of blocked peers to the end; returns the number of the other entries.
    fn keep_unblocked(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let mut switches = lock(&self.switches);
        if switches.blocked_peers.is_empty() {
            return bufs.len();
        }
        let mut kept = 0;
        for next in 0..bufs.len() {
            let entry = meta[next];
            if switches.blocks(entry.addr) {
                // One entry may carry several datagrams (receive offload).
                switches.counters.blocked += entry.len.div_ceil(entry.stride.max(1)) as u64;
                continue;
            }
            if kept < next {
                let (front, back) = bufs.split_at_mut(next);
                front[kept][..entry.len].copy_from_slice(&back[0][..entry.len]);
                meta[kept] = entry;
            }
            kept += 1;
        }
        kept
    }
}

impl Switches {
    fn blocks(&self, peer: SocketAddr) -> bool {
        !self.blocked_peers.is_empty() && self.blocked_peers.contains(&canonical(peer))
    }
}

/// One form for each peer: an IPv6 socket shows an IPv4 peer as `::ffff:a.b.c.d`.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Sends held datagrams when they are due, until the drop of the socket aborts it.
async fn send_when_due(shared: Arc<Shared>) {
    let mut writable = Arc::clone(&shared.inner).create_io_poller();
    loop {
        for _ in 0..SEND_BATCH_MAX {
            let due = lock(&shared.line).pop_due(Instant::now());
            let Some(datagram) = due else { break };
            send_held(&shared, writable.as_mut(), &datagram).await;
        }
        let next_due = lock(&shared.line).next_due();
        match next_due {
            // `notify_one` leaves a permit, so one that came meanwhile is not missed.
            None => shared.earlier.notified().await,
            Some(due) if due <= Instant::now() => tokio::task::yield_now().await,
            Some(due) => {
                // Woken by either, the loop starts again.
                let _ = timeout_at(due, shared.earlier.notified()).await;
            }
        }
    }
}

async fn send_held(shared: &Shared, mut writable: Pin<&mut dyn UdpPoller>, datagram: &Datagram) {
    let transmit = Transmit {
        destination: datagram.destination,
        ecn: datagram.ecn,
        contents: &datagram.contents,
        segment_size: None,
        src_ip: datagram.src_ip,
    };
    loop {
        if lock(&shared.switches).blocks(datagram.destination) {
            lock(&shared.switches).counters.blocked += 1;
            return;
        }
        let mut result = shared.inner.try_send(&transmit);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            result = poll_fn(|cx| writable.as_mut().poll_writable(cx)).await;
            if result.is_ok() {
                continue;
            }
        }
        let counters = &mut lock(&shared.switches).counters;
        match result {
            Ok(()) => counters.sent += 1,
            Err(_) => counters.undeliverable += 1,
        }
        return;
    }
}
