//! A link at the driver: it collects the frames of a turn, and writes each stream once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use cloudy_proto::limits::REASON_BYTES_MAX;
use cloudy_proto::wire::{NodeFrame, Stream, StreamHeader, encode_header, encode_node};
use cloudy_proto::{Frame, GroupId, Incarnation, NodeId, Time, ViewId};
use quinn::{Connection, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::Level;

use crate::endpoint::{UNI_STREAMS_MAX, canonical};
use crate::health::Health;
use crate::link::requests::{RequestKind, Requests};
use crate::link::writer::Writer;
use crate::link::{GROUPS_MAX, NewLink};
use crate::link_error::{LinkFailure, code};
use crate::repeats::{Repeats, Source};
use crate::versions::wire_versions;

/// Maximum of frames that wait for the node stream: a request and an answer for each group, and all lists of revoked
/// nodes twice.
const NODE_FRAMES_MAX: usize = 128 + 2 * GROUPS_MAX;
/// Maximum of addresses of a peer that a link remembers beside the first.
const ALIASES_MAX: usize = 32;
/// Maximum of streams that are open or wait to be opened, closed ones included until the peer has read them; beside
/// twice the need of the groups that both nodes share.
const WRITERS_MAX: usize = 512;
/// Maximum of sent and unacknowledged bytes that the transport keeps for a peer that no group here knows.
const SEND_WINDOW_OUTSIDE_BYTES: u64 = 2 << 20;
/// The log text for a peer that leaves too much unread.
const TOO_SLOW: &str = "link closed: the peer receives too slowly";
/// The time that a node waits at its shutdown for sent data to arrive.
pub(crate) const WRITERS_LINGER: Duration = Duration::from_millis(500);

/// The text of a closing frame, cut to its maximum.
pub(crate) fn close_words(words: &str) -> &[u8] {
    &words.as_bytes()[..words.len().min(REASON_BYTES_MAX)]
}

/// The sending side of the node stream.
pub(crate) struct NodeWriter(SendStream);

impl NodeWriter {
    /// Opens the node stream, and sends a hello.
    pub(super) async fn open(
        connection: &Connection,
        addresses: Vec<SocketAddr>,
        process: u64,
        advertised: Option<String>,
    ) -> Result<Self, LinkFailure> {
        let mut stream = connection.open_uni().await?;
        let header = StreamHeader {
            versions: wire_versions(),
            group: GroupId([0; 16]),
            incarnation: Incarnation(0),
            stream: Stream::Node,
        };
        let mut hello = BytesMut::from(&encode_header(&header)[..]);
        encode_node(&NodeFrame::Hello { addresses, process, advertised }, &mut hello);
        let written = stream.write_all(&hello).await;
        if written.is_err() {
            return Err(connection.closed().await.into());
        }
        // Fails only on a closed stream.
        let _ = stream.set_priority(2);
        Ok(Self(stream))
    }
}

/// An established link, at the driver.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) peer: NodeId,
    /// The process number of the peer's process.
    pub(crate) process: u64,
    /// The highest wire version that both nodes speak.
    version: u16,
    pub(crate) connection: Connection,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The name that the peer advertises.
    pub(crate) advertised: Option<String>,
    /// Further addresses at which this node's dials found the peer; at most [`ALIASES_MAX`].
    aliases: Vec<SocketAddr>,
    pub(crate) up_at: Instant,
    /// The newest certificate that the peer presented after the handshake.
    pub(crate) renewed: Option<CertificateDer<'static>>,
    /// Number of received datagrams, and a time before the arrival of the last one.
    datagrams: (u64, Option<Time>),
    /// The time of the check from which on no datagram has arrived.
    silent_since: Time,
    repeats: Repeats,
    node_queue: mpsc::Sender<NodeFrame>,
    writers: BTreeMap<(GroupId, Stream), Writer>,
    /// A clone in every writer: the channel is closed once all have stopped.
    alive: mpsc::Sender<()>,
    /// A clone in every writer of this link, to count them.
    counted: Arc<()>,
    /// The writers with frames of this turn.
    collected: Vec<(GroupId, Stream)>,
    /// Whether the connection was closed because too much waited.
    overflown: bool,
    requests: Requests,
    /// Number of streams beyond the fixed maximum that each side may open, and whether the peer is on a ring here.
    allowed: (usize, bool),
    health: Health,
}

impl Link {
    pub(crate) fn new(
        new: NewLink,
        alive: mpsc::Sender<()>,
        repeats: Repeats,
        (wake, health): (Arc<Notify>, Health),
        now: Time,
    ) -> Self {
        new.connection.set_send_window(SEND_WINDOW_OUTSIDE_BYTES);
        let (node_queue, mut queued) = mpsc::channel::<NodeFrame>(NODE_FRAMES_MAX);
        let mut node_stream = new.node_stream.0;
        let node_alive = alive.clone();
        health.spawn("node stream writer", async move {
            while let Some(frame) = queued.recv().await {
                let mut bytes = BytesMut::new();
                encode_node(&frame, &mut bytes);
                if node_stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            if node_stream.finish().is_ok() {
                let _ = node_stream.stopped().await;
            }
            drop(node_alive);
        });
        Self {
            id: new.id,
            peer: new.peer,
            process: new.process,
            version: new.version,
            dialled: new.dialled.is_some(),
            connection: new.connection,
            addresses: new.addresses,
            advertised: new.advertised,
            aliases: Vec::new(),
            up_at: Instant::now(),
            renewed: None,
            datagrams: (0, None),
            silent_since: now,
            repeats,
            node_queue,
            writers: BTreeMap::new(),
            alive,
            counted: Arc::default(),
            collected: Vec::new(),
            overflown: false,
            requests: Requests::new(wake),
            allowed: (0, false),
            health,
        }
    }

    /// Whether this node has found the peer at this address.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        self.addresses.first() == Some(&address) || self.aliases.contains(&address)
    }

