//! Finding nodes: by multicast on one link, or by names and addresses that were given.
//!
//! What is found is a hint. A hint carries no authority: who a node is and whether it belongs is decided by the mutual
//! TLS handshake, whoever answered the query. So a forged reply costs at most one failed dial.
//!
//! - [`Responder`] answers queries for one node; [`Finder`] asks and collects.
//! - [`seeds`] turns `HOST:PORT` texts into addresses, for networks without multicast.
//! - [`datagram`] has the two datagrams as pure functions.

pub mod datagram;
mod multicast;
mod rate_limit;
pub mod seeds;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

pub use multicast::{Finder, HINTS_MAX, QUERY_EVERY_MS, QUERY_SCHEDULE_MS, Responder};
pub use rate_limit::REPLIES_PER_SECOND_MAX;

/// Where queries go unless the caller names another group: 239.255.0.0/16 is the IPv4 local scope (RFC 2365 §6.1),
/// which no router forwards beyond the site. With [`TTL`] not even the first one does. The port is outside the range
/// from which systems take ephemeral ports.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 99, 108), 24_670);

/// Queries stay on their link.
pub const TTL: u32 = 1;

/// Why discovery could not start. Nothing was started and no socket stays open.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Multicast discovery is on IPv4 only.
    #[error(
        "multicast discovery works on IPv4 interfaces only, and {interface} is IPv6; name the nodes' addresses instead"
    )]
    Ipv6 {
        /// The interface's address as given.
        interface: IpAddr,
    },
    /// The group is no multicast address, or its port is 0.
    #[error("{group} is not a multicast group with a port; use one of 239.255.0.0/16, for example {GROUP}")]
    NotAGroup {
        /// The group as given.
        group: SocketAddrV4,
    },
    /// The advertised address has port 0, so nobody could dial it.
    #[error("an address with port 0 cannot be advertised; advertise the port that the endpoint is bound to")]
    NoPort,
    /// The system refused multicast on this interface.
    #[error(
        "multicast on the interface of {interface} failed ({source}); check that {interface} is an address of this \
         machine, or name the nodes' addresses instead"
    )]
    Interface {
        /// The interface's address as given.
        interface: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
    /// The group's port could not be shared: a program holds it without sharing it.
    #[error(
        "cannot share UDP port {port} for discovery ({source}); end the program that holds it, or use another group"
    )]
    Port {
        /// The group's port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}
