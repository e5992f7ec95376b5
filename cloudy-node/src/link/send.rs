//! A link at the driver: the frames of a turn are collected and each stream is written once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use cloudy_proto::limits::REASON_BYTES_MAX;
use cloudy_proto::wire::{NodeFrame, Stream, StreamHeader, WIRE_VERSION, encode_header, encode_node};
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

/// Frames that wait for the node stream: a question and an answer for each group, and twice what all lists of revoked nodes
/// take.
const NODE_FRAMES_MAX: usize = 128 + 2 * GROUPS_MAX;
/// Addresses of a peer beside its first that a link remembers.
const ALIASES_MAX: usize = 32;
/// Streams that are written to or wait to be opened, ended ones included until the peer has taken all of them; beside what
/// the groups that both nodes share need, twice.
const WRITERS_MAX: usize = 512;
/// What the transport keeps, sent and not acknowledged, for a peer that no group here knows.
const SEND_WINDOW_OUTSIDE_BYTES: u64 = 2 << 20;
/// What the log says of a peer that leaves too much unread.
const TOO_SLOW: &str = "link closed: the peer takes too slowly what it is sent";
/// How long a node that shuts down waits for what it wrote to arrive.
pub(crate) const WRITERS_LINGER: Duration = Duration::from_millis(500);

/// The words of a closing frame, cut to their bound.
pub(crate) fn close_words(words: &str) -> &[u8] {
    &words.as_bytes()[..words.len().min(REASON_BYTES_MAX)]
}

/// The writing end of the node stream.
pub(crate) struct NodeWriter(SendStream);

impl NodeWriter {
    /// Opens it, and says hello.
    pub(super) async fn open(
        connection: &Connection,
        addresses: Vec<SocketAddr>,
        process: u64,
    ) -> Result<Self, LinkFailure> {
        let mut stream = connection.open_uni().await?;
        let header = StreamHeader {
            version: WIRE_VERSION,
            group: GroupId([0; 16]),
            incarnation: Incarnation(0),
            stream: Stream::Node,
        };
        let mut hello = BytesMut::from(&encode_header(&header)[..]);
        encode_node(&NodeFrame::Hello { addresses, process }, &mut hello);
        let written = stream.write_all(&hello).await;
        if written.is_err() {
            return Err(connection.closed().await.into());
        }
        // Fails only on a stream that is closed.
        let _ = stream.set_priority(2);
        Ok(Self(stream))
    }
}

/// A link that is up, at the driver.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) peer: NodeId,
    /// Which process of the peer's identity it is.
    pub(crate) process: u64,
    pub(crate) connection: Connection,
    /// This node dialled.
    pub(crate) dialled: bool,
    pub(crate) addresses: Vec<SocketAddr>,
    /// Further addresses that this node dialled and found the peer at; bounded by [`ALIASES_MAX`].
    aliases: Vec<SocketAddr>,
    pub(crate) up_at: Instant,
    /// The newest certificate that the peer has told beside the one of its handshake.
    pub(crate) renewed: Option<CertificateDer<'static>>,
    /// How many datagrams have come, and a time after which the last one did.
    datagrams: (u64, Option<Time>),
    repeats: Repeats,
    node_queue: mpsc::Sender<NodeFrame>,
    writers: BTreeMap<(GroupId, Stream), Writer>,
    /// Held by every writer: closed once all have ended.
    alive: mpsc::Sender<()>,
    /// Held by every writer of this link: counts them.
    counted: Arc<()>,
    /// The writers that collected frames in this turn.
    collected: Vec<(GroupId, Stream)>,
    /// Too much waited, and the connection was closed for it.
    overflown: bool,
    requests: Requests,
    /// Streams beyond the fixed number that each side may open, and whether the peer is on a ring here.
    allowed: (usize, bool),
    health: Health,
}

