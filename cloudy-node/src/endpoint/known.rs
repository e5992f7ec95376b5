//! Nodes that this node wants links to, with their addresses. Strangers cannot take their places.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cloudy_proto::NodeId;
use cloudy_proto::limits::ADDRESSES_MAX;

use crate::endpoint::canonical;

/// Maximum of addresses of a node that its links came from, newest first: those before its restart may be used again.
const LINKED_MAX: usize = 4;
/// Maximum of addresses of a node that other members reported, newest first.
const TOLD_MAX: usize = 4;

/// The addresses of a node.
#[derive(Debug, Default)]
struct Places {
    /// Named by the group's view or the peer itself.
    named: Vec<SocketAddr>,
    /// Addresses of earlier links, if no name or view has them.
    linked: Vec<SocketAddr>,
    /// Reported by other members.
    told: Vec<SocketAddr>,
}

impl Places {
    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.linked.iter().chain(&self.named).chain(&self.told).copied()
    }
}

/// The nodes with their addresses. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownNodes(Arc<RwLock<BTreeMap<NodeId, Places>>>);

impl KnownNodes {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Places>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeId, Places>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a wanted node with these addresses.
    pub(crate) fn insert(&self, node: NodeId, addresses: &[SocketAddr]) {
        let named = addresses.iter().copied().map(canonical).take(ADDRESSES_MAX).collect();
        self.write().entry(node).or_default().named = named;
    }

    /// Notes that a wanted node is linked at this address.
    pub(crate) fn linked(&self, node: NodeId, address: SocketAddr) {
        let mut known = self.write();
        let Some(places) = known.get_mut(&node).filter(|places| !places.named.contains(&address)) else { return };
        add(&mut places.linked, address, LINKED_MAX);
    }

    /// Notes that another member is linked to a wanted node at this address. False if it is known.
    pub(crate) fn told(&self, node: NodeId, address: SocketAddr) -> bool {
        let mut known = self.write();
        let Some(places) = known.get_mut(&node).filter(|places| places.all().all(|other| other != address)) else {
            return false;
        };
        add(&mut places.told, address, TOLD_MAX);
        true
    }

    pub(crate) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        self.write().retain(|&node, _| keep(node));
    }

    /// The addresses of a known node, each once.
    pub(crate) fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        let known = self.read();
        let mut addresses = Vec::new();
        for address in known.get(&node).into_iter().flat_map(Places::all) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.read().contains_key(&node)
    }

    /// Whether the view, or the node itself, names this address, so that all members know it.
    pub(crate) fn is_named(&self, node: NodeId, address: SocketAddr) -> bool {
        self.read().get(&node).is_some_and(|places| places.named.contains(&address))
    }

    /// Whether a known node has this address.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let place = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        self.read().values().flat_map(Places::all).any(|known| place(known) == place(address))
    }

    /// Whether a known node is on this host.
    pub(super) fn is_on(&self, host: IpAddr) -> bool {
        self.read().values().flat_map(Places::all).any(|known| known.ip().to_canonical() == host.to_canonical())
    }
}

/// Puts an address first, and drops the oldest beyond `max`.
fn add(list: &mut Vec<SocketAddr>, address: SocketAddr, max: usize) {
    list.retain(|known| *known != address);
    list.insert(0, address);
    list.truncate(max);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_node_from_links_names_and_peers_are_tried_in_bounded_numbers() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let (known, node) = (KnownNodes::default(), NodeId([1; 32]));
        known.linked(node, at(1));
        assert!(!known.told(node, at(2)) && known.addresses(node).is_empty(), "no link to it is wanted");
        known.insert(node, &["[::ffff:192.0.2.1]:3".parse().expect("an address")]);
        known.linked(node, at(3));
        assert_eq!(known.addresses(node), [at(3)]);
        known.linked(node, at(1));
        assert!(known.told(node, at(2)) && !known.told(node, at(2)) && !known.told(node, at(1)));
        assert_eq!(known.addresses(node), [at(1), at(3), at(2)]);
        (10..99).for_each(|port| assert!(known.told(node, at(port))));
        assert_eq!(known.addresses(node), [1, 3, 98, 97, 96, 95].map(at), "what others tell displaces nothing else");
        known.insert(node, &[at(4)]);
        assert_eq!(known.addresses(node), [1, 4, 98, 97, 96, 95].map(at));
        assert!(known.is_named(node, at(4)) && !known.is_named(node, at(1)));
    }
}
