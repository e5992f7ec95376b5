//! The QUIC endpoint: a bound socket, an identity, and bounds on the resources that others can use.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::NodeId;
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

/// Maximum of streams that the other side of a connection may have open. All are unidirectional; bidirectional ones are
/// refused. A link allows more for the groups of this node: two for each, and the need of two views for each group
/// whose ring the peer is on.
pub const UNI_STREAMS_MAX: u32 = 256;
/// Maximum of connections that wait for [`Endpoint::accept`]; the transport refuses more.
pub(crate) const INCOMING_WAITING_MAX: usize = 512;
/// The requested size of the socket's buffers, in each direction. Less is tolerated: losses are repaired.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The payload that every QUIC path carries (RFC 9000 §14).
const DATAGRAM_BYTES_MIN: u16 = 1_200;
/// The transport passes ten datagrams to the system at once. It would silently drop more than 64 KiB of them; and if
/// they exceed that with the headers of UDP, IP and Ethernet, Linux copies them into packets by itself.
const DATAGRAM_BYTES_MAX: u16 = 6_540;
/// The round trip before the first measurement: a guess for local networks. A slower path costs a few repeated packets.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Maximum of packets that a peer receives before it acknowledges them: fewer acknowledgements leave more of a core for
/// messages.
const ACK_EVERY_PACKETS: u32 = 10;
/// Maximum delay of an acknowledgement. A lone lost packet is sent again after about this time and a round trip (RFC
/// 9002 §6.2), so it bounds the cost of a loss for a message with nothing behind it.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);
/// Minimum of the transport's own idle timeout. The driver closes silent links: only it knows for how long groups wait for
/// a peer.
const TRANSPORT_IDLE_MIN: Duration = Duration::from_secs(3_600);
/// Maximum bytes of early datagrams that are kept for connections not yet accepted: for each, and for all.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFERS_BYTES: u64 = 1 << 20;

/// Bounds on the resources that other nodes can use at an endpoint.
///
/// Only members of the cluster can send data, and the memory of one connection is bounded:
/// `connection_receive_window_bytes` that are not read yet; the same again and one control frame of the maximum size
/// (2.3 MiB) that is read and not handled yet; and one unfinished slot for each lane that the peer carries in a group
/// whose ring it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointLimits {
    /// Maximum of connections from others with a finished handshake. Default 512: twice the number that a creator may
    /// invite. One in four is reserved for nodes that this node wants links to: members of its groups.
    pub connections_max: usize,
    /// Maximum of connections from one address, where an IPv6 network of 64 bits is one address, and members of this
    /// node's groups do not count. Default 128: a whole ring on one machine, each dialling twice. Not more than
    /// `connections_max`.
    pub connections_per_address_max: usize,
    /// Maximum of unfinished handshakes, which any host on the network can begin. In a full pool a new one replaces the
    /// oldest one of the address with the most. Default 512. Addresses of members of this node's groups have a pool of
    /// their own, of 64. At least 1.
    pub handshakes_max: usize,
    /// Number of unfinished handshakes from which on a dialler must first prove that it receives at its address (Retry,
    /// RFC 9000 §8.1.2), which costs it a round trip and this node no state. Default 32: far below `handshakes_max`, so
    /// that datagrams with false senders displace no other.
    pub handshakes_before_retry: usize,
    /// The timeout of a handshake, also if data arrives from the other side. Default 5 s.
    pub handshake_timeout: Duration,
    /// Maximum of received bytes of a connection that are not read yet. Default 16 MiB: enough for two streams.
    pub connection_receive_window_bytes: u32,
    /// Maximum of received bytes of a stream that are not read yet. Default 8 MiB: 1 Gbit/s over a path of 60 ms.
    pub stream_receive_window_bytes: u32,
    /// The largest UDP payload that a connection probes its path for; it begins with 1,200 bytes, uses what arrives,
    /// and returns to less if that stops. Default and at most 6,540: loopback, and jumbo frames in part. Set less for a
    /// network that alters large datagrams in place of dropping them. At least 1,200.
    pub datagram_bytes_max: u16,
    /// The congestion control of this node's sending. Default [`Congestion::Cubic`].
    pub congestion: Congestion,
    /// The time without packets after which this node closes a connection. A connection with a member of a group, or with
    /// its coordinator, stays for as long as the group waits for it: up to
    /// [`Parameters::timeout_max`](crate::Parameters::timeout_max). Default 4 s.
    pub idle_timeout: Duration,
    /// The time without packets after which a keep-alive packet is sent. Default 1 s: some may be lost before
    /// `idle_timeout`.
    pub keep_alive: Duration,
}

/// The congestion control of a node; nodes may differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Congestion {
    /// A loss means that the path is full (CUBIC, RFC 9438): fair to other traffic, least CPU, and slow if packets are
    /// lost for other reasons and the round trip is long. A queue of more than 300 ms, or of a quarter of a longer
    /// round trip, counts as full too: on links with deep queues this node yields to other traffic.
    #[default]
    Cubic,
    /// The delivered rate decides, and losses do not (BBR): several times the rate over long paths that lose packets,
    /// with more CPU for each message, and less fair to other traffic. Its implementation in the QUIC library is
    /// experimental.
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

    /// Maximum of sent and unacknowledged bytes: the other side's window, and the same again waiting for it.
    pub(crate) fn send_window_bytes(&self) -> u64 {
        2 * u64::from(self.connection_receive_window_bytes)
    }
}

