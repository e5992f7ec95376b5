//! Asking a multicast group, and answering.
//!
//! Both ends name the interface by its local address. With `IP_ADD_MEMBERSHIP` and `IP_MULTICAST_IF` on that address
//! no multicast route is needed, so this works on 127.0.0.1 as it stands. A query goes to the group; the replies come
//! straight back to the socket that asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, trace};

use super::datagram::{
    DATAGRAM_BYTES_MAX, DatagramError, QueryToken, Reply, decode_query, decode_reply, encode_query, encode_reply,
};
use super::rate_limit::RateLimit;
use super::{DiscoveryError, GROUP, TTL};

/// When a finder asks, after its start: often at first, since a datagram may be lost and a node may be just starting.
pub const QUERY_SCHEDULE_MS: [u64; 5] = [0, 50, 150, 350, 750];
/// How often a finder asks after its [schedule](QUERY_SCHEDULE_MS).
pub const QUERY_EVERY_MS: u64 = 1_000;
/// Distinct hints that a finder gives; it ends after the last one, so its memory is bounded whoever answers.
pub const HINTS_MAX: usize = 256;

/// The longest time for a finder.
const FIND_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long a responder rests after its socket reports an error, so that an error that stays is no busy loop.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers the queries on one interface with one node's address, until it is dropped.
///
/// Any number of responders on one host share the group's port. At most
/// [`REPLIES_PER_SECOND_MAX`](super::REPLIES_PER_SECOND_MAX) replies a second leave, none longer than its query.
#[derive(Debug)]
pub struct Responder {
    task: AbortHandle,
}

impl Responder {
    /// Answers queries to [`GROUP`] on the interface that has the address `interface`; see
    /// [`start_in`](Self::start_in).
    ///
    /// # Errors
    /// As for [`start_in`](Self::start_in).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(interface: IpAddr, advertise: SocketAddr) -> Result<Self, DiscoveryError> {
        Self::start_in(GROUP, interface, advertise)
    }

    /// Answers queries to `group` on the interface that has the address `interface` (0.0.0.0: the one that the system
    /// prefers). Where `advertise` has an unspecified IP, finders use the one that the reply comes from.
    ///
    /// # Errors
    /// What the system refused; nothing was started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_in(group: SocketAddrV4, interface: IpAddr, advertise: SocketAddr) -> Result<Self, DiscoveryError> {
        let interface = checked(group, interface)?;
        if advertise.port() == 0 {
            return Err(DiscoveryError::NoPort);
        }
        let socket = bound_to(group).map_err(|source| DiscoveryError::Port { port: group.port(), source })?;
        let socket = joined(&socket, group, interface)
            .and_then(|()| UdpSocket::from_std(socket.into()))
            .map_err(|source| DiscoveryError::Interface { interface, source })?;
        let task = tokio::spawn(respond(socket, advertise)).abort_handle();
        Ok(Self { task })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond(socket: UdpSocket, advertised: SocketAddr) {
    let mut limit = RateLimit::new(Instant::now());
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "discovery socket");
                // sleep: a socket that fails again and again must not take a core.
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        match decode_query(&buffer[..length]) {
            Ok(token) if limit.take(Instant::now()) => {
                // A reply that the socket has no room for is one that the finder's next query asks for again.
                if let Err(error) = socket.try_send_to(&encode_reply(&Reply { token, advertised }), source) {
                    debug!(%error, %source, "discovery reply");
                }
            }
            Ok(_) => trace!(%source, "discovery query over the rate"),
            Err(error @ DatagramError::Version(_)) => debug!(%error, %source, "discovery query"),
            Err(error) => trace!(%error, %source, "discovery query"),
        }
    }
}

/// Asks who is there, and yields each address that is named once, as the replies come.
///
/// What it yields are hints: anybody on the link can answer.
#[derive(Debug)]
pub struct Finder {
    socket: UdpSocket,
    group: SocketAddrV4,
    token: QueryToken,
    started_at: Instant,
    deadline: Instant,
    queries_sent: u32,
    hints: Vec<SocketAddr>,
}

