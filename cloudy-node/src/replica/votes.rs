//! Digests of snapshots that members took at the same index.

use std::collections::{BTreeMap, BTreeSet};

use cloudy_proto::{Digest, Index, NodeId};

use super::envelope::Vote;
use super::error::StateDivergence;

/// Indexes whose digests are kept.
const INDEXES_KEPT_MAX: usize = 4;

/// The newest digests of each member.
#[derive(Debug, Default)]
pub(super) struct Votes {
    of: BTreeMap<Index, BTreeMap<NodeId, Digest>>,
}

/// The verdict of the digests at an index on this node's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few members have voted.
    Open,
    /// A majority of the members has the same.
    Confirmed,
    /// No majority of the members can have the same digest.
    Outvoted,
}

impl Votes {
    pub(super) fn note(&mut self, node: NodeId, vote: Vote) {
        self.of.entry(vote.index).or_default().insert(node, vote.digest);
        while self.of.len() > INDEXES_KEPT_MAX {
            self.of.pop_first();
        }
    }

    /// Compares a node's digest with those of the members.
    pub(super) fn verdict(&self, me: NodeId, index: Index, members: &BTreeSet<NodeId>) -> Verdict {
        let Some(ours) = self.of.get(&index).and_then(|votes| votes.get(&me)) else { return Verdict::Open };
        let others = self.others(me, index, members);
        let differ = others.iter().filter(|(_, digest)| digest != ours).count();
        let agree = 1 + others.len() - differ;
        let all = members.len().max(1);
        if differ > 0 && differ * 2 >= all {
            Verdict::Outvoted
        } else if agree * 2 > all {
            Verdict::Confirmed
        } else {
            Verdict::Open
        }
    }

    /// The members that differ from a node.
    pub(super) fn divergence(&self, me: NodeId, index: Index, members: &BTreeSet<NodeId>) -> Option<StateDivergence> {
        let digest = *self.of.get(&index)?.get(&me)?;
        let mut others = self.others(me, index, members);
        others.retain(|(_, theirs)| *theirs != digest);
        (!others.is_empty()).then_some(StateDivergence { index, digest, others })
    }

    fn others(&self, me: NodeId, index: Index, members: &BTreeSet<NodeId>) -> Vec<(NodeId, Digest)> {
        let votes = self.of.get(&index).into_iter().flatten();
        let others = votes.filter(|(node, _)| **node != me && members.contains(*node));
        others.map(|(node, digest)| (*node, *digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    /// The verdict of node 1 where each node has voted for a digest.
    fn verdict(members: u8, digests: &[u128]) -> Verdict {
        let members = (1..=members).map(node).collect();
        let mut votes = Votes::default();
        for (at, digest) in digests.iter().enumerate() {
            votes.note(node(1 + at as u8), Vote { index: Index(5), digest: Digest(*digest) });
        }
        votes.verdict(node(1), Index(5), &members)
    }

    #[test]
    fn a_majority_continues_and_a_minority_stops() {
        assert_eq!(verdict(1, &[7]), Verdict::Confirmed);
        assert_eq!(verdict(3, &[7]), Verdict::Open);
        assert_eq!(verdict(3, &[7, 7]), Verdict::Confirmed);
        assert_eq!(verdict(3, &[7, 7, 8]), Verdict::Confirmed);
        assert_eq!(verdict(3, &[7, 8]), Verdict::Open);
        assert_eq!(verdict(3, &[7, 8, 8]), Verdict::Outvoted);
        assert_eq!(verdict(3, &[7, 8, 9]), Verdict::Outvoted);
        assert_eq!(verdict(2, &[7, 8]), Verdict::Outvoted);
    }

    #[test]
    fn a_node_that_is_no_member_has_no_vote() {
        assert_eq!(verdict(2, &[7, 7, 8, 8]), Verdict::Confirmed);
    }

    #[test]
    fn only_the_newest_indexes_are_kept() {
        let mut votes = Votes::default();
        for index in 1..=10 {
            votes.note(node(1), Vote { index: Index(index), digest: Digest(0) });
        }
        assert_eq!(votes.of.keys().copied().collect::<Vec<_>>(), [Index(7), Index(8), Index(9), Index(10)]);
    }
}
