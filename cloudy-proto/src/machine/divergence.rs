//! Corruption is found by comparing digests; better no answer than two (`protocol.md` §8).

use std::collections::{BTreeMap, VecDeque};

use crate::digest::{Checkpoint, Digest};
use crate::id::{Index, NodeId};
use crate::io::Event;
use crate::machine::Machine;
use crate::view::View;
use crate::wire::Heartbeat;

/// Checkpoints kept of each member: heartbeats come at different indexes, and a dispute is settled at one.
const RECENT: usize = 8;

/// What the others said of their results.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    recent: BTreeMap<NodeId, VecDeque<Checkpoint>>,
}

impl Checkpoints {
    /// Only members of the view in force count.
    pub(crate) fn forget(&mut self, view: &View) {
        self.recent.retain(|&node, _| view.rank_of(node).is_some());
    }

    fn note(&mut self, node: NodeId, checkpoint: Checkpoint) {
        let recent = self.recent.entry(node).or_default();
        if recent.back() != Some(&checkpoint) {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(checkpoint);
        }
    }

    /// How many said another digest at an index.
    fn others_than(&self, index: Index, digest: Digest) -> usize {
        let said = self.recent.values().filter_map(|recent| recent.iter().find(|checkpoint| checkpoint.index == index));
        said.filter(|checkpoint| checkpoint.digest != digest).count()
    }
}

impl Machine {
    /// Compares a member's checkpoint with the own one at that index. Where they differ, this node goes on only while
    /// a majority of the members agrees with it, or may still turn out to.
    pub(super) fn compare_checkpoint(&mut self, node: NodeId, theirs: Checkpoint) {
        let Some(member) = &self.member else { return };
        let members = member.view.members();
        self.checkpoints.note(node, theirs);
        let Some(ours) = self.delivery.result.digest_at(theirs.index) else { return };
        let other = self.checkpoints.others_than(theirs.index, ours);
        let agreeing_at_most = members - other;
        if other > 0 && agreeing_at_most * 2 <= members {
            self.halt(Checkpoint { index: theirs.index, digest: ours });
            self.event(Event::Diverged { node, index: theirs.index, theirs: theirs.digest, ours });
        }
    }

    /// Stops for good. The last word is the own digest: the others have to compare it too.
    fn halt(&mut self, ours: Checkpoint) {
        self.halted = true;
        self.delivery.outputs.clear();
        let last_word = Heartbeat { checkpoint: ours, ..self.heartbeat() };
        if let Some(member) = &mut self.member {
            member.wedged = true;
            member.beat(last_word, &mut self.delivery);
        }
    }
}
