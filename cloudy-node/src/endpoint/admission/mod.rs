//! Admission of handshakes and connections: bounds on connections from others.
//!
//! Until its handshake is finished, a connection may belong to any host. Unfinished handshakes have a pool of their
//! own, in which the oldest is replaced by a new one, so strangers can take no place from a node that holds the key.
//! Nodes that this node wants links to have a second pool, and reserved places among the connections.

use core::fmt;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloudy_proto::NodeId;
use quinn::{Connecting, Incoming};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::endpoint::handshakes::Pool;
use crate::endpoint::{EndpointLimits, KnownNodes};
use crate::link_error::LinkFailure;

/// The share of [`EndpointLimits::connections_max`] that is reserved for nodes that this node wants links to: one in
/// this number.
pub(crate) const CONNECTIONS_RESERVED_SHARE: usize = 4;
/// Maximum of unfinished handshakes of addresses of known nodes, beside [`EndpointLimits::handshakes_max`].
pub(crate) const KNOWN_HANDSHAKES_MAX: usize = 64;

/// Counts the connections from others and decides on new ones. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections_max: usize,
    per_network_max: usize,
    handshakes_before_retry: usize,
    known: KnownNodes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next_id: u64,
    handshakes: Pool<Network>,
    known_handshakes: Pool<SocketAddr>,
    /// Connections whose handshake is finished.
    connections: usize,
    /// Networks with connections only: at most `connections_max` entries.
    per_network: BTreeMap<Network, usize>,
}

/// The unit of counting: an IPv4 address, or the /64 of an IPv6 address, in which a single host may have any number of
/// addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    /// An IPv4 address, also in the form of an IPv6 socket.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(prefix) => {
                let mut octets = [0; 16];
                octets[..prefix.len()].copy_from_slice(prefix);
                write!(f, "{}/64", IpAddr::from(octets))
            }
        }
    }
}

/// The reason to refuse an incoming connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NotAdmitted {
    /// The dialler was requested to prove its address; it dials again by itself.
    #[error("{address} is to prove its address first")]
    Retry {
        /// The address that the dialler claims.
        address: IpAddr,
    },
    /// All places for connections are taken.
    #[error("refused {network}: {max} connections are open, the maximum of this node")]
    Full {
        /// The dialler's network.
        network: Network,
        /// [`EndpointLimits::connections_max`], less the places reserved for known nodes.
        max: usize,
    },
    /// The dialler's network has the maximum number of connections.
    #[error("refused {network}: it has {max} connections, the maximum of one address")]
    AddressFull {
        /// The dialler's network.
        network: Network,
        /// [`EndpointLimits::connections_per_address_max`].
        max: usize,
    },
    /// The handshake failed at its first datagram.
    #[error(transparent)]
    Failed(#[from] LinkFailure),
}

/// A connection's place in the counts, returned when dropped: keep it as long as the connection.
#[derive(Debug)]
pub(crate) struct AdmissionGuard {
    shared: Arc<Shared>,
    id: u64,
    network: Network,
    /// Whether its handshake is finished.
    established: bool,
    gives_way: oneshot::Receiver<()>,
}

impl Admission {
    /// An admission with zero counts.
    #[cfg(test)]
    pub(crate) fn new(limits: &EndpointLimits) -> Self {
        Self::with_known(limits, KnownNodes::default())
    }

    pub(crate) fn with_known(limits: &EndpointLimits, known: KnownNodes) -> Self {
        Self(Arc::new(Shared {
            connections_max: limits.connections_max,
            per_network_max: limits.connections_per_address_max,
            handshakes_before_retry: limits.handshakes_before_retry,
            known,
            state: Mutex::new(State {
                next_id: 0,
                handshakes: Pool::new(limits.handshakes_max),
                known_handshakes: Pool::new(KNOWN_HANDSHAKES_MAX),
                connections: 0,
                per_network: BTreeMap::new(),
            }),
        }))
    }

