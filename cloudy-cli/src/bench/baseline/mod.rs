//! The baseline: the rate of the same machine with the same QUIC and TLS, with datagrams for a path of 1,500 bytes, and
//! with the minimum for "received by all".
//!
//! Every node has one connection with each other and sends length-prefixed frames over it, many in one write. A
//! receiver confirms by a count; the sender takes the minimum of the counts and sends how many messages all have
//! confirmed. There is no order between senders, no view, no call for a message, and no retention. As a ring, message i
//! + 1 is sent where message i arrives; a message is approved once each other node has sent a later one.

mod frames;
mod mesh;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use cloudy_node::EndpointLimits;
use cloudy_node::fault::{FaultSocket, Faults};
use cloudy_node::internals::{self, EndpointSocket};
use cloudy_node::{Identity, RingKind, key_file};
use miette::{IntoDiagnostic, Report};
use quinn::{Endpoint, TokioRuntime};
use tokio::time::{Instant, sleep_until};

use super::load::{Load, Times};
use super::member::instant;
use super::meter;
use super::orders::{Assignment, Order, Outcome, Post, Said, unexpected};
use super::spec::{STAMP_BYTES, Spec};
use super::timer::Timer;
use mesh::Mesh;
use state::Shared;

/// Maximum size of the baseline's datagrams, the default of the QUIC implementation: the gain of larger ones belongs to
/// the library.
const DATAGRAM_BYTES_MAX: u16 = 1_452;
/// Maximum size of a write.
const WRITE_BYTES_MAX: u64 = 64 << 10;
/// Minimum of writes in a window: smaller ones cost throughput, and with fewer ones the path is idle at times.
const WRITES_IN_WINDOW_MIN: u64 = 8;

/// Runs a node from its assignment to its end.
///
/// # Errors
/// The failure, as text; the run has no result.
pub(crate) async fn run(assignment: &Assignment, post: &mut Post) -> Result<(), Report> {
    let Assignment { number, spec, key, .. } = assignment;
    let key = key_file::load(key).into_diagnostic()?;
    let identity = Identity::generate(&key).into_diagnostic()?;
    let limits = EndpointLimits::default().datagram_bytes_max(DATAGRAM_BYTES_MAX);
    let endpoint = internals::open(&identity, socket(spec.faults)?, &limits, None).into_diagnostic()?;
    post.say(Said::Listening(endpoint.local_addr().into_diagnostic()?)).await?;
    let addresses = match post.next().await? {
        Order::Link(addresses) => addresses,
        order => return Err(unexpected(&order)),
    };
    let shared = Arc::new(Shared::new(*number, spec.nodes, spec.ring == RingKind::Token));
    let mesh = Mesh::connect(&endpoint, &limits, &addresses, Arc::clone(&shared)).await?;
    post.say(Said::Ready).await?;
    let start_us = match post.next().await? {
        Order::Start { at_us } => at_us,
        order => return Err(unexpected(&order)),
    };
    let times = Times::new(spec, start_us);
    let mut sender = Sender { mesh, shared, spec };
    let mut outcome = sender.load(Load::of(spec, *number, &times), &times).await?;
    post.say(Said::Drained { sent: sender.shared.sent() }).await?;
    let sent = match post.next().await? {
        Order::End { sent } => sent,
        order => return Err(unexpected(&order)),
    };
    outcome.count = sender.shared.wait_for(&sent).await;
    (outcome.timeline, outcome.memory_kib) = (sender.shared.timeline(), meter::memory_kib_max());
    post.say(Said::Done(Box::new(outcome))).await?;
    while post.orders.recv().await.is_some() {}
    close(&endpoint).await;
    Ok(())
}

fn socket(faults: Faults) -> Result<EndpointSocket, Report> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if faults == Faults::none().seed(faults.seed) {
        return Ok(EndpointSocket::Udp(cloudy_node::bind(address).into_diagnostic()?));
    }
    let socket = FaultSocket::bind(address, faults).into_diagnostic()?;
    Ok(EndpointSocket::Abstract(socket, Arc::new(TokioRuntime)))
}

async fn close(endpoint: &Endpoint) {
    endpoint.close(0u32.into(), b"the run is over");
    endpoint.wait_idle().await;
}

struct Sender<'a> {
    mesh: Mesh,
    shared: Arc<Shared>,
    spec: &'a Spec,
}

struct Sample {
    at: Instant,
    approved: u64,
    cpu_us: u64,
    datagrams: u64,
}

