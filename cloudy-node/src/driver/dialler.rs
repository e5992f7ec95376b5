//! The peers that this node wants links to, and the times of its next dials (`protocol.md` §4: either side dials
//! again).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::{NodeId, Time};

use crate::endpoint::KnownNodes;
use crate::wait::jittered;

/// The first pause between two attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The node of the higher id waits this long for the other's dial, so that a pair seldom dials twice.
const COURTESY: Duration = Duration::from_millis(250);
/// Maximum of addresses of one peer that are dialled in parallel.
const ATTEMPTS_MAX: usize = 32;

/// An address of a peer without a link. All addresses of a peer are dialled in parallel.
#[derive(Debug)]
struct Attempt {
    /// Whether a dial is in progress.
    open: bool,
    backoff: Duration,
    next_at: Time,
}

impl Attempt {
    fn at(next_at: Time) -> Self {
        Self { open: false, backoff: BACKOFF_MIN, next_at }
    }

    fn failed(&mut self, now: Time) {
        self.open = false;
        self.next_at = now + jittered(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}

type Attempts = BTreeMap<SocketAddr, Attempt>;

/// Wanted peers without a link.
#[derive(Debug, Default)]
pub(crate) struct Dialler {
    known: KnownNodes,
    missing: BTreeMap<NodeId, Attempts>,
    /// The names that wanted peers advertise.
    advertised: BTreeMap<NodeId, String>,
    /// Revoked peers, which are never dialled. Bounded like the lists of revoked nodes.
    never: BTreeSet<NodeId>,
}

impl Dialler {
    /// A dialler without peers. Wanted ones are added to `known`.
    pub(crate) fn new(known: KnownNodes) -> Self {
        Self { known, ..Self::default() }
    }

    /// Excludes a peer from all dials.
    pub(crate) fn never(&mut self, peer: NodeId) {
        self.never.insert(peer);
        self.forget(|other| other != peer);
    }

    /// Ends the exclusion of a peer.
    pub(crate) fn allow(&mut self, peer: NodeId) {
        self.never.remove(&peer);
    }

    /// Requests a link to a peer.
    pub(crate) fn want(&mut self, me: NodeId, peer: NodeId, addresses: &[SocketAddr], linked: bool, now: Time) {
        if self.never.contains(&peer) {
            return;
        }
        self.known.insert(peer, addresses);
        if !linked {
            self.miss(me, peer, now);
        }
    }

    /// Notes the name that a wanted peer advertises by the newest view.
    pub(crate) fn advertised(&mut self, peer: NodeId, name: Option<&str>) {
        match name.filter(|_| self.wants(peer)) {
            Some(name) => drop(self.advertised.insert(peer, name.to_owned())),
            None => drop(self.advertised.remove(&peer)),
        }
    }

    /// The advertised names of wanted peers without a link.
    pub(crate) fn names_of_missing(&self) -> BTreeSet<String> {
        self.missing.keys().filter_map(|peer| self.advertised.get(peer)).cloned().collect()
    }

    /// Whether a link to a peer is wanted.
    pub(crate) fn wants(&self, peer: NodeId) -> bool {
        self.known.contains(peer)
    }

    /// Notes that a link to a peer was lost.
    pub(crate) fn miss(&mut self, me: NodeId, peer: NodeId, now: Time) {
        if !self.wants(peer) {
            return;
        }
        let next_at = if me < peer { now } else { now + COURTESY };
        let attempts = self.missing.entry(peer).or_default();
        let addresses = self.known.addresses(peer);
        attempts.retain(|address, attempt| attempt.open || addresses.contains(address));
        for address in addresses {
            attempts.entry(address).or_insert(Attempt::at(next_at));
        }
    }

    /// Whether a link to a wanted peer is missing.
    pub(crate) fn misses_any(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Notes that a link to a peer was established at this address.
    pub(crate) fn found(&mut self, peer: NodeId, address: SocketAddr) {
        self.known.linked(peer, address);
        self.missing.remove(&peer);
    }

    /// Notes that another member is linked to a peer at this address.
    pub(crate) fn told(&mut self, peer: NodeId, address: SocketAddr, now: Time) {
        if !self.known.told(peer, address) {
            return;
        }
        let Some(attempts) = self.missing.get_mut(&peer) else { return };
        let addresses = self.known.addresses(peer);
        attempts.retain(|address, attempt| attempt.open || addresses.contains(address));
        if attempts.len() < ATTEMPTS_MAX {
            attempts.entry(address).or_insert(Attempt::at(now));
        }
    }

    /// Whether the view, or the peer itself, names this address, so that all members know it.
    pub(crate) fn is_named(&self, peer: NodeId, address: SocketAddr) -> bool {
        self.known.is_named(peer, address)
    }

    /// Notes that an address could not be dialled, or leads to another node. True if a link to a node there was wanted.
    pub(crate) fn failed(&mut self, address: SocketAddr, now: Time) -> bool {
        let mut wanted_there = false;
        for (&peer, attempts) in &mut self.missing {
            let Some(attempt) = attempts.get_mut(&address).filter(|attempt| attempt.open) else { continue };
            wanted_there = true;
            if self.known.addresses(peer).contains(&address) {
                attempt.failed(now);
            } else {
                attempts.remove(&address);
            }
        }
        wanted_there
    }

    /// Drops the peers that `keep` rejects.
    pub(crate) fn forget(&mut self, keep: impl Fn(NodeId) -> bool) {
        self.known.retain(&keep);
        self.advertised.retain(|&peer, _| keep(peer));
        self.missing.retain(|&peer, _| keep(peer));
    }

    /// The time of the next dial.
    pub(crate) fn next(&self) -> Option<Time> {
        let attempts = self.missing.values().flat_map(BTreeMap::values);
        attempts.filter(|attempt| !attempt.open).map(|attempt| attempt.next_at).min()
    }

    /// The addresses to dial at this time.
    pub(crate) fn due(&mut self, now: Time) -> BTreeSet<SocketAddr> {
        let attempts = self.missing.values_mut().flatten();
        let due = attempts.filter(|(_, attempt)| !attempt.open && attempt.next_at <= now);
        due.map(|(&address, attempt)| {
            attempt.open = true;
            address
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [SocketAddr; 0] = [];

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn due(dialler: &mut Dialler, now: Time) -> Vec<SocketAddr> {
        dialler.due(now).into_iter().collect()
    }

    #[test]
    fn the_lower_id_dials_all_addresses_at_once_and_each_backs_off_by_itself() {
        let (low, high) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut dialler = Dialler::default();
        dialler.want(low, high, &[at(1), at(2)], false, Time(0));
        assert_eq!(due(&mut dialler, Time(0)), [at(1), at(2)]);
        assert_eq!((due(&mut dialler, Time(0)), dialler.next()), (NOBODY.to_vec(), None), "one attempt at a time");
        assert!(dialler.failed(at(1), Time(0)) && !dialler.failed(at(3), Time(0)));
        let again_at = dialler.next().expect("it is dialled again");
        assert!(again_at >= Time(0) + BACKOFF_MIN / 2 && again_at <= Time(0) + BACKOFF_MIN, "{again_at:?}");
        assert_eq!(due(&mut dialler, again_at), [at(1)], "the other is still being dialled");
        dialler.found(high, at(2));
        assert_eq!(dialler.next(), None);
        dialler.miss(high, high, Time(9));
        assert_eq!(dialler.next(), Some(Time(9) + COURTESY));
        dialler.advertised(high, Some("high.example:1"));
        assert_eq!(dialler.names_of_missing(), BTreeSet::from(["high.example:1".to_owned()]));
        dialler.found(high, at(2));
        assert!(dialler.names_of_missing().is_empty(), "it is linked");
        dialler.never(high);
        dialler.miss(low, high, Time(9));
        dialler.want(low, high, &[at(1)], false, Time(9));
        assert_eq!(dialler.next(), None);
        dialler.advertised(high, Some("high.example:1"));
        assert!(dialler.advertised.is_empty(), "no link to it is wanted");
    }

    #[test]
    fn a_peer_that_has_moved_is_dialled_where_it_was_linked_last_and_where_others_say() {
        let (me, peer) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut dialler = Dialler::default();
        dialler.want(me, peer, &[at(1)], false, Time(0));
        assert_eq!(due(&mut dialler, Time(0)), [at(1)]);
        dialler.told(peer, at(2), Time(1));
        assert_eq!(due(&mut dialler, Time(1)), [at(2)], "at once, though the other is still being dialled");
        dialler.found(peer, at(3));
        dialler.miss(me, peer, Time(2));
        assert_eq!(due(&mut dialler, Time(2)), [at(1), at(2), at(3)]);
        (100..200).for_each(|port| dialler.told(peer, at(port), Time(2)));
        let told = due(&mut dialler, Time(2)).len();
        assert!(told <= ATTEMPTS_MAX, "{told} addresses are dialled side by side");
        dialler.found(peer, at(3));
        let stranger = NodeId([3; 32]);
        dialler.told(stranger, at(4), Time(3));
        assert!(!dialler.wants(stranger) && dialler.next().is_none(), "no link to it is wanted");
    }

    #[test]
    fn an_address_that_two_peers_had_is_dialled_once_and_by_both_again() {
        let (me, one, other) = (NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32]));
        let mut dialler = Dialler::default();
        dialler.want(me, one, &[at(1)], false, Time(0));
        dialler.want(me, other, &[at(1)], false, Time(0));
        assert_eq!(due(&mut dialler, Time(0)), [at(1)]);
        // It leads to one of them.
        dialler.found(one, at(1));
        assert!(dialler.failed(at(1), Time(0)));
        let again_at = dialler.next().expect("the other is dialled again");
        assert_eq!(due(&mut dialler, again_at), [at(1)]);
    }
}
