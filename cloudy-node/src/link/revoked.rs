//! The nodes that a node refuses, by the source of the revocation: its operator, or peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use cloudy_proto::NodeId;
use cloudy_proto::limits::{REVOKED_HEARSAY_MAX, REVOKED_MAX, REVOKED_OF_PEER_MAX, REVOKED_TOLD_MAX};

use crate::cluster_keys::RevokedFullError;

/// Revoked nodes, shared with the links. None is accepted again while the node runs, except that earlier lines of the
/// operator's file are bounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revoked(Arc<RwLock<Lists>>);

/// Revocations of peers have lists of their own, so that they never take the operator's capacity.
#[derive(Debug, Default)]
struct Lists {
    /// Revoked by this node's keys; bounded by their text form.
    keys: BTreeSet<NodeId>,
    /// Revoked by earlier keys, or by the application. At most [`REVOKED_MAX`].
    own: BTreeSet<NodeId>,
    /// Revoked by the operator of a peer, with that peer. At most [`REVOKED_TOLD_MAX`], and [`REVOKED_OF_PEER_MAX`] of
    /// one peer.
    told: BTreeMap<NodeId, NodeId>,
    /// Revocations that peers received from others. At most [`REVOKED_HEARSAY_MAX`].
    hearsay: BTreeSet<NodeId>,
}

/// The effect of a change of the keys.
pub(crate) struct KeysTaken {
    /// Nodes that were not refused before.
    pub(crate) fresh: BTreeSet<NodeId>,
    /// Nodes that were refused before because of peers.
    pub(crate) confirmed: Vec<NodeId>,
    /// Earlier lines without capacity: they are not refused.
    pub(crate) forgotten: Vec<NodeId>,
}

/// The accepted part of a peer's list.
pub(crate) struct Told {
    /// Nodes that were not refused before.
    pub(crate) fresh: BTreeSet<NodeId>,
    /// Number of nodes without capacity.
    pub(crate) left_out: usize,
}

impl Lists {
    fn contains(&self, node: NodeId) -> bool {
        self.keys.contains(&node)
            || self.own.contains(&node)
            || self.told.contains_key(&node)
            || self.hearsay.contains(&node)
    }

    fn is_own(&self, node: NodeId) -> bool {
        self.keys.contains(&node) || self.own.contains(&node)
    }

    /// Removes a node from the lists of peers: the operator's revocation replaces theirs.
    fn untell(&mut self, node: NodeId) {
        self.told.remove(&node);
        self.hearsay.remove(&node);
    }

    fn tell_one(&mut self, by: NodeId, node: NodeId, own: bool) -> Result<(), RevokedFullError> {
        if !own {
            if self.hearsay.len() >= REVOKED_HEARSAY_MAX {
                return Err(RevokedFullError);
            }
            self.hearsay.insert(node);
            return Ok(());
        }
        let of_peer = self.told.values().filter(|&&teller| teller == by).count();
        if self.told.len() >= REVOKED_TOLD_MAX || of_peer >= REVOKED_OF_PEER_MAX {
            return Err(RevokedFullError);
        }
        self.hearsay.remove(&node);
        self.told.insert(node, by);
        Ok(())
    }
}

