//! Voters that came back without their votes: once they are most of them, the group has stopped for good
//! (`protocol.md` §6.6).

use crate::config::Durability;
use crate::id::NodeId;
use crate::io::{Event, VotesLost};
use crate::machine::Machine;
use crate::rules::Rule;

impl Machine {
    /// A process of a node comes that the log does not list: in memory, no vote has outlived the one before.
    pub(super) fn comes_in_another_run(&mut self, node: NodeId, run: u64) {
        if self.identity.durability == Durability::Memory && !self.log.state().is_latest_run(node, run) {
            self.log.on_votes_lost(node);
        }
    }

    /// Most voters are back without their votes: no node can coordinate the group any more.
    pub(super) fn votes_lost(&self) -> Option<VotesLost> {
        let may_be_stuck = !self.has_coordinator() && !self.log.state().is_closed();
        let (lost, voters) = self.log.lost_majority().filter(|_| may_be_stuck)?;
        let durability = self.identity.durability;
        self.identity.rules.holds(Rule::LostVotesAreTold).then_some(VotesLost { lost, voters, durability })
    }

    /// No coordinator has been in reach for the coordinator timeout.
    pub(super) fn tell_votes_lost(&mut self) {
        if let Some(lost) = self.votes_lost().filter(|lost| self.log.report_loss(lost)) {
            self.event(Event::VotesLost(lost));
        }
    }
}
