//! A peer with a valid identity that sends any bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cloudy_node::EndpointLimits;
use cloudy_node::SERVER_NAME;
use cloudy_node::internals::{self, EndpointSocket};
use cloudy_node::{ClusterKey, GroupId, Identity, Incarnation, NodeId, Rank, ViewId};
use cloudy_proto::wire::{
    ControlDecoder, ControlFrame, HeaderDecoder, NodeFrame, Stream, StreamHeader, WIRE_VERSION, WireVersions,
    decode_command, encode_control, encode_header, encode_node,
};
use cloudy_proto::{Command, ConsensusId, InstallView, LogIndex};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};

use crate::common::within;

/// The code that a node closes a link with when its peer breaks the protocol.
pub(crate) const BREACH: u64 = 2;
/// And when its peer is revoked.
pub(crate) const REVOKED: u64 = 6;
/// The code for a peer that reads too slowly.
pub(crate) const OVERFLOW: u64 = 4;

/// All that it says is one process's.
const PROCESS: u64 = 1;

pub(crate) struct Hostile {
    pub(crate) id: NodeId,
    pub(crate) endpoint: Endpoint,
    identity: Identity,
}

impl Hostile {
    pub(crate) fn new(key: &ClusterKey) -> Self {
        let socket = cloudy_node::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self::on(key, EndpointSocket::Udp(socket))
    }

    pub(crate) fn on(key: &ClusterKey, socket: EndpointSocket) -> Self {
        let identity = Identity::generate(key).unwrap();
        let endpoint = internals::open(&identity, socket, &EndpointLimits::default(), None).unwrap();
        Self { id: identity.node_id(), endpoint, identity }
    }

    /// A connection on which nothing was said.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Connection {
        within("the handshake", self.endpoint.connect(to, SERVER_NAME).unwrap()).await.unwrap()
    }

    /// The same, and the peer may open so many streams and send so many bytes that are not read.
    pub(crate) async fn connect_stingily(&self, to: SocketAddr, streams: u32, window_bytes: u32) -> Connection {
        let mut config = internals::client_config(&self.identity, &EndpointLimits::default()).unwrap();
        let mut transport = TransportConfig::default();
        transport.max_concurrent_uni_streams(streams.into()).stream_receive_window(window_bytes.into());
        config.transport_config(Arc::new(transport));
        within("the handshake", self.endpoint.connect_with(config, to, SERVER_NAME).unwrap()).await.unwrap()
    }

    /// A connection on which hello was said, and its node stream.
    pub(crate) async fn link(&self, to: SocketAddr) -> (Connection, SendStream) {
        let connection = self.connect(to).await;
        let node_stream = hello(&connection).await;
        (connection, node_stream)
    }
}

/// Opens a stream and writes to it.
pub(crate) async fn open(connection: &Connection, bytes: &[u8]) -> SendStream {
    let mut stream = within("a stream", connection.open_uni()).await.unwrap();
    // The test also covers a peer that has closed the link already.
    let _ = stream.write_all(bytes).await;
    stream
}

pub(crate) async fn hello(connection: &Connection) -> SendStream {
    let mut bytes = BytesMut::from(&header(GroupId([0; 16]), Incarnation(0), Stream::Node)[..]);
    encode_node(&NodeFrame::Hello { addresses: Vec::new(), process: PROCESS, advertised: None }, &mut bytes);
    open(connection, &bytes).await
}

pub(crate) fn header(group: GroupId, incarnation: Incarnation, stream: Stream) -> Bytes {
    encode_header(&StreamHeader { versions: WireVersions::CURRENT, group, incarnation, stream })
}

pub(crate) fn control(frame: &ControlFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_control(frame, &mut bytes);
    bytes
}

pub(crate) fn node(frame: &NodeFrame) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_node(frame, &mut bytes);
    bytes
}