    /// Accepts an incoming connection, or answers its dialler with a refusal or a Retry. The caller awaits an accepted
    /// one with [`handshake`](crate::endpoint::handshake), and keeps its guard. Another handshake may have to [give
    /// way](AdmissionGuard::gives_way).
    ///
    /// # Errors
    /// The reason for the refusal; the dialler has been answered.
    pub(crate) fn admit(&self, incoming: Incoming) -> Result<(Connecting, AdmissionGuard), NotAdmitted> {
        let proven = incoming.remote_address_validated();
        match self.decide(incoming.remote_address(), proven, incoming.may_retry()) {
            Ok(guard) => Ok((incoming.accept().map_err(LinkFailure::from)?, guard)),
            Err(refusal) => {
                match refusal {
                    NotAdmitted::Retry { .. } => {
                        incoming.retry().unwrap_or_else(|error| error.into_incoming().refuse())
                    }
                    _ => incoming.refuse(),
                }
                Err(refusal)
            }
        }
    }

    /// Takes a place for a handshake from `from`. `proven`: the dialler has shown that it receives at that address.
    ///
    /// # Errors
    /// There is no place, or the address must be proven first. Nothing is counted.
    fn decide(&self, from: SocketAddr, proven: bool, may_retry: bool) -> Result<AdmissionGuard, NotAdmitted> {
        let shared = &*self.0;
        let network = Network::from(from.ip());
        let mut state = shared.lock();
        let open = state.handshakes.len() + state.known_handshakes.len();
        if !proven && may_retry && open >= shared.handshakes_before_retry {
            return Err(NotAdmitted::Retry { address: from.ip().to_canonical() });
        }
        // A host with known nodes finishes the handshake first: its certificate shows whether it is one of them.
        shared.has_place(&state, network, shared.known.is_on(from.ip()))?;
        let id = state.next_id;
        state.next_id += 1;
        // An address without proof may belong to another host.
        let gives_way = if proven && shared.known.is_at(from) {
            state.known_handshakes.insert(id, from)
        } else {
            state.handshakes.insert(id, network)
        };
        Ok(AdmissionGuard { shared: Arc::clone(&self.0), id, network, established: false, gives_way })
    }

    /// Connections whose handshake is finished.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.0.lock().connections
    }

    /// Handshakes that are not finished.
    #[cfg(test)]
    pub(crate) fn handshakes(&self) -> usize {
        let state = self.0.lock();
        state.handshakes.len() + state.known_handshakes.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves counts that are too high by one at most.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another connection from a network has a place.
    fn has_place(&self, state: &State, network: Network, known: bool) -> Result<(), NotAdmitted> {
        let reserved = if known { 0 } else { self.connections_max / CONNECTIONS_RESERVED_SHARE };
        let max = self.connections_max - reserved;
        if state.connections >= max {
            return Err(NotAdmitted::Full { network, max });
        }
        let open = state.per_network.get(&network).copied().unwrap_or(0);
        if !known && open >= self.per_network_max {
            return Err(NotAdmitted::AddressFull { network, max: self.per_network_max });
        }
        Ok(())
    }
}

impl AdmissionGuard {
    /// Returns once a newer handshake replaces this one, which the caller then drops. Cancel safe.
    pub(crate) async fn gives_way(&mut self) {
        // The pool drops the other end.
        let _ = (&mut self.gives_way).await;
    }

    /// Notes that the handshake is finished, and which node is at the other end.
    ///
    /// # Errors
    /// There is no place for another connection: close this one.
    pub(crate) fn established(&mut self, peer: NodeId) -> Result<(), NotAdmitted> {
        if self.established {
            return Ok(());
        }
        let mut state = self.shared.lock();
        state.leave_handshakes(self.id);
        self.shared.has_place(&state, self.network, self.shared.known.contains(peer))?;
        state.connections += 1;
        *state.per_network.entry(self.network).or_insert(0) += 1;
        self.established = true;
        Ok(())
    }
}

impl State {
    fn leave_handshakes(&mut self, id: u64) {
        self.handshakes.remove(id);
        self.known_handshakes.remove(id);
    }
}

impl Drop for AdmissionGuard {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.leave_handshakes(self.id);
        if !self.established {
            return;
        }
        state.connections -= 1;
        if let Some(open) = state.per_network.get_mut(&self.network) {
            *open -= 1;
            if *open == 0 {
                state.per_network.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests;
