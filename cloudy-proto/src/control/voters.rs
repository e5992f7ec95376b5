//! The voters: they follow the view, one change at a time (`protocol.md` §6.6).

use crate::command::VoterRole;
use crate::id::{ConsensusId, NodeId};
use crate::limits::VOTERS_MAX;
use crate::rules::{Rule, Rules};

/// A node that takes part in the consensus, or could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elector {
    pub(crate) node: NodeId,
    /// Its id in the consensus library, present or future.
    pub(crate) id: ConsensusId,
    pub(crate) role: VoterRole,
    /// Whether it is linked.
    pub(crate) linked: bool,
    /// Whether it has requested to leave; it runs until it does not vote.
    pub(crate) leaves: bool,
    /// Whether it answered the leader recently.
    pub(crate) active: bool,
    /// Whether it has all committed entries, as far as the leader knows.
    pub(crate) level: bool,
}

/// The leader's view of all nodes that could vote.
#[derive(Debug)]
pub(crate) struct Electorate {
    pub(crate) leader: NodeId,
    /// The members of the present view, by rank.
    pub(crate) members: Vec<Elector>,
    /// The creator, if it is no member: it votes where that makes the number odd, and at least three.
    pub(crate) observer: Option<Elector>,
    /// All others that still take part.
    pub(crate) former: Vec<Elector>,
    pub(crate) rules: Rules,
}

/// The next step towards the intended voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoterChange {
    Set { id: ConsensusId, node: NodeId, role: VoterRole },
    HandOver { to: ConsensusId },
}

impl Electorate {
    /// The nodes that should vote.
    fn wanted(&self) -> Vec<ConsensusId> {
        let observer = self.observer.filter(|observer| observer.linked || observer.node == self.leader);
        let mut members = self.members.clone();
        // Present voters come first, so that a change of the view causes as few changes here as possible.
        members.sort_by_key(|member| (member.node != self.leader, member.role != VoterRole::Voter, !member.linked));
        let even = members.len().is_multiple_of(2);
        let with_observer = observer.filter(|_| even && members.len() < VOTERS_MAX);
        let odd = if even && with_observer.is_none() { members.len().saturating_sub(1) } else { members.len() };
        members.truncate(odd.min(VOTERS_MAX));
        members.iter().chain(with_observer.iter()).map(|elector| elector.id).collect()
    }

    /// The next change; none if the voters are as intended, or if no change is possible: a majority of the voters after
    /// a change must answer.
    pub(crate) fn next_change(&self) -> Option<VoterChange> {
        self.wanted_change().filter(|change| self.keeps_majority(*change))
    }

    /// Whether exactly the intended nodes vote.
    pub(crate) fn is_settled(&self) -> bool {
        let wanted = self.wanted();
        self.all().all(|elector| (elector.role == VoterRole::Voter) == wanted.contains(&elector.id))
    }

    fn keeps_majority(&self, change: VoterChange) -> bool {
        let VoterChange::Set { id: changed, role, .. } = change else { return true };
        if !self.rules.holds(Rule::ChangeKeepsMajority) {
            return true;
        }
        let votes = |elector: &&Elector| match elector.id == changed {
            true => role == VoterRole::Voter,
            false => elector.role == VoterRole::Voter,
        };
        let voters: Vec<&Elector> = self.all().filter(votes).collect();
        let active = voters.iter().filter(|elector| elector.active || elector.node == self.leader).count();
        active * 2 > voters.len()
    }

    fn all(&self) -> impl Iterator<Item = &Elector> {
        self.members.iter().chain(self.observer.iter()).chain(self.former.iter())
    }

