//! Voters that came back without their votes: once they are most of them, the group is stuck for good
//! (`protocol.md` §6.6).

use std::collections::BTreeSet;

use crate::command::Standing;
use crate::config::Durability;
use crate::id::{ConsensusId, Incarnation, NodeId};
use crate::io::{Event, VotesLost};
use crate::machine::Machine;
use crate::rules::Rule;

/// Which votes are gone, as far as their nodes have told.
#[derive(Debug, Default)]
pub(crate) struct LostVotes {
    ids: BTreeSet<ConsensusId>,
    /// What the application was told last.
    told: Option<VotesLost>,
}

impl Machine {
    /// A node says under which name its process votes, if any.
    pub(super) fn votes_under(&mut self, node: NodeId, said: ConsensusId) {
        self.lost_votes.ids.retain(|id| self.state.elector(*id).is_some());
        let current = self.state.incarnation(node).map(|Incarnation(own)| ConsensusId(own));
        for id in self.votes_of(node) {
            if id == said {
                self.lost_votes.ids.remove(&id);
            } else if Some(id) != current {
                // A voter of this run may be yet to hear that it is one.
                self.lost_votes.ids.insert(id);
            }
        }
    }

    /// A run of a node comes that the log does not list: in memory, no vote has outlived the run before.
    pub(super) fn comes_in_another_run(&mut self, node: NodeId, run: u64) {
        if self.identity.durability == Durability::Memory && !self.state.is_latest_run(node, run) {
            self.lost_all_votes(node);
        }
    }

    /// A node has no vote that the log knows of.
    pub(super) fn lost_all_votes(&mut self, node: NodeId) {
        let ids = self.votes_of(node);
        self.lost_votes.ids.extend(ids);
    }

    fn votes_of(&self, node: NodeId) -> Vec<ConsensusId> {
        let of_node = self.state.electors().filter(|(_, of, standing)| *of == node && *standing == Standing::Voter);
        of_node.map(|(id, ..)| id).collect()
    }

    /// Most voters are back without their votes: nobody can coordinate the group any more.
    pub(super) fn votes_lost(&self) -> Option<VotesLost> {
        let voters = || self.state.electors().filter(|(.., standing)| *standing == Standing::Voter);
        let lost: Vec<NodeId> =
            voters().filter(|(id, ..)| self.lost_votes.ids.contains(id)).map(|(_, node, _)| node).collect();
        let count = voters().count();
        let stuck = (count - lost.len()) * 2 <= count && !self.has_coordinator() && !self.state.is_closed();
        let durability = self.identity.durability;
        (stuck && count > 0 && self.identity.rules.holds(Rule::LostVotesAreTold)).then_some(VotesLost {
            lost,
            voters: count,
            durability,
        })
    }

    /// No coordinator has been in reach for the coordinator timeout.
    pub(super) fn tell_votes_lost(&mut self) {
        let lost = self.votes_lost();
        if lost.is_some() && lost != self.lost_votes.told {
            self.lost_votes.told.clone_from(&lost);
            lost.into_iter().for_each(|lost| self.event(Event::VotesLost(lost)));
        }
    }

    /// A coordinator is in reach: what was told is over.
    pub(super) fn votes_found(&mut self) {
        self.lost_votes.told = None;
    }
}
