//! Addresses of members: all may have new ones, so members send each other the addresses of their links (`protocol.md`
//! §4).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cloudy_proto::NodeId;
use cloudy_proto::wire::NodeFrame;

use super::Driver;
use crate::endpoint::canonical;
use crate::link::Link;
use crate::link_error::{ConnectError, LinkFailure};

/// The nodes that a node seeks beyond the addresses that it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seeks {
    /// Whether a link to a member of one of its groups is missing.
    pub(crate) members: bool,
    /// Whether it waits to join a group.
    pub(crate) group: bool,
    /// The advertised names of the members without a link.
    pub(crate) advertised: BTreeSet<String>,
}

impl Driver {
    pub(super) fn dial_due(&mut self) {
        let now = self.now();
        for address in self.dialler.due(now) {
            if self.linked_at(address).is_some() {
                // Another node is there.
                self.dialler.failed(address, now);
            } else {
                self.links.dial(address, true);
            }
        }
    }

    /// Notifies the lookups by name and by multicast whether they are needed.
    pub(super) fn seek(&self) {
        let members = self.dialler.misses_any();
        let group = self.joining.values().any(|joining| !joining.reply.is_closed());
        let seeks = Seeks { members, group, advertised: self.dialler.names_of_missing() };
        self.seeks.send_if_modified(|before| {
            let changed = *before != seeks;
            *before = seeks;
            changed
        });
    }

    /// The linked peer that was found at this address.
    pub(super) fn linked_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.peers.values().find(|link| link.is_at(address)).map(|link| link.peer)
    }

    /// Notes that a dialled address leads to a peer that another connection has just linked.
    pub(super) fn dialled_again(&mut self, address: SocketAddr, peer: NodeId) {
        if self.peers.contains_key(&peer) {
            self.dialled(address, peer);
        } else {
            self.dialler.failed(address, self.now());
            self.connected(address, Err(ConnectError::Link { address, failure: LinkFailure::ClosedHere }));
        }
    }

    /// Notes that an address leads to a linked peer.
    pub(super) fn dialled(&mut self, address: SocketAddr, peer: NodeId) {
        if let Some(link) = self.peers.get_mut(&peer) {
            link.found_at(address);
        }
        // Other nodes that had this address have another one.
        self.dialler.failed(address, self.now());
        self.connected(address, Ok(peer));
    }

    /// Whether a peer is or was a member of one of this node's groups, or has created one.
    fn is_of_groups(&self, peer: NodeId) -> bool {
        self.groups.values().any(|run| run.machine.is_of_group(peer))
    }

    /// Sends members with other addresses than in their views to each other, once a link is up.
    pub(super) fn tell_located(&self, peer: NodeId, at: SocketAddr) {
        let Some(link) = self.peers.get(&peer).filter(|_| self.is_of_groups(peer)) else { return };
        for other in self.peers.values().filter(|other| other.peer != peer && self.is_of_groups(other.peer)) {
            self.tell_of(other, peer, at);
            self.tell_of(link, other.peer, other.remote());
        }
    }

    /// Sends a member's address to a peer, unless the view has it.
    fn tell_of(&self, to: &Link, node: NodeId, address: SocketAddr) {
        if self.dialler.wants(node) && !self.dialler.is_named(node, address) && means_the_same(address, to.remote()) {
            to.push_node(NodeFrame::Located { node, address });
        }
    }

    /// Tells a node where another is that opens the same group.
    pub(super) fn introduce_to(to: &Link, other: &Link) {
        if means_the_same(other.remote(), to.remote()) {
            to.push_node(NodeFrame::Located { node: other.peer, address: other.remote() });
        }
    }

    /// Handles a member's address from a peer. It counts only from members of this node's groups, present or former,
    /// and only for members; the handshake decides which node is there.
    pub(super) fn told_located(&mut self, by: NodeId, node: NodeId, address: SocketAddr) {
        if self.is_of_groups(by) {
            self.located(node, address);
        }
        self.told_of_opener(by, node, canonical(address));
    }

    /// Notes a possible address of a member.
    pub(super) fn located(&mut self, node: NodeId, address: SocketAddr) {
        let address = canonical(address);
        if node != self.me && !self.peers.contains_key(&node) && self.linked_at(address).is_none() {
            self.dialler.told(node, address, self.now());
        }
    }
}

/// Whether an address has the same meaning for a node with this source address: addresses of one host or one link have
/// no meaning elsewhere.
fn means_the_same(address: SocketAddr, heard_from: SocketAddr) -> bool {
    let scope = |address: SocketAddr| match address {
        _ if address.ip().is_loopback() => 1,
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => 2,
        SocketAddr::V4(v4) if v4.ip().is_link_local() => 2,
        _ => 3,
    };
    scope(address) == 3 || scope(address) == scope(heard_from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_or_one_link_are_not_sent_elsewhere() {
        let address = |text: &str| text.parse::<SocketAddr>().expect(text);
        for (told, to, expected) in [
            ("192.0.2.1:1", "127.0.0.1:2", true),
            ("192.0.2.1:1", "198.51.100.1:2", true),
            ("127.0.0.1:1", "[::1]:2", true),
            ("127.0.0.1:1", "192.0.2.1:2", false),
            ("[fe80::1]:1", "[fe80::2]:2", true),
            ("[fe80::1]:1", "[fd00::2]:2", false),
        ] {
            assert_eq!(means_the_same(address(told), address(to)), expected, "{told} to {to}");
        }
    }
}
