//! Who may start a handshake: bounds on connections from others, in total and per address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::{DashMap, Entry};
use quinn::{Connecting, Incoming};
use thiserror::Error;

use crate::endpoint::EndpointLimits;
use crate::tls::LinkFailure;

/// Counts the connections from others and says which more may come. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    connections_max: usize,
    per_address_max: usize,
    handshakes_before_retry: usize,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    /// Only addresses with connections: no more entries than `connections_max`.
    per_address: DashMap<IpAddr, usize>,
}

/// Why an incoming connection goes no further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// The dialler was asked to prove its address; it will come back by itself.
    #[error("{address} is to prove its address first")]
    Retry {
        /// Where it says it is.
        address: IpAddr,
    },
    /// There are as many connections as may be.
    #[error("refused {address}: {max} connections are open, the most this node takes")]
    Full {
        /// Who was refused.
        address: IpAddr,
        /// [`EndpointLimits::connections_max`].
        max: usize,
    },
    /// That address has as many connections as it may have.
    #[error("refused {address}: it has {max} connections, the most one address may have")]
    AddressFull {
        /// Who was refused.
        address: IpAddr,
        /// [`EndpointLimits::connections_per_address_max`].
        max: usize,
    },
    /// The handshake failed at its first datagram.
    #[error(transparent)]
    Failed(#[from] LinkFailure),
}

/// A connection's place in the counts, given back when dropped: keep it as long as the connection.
#[derive(Debug)]
pub struct AdmissionGuard {
    counts: Arc<Counts>,
    address: IpAddr,
    in_handshake: bool,
}

impl Admission {
    /// With nothing counted yet.
    pub fn new(limits: &EndpointLimits) -> Self {
        Self(Arc::new(Counts {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            handshakes_before_retry: limits.handshakes_before_retry,
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            per_address: DashMap::new(),
        }))
    }

    /// Accepts an incoming connection, or sends its dialler away with a refusal or a Retry. What is accepted is to be
    /// awaited with [`handshake`](crate::endpoint::handshake), and its guard kept.
    ///
    /// # Errors
    /// Why it was not accepted; the dialler has been answered.
    pub fn admit(&self, incoming: Incoming) -> Result<(Connecting, AdmissionGuard), NotAdmitted> {
        let proven = incoming.remote_address_validated() || !incoming.may_retry();
        match self.decide(incoming.remote_address().ip(), proven) {
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

    /// Takes a place for `address`. `proven`: its dialler is known to receive there.
    ///
    /// # Errors
    /// There is no place, or the address is to be proven first; nothing is counted then.
    pub fn decide(&self, address: IpAddr, proven: bool) -> Result<AdmissionGuard, NotAdmitted> {
        let counts = &*self.0;
        let address = address.to_canonical();
        if !proven && self.handshakes() >= counts.handshakes_before_retry {
            return Err(NotAdmitted::Retry { address });
        }
        let max = counts.connections_max;
        let one_more = |open: usize| (open < max).then_some(open + 1);
        let taken = counts.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map_err(|_| NotAdmitted::Full { address, max })?;
        let mut open = counts.per_address.entry(address).or_insert(0);
        if *open >= counts.per_address_max {
            counts.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(NotAdmitted::AddressFull { address, max: counts.per_address_max });
        }
        *open += 1;
        counts.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(AdmissionGuard { counts: self.0.clone(), address, in_handshake: true })
    }

    /// Connections that have a place, handshakes included.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Those of them whose handshake is not finished.
    pub fn handshakes(&self) -> usize {
        self.0.handshakes.load(Ordering::Relaxed)
    }
}

impl AdmissionGuard {
    /// The handshake is finished: the connection no longer counts as one that may be a stranger's.
    pub fn established(&mut self) {
        if std::mem::take(&mut self.in_handshake) {
            self.counts.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AdmissionGuard {
    fn drop(&mut self) {
        self.established();
        if let Entry::Occupied(mut open) = self.counts.per_address.entry(self.address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        self.counts.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections_max: usize, connections_per_address_max: usize, before_retry: usize) -> EndpointLimits {
        EndpointLimits {
            connections_max,
            connections_per_address_max,
            handshakes_before_retry: before_retry,
            ..EndpointLimits::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_and_each_address_are_bounded() {
        let admission = Admission::new(&limits(3, 2, 100));
        let first = admission.decide(ip("10.0.0.1"), false).unwrap();
        // The same address, as an IPv6 socket shows it.
        let _second = admission.decide(ip("::ffff:10.0.0.1"), false).unwrap();
        let refused = admission.decide(ip("10.0.0.1"), true).unwrap_err();
        assert_eq!(refused, NotAdmitted::AddressFull { address: ip("10.0.0.1"), max: 2 });
        assert_eq!(admission.connections(), 2);

        let third = admission.decide(ip("10.0.0.2"), false).unwrap();
        let refused = admission.decide(ip("10.0.0.3"), true).unwrap_err();
        assert_eq!(refused, NotAdmitted::Full { address: ip("10.0.0.3"), max: 3 });
        assert_eq!(admission.0.per_address.len(), 2, "who is refused leaves no entry");

        drop(first);
        let again = admission.decide(ip("10.0.0.1"), false).unwrap();
        drop((third, again));
        assert_eq!((admission.connections(), admission.handshakes()), (1, 1));
        assert_eq!(admission.0.per_address.len(), 1);
    }

    #[test]
    fn an_address_is_to_be_proven_while_many_handshakes_are_open() {
        let admission = Admission::new(&limits(10, 10, 2));
        let mut first = admission.decide(ip("10.0.0.1"), false).unwrap();
        let second = admission.decide(ip("10.0.0.2"), false).unwrap();
        let retry = admission.decide(ip("10.0.0.3"), false).unwrap_err();
        assert_eq!(retry, NotAdmitted::Retry { address: ip("10.0.0.3") });
        let third = admission.decide(ip("10.0.0.3"), true).unwrap();
        assert_eq!(admission.handshakes(), 3);

        first.established();
        first.established();
        assert_eq!(admission.handshakes(), 2);
        drop(second);
        assert_eq!(admission.handshakes(), 1);
        admission.decide(ip("10.0.0.4"), false).unwrap();
        drop((first, third));
        assert_eq!((admission.connections(), admission.handshakes()), (0, 0));
        assert!(admission.0.per_address.is_empty());
    }

    #[test]
    fn concurrent_decisions_keep_the_bounds() {
        const TRIES: usize = 200;
        let admission = Admission::new(&limits(5, 4, 100));
        let kept: Vec<Vec<AdmissionGuard>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let tries = || (0..TRIES).filter_map(|_| admission.decide(ip("::1"), true).ok()).collect();
                    scope.spawn(tries)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(kept.iter().map(Vec::len).sum::<usize>(), 4);
        assert_eq!(admission.connections(), 4);
        drop(kept);
        assert_eq!(admission.connections(), 0);
        assert!(admission.0.per_address.is_empty());
    }
}
