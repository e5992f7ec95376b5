//! Checkpoints of other members' results, for comparison with the own ones (`protocol.md` §8).

use std::collections::{BTreeMap, VecDeque};

use crate::digest::{Checkpoint, Digest};
use crate::id::{Index, NodeId};
use crate::view::View;

/// Maximum of checkpoints of each member: heartbeats have different indexes, and a dispute is settled at one.
const RECENT: usize = 8;

/// The checkpoints that members of the present view have reported.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    recent: BTreeMap<NodeId, VecDeque<Checkpoint>>,
    /// The end of the result before the view.
    begins: BTreeMap<NodeId, Checkpoint>,
}

impl Checkpoints {
    /// Drops checkpoints of nodes that are no members of the present view.
    pub(super) fn forget(&mut self, view: &View) {
        self.recent.retain(|&node, _| view.rank_of(node).is_some());
        self.begins.clear();
    }

    pub(super) fn note(&mut self, node: NodeId, checkpoint: Checkpoint) {
        let recent = self.recent.entry(node).or_default();
        if recent.back() != Some(&checkpoint) {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(checkpoint);
        }
    }

    /// Number of members with another digest at an index.
    pub(super) fn others_than(&self, index: Index, digest: Digest) -> usize {
        let said = self.recent.values().filter_map(|recent| recent.iter().find(|checkpoint| checkpoint.index == index));
        said.filter(|checkpoint| checkpoint.digest != digest).count()
    }

    /// Notes the end of a member's result before the view. Returns the number of members with another end than this
    /// node's.
    pub(super) fn note_beginning(&mut self, node: NodeId, theirs: Checkpoint, ours: Checkpoint) -> usize {
        self.begins.insert(node, theirs);
        self.begins.values().filter(|theirs| differ(**theirs, ours)).count()
    }
}

/// Whether two ends of the result before a view differ. A digest of zero behind the first index is unknown.
pub(super) fn differ(one: Checkpoint, other: Checkpoint) -> bool {
    let is_known = |checkpoint: Checkpoint| checkpoint.digest != Digest(0);
    one.index != other.index || (is_known(one) && is_known(other) && one.digest != other.digest)
}

/// Whether no majority of all can agree with a node that this number of them contradicts.
pub(super) fn is_outvoted(contradicting: usize, all: usize) -> bool {
    contradicting > 0 && contradicting * 2 >= all
}
