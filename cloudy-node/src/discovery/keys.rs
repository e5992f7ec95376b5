//! The keys that authenticate discovery datagrams.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::task::JoinHandle;

use crate::cluster_key::MacKey;
use crate::cluster_keys::ClusterKeys;
use crate::health::Health;

/// The keys that prove in a discovery datagram that its sender belongs to the cluster. Clones share one set.
///
/// [`Node::discovery_keys`](crate::Node::discovery_keys) gives a set that follows the node's cluster keys. `Debug` shows
/// no key.
#[derive(Clone, Default)]
pub struct DiscoveryKeys {
    keys: Arc<RwLock<Vec<MacKey>>>,
    /// The health of the node with these keys: a defect in its discovery stops it.
    health: Option<Health>,
}

impl DiscoveryKeys {
    pub(crate) fn of_node(keys: Vec<MacKey>, health: Health) -> Self {
        Self { keys: Arc::new(RwLock::new(keys)), health: Some(health) }
    }

    /// Runs a part of discovery as a separate task.
    pub(super) fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.health {
            Some(health) => health.spawn(part, work),
            None => tokio::spawn(work),
        }
    }

    /// Replaces the keys of all clones.
    pub(crate) fn replace(&self, keys: Vec<MacKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether there is no key, as at a node whose certificates come from its own public key infrastructure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The keys at this moment, the primary one first.
    pub(super) fn all(&self) -> Vec<MacKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<&ClusterKeys> for DiscoveryKeys {
    /// The keys of a cluster. Applications whose nodes have certificates of their own public key infrastructure can make
    /// a cluster key for discovery alone.
    fn from(keys: &ClusterKeys) -> Self {
        let accepted = keys.accepted().map(|(_, key)| key);
        let keys = [Some(keys.primary()), accepted].into_iter().flatten().map(|key| key.discovery_key()).collect();
        Self { keys: Arc::new(RwLock::new(keys)), health: None }
    }
}

impl fmt::Debug for DiscoveryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiscoveryKeys").field(&self.all().len()).finish()
    }
}

/// An address as it enters a tag. An IPv4 address and its form in IPv6 are the same, and a scope means nothing elsewhere.
pub(super) fn address_bytes(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}
