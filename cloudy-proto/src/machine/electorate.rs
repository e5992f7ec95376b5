//! The coordinator's changes of the voters: which nodes vote, and which could (`protocol.md` §6.6).

use crate::command::{Command, VoterRole};
use crate::control::{Elector, Electorate, Voter, VoterChange};
use crate::id::{ConsensusId, NodeId};
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::rules::Rule;
use crate::wire::encode_command;

/// Changes the voters of the log to the nodes that should vote, one change after the other.
pub(super) struct ElectorateHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a mut ControlLog,
    pub(super) coordinating: &'a Coordinating,
    pub(super) peers: &'a Peers,
}

/// The outcome of a request for the next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconfigured {
    /// A change is in progress, or none is possible.
    Nothing,
    /// The next change was passed to the consensus library.
    Proposed,
    /// The voters are the nodes that should vote.
    Settled,
}

impl ElectorateHandler<'_> {
    /// Makes the next change of the voters, if one is due.
    pub(super) fn reconfigure(&mut self) -> Reconfigured {
        if self.log.voter().is_none_or(Voter::is_changing) {
            return Reconfigured::Nothing;
        }
        let Some(electorate) = self.electorate() else { return Reconfigured::Nothing };
        let Some(voter) = self.log.voter_mut() else { return Reconfigured::Nothing };
        match electorate.next_change() {
            Some(VoterChange::Set { id, node, role }) => {
                voter.propose_change(id, role, encode_command(&Command::Voter { id, node, role }));
            }
            Some(VoterChange::HandOver { to }) => voter.hand_over(to),
            None if electorate.is_settled() => return Reconfigured::Settled,
            None => return Reconfigured::Nothing,
        }
        Reconfigured::Proposed
    }

    /// The nodes that vote, and those that could; none if there is no view that others follow.
    fn electorate(&self) -> Option<Electorate> {
        let view = self.log.state().view().filter(|view| !view.last)?;
        let members: Vec<Elector> = view.ring.iter().filter_map(|member| self.elector_of(member.node)).collect();
        let goes = |node: NodeId| self.log.state().has_left(node) || self.coordinating.is_suspending(node);
        let watches = |creator: &NodeId| view.rank_of(*creator).is_none() && !goes(*creator);
        let creator = self.log.state().creator().filter(watches);
        let observer = creator.and_then(|creator| self.elector_of(creator));
        let listed = |id: ConsensusId| members.iter().chain(observer.iter()).any(|elector| elector.id == id);
        let former = self.log.state().electors().filter(|(id, ..)| !listed(*id));
        let former = former.map(|(id, node, role)| self.former_elector(id, node, role)).collect();
        Some(Electorate { leader: self.identity.me, members, observer, former, rules: self.identity.rules })
    }

    /// A voter that is no member of the view.
    fn former_elector(&self, id: ConsensusId, node: NodeId, role: VoterRole) -> Elector {
        let known = self.elector_of(node).filter(|elector| elector.id == id);
        Elector {
            node,
            id,
            role,
            linked: known.is_some_and(|elector| elector.linked),
            leaves: self.leaves(node),
            active: self.log.voter().is_some_and(|voter| self.answers(voter, id)),
            level: false,
        }
    }

    /// A node as a voter or a possible one; none if its incarnation is unknown.
    fn elector_of(&self, node: NodeId) -> Option<Elector> {
        let voter = self.log.voter()?;
        let is_own = node == self.identity.me;
        let named = self.coordinating.voter_name(node);
        let fresh = || self.log.state().incarnation(node).map(|incarnation| ConsensusId(incarnation.0));
        let id = if is_own { voter.id() } else { named.or_else(fresh)? };
        let role = self.log.state().electors().find(|(known, ..)| *known == id).map_or(VoterRole::Gone, |(.., is)| is);
        let follower = voter.follower(id);
        // A node that takes no part yet has to follow first; one that does stays until its link is gone.
        let follows = role != VoterRole::Gone || self.coordinating.has_follower(node);
        let linked = is_own || self.peers.is_linked(node) && follows;
        let active = is_own || self.answers(voter, id);
        let level = is_own || active && follower.is_some_and(|follower| follower.level);
        Some(Elector { node, id, role, linked, leaves: self.leaves(node), active, level })
    }

    /// Whether a voter has answered recently, and after its last link loss. The consensus library alone counts answers
    /// of a process that is gone until its next check, which a coordinator that was paused makes late.
    fn answers(&self, voter: &Voter, id: ConsensusId) -> bool {
        let is_quiet = self.log.is_quiet(id) && self.identity.rules.holds(Rule::LostLinkIsNoAnswer);
        !is_quiet && voter.follower(id).is_some_and(|follower| follower.active)
    }

    /// Whether a node has requested to leave, or has left except for its vote.
    fn leaves(&self, node: NodeId) -> bool {
        self.coordinating.is_leaving(node) || self.log.state().has_left(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::machine::tests::{alone, pair};

    #[test]
    fn only_the_coordinator_has_an_electorate_and_two_members_need_one_voter() {
        let (mut coordinator, mut member) = pair(Parameters::default());
        assert!(member.electorate().is_none());
        assert_eq!(coordinator.electorate().map(|mut it| it.reconfigure()), Some(Reconfigured::Settled));
        assert_eq!(
            alone(Parameters::default()).electorate().map(|mut it| it.reconfigure()),
            Some(Reconfigured::Settled)
        );
    }

    #[test]
    fn a_learner_that_is_not_of_the_view_is_removed() {
        let (mut coordinator, _) = pair(Parameters::default());
        let (id, node, role) = (ConsensusId(77), NodeId([9; 32]), VoterRole::Learner);
        let added = encode_command(&Command::Voter { id, node, role });
        coordinator.log.voter_mut().expect("it votes").propose_change(id, role, added);
        coordinator.run_consensus();
        assert_eq!(coordinator.log.state().elector(id), Some(node));
        let mut reconfigure = || coordinator.electorate().map(|mut electorate| electorate.reconfigure());
        assert_eq!(reconfigure(), Some(Reconfigured::Proposed));
        assert_eq!(reconfigure(), Some(Reconfigured::Nothing), "one change at a time");
        coordinator.run_consensus();
        assert_eq!(coordinator.log.state().elector(id), None);
    }
}