    fn wanted_change(&self) -> Option<VoterChange> {
        let wanted = self.wanted();
        let all = || self.all();
        let surplus = || all().filter(|elector| elector.role != VoterRole::Gone && !wanted.contains(&elector.id));
        let set = |elector: &Elector, role| VoterChange::Set { id: elector.id, node: elector.node, role };
        let lost = surplus().find(|elector| !elector.linked && elector.node != self.leader);
        if let Some(lost) = lost {
            return Some(set(lost, VoterRole::Gone));
        }
        let coming = || all().filter(|elector| wanted.contains(&elector.id) && elector.linked);
        if let Some(fresh) = coming().find(|elector| elector.role == VoterRole::Gone) {
            return Some(set(fresh, VoterRole::Learner));
        }
        let learned = coming().find(|elector| elector.role == VoterRole::Learner && elector.level);
        if let Some(learned) = learned {
            return Some(set(learned, VoterRole::Voter));
        }
        // A voter stays until its successor votes; a node that leaves does not wait for one that is out of reach.
        let awaited = || all().filter(|elector| wanted.contains(&elector.id) && elector.role != VoterRole::Voter);
        let may_go = |elector: &&Elector| !awaited().any(|other| other.linked || !elector.leaves);
        // An evicted node is more likely to be gone than a member, and the leader may not know yet. A node that leaves
        // runs until it does not vote.
        let is_member = |elector: &Elector| self.members.iter().any(|member| member.id == elector.id);
        let rank = |elector: &Elector| match self.rules.holds(Rule::EvictedLeaveFirst) {
            true => (elector.leaves, is_member(elector)),
            false => (false, false),
        };
        let in_turn = |elector: &&Elector| (elector.node == self.leader, rank(elector));
        let leaving = surplus().filter(may_go).min_by_key(in_turn)?;
        if leaving.node != self.leader {
            return Some(set(leaving, VoterRole::Gone));
        }
        let heir = coming().find(|elector| elector.role == VoterRole::Voter && elector.level)?;
        Some(VoterChange::HandOver { to: heir.id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elector(number: u8, role: VoterRole) -> Elector {
        let (node, id) = (NodeId([number; 32]), ConsensusId(u64::from(number)));
        Elector { node, id, role, linked: true, leaves: false, active: true, level: true }
    }

    /// Applies change after change; a removal is one.
    fn settle(electorate: &mut Electorate) -> Vec<u8> {
        for _ in 0..64 {
            match electorate.next_change() {
                None => break,
                Some(VoterChange::HandOver { to }) => {
                    let all = electorate.members.iter().chain(electorate.observer.iter());
                    electorate.leader = all.clone().find(|elector| elector.id == to).unwrap().node;
                }
                Some(VoterChange::Set { id, role, .. }) => {
                    let members = electorate.members.iter_mut().chain(electorate.observer.iter_mut());
                    let mut all = members.chain(electorate.former.iter_mut());
                    all.find(|elector| elector.id == id).unwrap().role = role;
                }
            }
        }
        assert_eq!(electorate.next_change(), None, "it comes to rest");
        let all = electorate.members.iter().chain(electorate.observer.iter()).chain(electorate.former.iter());
        all.filter(|elector| elector.role == VoterRole::Voter).map(|elector| elector.node.0[0]).collect()
    }

    fn created(members: u8, observer: bool) -> Electorate {
        let mut all: Vec<Elector> = (1..=members).map(|number| elector(number, VoterRole::Gone)).collect();
        let creator = Elector { role: VoterRole::Voter, ..elector(99, VoterRole::Gone) };
        if !observer {
            all[0].role = VoterRole::Voter;
        }
        Electorate {
            leader: if observer { creator.node } else { all[0].node },
            members: all,
            observer: observer.then_some(creator),
            former: Vec::new(),
            rules: Rules::default(),
        }
    }

    /// Of three voters one was evicted and lives, and one has died, which its link does not show yet. Without the rule
    /// the living one is removed first, and no voter is left to agree with the leader.
    #[cfg(feature = "mutations")]
    #[test]
    fn a_change_of_the_voters_leaves_too_few_that_answer() {
        let after = |rules| {
            let mut group = created(3, false);
            settle(&mut group);
            let mut evicted = group.members.remove(2);
            evicted.linked = false;
            group.former.push(evicted);
            (group.members[1].active, group.rules) = (false, rules);
            let change = group.next_change();
            if let Some(VoterChange::Set { id, role, .. }) = change {
                let changed = group.former.iter_mut().find(|elector| elector.id == id);
                changed.expect("the evicted one").role = role;
            }
            let voters: Vec<&Elector> = group.all().filter(|elector| elector.role == VoterRole::Voter).collect();
            (voters.len(), voters.iter().filter(|voter| voter.active).count())
        };
        assert_eq!(after(Rules::default()), (3, 2), "a majority answers");
        assert_eq!(after(Rules::all_but(Rule::ChangeKeepsMajority)), (2, 1), "none does");
    }

    /// Of three voters one was evicted, and two members need one voter: the evicted one is removed first. Without the
    /// rule the member is, and the group depends on a node that it has just evicted.
    #[cfg(feature = "mutations")]
    #[test]
    fn a_member_leaves_the_voters_before_an_evicted_node() {
        let first = |rules, leaves| {
            let mut group = created(3, false);
            settle(&mut group);
            let evicted = Elector { leaves, ..group.members.remove(2) };
            group.former.push(evicted);
            group.rules = rules;
            group.next_change()
        };
        let gone = |number: u8| {
            let (id, node) = (ConsensusId(u64::from(number)), NodeId([number; 32]));
            Some(VoterChange::Set { id, node, role: VoterRole::Gone })
        };
        assert_eq!(first(Rules::default(), false), gone(3));
        assert_eq!(first(Rules::all_but(Rule::EvictedLeaveFirst), false), gone(2));
        assert_eq!(first(Rules::default(), true), gone(2), "who leaves runs until it votes no more");
    }

    #[test]
    fn voters_are_odd_in_number_and_the_observer_votes_only_where_that_makes_three() {
        let of = |members, observer| settle(&mut created(members, observer));
        assert_eq!(of(1, true), [1]);
        assert_eq!(of(2, true), [1, 2, 99]);
        assert_eq!(of(3, true), [1, 2, 3]);
        assert_eq!(of(4, true), [1, 2, 3, 4, 99]);
        assert_eq!(of(2, false), [1]);
        assert_eq!(of(4, false), [1, 2, 3]);
        assert_eq!(of(9, false), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(of(8, true), [1, 2, 3, 4, 5, 6, 7], "not more than the bound");
    }

    #[test]
    fn a_lost_voter_leaves_first_and_no_other_before_its_successor_votes() {
        let mut group = created(4, false);
        settle(&mut group);
        let mut lost = group.members.remove(1);
        (lost.linked, lost.active) = (false, false);
        group.former.push(lost);
        let change = group.next_change();
        assert_eq!(change, Some(VoterChange::Set { id: ConsensusId(2), node: lost.node, role: VoterRole::Gone }));
        assert_eq!(settle(&mut group), [1, 3, 4]);
    }

    #[test]
    fn an_answering_voter_stays_as_long_as_a_majority_needs_it() {
        // The observer is dead, which its link does not show yet; the new leader has no answers yet.
        let mut group = created(2, true);
        settle(&mut group);
        group.leader = group.members[0].node;
        let observer = group.observer.as_mut().expect("it watches");
        (observer.linked, observer.active) = (false, false);
        group.members[1].active = false;
        assert_eq!((group.next_change(), group.is_settled()), (None, false));
        group.members[1].active = true;
        let dead = group.observer.expect("it watched");
        assert_eq!(
            group.next_change(),
            Some(VoterChange::Set { id: dead.id, node: dead.node, role: VoterRole::Gone }),
            "the dead one leaves before a living one"
        );
    }

    #[test]
    fn a_node_that_leaves_waits_for_no_successor_that_is_out_of_reach() {
        let with = |leaves, linked| {
            let mut group = created(4, false);
            settle(&mut group);
            // The leader is off the ring; a member without a vote replaces it.
            let leader = Elector { leaves, ..group.members.remove(0) };
            (group.leader, group.members[2].linked, group.members[2].level) = (leader.node, linked, false);
            group.members[2].role = VoterRole::Learner;
            group.former.push(leader);
            group.next_change()
        };
        assert_eq!(with(true, false), Some(VoterChange::HandOver { to: ConsensusId(2) }));
        assert_eq!(with(true, true), None, "its successor is about to vote");
        assert_eq!(with(false, false), None, "it can stay");
    }

    #[test]
    fn a_learner_that_lags_does_not_vote_yet() {
        let mut group = created(3, false);
        group.members[1].level = false;
        group.members[2].level = false;
        assert_eq!(settle(&mut group), [1]);
        assert_eq!(group.members[1].role, VoterRole::Learner);
        group.members[1].level = true;
        group.members[2].level = true;
        assert_eq!(settle(&mut group), [1, 2, 3]);
    }
}
