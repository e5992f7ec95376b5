//! Nodes that this node wants links to: they keep a place whatever strangers do.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cloudy_proto::NodeId;

type Addresses = BTreeMap<NodeId, Vec<SocketAddr>>;

/// The nodes, and where they can be reached. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownNodes(Arc<RwLock<Addresses>>);

impl KnownNodes {
    fn read(&self) -> RwLockReadGuard<'_, Addresses> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Addresses> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, node: NodeId, addresses: &[SocketAddr]) {
        self.write().insert(node, addresses.to_vec());
    }

    pub(crate) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        self.write().retain(|&node, _| keep(node));
    }

    /// Where a known node can be reached.
    pub(crate) fn addresses(&self, node: NodeId) -> Option<Vec<SocketAddr>> {
        self.read().get(&node).cloned()
    }

    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.read().contains_key(&node)
    }

    /// One of them can be reached at this very address.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        let address = canonical(address);
        self.read().values().flatten().any(|known| canonical(*known) == address)
    }

    /// One of them is on that host.
    pub(super) fn is_on(&self, host: IpAddr) -> bool {
        self.read().values().flatten().any(|known| known.ip().to_canonical() == host.to_canonical())
    }
}

/// The same for an IPv4 address and for the way in which an IPv6 socket shows it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
