//! The QUIC endpoint: a bound socket, an identity, and bounds on all that others can make it hold.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::NodeId;
use cloudy_proto::wire::WIRE_VERSION;
use quinn::congestion::{BbrConfig, CubicConfig};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, Connecting, Connection, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, Runtime, ServerConfig, TokioRuntime, TransportConfig, ValidationTokenConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::endpoint::short_queue::ShortQueue;
use crate::endpoint::slow_start::SlowStart;
use crate::identity::{CertificateError, Identity, node_id_of};
use crate::link_error::LinkFailure;
use crate::tls::{self, TlsError};

mod admission;
pub(crate) mod buffers;
mod handshakes;
mod known;
mod reset;
mod short_queue;
mod slow_start;

pub(crate) use admission::{Admission, AdmissionGuard, NotAdmitted};
pub(crate) use known::KnownNodes;
use reset::{RandomIds, ResetKey};

/// Streams that the other side of a connection may have open towards this one. All are one-way; it may open none that
/// goes both ways. On a link it may open more for the groups that this node is in: two for each, and what two views of
/// each group take whose ring it is on.
pub const UNI_STREAMS_MAX: u32 = 256;
/// Connections that wait for [`Endpoint::accept`]; more are refused by the transport.
pub(crate) const INCOMING_WAITING_MAX: usize = 512;
/// What the operating system is asked to buffer for the socket, each way. Less is tolerated: losses are repaired.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What every path of QUIC's carries (RFC 9000 §14): a datagram's payload.
const DATAGRAM_BYTES_MIN: u16 = 1_200;
/// The transport hands ten datagrams to the system at once. More than 64 KiB of them it would drop without a word, and if they
/// exceed that with the headers of UDP, IP and Ethernet, Linux copies them into packets by itself.
const DATAGRAM_BYTES_MAX: u16 = 6_540;
/// Before the first measurement: a guess for local networks. A slower path costs a few repeated packets.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Packets that a peer may receive before it acknowledges them: fewer acknowledgements leave more of a core for messages.
const ACK_EVERY_PACKETS: u32 = 10;
/// How long it may keep an acknowledgement back. A lone packet that is lost is sent again after about this and a round
/// trip (RFC 9002 §6.2), so it bounds what a loss costs a message with nothing behind it.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);
/// Early datagrams kept for connections not yet accepted: each, and all of them.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFERS_BYTES: u64 = 1 << 20;

/// Bounds on what other nodes can make an endpoint hold or wait for.
///
/// Only members of the cluster can send data, and what one connection makes this node hold is bounded:
/// `connection_receive_window_bytes` that were not read yet, as much again and one control frame of the greatest size
/// (2.3 MiB) that was read and not handled yet, and one unfinished slot for each lane that the peer carries in a group
/// whose ring it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointLimits {
    /// Connections from others at a time whose handshake is finished. Default 512: twice what a founder may invite. One in
    /// four is kept for nodes that this node wants links to: members of its groups.
    pub connections_max: usize,
    /// Those from one address, where an IPv6 network of 64 bits is one address, and members of this node's groups do not
    /// count. Default 128: a whole ring on one machine, each dialling twice. Not more than `connections_max`.
    pub connections_per_address_max: usize,
    /// Unfinished handshakes at a time: anybody on the network can begin one. In a full pool the oldest one of the address
    /// with the most gives way. Default 512. Addresses of members of this node's groups have a pool of their own, of
    /// 64. At least 1.
    pub handshakes_max: usize,
    /// Unfinished handshakes from which on a dialler must first prove that it receives at its address (Retry, RFC 9000
    /// §8.1.2), which costs it a round trip and this node nothing. Default 32: far below `handshakes_max`, so that
    /// datagrams with false senders put out nobody.
    pub handshakes_before_retry: usize,
    /// The time for a handshake, however much is heard from the other side. Default 5 s.
    pub handshake_timeout: Duration,
    /// Received bytes of a connection that were not read yet. Default 16 MiB: two streams' worth.
    pub connection_receive_window_bytes: u32,
    /// Received bytes of a stream that were not read yet. Default 8 MiB: 1 Gbit/s over a path of 60 ms.
    pub stream_receive_window_bytes: u32,
    /// The largest UDP payload that a connection looks for on its path; it begins with 1,200 bytes, takes what gets
    /// through, and goes back if that no longer does. Default and at most 6,540: loopback, and jumbo frames in part. A
    /// network that mangles large datagrams in place of dropping them needs less. At least 1,200.
    pub datagram_bytes_max: u16,
    /// How fast this node sends over a path that loses packets. Default [`Congestion::Cubic`].
    pub congestion: Congestion,
    /// Silence after which a connection is given up. The smaller of both sides' counts. Default 4 s.
    pub idle_timeout: Duration,
    /// Silence after which a sign of life is sent. Default 1 s: some may be lost before `idle_timeout`.
    pub keep_alive: Duration,
}