impl Sender<'_> {
    /// Sends its load, if it has one, until all of it is approved and the time is over.
    async fn load(&mut self, mut load: Option<Load>, times: &Times) -> Result<Outcome, Report> {
        self.shared.measure(times.measure.clone());
        sleep_until(instant(times.send.start)).await;
        let mut timer = Timer::new().into_diagnostic()?;
        let mut samples = Vec::with_capacity(2);
        let mut milestone = std::pin::pin!(sleep_until(instant(times.measure.start)));
        loop {
            let now_us = meter::now_us();
            let sent_now = match &mut load {
                Some(load) if self.spec.ring == RingKind::Token => self.pass_on(load, now_us).await?,
                Some(load) => self.send(load, now_us).await?,
                None => false,
            };
            if sent_now {
                // Lets other tasks run: a sender with an open window would not.
                tokio::task::yield_now().await;
            }
            let over = load.as_ref().is_none_or(|load| load.is_over(now_us) && self.shared.is_drained());
            if samples.len() == 2 && over {
                return Ok(outcome(&samples));
            }
            let next_us = load.as_ref().and_then(Load::next_us);
            tokio::select! {
                biased;
                () = &mut milestone, if samples.len() < 2 => {
                    samples.push(self.sample());
                    milestone.as_mut().reset(instant(times.measure.end));
                }
                () = std::future::ready(()), if sent_now => {}
                () = self.shared.moved.notified() => {}
                timer = timer.at(next_us.unwrap_or(0)), if next_us.is_some() => timer.into_diagnostic()?,
            }
        }
    }

    /// Sends due messages, in one write to each node; returns whether there was enough for one.
    async fn send(&mut self, load: &mut Load, now_us: u64) -> Result<bool, Report> {
        let frame_bytes = frames::frame_bytes(self.spec.size_bytes) as u64;
        let write_bytes = (self.spec.window_bytes / WRITES_IN_WINDOW_MIN).min(WRITE_BYTES_MAX);
        let messages_max = (write_bytes / frame_bytes).max(1);
        // A scheduled message is sent at once; at full speed a write waits until it is large enough.
        let enough = if self.spec.rate_per_s.is_some() { 1 } else { messages_max };
        let approved = self.shared.approved_own();
        if self.spec.rate_per_s.is_none() && load.taken() + enough > approved + self.spec.in_flight_max().max(enough) {
            return Ok(false);
        }
        let mut write = BytesMut::new();
        let mut messages = 0;
        while let Some(burst) = load.due(now_us, approved).filter(|_| messages < messages_max) {
            let together = burst.messages.min(messages_max - messages);
            write.reserve((together * frame_bytes) as usize);
            (0..together).for_each(|_| frames::push(&mut write, self.spec.size_bytes, burst.due_us));
            load.take(together);
            self.shared.add_sent(self.counted(burst.due_us), together);
            messages += together;
        }
        if messages == 0 {
            return Ok(false);
        }
        self.mesh.write(write.freeze()).await?;
        Ok(true)
    }

    /// Sends the ring's next message if it is this node's turn.
    async fn pass_on(&mut self, load: &mut Load, now_us: u64) -> Result<bool, Report> {
        if load.is_over(now_us) || !self.shared.is_own_turn() {
            return Ok(false);
        }
        let mut write = BytesMut::with_capacity(frames::frame_bytes(self.spec.size_bytes));
        frames::push(&mut write, self.spec.size_bytes, now_us);
        load.take(1);
        self.shared.add_sent(self.counted(now_us), 1);
        self.mesh.write(write.freeze()).await?;
        Ok(true)
    }

    /// The receivers' due time: a payload too short for a stamp counts as due at 0.
    fn counted(&self, due_us: u64) -> u64 {
        if self.spec.size_bytes < STAMP_BYTES { 0 } else { due_us }
    }

    fn sample(&self) -> Sample {
        let (at, approved, cpu_us) = (Instant::now(), self.shared.approved(), meter::cpu_us());
        Sample { at, approved, cpu_us, datagrams: self.mesh.datagrams_sent() }
    }
}

fn outcome(samples: &[Sample]) -> Outcome {
    let [from, to] = samples else { return Outcome::default() };
    Outcome {
        approved: to.approved - from.approved,
        interval_us: to.at.duration_since(from.at).as_micros() as u64,
        cpu_us: to.cpu_us - from.cpu_us,
        datagrams: to.datagrams - from.datagrams,
        ..Outcome::default()
    }
}
