//! The network interfaces on which discovery takes place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use if_addrs::IfAddr;

/// Maximum of interfaces that discovery uses; a host with more uses the first of them.
const INTERFACES_MAX: usize = 64;

/// The family of the datagrams on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// An address of an interface, and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalAddress {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

/// One interface with its addresses of one family. Two values are equal only if nothing about it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) family: Family,
    /// At least one.
    pub(super) addresses: Vec<LocalAddress>,
}

impl Interface {
    /// The source address of datagrams.
    pub(super) fn source(&self) -> IpAddr {
        self.addresses[0].ip
    }

    /// The best address for a node at `peer`: one of the same network, or else the first.
    pub(super) fn reached_from(&self, peer: IpAddr) -> IpAddr {
        let near = |local: &&LocalAddress| same_network(local.ip, peer, local.prefix);
        self.addresses.iter().find(near).unwrap_or(&self.addresses[0]).ip
    }
}

/// The interfaces of this host for a node that listens on `ip`: the one with this address, or all for an unspecified
/// address.
///
/// # Errors
/// The system does not list its interfaces.
pub(super) fn of(ip: IpAddr) -> io::Result<Vec<Interface>> {
    Ok(select(&if_addrs::get_if_addrs()?, ip.to_canonical()))
}

fn select(all: &[if_addrs::Interface], wanted: IpAddr) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    for entry in all {
        let (ip, prefix) = match &entry.addr {
            IfAddr::V4(addr) => (IpAddr::V4(addr.ip), addr.prefixlen),
            IfAddr::V6(addr) => (IpAddr::V6(addr.ip), addr.prefixlen),
        };
        let Some(index) = entry.index.filter(|_| takes(wanted, ip)) else { continue };
        let local = LocalAddress { ip, prefix };
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let same = |known: &&mut Interface| known.index == index && known.family == family;
        if let Some(known) = found.iter_mut().find(same) {
            known.addresses.push(local);
        } else if found.len() < INTERFACES_MAX {
            found.push(Interface { index, name: entry.name.clone(), family, addresses: vec![local] });
        }
    }
    found
}

/// Whether discovery for a node that listens on `wanted` uses the interface address `ip`.
///
/// A loopback interface carries IPv4 multicast only, also for a node that listens on `::1`: Linux has no route for IPv6
/// multicast there.
fn takes(wanted: IpAddr, ip: IpAddr) -> bool {
    match (wanted, ip) {
        (_, IpAddr::V6(ip)) if ip.is_loopback() => false,
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), ip) => ip.is_ipv4(),
        // Such a socket serves both families.
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => true,
        // All of 127.0.0.0/8 is local, and one address of it is listed.
        (wanted, ip) if wanted.is_loopback() => ip.is_loopback(),
        (wanted, ip) => wanted == ip,
    }
}

fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let differing = match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(prefix)
}

/// The address with the scope that a link-local address needs on this interface.
pub(super) fn scoped(address: SocketAddr, interface: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) if v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(interface);
            v6.into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn entry(name: &str, index: u32, ip: &str, prefixlen: u8) -> if_addrs::Interface {
        let addr = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr { ip, netmask: ip, prefixlen, broadcast: None }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr { ip, netmask: ip, prefixlen, broadcast: None }),
        };
        let (name, oper_status) = (name.to_owned(), IfOperStatus::Up);
        if_addrs::Interface { name, addr, index: Some(index), oper_status, is_p2p: false }
    }

    fn host() -> Vec<if_addrs::Interface> {
        vec![
            entry("lo", 1, "127.0.0.1", 8),
            entry("lo", 1, "::1", 128),
            entry("eth0", 2, "192.0.2.1", 24),
            entry("eth0", 2, "198.51.100.1", 24),
            entry("eth0", 2, "fd00::1", 64),
            entry("eth0", 2, "fe80::1", 64),
            entry("eth1", 3, "203.0.113.1", 24),
        ]
    }

    #[test]
    fn the_listen_address_chooses_interfaces_and_families() {
        use Family::{V4, V6};
        for (wanted, expected) in [
            ("127.0.0.1", &[("lo", V4, 1)][..]),
            ("127.0.0.9", &[("lo", V4, 1)]),
            ("::1", &[("lo", V4, 1)]),
            ("198.51.100.1", &[("eth0", V4, 1)]),
            ("fd00::1", &[("eth0", V6, 1)]),
            ("fe80::1", &[("eth0", V6, 1)]),
            ("192.0.2.99", &[]),
            ("0.0.0.0", &[("lo", V4, 1), ("eth0", V4, 2), ("eth1", V4, 1)]),
            ("::", &[("lo", V4, 1), ("eth0", V4, 2), ("eth0", V6, 2), ("eth1", V4, 1)]),
        ] {
            let found = select(&host(), wanted.parse().expect("an address"));
            let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.family, one.addresses.len())).collect();
            assert_eq!(found, expected, "{wanted}");
        }
    }

    #[test]
    fn a_peer_is_given_the_address_of_its_own_network() {
        let found = select(&host(), Ipv6Addr::UNSPECIFIED.into());
        let reached = |at: usize, peer: &str| found[at].reached_from(peer.parse().expect("an address")).to_string();
        assert_eq!(reached(1, "198.51.100.77"), "198.51.100.1");
        assert_eq!(reached(1, "203.0.113.77"), "192.0.2.1");
        assert_eq!(reached(2, "fe80::77"), "fe80::1");
        assert_eq!(reached(2, "fd00::77"), "fd00::1");
    }
}