/// What decides how fast a node sends over a path; each node chooses for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Congestion {
    /// A loss means that the path is full (CUBIC, RFC 9438): fair to other traffic, least CPU, and slow where packets are
    /// lost for other reasons and the round trip is long. A queue of more than 300 ms, or of a quarter of the round trip
    /// where that is more, counts as full too: on links with deep queues this node gives way to other traffic.
    #[default]
    Cubic,
    /// What the path has delivered decides, and losses do not (BBR): several times as fast over long paths that lose
    /// packets, at more CPU a message, and pushier towards other traffic. QUIC's implementation calls it experimental.
    Bbr,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_address_max: 128,
            handshakes_max: 512,
            handshakes_before_retry: 32,
            handshake_timeout: Duration::from_secs(5),
            connection_receive_window_bytes: 16 << 20,
            stream_receive_window_bytes: 8 << 20,
            datagram_bytes_max: DATAGRAM_BYTES_MAX,
            congestion: Congestion::default(),
            idle_timeout: Duration::from_secs(4),
            keep_alive: Duration::from_secs(1),
        }
    }
}

impl EndpointLimits {
    cloudy_proto::setters! {
        connections_max: usize,
        connections_per_address_max: usize,
        handshakes_max: usize,
        handshakes_before_retry: usize,
        handshake_timeout: Duration,
        connection_receive_window_bytes: u32,
        stream_receive_window_bytes: u32,
        datagram_bytes_max: u16,
        congestion: Congestion,
        idle_timeout: Duration,
        keep_alive: Duration,
    }

    /// Bytes that were sent and are not acknowledged: what the other side's window takes, and as much again waiting for it.
    pub(crate) fn send_window_bytes(&self) -> u64 {
        2 * u64::from(self.connection_receive_window_bytes)
    }
}

/// Limits that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// Nobody could connect.
    #[error("connections_max and connections_per_address_max must be at least 1, the second not above the first")]
    Connections,
    /// No handshake could begin.
    #[error("handshakes_max must be at least 1")]
    Handshakes,
    /// No handshake could finish.
    #[error("handshake_timeout must be above zero")]
    HandshakeTimeout,
    /// Nothing could be received, or one stream could block all others' credit for nothing.
    #[error("stream_receive_window_bytes must be 1 to connection_receive_window_bytes")]
    Windows,
    /// No path carries less, or the system takes no more at once.
    #[error("datagram_bytes_max must be {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX}")]
    Datagrams,
    /// Idle connections would end, or the timeout cannot be put on the wire.
    #[error("keep_alive must be above zero and below idle_timeout, which must be below 2^62 ms")]
    IdleTimeout,
}