impl Link {
    pub(crate) fn new(
        new: NewLink,
        alive: mpsc::Sender<()>,
        repeats: Repeats,
        (wake, health): (Arc<Notify>, Health),
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
            dialled: new.dialled.is_some(),
            connection: new.connection,
            addresses: new.addresses,
            aliases: Vec::new(),
            up_at: Instant::now(),
            renewed: None,
            datagrams: (0, None),
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

    /// The peer is at this address, as this node has found itself.
    pub(crate) fn is_at(&self, address: SocketAddr) -> bool {
        self.addresses.first() == Some(&address) || self.aliases.contains(&address)
    }

    /// This node has dialled the address and found the peer there.
    pub(crate) fn found_at(&mut self, address: SocketAddr) {
        if !self.is_at(address) && self.aliases.len() < ALIASES_MAX {
            self.aliases.push(address);
        }
    }

    /// Where this node has found the peer, if it is still that process.
    pub(crate) fn found_at_by(&self, process: u64) -> Vec<SocketAddr> {
        let found = self.addresses.first().into_iter().chain(&self.aliases).copied();
        found.filter(|_| self.process == process).collect()
    }

    /// Where the peer was heard from.
    pub(crate) fn remote(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// Collects a frame for this turn's write; the stream is opened at its first. True if it is the turn's first.
    pub(crate) fn push(&mut self, group: GroupId, incarnation: Incarnation, stream: Stream, frame: &Frame) -> bool {
        if self.overflown {
            return false;
        }
        let writer = self.writers.entry((group, stream)).or_insert_with(|| {
            let header = StreamHeader { version: WIRE_VERSION, group, incarnation, stream };
            let alive = (self.alive.clone(), Arc::clone(&self.counted));
            Writer::open(&self.connection, header, alive, (&self.requests.backlog, &self.health))
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
        // A writer that has stopped has no use for it.
        if let Err(mpsc::error::TrySendError::Full(_)) = self.node_queue.try_send(frame) {
            self.overflow();
        }
    }

    /// Notes whether datagrams have come since the last look, which was at some time.
    pub(crate) fn look(&mut self, last: Time) {
        let datagrams = self.connection.stats().udp_rx.datagrams;
        if std::mem::replace(&mut self.datagrams.0, datagrams) != datagrams {
            self.datagrams.1 = Some(last);
        }
    }

    /// Datagrams came after this time, at the last look.
    pub(crate) fn alive_since(&self) -> Option<Time> {
        self.datagrams.1
    }

    /// Writes what this turn collected. A peer that takes too slowly loses its link.
    pub(crate) fn flush(&mut self) {
        let mut over = Arc::strong_count(&self.counted) > WRITERS_MAX + 2 * self.allowed.0;
        for key in self.collected.drain(..) {
            over |= self.writers.get_mut(&key).is_some_and(|writer| !writer.flush());
        }
        if over && !std::mem::replace(&mut self.overflown, true) {
            self.overflow();
        }
    }

    /// The peer has yet to read much of what it asked for.
    pub(crate) fn must_wait(&self) -> bool {
        self.requests.must_wait()
    }

    /// A request waits until the peer has read the answers to earlier ones.
    pub(crate) fn wait(&mut self, kind: RequestKind, header: StreamHeader, frame: Frame) {
        self.requests.wait(kind, header, frame);
    }

    /// The next request that waited and is to be answered.
    pub(crate) fn next_request(&mut self) -> Option<(StreamHeader, Frame)> {
        self.requests.next()
    }

    /// How many streams the peer may open beyond the fixed number, and whether it is on a ring here.
    pub(crate) fn allow(&mut self, streams: usize, member: bool, send_window: u64) {
        if std::mem::replace(&mut self.allowed, (streams, member)) == (streams, member) {
            return;
        }
        let streams = u32::try_from(streams).unwrap_or(u32::MAX / 2);
        self.connection.set_max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX + streams));
        self.connection.set_send_window(if member { send_window } else { SEND_WINDOW_OUTSIDE_BYTES });
    }

    /// The peer has a part in a group here, though it is on no ring.
    pub(crate) fn widen(&mut self, send_window: u64) {
        if !std::mem::replace(&mut self.allowed.1, true) {
            self.connection.set_send_window(send_window);
        }
    }

    fn overflow(&self) {
        self.repeats.say(Level::WARN, TOO_SLOW, Source::Node(self.peer), TOO_SLOW);
        self.close(code::OVERFLOW, "this peer takes too slowly what it is sent");
    }

    /// Ends the streams of a group's views before this one.
    pub(crate) fn end_views_before(&mut self, group: GroupId, view: ViewId) {
        self.writers.retain(|(of, stream), _| *of != group || stream.view().is_none_or(|of| of >= view));
    }

    /// Ends all streams of a group.
    pub(crate) fn end_group(&mut self, group: GroupId) {
        self.writers.retain(|(of, _), _| *of != group);
    }

    /// Ends the streams of all groups.
    pub(crate) fn end_groups(&mut self) {
        self.writers.clear();
    }

    pub(crate) fn close(&self, code: u32, words: &str) {
        self.connection.close(code.into(), close_words(words));
    }
}