    /// Notes that this node has dialled the address and found the peer there.
    pub(crate) fn found_at(&mut self, address: SocketAddr) {
        if !self.is_at(address) && self.aliases.len() < ALIASES_MAX {
            self.aliases.push(address);
        }
    }

    /// The addresses at which this node has found the peer, if it is still that process.
    pub(crate) fn found_at_by(&self, process: u64) -> Vec<SocketAddr> {
        let found = self.addresses.first().into_iter().chain(&self.aliases).copied();
        found.filter(|_| self.process == process).collect()
    }

    /// The source address of the peer.
    pub(crate) fn remote(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// Collects a frame for this turn's write; the first frame of a stream opens it. True for the first frame of the
    /// turn.
    pub(crate) fn push(&mut self, group: GroupId, incarnation: Incarnation, stream: Stream, frame: &Frame) -> bool {
        if self.overflown {
            return false;
        }
        let writer = self.writers.entry((group, stream)).or_insert_with(|| {
            let header = StreamHeader { versions: wire_versions(), group, incarnation, stream };
            let alive = (self.alive.clone(), Arc::clone(&self.counted));
            Writer::open(&self.connection, (header, self.version), alive, (&self.requests.backlog, &self.health))
        });
        let first = self.collected.is_empty();
        if writer.is_empty() {
            self.collected.push((group, stream));
        }
        if !writer.push(frame) {
            self.overflown = true;
            self.overflow();
        }
        first
    }

    pub(crate) fn push_node(&self, frame: NodeFrame) {
        // A stopped writer does not need it.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.node_queue.try_send(frame) {
            self.overflow();
        }
    }

    /// Notes at a check whether datagrams arrived after the last one, which was at `last`.
    pub(crate) fn look(&mut self, last: Time, now: Time) {
        let datagrams = self.connection.stats().udp_rx.datagrams;
        if std::mem::replace(&mut self.datagrams.0, datagrams) != datagrams {
            (self.datagrams.1, self.silent_since) = (Some(last), now);
        }
    }

    /// Starts the time of silence again: this node was stopped, and datagrams may wait in its socket.
    pub(crate) fn listen_again(&mut self, now: Time) {
        self.silent_since = now;
    }

    /// For how long no datagram has arrived, as far as checks show.
    pub(crate) fn silent_for(&self, now: Time) -> Duration {
        now.since(self.silent_since)
    }

    /// The time of the check before the arrival of the last datagrams.
    pub(crate) fn alive_since(&self) -> Option<Time> {
        self.datagrams.1
    }

    /// Writes the frames of this turn. A peer that reads too slowly loses its link.
    pub(crate) fn flush(&mut self) {
        let mut over = Arc::strong_count(&self.counted) > WRITERS_MAX + 2 * self.allowed.0;
        for key in self.collected.drain(..) {
            over |= self.writers.get_mut(&key).is_some_and(|writer| !writer.flush());
        }
        if over && !std::mem::replace(&mut self.overflown, true) {
            self.overflow();
        }
    }

    /// Whether the peer has to read earlier answers first.
    pub(crate) fn must_wait(&self) -> bool {
        self.requests.must_wait()
    }

    /// Keeps a request until the peer has read earlier answers.
    pub(crate) fn wait(&mut self, kind: RequestKind, header: StreamHeader, frame: Frame) {
        self.requests.wait(kind, header, frame);
    }

    /// The next kept request to answer.
    pub(crate) fn next_request(&mut self) -> Option<(StreamHeader, Frame)> {
        self.requests.next()
    }

    /// Sets the number of streams that the peer may open beyond the fixed maximum, and whether it is on a ring here.
    pub(crate) fn allow(&mut self, streams: usize, member: bool, send_window: u64) {
        if std::mem::replace(&mut self.allowed, (streams, member)) == (streams, member) {
            return;
        }
        let streams = u32::try_from(streams).unwrap_or(u32::MAX / 2);
        self.connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX + streams));
        self.connection.set_send_window(if member { send_window } else { SEND_WINDOW_OUTSIDE_BYTES });
    }

    /// Widens the send window for a peer that takes part in a group here without being on its ring.
    pub(crate) fn widen(&mut self, send_window: u64) {
        if !std::mem::replace(&mut self.allowed.1, true) {
            self.connection.set_send_window(send_window);
        }
    }

    fn overflow(&self) {
        self.repeats.say(Level::WARN, TOO_SLOW, Source::Node(self.peer), TOO_SLOW);
        self.close(code::OVERFLOW, "this peer receives too slowly");
    }

    /// Closes the streams of a group's views before `view`.
    pub(crate) fn end_views_before(&mut self, group: GroupId, view: ViewId) {
        self.writers.retain(|(of, stream), _| *of != group || stream.view().is_none_or(|of| of >= view));
    }

    /// Closes all streams of a group.
    pub(crate) fn end_group(&mut self, group: GroupId) {
        self.writers.retain(|(of, _), _| *of != group);
    }

    /// Closes the streams of all groups.
    pub(crate) fn end_groups(&mut self) {
        self.writers.clear();
    }

    pub(crate) fn close(&self, code: u32, words: &str) {
        self.connection.close(code.into(), close_words(words));
    }
}