/// Why a client configuration or an endpoint could not be built. The socket is closed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The limits contradict each other.
    #[error("the endpoint's limits cannot be used: {0}")]
    Limits(#[from] LimitsError),
    /// The identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// QUIC needs AES-128-GCM for its first packets (RFC 9001 §5).
    #[error("TLS lacks what QUIC needs: {0}")]
    Quic(#[from] NoInitialCipherSuite),
    /// Sockets and timers need the runtime.
    #[error("there is no tokio runtime here: open the endpoint from within one")]
    NoRuntime,
    /// The operating system refused the socket.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
}

/// Why a socket could not be bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "port {} on {} is in use: end the program that has it (perhaps an earlier node), or choose another port", address.port(), address.ip()
    )]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("{} is no address of this machine: name one of its own, or {} for all of them", address.ip(), unspecified(address))]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system keeps the port to itself.
    #[error("port {} may not be used by this user: choose one from 1024 up", address.port())]
    NotPermitted {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot bind {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// Why a connection has no peer. It should be closed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PeerIdError {
    /// The other side showed no certificate.
    #[error("the other side showed no certificate")]
    NoCertificate,
    /// Its certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What an endpoint sends and receives through.
#[derive(Debug)]
pub enum EndpointSocket {
    /// A UDP socket, as [`bind`] gives it, driven by tokio.
    Udp(UdpSocket),
    /// Any other, such as one that loses datagrams, with the runtime that gives time and tasks.
    Abstract(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>),
}

/// The form of an address that all nodes compare, log and share: a socket for both families shows IPv4 addresses as
/// `::ffff:a.b.c.d`, which a node without IPv6 cannot dial.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(ip), SocketAddr::V6(v6)) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}

/// Binds a UDP socket with large buffers, and warns once in the life of a process if the system gives less; port 0 takes a
/// free one. The unspecified IPv6 address serves IPv4 too where the system can; an IPv4-mapped one is bound as IPv4.
///
/// # Errors
/// Says what is wrong with the address, and the remedy.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let address = canonical(address);
    let bound = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            // Where this fails the socket serves IPv6 only.
            let _ = socket.set_only_v6(false);
        }
        buffers::enlarge(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bound().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::PortInUse { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { address },
        _ => BindError::Other { address, source },
    })
}

fn unspecified(address: &SocketAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0" } else { "::" }
}

/// An endpoint that dials (as [`client_config`] says, by default) and is dialled, for members of `identity`'s cluster.
/// Incoming connections are to be put before an `Admission`. A seed makes the transport's own choices repeatable; over
/// a real network nothing is repeatable anyway.
///
/// # Errors
/// The limits, the identity or the socket cannot be used, or there is no tokio runtime.
pub fn open(
    identity: &Identity,
    socket: EndpointSocket,
    limits: &EndpointLimits,
    rng_seed: Option<[u8; 32]>,
) -> Result<Endpoint, OpenError> {
    let server = server_config(identity, limits)?;
    let client = client_config(identity, limits)?;
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(OpenError::NoRuntime);
    }
    let mut config = EndpointConfig::new(Arc::new(ResetKey(identity.reset_secret())));
    config.cid_generator(|| Box::new(RandomIds)).rng_seed(rng_seed);
    config.max_udp_payload_size(limits.datagram_bytes_max).map_err(|_| LimitsError::Datagrams)?;
    let (socket, runtime): (_, Arc<dyn Runtime>) = match socket {
        EndpointSocket::Udp(socket) => (TokioRuntime.wrap_udp_socket(socket)?, Arc::new(TokioRuntime)),
        EndpointSocket::Abstract(socket, runtime) => (socket, runtime),
    };
    let mut endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// How `identity` dials: for [`Endpoint::connect_with`], with [`SERVER_NAME`](crate::identity::SERVER_NAME) as the name.
///
/// # Errors
/// The limits or the identity cannot be used.
pub fn client_config(identity: &Identity, limits: &EndpointLimits) -> Result<ClientConfig, OpenError> {
    let tls = QuicClientConfig::try_from(tls::client_config(identity, WIRE_VERSION)?)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config(limits)?);
    Ok(config)
}