impl Revoked {
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.read(|lists| lists.contains(node))
    }

    pub(crate) fn all(&self) -> BTreeSet<NodeId> {
        let (own, told) = self.to_pass_on();
        own.into_iter().chain(told).collect()
    }

    /// The revocations of this node's operator, and those of peers.
    pub(crate) fn to_pass_on(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        self.read(|lists| {
            let own = lists.keys.union(&lists.own).copied().collect();
            let told = lists.told.keys().chain(&lists.hearsay).copied().collect();
            (own, told)
        })
    }

    /// Replaces the list of the keys. The nodes of the list before remain refused. The keys' list always has capacity.
    pub(crate) fn set_keys(&self, nodes: &BTreeSet<NodeId>) -> KeysTaken {
        self.write(|lists| {
            let fresh = nodes.iter().filter(|&&node| !lists.contains(node)).copied().collect();
            let confirmed =
                nodes.iter().filter(|&&node| lists.contains(node) && !lists.is_own(node)).copied().collect();
            let earlier = std::mem::replace(&mut lists.keys, nodes.clone());
            let earlier: Vec<NodeId> = earlier.difference(nodes).copied().collect();
            for &node in nodes {
                lists.own.remove(&node);
                lists.untell(node);
            }
            let capacity = REVOKED_MAX.saturating_sub(lists.own.len());
            let forgotten = earlier.iter().skip(capacity).copied().collect();
            lists.own.extend(earlier.into_iter().take(capacity));
            KeysTaken { fresh, confirmed, forgotten }
        })
    }

    /// Adds a node that the application revokes. Returns whether it was not refused before.
    pub(crate) fn add_own(&self, node: NodeId) -> Result<bool, RevokedFullError> {
        self.write(|lists| {
            let fresh = !lists.contains(node);
            if lists.is_own(node) {
                return Ok(false);
            }
            if lists.own.len() >= REVOKED_MAX {
                return Err(RevokedFullError);
            }
            lists.untell(node);
            lists.own.insert(node);
            Ok(fresh)
        })
    }

    /// Adds nodes that a peer's operator revoked, or that the peer received from others.
    pub(crate) fn tell(&self, by: NodeId, nodes: &[NodeId], own: bool) -> Told {
        self.write(|lists| {
            let mut told = Told { fresh: BTreeSet::new(), left_out: 0 };
            for &node in nodes {
                let known = lists.contains(node);
                // A node that an operator confirms moves to that operator's list, which is forwarded before the others.
                let confirmed = own && lists.hearsay.contains(&node);
                if known && !confirmed {
                    continue;
                }
                match lists.tell_one(by, node, own) {
                    Ok(()) if !known => drop(told.fresh.insert(node)),
                    Ok(()) => {}
                    Err(RevokedFullError) if !known => told.left_out += 1,
                    Err(RevokedFullError) => {}
                }
            }
            told
        })
    }

    fn read<T>(&self, with: impl FnOnce(&Lists) -> T) -> T {
        with(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, with: impl FnOnce(&mut Lists) -> T) -> T {
        with(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(from: usize, count: usize) -> Vec<NodeId> {
        (from..from + count)
            .map(|number| NodeId(core::array::from_fn(|at| (number >> (8 * at.min(7))) as u8)))
            .collect()
    }

    const PEERS: [NodeId; 3] = [NodeId([0xa0; 32]), NodeId([0xa1; 32]), NodeId([0xa2; 32])];

    #[test]
    fn revocations_from_peers_leave_the_capacity_of_the_operator_and_of_other_peers() {
        let revoked = Revoked::default();
        let told = revoked.tell(PEERS[0], &ids(0, 1_000), true);
        assert_eq!((told.fresh.len(), told.left_out), (REVOKED_OF_PEER_MAX, 1_000 - REVOKED_OF_PEER_MAX));
        let told = revoked.tell(PEERS[0], &ids(2_000, 1_000), false);
        assert_eq!((told.fresh.len(), told.left_out), (REVOKED_HEARSAY_MAX, 1_000 - REVOKED_HEARSAY_MAX));
        assert_eq!(revoked.tell(PEERS[1], &ids(4_000, 100), true).left_out, 0);
        // The operator's own: the maximum of a key file, and the same number before it.
        let (first, second) = (ids(5_000, REVOKED_MAX), ids(6_000, REVOKED_MAX));
        for list in [&first, &second] {
            let taken = revoked.set_keys(&list.iter().copied().collect());
            assert_eq!((taken.fresh.len(), taken.forgotten), (REVOKED_MAX, vec![]));
        }
        assert!(first.iter().chain(&second).all(|&node| revoked.contains(node)));
        assert_eq!(revoked.add_own(ids(7_000, 1)[0]), Err(RevokedFullError));
        let taken = revoked.set_keys(&ids(8_000, 1).into_iter().collect());
        assert_eq!((taken.fresh.len(), taken.forgotten.len()), (1, REVOKED_MAX));
    }

    #[test]
    fn the_operators_word_replaces_that_of_peers_and_frees_their_capacity() {
        let revoked = Revoked::default();
        let full = ids(0, REVOKED_OF_PEER_MAX);
        revoked.tell(PEERS[0], &full, true);
        assert_eq!(revoked.add_own(full[0]), Ok(false));
        assert_eq!(revoked.add_own(full[0]), Ok(false), "and once more");
        assert_eq!(revoked.tell(PEERS[0], &ids(9_000, 1), true).left_out, 0);
        revoked.tell(PEERS[2], &ids(9_500, 1), false);
        assert!(revoked.tell(PEERS[1], &ids(9_500, 1), true).fresh.is_empty());
        let (own, told) = revoked.to_pass_on();
        assert_eq!((own, told.len()), (vec![full[0]], REVOKED_OF_PEER_MAX + 1));
        assert_eq!(revoked.all().len(), REVOKED_OF_PEER_MAX + 2);
    }
}