impl Finder {
    /// Asks [`GROUP`] on the interface that has the address `interface`; see [`start_in`](Self::start_in).
    ///
    /// # Errors
    /// As for [`start_in`](Self::start_in).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(interface: IpAddr, timeout: Duration) -> Result<Self, DiscoveryError> {
        Self::start_in(GROUP, interface, timeout)
    }

    /// Asks `group` on the interface that has the address `interface` (0.0.0.0: the one that the system prefers), for
    /// `timeout`, a day at most. The first query leaves at once, the others while [`next`](Self::next) is awaited.
    ///
    /// # Errors
    /// What the system refused, of the first query too; nothing stays open.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_in(group: SocketAddrV4, interface: IpAddr, timeout: Duration) -> Result<Self, DiscoveryError> {
        let interface = checked(group, interface)?;
        let token = QueryToken(rand::random());
        let socket = asking(group, interface, token)
            .and_then(|socket| UdpSocket::from_std(socket.into()))
            .map_err(|source| DiscoveryError::Interface { interface, source })?;
        let started_at = Instant::now();
        Ok(Self {
            socket,
            group,
            token,
            started_at,
            deadline: started_at + timeout.min(FIND_MAX),
            queries_sent: 1,
            hints: Vec::new(),
        })
    }

    /// The next address that was not named before; `None` once the time is over, [`HINTS_MAX`] were given, or the
    /// socket failed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<SocketAddr> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while self.hints.len() < HINTS_MAX {
            let query_at = self.started_at + query_time(self.queries_sent);
            tokio::select! {
                // The deadline first, the queries second: a flood of datagrams delays neither.
                biased;
                () = sleep_until(self.deadline) => return None,
                () = sleep_until(query_at) => self.ask(),
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, source)) => {
                        if let Some(hint) = self.hint(&buffer[..length], source) {
                            return Some(hint);
                        }
                    }
                    Err(error) => {
                        debug!(%error, "discovery socket");
                        return None;
                    }
                }
            }
        }
        None
    }

    fn ask(&mut self) {
        self.queries_sent += 1;
        if let Err(error) = self.socket.try_send_to(&encode_query(self.token), self.group.into()) {
            debug!(%error, "discovery query");
        }
    }

    /// What a datagram adds to what is known.
    fn hint(&mut self, datagram: &[u8], source: SocketAddr) -> Option<SocketAddr> {
        let reply = match decode_reply(datagram) {
            Ok(reply) => reply,
            Err(error) => {
                trace!(%error, %source, "discovery reply");
                return None;
            }
        };
        if reply.token != self.token {
            trace!(%source, "discovery reply to another query");
            return None;
        }
        let mut hint = reply.advertised;
        if hint.ip().is_unspecified() {
            hint.set_ip(source.ip());
        }
        if self.hints.contains(&hint) {
            return None;
        }
        self.hints.push(hint);
        Some(hint)
    }
}

/// When query `number`, counted from 0, is due after the start.
fn query_time(number: u32) -> Duration {
    let number = number as usize;
    let last = QUERY_SCHEDULE_MS.len() - 1;
    let after_schedule = number.saturating_sub(last) as u64;
    Duration::from_millis(QUERY_SCHEDULE_MS[number.min(last)] + after_schedule * QUERY_EVERY_MS)
}

fn checked(group: SocketAddrV4, interface: IpAddr) -> Result<Ipv4Addr, DiscoveryError> {
    if !group.ip().is_multicast() || group.port() == 0 {
        return Err(DiscoveryError::NotAGroup { group });
    }
    match interface {
        IpAddr::V4(interface) => Ok(interface),
        IpAddr::V6(_) => Err(DiscoveryError::Ipv6 { interface }),
    }
}

fn datagram_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket on the group's port, which every responder on this host shares.
fn bound_to(group: SocketAddrV4) -> io::Result<Socket> {
    let socket = datagram_socket()?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    // Bound to the group's address, the socket never sees unicast datagrams: only who is on the link can ask. Windows
    // does not bind to a group.
    let address = if cfg!(windows) { SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, group.port()) } else { group };
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn joined(socket: &Socket, group: SocketAddrV4, interface: Ipv4Addr) -> io::Result<()> {
    // Linux else hands over what any program on this host has joined, on any interface (ip(7), IP_MULTICAST_ALL).
    #[cfg(target_os = "linux")]
    socket.set_multicast_all_v4(false)?;
    socket.join_multicast_v4(group.ip(), &interface)
}

/// A socket on the interface that has asked once.
fn asking(group: SocketAddrV4, interface: Ipv4Addr, token: QueryToken) -> io::Result<Socket> {
    let socket = datagram_socket()?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(interface, 0)))?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_ttl_v4(TTL)?;
    socket.set_multicast_loop_v4(true)?;
    socket.send_to(&encode_query(token), &SockAddr::from(group))?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
