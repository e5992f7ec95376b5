//! Whom this node wants links to, and when it dials next (`protocol.md` §4: either side dials again).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::{NodeId, Time};

use crate::endpoint::KnownNodes;

/// Between two attempts, at first.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Between two attempts, at last.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The node of the higher id gives the other this long, so that a pair seldom dials twice.
const COURTESY: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Wanted {
    addresses: Vec<SocketAddr>,
    /// Which address is next.
    turn: usize,
    /// The address that is being dialled.
    dialling: Option<SocketAddr>,
    backoff: Duration,
    next_at: Time,
}

/// Peers that this node wants links to and has none.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    known: KnownNodes,
    missing: BTreeMap<NodeId, Wanted>,
    /// Shut out, so never dialled, whatever wants it. Bounded as the lists of revoked nodes.
    never: BTreeSet<NodeId>,
}

impl Dialler {
    /// With no peers yet. Those that are wanted are put in `known`.
    pub(crate) fn new(known: KnownNodes) -> Self {
        Self { known, ..Self::default() }
    }

    /// No link to a peer is wanted, ever.
    pub(crate) fn never(&mut self, peer: NodeId) {
        self.never.insert(peer);
        self.forget(|other| other != peer);
    }

    /// A peer is no longer shut out.
    pub(crate) fn allow(&mut self, peer: NodeId) {
        self.never.remove(&peer);
    }

    /// A link to a peer is wanted from here on.
    pub(crate) fn want(&mut self, me: NodeId, peer: NodeId, addresses: &[SocketAddr], linked: bool, now: Time) {
        if self.never.contains(&peer) {
            return;
        }
        self.known.insert(peer, addresses);
        if !linked {
            self.miss(me, peer, now);
        }
    }

    /// A link to a peer is gone.
    pub(crate) fn miss(&mut self, me: NodeId, peer: NodeId, now: Time) {
        let Some(addresses) = self.known.addresses(peer).filter(|addresses| !addresses.is_empty()) else { return };
        let next_at = if me < peer { now } else { now + COURTESY };
        self.missing.entry(peer).or_insert_with(|| Wanted {
            addresses,
            turn: 0,
            dialling: None,
            backoff: BACKOFF_MIN,
            next_at,
        });
    }

    /// A link to a peer is up.
    pub(crate) fn found(&mut self, peer: NodeId) {
        self.missing.remove(&peer);
    }

    /// An address could not be dialled. True if a link to a node there was wanted.
    pub(crate) fn failed(&mut self, address: SocketAddr, now: Time) -> bool {
        let mut wanted_there = false;
        for wanted in self.missing.values_mut().filter(|wanted| wanted.dialling == Some(address)) {
            wanted.dialling = None;
            wanted.next_at = now + wanted.backoff;
            wanted.backoff = (wanted.backoff * 2).min(BACKOFF_MAX);
            wanted_there = true;
        }
        wanted_there
    }

    /// No link to a peer is wanted any more.
    pub(crate) fn forget(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.known.retain(&keep);
        self.missing.retain(|&peer, _| keep(peer));
    }

    /// When to dial next.
    pub(crate) fn next(&self) -> Option<Time> {
        self.missing.values().filter(|wanted| wanted.dialling.is_none()).map(|wanted| wanted.next_at).min()
    }

    /// The addresses to dial at this moment.
    pub(crate) fn due(&mut self, now: Time) -> Vec<SocketAddr> {
        let due = self.missing.values_mut().filter(|wanted| wanted.dialling.is_none() && wanted.next_at <= now);
        due.map(|wanted| {
            let address = wanted.addresses[wanted.turn % wanted.addresses.len()];
            wanted.turn += 1;
            wanted.dialling = Some(address);
            address
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_id_dials_at_once_and_failures_back_off_through_all_addresses() {
        let (low, high) = (NodeId([1; 32]), NodeId([2; 32]));
        let addresses: Vec<SocketAddr> = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port))).to_vec();
        let mut dialler = Dialler::default();
        dialler.want(low, high, &addresses, false, Time(0));
        assert_eq!(dialler.due(Time(0)), [addresses[0]]);
        assert_eq!((dialler.due(Time(0)), dialler.next()), (vec![], None), "one attempt at a time");
        dialler.failed(addresses[0], Time(0));
        assert_eq!(dialler.next(), Some(Time(0) + BACKOFF_MIN));
        assert_eq!(dialler.due(Time(0) + BACKOFF_MIN), [addresses[1]]);
        dialler.found(high);
        assert_eq!(dialler.next(), None);
        dialler.miss(high, high, Time(9));
        assert_eq!(dialler.next(), Some(Time(9) + COURTESY));
        dialler.never(high);
        dialler.miss(low, high, Time(9));
        dialler.want(low, high, &addresses, false, Time(9));
        assert_eq!(dialler.next(), None);
    }
}