/// How `identity` is dialled: for [`Endpoint::set_server_config`]. [`open`] sets it.
///
/// # Errors
/// The limits or the identity cannot be used.
pub fn server_config(identity: &Identity, limits: &EndpointLimits) -> Result<ServerConfig, OpenError> {
    let tls = QuicServerConfig::try_from(tls::server_config(identity, WIRE_VERSION)?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    // A client keeps address tokens by server name, and all nodes have the same one: its tokens would go to the wrong
    // nodes. So none are given out.
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(transport_config(limits)?)
        .migration(false)
        .validation_token_config(tokens)
        .retry_token_lifetime(limits.handshake_timeout)
        .max_incoming(INCOMING_WAITING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    Ok(config)
}

/// Waits for a handshake to finish, for as long as the limits say; after that the attempt is given up.
///
/// Cancel safe: dropped, it gives the connection up.
///
/// # Errors
/// What went wrong, in words. A connection that the other side is still to refuse counts as finished here: see
/// [`LinkFailure`].
pub async fn handshake(connecting: Connecting, limits: &EndpointLimits) -> Result<Connection, LinkFailure> {
    let timeout = limits.handshake_timeout;
    match tokio::time::timeout(timeout, connecting).await {
        Ok(finished) => Ok(finished?),
        Err(_) => Err(LinkFailure::HandshakeTimeout { timeout }),
    }
}

/// Which node is at the other end: the hash of the public key that it proved to hold.
///
/// # Errors
/// There is no readable certificate, which cannot be on connections of [`open`]'s endpoints.
pub fn peer_id(connection: &Connection) -> Result<NodeId, PeerIdError> {
    Ok(node_id_of(peer_chain(connection).first().ok_or(PeerIdError::NoCertificate)?)?)
}

/// The certificates that the other side showed in the handshake; empty if none.
pub(crate) fn peer_chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let chain = connection.peer_identity().and_then(|identity| identity.downcast().ok());
    chain.map_or_else(Vec::new, |chain| *chain)
}

fn transport_config(limits: &EndpointLimits) -> Result<Arc<TransportConfig>, LimitsError> {
    let idle_timeout = checked_idle_timeout(limits)?;
    let mut config = TransportConfig::default();
    let mut mtu_discovery = MtuDiscoveryConfig::default();
    mtu_discovery.upper_bound(limits.datagram_bytes_max);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS)).max_ack_delay(Some(ACK_DELAY_MAX));
    config
        .ack_frequency_config(Some(acks))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(limits.connection_receive_window_bytes))
        .stream_receive_window(VarInt::from_u32(limits.stream_receive_window_bytes))
        .send_window(limits.send_window_bytes())
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(limits.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu_discovery));
    match limits.congestion {
        Congestion::Cubic => {
            let short_queue = Arc::new(ShortQueue(Arc::<CubicConfig>::default()));
            config.congestion_controller_factory(Arc::new(SlowStart(short_queue)))
        }
        Congestion::Bbr => config.congestion_controller_factory(Arc::new(SlowStart(Arc::<BbrConfig>::default()))),
    };
    Ok(Arc::new(config))
}

fn checked_idle_timeout(limits: &EndpointLimits) -> Result<IdleTimeout, LimitsError> {
    let per_address = limits.connections_per_address_max;
    if per_address == 0 || per_address > limits.connections_max {
        return Err(LimitsError::Connections);
    }
    if limits.handshakes_max == 0 {
        return Err(LimitsError::Handshakes);
    }
    if limits.handshake_timeout.is_zero() {
        return Err(LimitsError::HandshakeTimeout);
    }
    let stream_window = limits.stream_receive_window_bytes;
    if stream_window == 0 || stream_window > limits.connection_receive_window_bytes {
        return Err(LimitsError::Windows);
    }
    if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&limits.datagram_bytes_max) {
        return Err(LimitsError::Datagrams);
    }
    if limits.keep_alive.is_zero() || limits.keep_alive >= limits.idle_timeout {
        return Err(LimitsError::IdleTimeout);
    }
    IdleTimeout::try_from(limits.idle_timeout).map_err(|_| LimitsError::IdleTimeout)
}

#[cfg(test)]
mod tests;
