//! The sockets of discovery, one on each interface. They follow the interfaces as these appear and disappear.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::Poll;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::interfaces::{self, Family, Interface, scoped};
use super::{Multicast, TTL};

/// A socket on one interface.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) interface: Interface,
    pub(super) socket: UdpSocket,
}

impl Station {
    /// Sends at once or not at all. The runtime knows only after the first poll that a fresh socket can send, so it is
    /// not consulted.
    pub(super) fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        SockRef::from(&self.socket).send_to(datagram, &SockAddr::from(to)).map(drop)
    }
}

/// The function that opens a socket on an interface.
pub(super) type Open = fn(Multicast, &Interface) -> io::Result<Socket>;

/// The sockets on all interfaces of a [`Multicast`].
#[derive(Debug)]
pub(super) struct Stations {
    place: Multicast,
    open: Open,
    list: Vec<Station>,
    /// The socket to read first next time, so that a flood on one interface does not delay the others.
    first: usize,
}

/// The fault that prevents discovery on an interface.
#[derive(Debug)]
pub(super) struct Fault {
    /// The interface's name, or the address that no interface has.
    pub(super) interface: String,
    pub(super) source: io::Error,
}

impl Stations {
    pub(super) fn new(place: Multicast, open: Open) -> Self {
        Self { place, open, list: Vec::new(), first: 0 }
    }

    pub(super) fn all(&self) -> &[Station] {
        &self.list
    }

    /// Opens sockets on new interfaces, and closes those on interfaces that are gone or have changed. Returns the first
    /// fault: the caller renews again later.
    pub(super) fn renew(&mut self) -> Result<(), Fault> {
        let wanted = self.place.interface;
        let fault = |source| Fault { interface: wanted.to_string(), source };
        let present = interfaces::of(wanted).map_err(fault)?;
        self.list.retain(|station| present.contains(&station.interface));
        if present.is_empty() {
            return Err(fault(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "no interface of this machine has an address for it",
            )));
        }
        let mut outcome = Ok(());
        for interface in present {
            if self.list.iter().any(|station| station.interface == interface) {
                continue;
            }
            let opened = (self.open)(self.place, &interface).and_then(|socket| UdpSocket::from_std(socket.into()));
            match opened {
                Ok(socket) => self.list.push(Station { interface, socket }),
                Err(source) if outcome.is_ok() => outcome = Err(Fault { interface: interface.name, source }),
                Err(_) => {}
            }
        }
        outcome
    }

    /// Receives the next datagram on any interface, with its station. A socket that fails is closed, and opened again
    /// by the next [`renew`](Self::renew). Cancel safe.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> (usize, usize, SocketAddr) {
        std::future::poll_fn(|context| {
            let mut turn = 0;
            while turn < self.list.len() {
                let at = (self.first + turn) % self.list.len();
                let mut read = ReadBuf::new(buffer);
                match self.list[at].socket.poll_recv_from(context, &mut read) {
                    Poll::Ready(Ok(source)) => {
                        self.first = at + 1;
                        return Poll::Ready((at, read.filled().len(), source));
                    }
                    Poll::Ready(Err(error)) => {
                        let station = self.list.remove(at);
                        tracing::debug!(interface = station.interface.name, %error, "discovery socket");
                        (self.first, turn) = (0, 0);
                    }
                    Poll::Pending => turn += 1,
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A socket that receives queries to the group on the interface. Any number of them on one host share the port.
pub(super) fn answering(place: Multicast, interface: &Interface) -> io::Result<Socket> {
    let socket = datagram_socket(interface.family)?;
    socket.set_reuse_address(true)?;
    // Linux needs no more; with SO_REUSEPORT it delivers a datagram from another host to any socket of the port,
    // on every interface.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuse_port(true)?;
    let group = group_on(place, interface);
    // Bound to the group's address, the socket receives no unicast datagrams, so only senders on the link can query.
    // Windows does not bind to a group.
    let local = if cfg!(windows) { SocketAddr::new(unspecified(interface.family), group.port()) } else { group };
    socket.bind(&SockAddr::from(local))?;
    match group {
        SocketAddr::V4(group) => {
            // By default Linux delivers datagrams of all groups that any program on this host has joined, on any
            // interface (ip(7), IP_MULTICAST_ALL).
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Index(interface.index))?;
        }
        SocketAddr::V6(group) => {
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(group.ip(), interface.index)?;
        }
    }
    Ok(socket)
}

/// A socket that sends queries on the interface and receives the replies.
pub(super) fn asking(_: Multicast, interface: &Interface) -> io::Result<Socket> {
    let socket = datagram_socket(interface.family)?;
    let local = scoped(SocketAddr::new(interface.source(), 0), interface.index);
    socket.bind(&SockAddr::from(local))?;
    match interface.source() {
        IpAddr::V4(source) => {
            socket.set_multicast_if_v4(&source)?;
            socket.set_multicast_ttl_v4(TTL)?;
            socket.set_multicast_loop_v4(true)?;
        }
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(interface.index)?;
            socket.set_multicast_hops_v6(TTL)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    Ok(socket)
}

/// The group's address on the interface: for IPv6 the group of link-local scope that ends in the IPv4 group's bytes.
pub(super) fn group_on(place: Multicast, interface: &Interface) -> SocketAddr {
    match interface.family {
        Family::V4 => place.group.into(),
        Family::V6 => SocketAddrV6::new(place.group_v6(), place.group.port(), 0, interface.index).into(),
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn datagram_socket(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Logs faults once, and their end.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    faulty: bool,
}

impl Trouble {
    /// Notes the outcome of a renewal.
    pub(super) fn note(&mut self, outcome: Result<(), Fault>) {
        let was_faulty = std::mem::replace(&mut self.faulty, outcome.is_err());
        match outcome {
            Ok(()) if was_faulty => tracing::info!("multicast discovery works on all interfaces again"),
            Err(Fault { interface, source }) if !was_faulty => tracing::warn!(
                "multicast discovery does not work on {interface} yet ({source}); it is retried every second"
            ),
            _ => {}
        }
    }
}