/// Waits until the peer closes the link: the code and the words.
pub(crate) async fn closed(connection: &Connection) -> (u64, String) {
    match within("the link is closed", connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

/// Waits until the other side has closed a connection that it could not get rid of data on. quinn holds a closing packet
/// back while the congestion window is full, so that a reset can be all that arrives (RFC 9000 §10.3).
pub(crate) async fn closed_or_reset(connection: &Connection) -> Option<(u64, String)> {
    match within("the link is closed", connection.closed()).await {
        ConnectionError::Reset => None,
        _ => Some(closed(connection).await),
    }
}

/// A place on the ring of a group.
pub(crate) struct Membership {
    pub(crate) group: GroupId,
    pub(crate) view: InstallView,
    pub(crate) rank: Rank,
    pub(crate) incarnation: Incarnation,
    /// They are not read, and not stopped.
    pub(crate) _streams: Vec<RecvStream>,
}

impl Membership {
    pub(crate) fn lane(&self, lane: Rank) -> Stream {
        Stream::Lane { view: ViewId(1), lane }
    }

    pub(crate) fn tally(&self) -> Stream {
        Stream::Tally { view: ViewId(1) }
    }

    /// The first bytes of a separate stream.
    pub(crate) fn header(&self, stream: Stream) -> BytesMut {
        BytesMut::from(&header(self.group, self.incarnation, stream)[..])
    }

    pub(crate) fn rank_of(&self, node: NodeId) -> Rank {
        Rank(self.view.ring.iter().position(|member| member.node == node).unwrap() as u16)
    }
}

/// Joins a group as an honest node does, up to view 1.
pub(crate) async fn join(id: NodeId, connection: &Connection, node_stream: &mut SendStream, name: &str) -> Membership {
    node_stream.write_all(&node(&NodeFrame::Join { name: name.to_owned() })).await.unwrap();
    let mut streams = Vec::new();
    loop {
        let mut stream = within("a stream", connection.accept_uni()).await.unwrap();
        let (header, rest) = read_header(&mut stream).await;
        if header.stream == Stream::Control {
            let own = BytesMut::from(&self::header(header.group, Incarnation(0), Stream::Control)[..]);
            let view = answer(connection, own, &mut stream, rest).await;
            let rank = view.ring.iter().position(|member| member.node == id).unwrap();
            let (group, incarnation) = (header.group, view.ring[rank].incarnation);
            streams.push(stream);
            return Membership { group, rank: Rank(rank as u16), incarnation, view, _streams: streams };
        }
        streams.push(stream);
    }
}

pub(crate) async fn read_header(stream: &mut RecvStream) -> (StreamHeader, Bytes) {
    let mut decoder = HeaderDecoder::default();
    loop {
        let chunk = within("a header", stream.read_chunk(1 << 16, true)).await.unwrap().unwrap().bytes;
        let mut view: &[u8] = &chunk;
        if let Some(header) = decoder.feed(&mut view).unwrap() {
            return (header, chunk.slice(chunk.len() - view.len()..));
        }
    }
}

/// Accepts the invitation, and reads the log up to view 1.
async fn answer(connection: &Connection, mut own: BytesMut, stream: &mut RecvStream, mut rest: Bytes) -> InstallView {
    let mut decoder = ControlDecoder::default();
    loop {
        let mut view: &[u8] = &rest;
        while let Some(frame) = decoder.feed(&mut view).unwrap() {
            match frame {
                ControlFrame::Invite { .. } => {
                    encode_control(&ControlFrame::Accept { run: 1 }, &mut own);
                    encode_control(
                        &ControlFrame::Follow { next: LogIndex(1), voter: ConsensusId(0), level: WIRE_VERSION },
                        &mut own,
                    );
                    drop(open(connection, &own).await);
                }
                ControlFrame::Log { entries, .. } => {
                    let commands = entries.iter().filter(|entry| !entry.is_empty());
                    let installs =
                        commands.map(|entry| decode_command(entry)).find_map(|command| match command.unwrap() {
                            Command::InstallView(install) => Some(install),
                            _ => None,
                        });
                    if let Some(install) = installs {
                        return install;
                    }
                }
                ControlFrame::Coordinates { .. } | ControlFrame::Probe { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        rest = within("the log", stream.read_chunk(1 << 16, true)).await.unwrap().unwrap().bytes;
    }
}
