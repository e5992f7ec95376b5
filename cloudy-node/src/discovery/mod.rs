//! Discovery of nodes: by multicast on the links of this host, or by given names and addresses.
//!
//! A finder sends queries to a multicast group, and responders answer. Both prove that they hold a cluster key
//! ([`DiscoveryKeys`]), so other programs on the link can neither query nor answer. A result is a hint: the mutual TLS
//! handshake decides which node it is, and whether it is accepted.
//!
//! - [`Responder`] answers queries for one node; [`Finder`] queries and collects.
//! - [`seeds`] turns `HOST:PORT` texts into addresses, for networks without multicast.

//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cloudy_node::discovery::{Advertisement, Finder, GROUP, Multicast, Responder};
//! use cloudy_node::{ClusterKey, Node};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = ClusterKey::generate()?;
//! let one = Node::builder().cluster_key(&key).start().await?;
//! let other = Node::builder().cluster_key(&key).start().await?;
//! let place = Multicast::new(GROUP, one.local_addr().ip());
//! let advertised = Advertisement::new(one.id(), one.local_addr(), "chat");
//! let _responder = Responder::start(one.discovery_keys(), place, advertised)?;
//! let mut finder = Finder::start(other.discovery_keys(), place, Duration::from_secs(1))?;
//! while let Some(hint) = finder.next().await {
//!     println!("{} is node {}", hint.address, other.connect(hint.address).await?);
//! }
//! # Ok(())
//! # }
//! ```

mod datagram;
mod finder;
mod interfaces;
mod keys;
mod rate_limit;
mod responder;
pub mod seeds;
mod stations;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

pub use finder::{DIAL_AGAIN_AFTER, Finder, HINTS_MAX, Hint, QUERY_EVERY_MS, QUERY_SCHEDULE_MS};
pub use keys::DiscoveryKeys;
pub use rate_limit::{REPLIES_PER_SECOND_MAX, REPLIES_PER_SECOND_TO_ONE_MAX};
pub use responder::{Advertisement, RENEW_EVERY, Responder};

/// The default group for queries: 239.255.0.0/16 is the IPv4 local scope (RFC 2365 §6.1), which no router forwards
/// beyond the site. With [`TTL`] not even the first router does. The port is outside the range of ephemeral ports.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 99, 108), 24_670);

/// Queries stay on their link.
pub const TTL: u32 = 1;

/// The multicast group and interface for queries and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Multicast {
    /// The group and port; [`GROUP`] unless all nodes use another. On IPv6 interfaces the group is `ff12::` and the four
    /// bytes of this one, a transient group of link-local scope (RFC 4291 §2.7).
    pub group: SocketAddrV4,
    /// The local address of the interface, usually the one that the node listens on. An unspecified address stands for
    /// all interfaces: 0.0.0.0 for their IPv4 addresses, `::` for all addresses. For a loopback address, IPv4 multicast
    /// is used on the loopback interface.
    pub interface: IpAddr,
}

impl Multicast {
    /// A multicast place with this group, port and interface.
    #[must_use]
    pub const fn new(group: SocketAddrV4, interface: IpAddr) -> Self {
        Self { group, interface }
    }

    cloudy_proto::setters! {
        group: SocketAddrV4,
        interface: IpAddr,
    }

    /// The group on IPv6 interfaces.
    #[must_use]
    pub fn group_v6(&self) -> Ipv6Addr {
        let [a, b, c, d] = self.group.ip().octets();
        Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    pub(crate) fn check(&self, keys: &DiscoveryKeys) -> Result<(), DiscoveryError> {
        if !self.group.ip().is_multicast() || self.group.port() == 0 {
            return Err(DiscoveryError::NotAGroup { group: self.group });
        }
        if keys.is_empty() {
            return Err(DiscoveryError::NoKey);
        }
        Ok(())
    }
}

/// The reason for which discovery does not start or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// There is no key that proves membership.
    #[error(
        "multicast discovery needs a cluster key, and this node's certificate comes from its own public key \
         infrastructure; name the nodes' addresses instead"
    )]
    NoKey,
    /// The group is not a multicast address, or its port is 0.
    #[error("{group} is not a multicast group with a port; use one of 239.255.0.0/16, for example {GROUP}")]
    NotAGroup {
        /// The given group.
        group: SocketAddrV4,
    },
    /// The advertised address has port 0, so no node could dial it.
    #[error("an address with port 0 cannot be advertised; advertise the port that the endpoint is bound to")]
    NoPort,
    /// The label is too long.
    #[error("a label of {bytes} bytes; use at most {}", datagram::LABEL_BYTES_MAX)]
    Label {
        /// Its length.
        bytes: usize,
    },
    /// No query could be sent.
    #[error(
        "multicast on {interface} failed ({cause}); check that the interface is up, or name the nodes' addresses \
         instead"
    )]
    Interface {
        /// The interface's name, or its given address.
        interface: String,
        /// The system's error.
        cause: io::Error,
    },
    /// The group's port could not be shared: another program holds it exclusively.
    #[error(
        "cannot share UDP port {port} for discovery ({cause}); end the program that holds it, or use another group"
    )]
    Port {
        /// The group's port.
        port: u16,
        /// The system's error.
        cause: io::Error,
    },
}