/// Limits that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// No node could connect.
    #[error("connections_max and connections_per_address_max must be at least 1, the second not above the first")]
    Connections,
    /// No handshake could begin.
    #[error("handshakes_max must be at least 1")]
    Handshakes,
    /// No handshake could finish.
    #[error("handshake_timeout must be above zero")]
    HandshakeTimeout,
    /// Nothing could be received, or one stream could use all the credit of the others.
    #[error("stream_receive_window_bytes must be 1 to connection_receive_window_bytes")]
    Windows,
    /// Every path carries more, or the system accepts no more at once.
    #[error("datagram_bytes_max must be {DATAGRAM_BYTES_MIN} to {DATAGRAM_BYTES_MAX}")]
    Datagrams,
    /// Idle connections would be closed, or the timeout cannot be encoded.
    #[error("keep_alive must be above zero and below idle_timeout, which must be below 2^62 ms")]
    IdleTimeout,
}

/// The reason for which a client configuration or an endpoint could not be built. The socket is closed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The limits contradict each other.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// QUIC needs AES-128-GCM for its first packets (RFC 9001 §5).
    #[error("TLS has no cipher suite for the first packets of QUIC")]
    Quic(#[from] NoInitialCipherSuite),
    /// Sockets and timers need a runtime.
    #[error("there is no tokio runtime here: open the endpoint from within one")]
    NoRuntime,
    /// The operating system refused the socket.
    #[error("the socket cannot be used: {0}")]
    Socket(io::Error),
}

/// The reason for which a socket could not be bound.
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
    #[error("{} is not an address of this machine: name one of its own, or {} for all of them", address.ip(), unspecified(address))]
    NotLocal {
        /// The address.
        address: SocketAddr,
    },
    /// The operating system reserves the port.
    #[error("port {} may not be used by this user: choose one from 1024 up", address.port())]
    NotPermitted {
        /// The address.
        address: SocketAddr,
    },
    /// Another error.
    #[error("cannot bind {address}: {cause}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The cause.
        cause: io::Error,
    },
}

/// The reason for which a connection has no peer id. It should be closed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PeerIdError {
    /// The other side presented no certificate.
    #[error("the other side presented no certificate")]
    NoCertificate,
    /// Its certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The socket of an endpoint.
#[derive(Debug)]
pub enum EndpointSocket {
    /// A UDP socket, as [`bind`] returns it, driven by tokio.
    Udp(UdpSocket),
    /// Another socket, such as one that loses datagrams, with the runtime for its timers and tasks.
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

/// Binds a UDP socket with large buffers, and warns once in the life of a process if the system grants less; port 0 is
/// replaced by a free one. The unspecified IPv6 address serves IPv4 too if the system can; an IPv4-mapped one is bound
/// as IPv4.
///
/// # Errors
/// The fault of the address, with the remedy.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, BindError> {
    let address = canonical(address);
    let bound = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            // On failure the socket serves IPv6 only.
            let _ = socket.set_only_v6(false);
        }
        buffers::enlarge(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bound().map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::PortInUse { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { address },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { address },
        _ => BindError::Other { address, cause },
    })
}

fn unspecified(address: &SocketAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0" } else { "::" }
}

/// Opens an endpoint that dials (by default as [`client_config`] defines) and is dialled, for members of `identity`'s
/// cluster. The caller puts an `Admission` before incoming connections. A seed makes the transport's random choices
/// repeatable; over a real network other influences remain.
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
        EndpointSocket::Udp(socket) => {
            (TokioRuntime.wrap_udp_socket(socket).map_err(OpenError::Socket)?, Arc::new(TokioRuntime))
        }
        EndpointSocket::Abstract(socket, runtime) => (socket, runtime),
    };
    let mut endpoint =
        Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime).map_err(OpenError::Socket)?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// The configuration with which `identity` dials: for [`Endpoint::connect_with`], with
/// [`SERVER_NAME`](crate::identity::SERVER_NAME) as the name.
///
/// # Errors
/// The limits or the identity cannot be used.
pub fn client_config(identity: &Identity, limits: &EndpointLimits) -> Result<ClientConfig, OpenError> {
    let tls = QuicClientConfig::try_from(tls::client_config(identity)?)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config(limits)?);
    Ok(config)
}

/// The configuration with which `identity` is dialled: for [`Endpoint::set_server_config`]. [`open`] sets it.
///
/// # Errors
/// The limits or the identity cannot be used.
pub fn server_config(identity: &Identity, limits: &EndpointLimits) -> Result<ServerConfig, OpenError> {
    let tls = QuicServerConfig::try_from(tls::server_config(identity)?)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    // A client keeps address tokens by server name, and all nodes have the same one: its tokens would go to the wrong
    // nodes. So none are issued.
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

/// Waits for a handshake to finish, with the timeout of the limits.
///
/// Cancel safe: dropped, it closes the connection.
///
/// # Errors
/// The cause. A connection that the other side will refuse counts as finished here: see [`LinkFailure`].
pub async fn handshake(connecting: Connecting, limits: &EndpointLimits) -> Result<Connection, LinkFailure> {
    let timeout = limits.handshake_timeout;
    match tokio::time::timeout(timeout, connecting).await {
        Ok(finished) => Ok(finished?),
        Err(_) => Err(LinkFailure::HandshakeTimeout { timeout }),
    }
}

/// The node at the other end: the hash of the public key that it proved to hold.
///
/// # Errors
/// There is no readable certificate, which is impossible on connections of [`open`]'s endpoints.
pub fn peer_id(connection: &Connection) -> Result<NodeId, PeerIdError> {
    Ok(node_id_of(peer_chain(connection).first().ok_or(PeerIdError::NoCertificate)?)?)
}

/// The certificates that the other side presented in the handshake; empty if none.
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
    IdleTimeout::try_from(limits.idle_timeout.max(TRANSPORT_IDLE_MIN)).map_err(|_| LimitsError::IdleTimeout)
}

#[cfg(test)]
mod tests;
