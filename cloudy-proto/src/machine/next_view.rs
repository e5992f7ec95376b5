//! The coordinator's decision in a view change: which answers count, which nodes join, and what the next view is
//! (`protocol.md` §6.2, §6.3).

use crate::command::{Dropped, InstallView};
use crate::config::{Durability, Parameters};
use crate::id::{NodeId, Rank};
use crate::limits::MEMBERS_MAX;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::identity::Identity;
use crate::machine::peers::Peers;
use crate::machine::timeouts::Timeouts;
use crate::rules::Rule;
use crate::time::Time;
use crate::view::{Origin, RingMember, View};
use crate::view_change::{Cut, ViewChange, cut_of};
use crate::wire::Wedged;

/// The coordinator's knowledge of the next view at one moment. It changes nothing.
#[derive(Clone, Copy)]
pub(super) struct NextView<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) coordinating: &'a Coordinating,
    pub(super) peers: &'a Peers,
    pub(super) timeouts: Timeouts<'a>,
    pub(super) now: Time,
}

/// The decision after the answers so far.
pub(super) enum Decision {
    /// There are too few answers.
    Wait,
    /// They leave fewer members than the group's least ring.
    TooFew,
    Install(Box<InstallView>),
}

/// A node that joins the next view, in its latest incarnation; none if the log lists none.
pub(super) fn joiner(identity: &Identity, log: &ControlLog, peers: &Peers, node: NodeId) -> Option<RingMember> {
    let is_own = node == identity.me;
    let addresses = if is_own { Some(&identity.addresses) } else { peers.addresses(node) };
    let advertised = if is_own { identity.advertised.as_ref() } else { peers.advertised(node) };
    Some(RingMember {
        node,
        incarnation: log.state().incarnation(node)?,
        origin: Origin::Joiner,
        addresses: addresses.cloned().unwrap_or_default(),
        advertised: advertised.cloned(),
    })
}

impl NextView<'_> {
    /// Whether an answer is missing that may still come and that the change waits for.
    pub(super) fn awaits_answers(&self, change: &ViewChange) -> bool {
        let (answers, resumes) = (self.counted_answers(change), self.resumes(change));
        let awaited = |rank: Rank| {
            let lacks = answers[rank.at()].is_none() && change.awaits_answer(rank);
            let is_void = self.is_void(change.view().member(rank));
            let is_overdue = !resumes && self.timeouts.is_overdue(change, rank);
            lacks && !is_void && !is_overdue && !self.timeouts.is_given_up(change, rank)
        };
        change.view().ranks().any(awaited)
    }

    /// Whether the group resumes from its disks and waits for members that may start later: members were restarted, and
    /// none that runs on has answered.
    fn resumes(&self, change: &ViewChange) -> bool {
        let view = &**change.view();
        let runs_on = |rank: Rank| self.continues(view, rank) && change.answer_of(rank).is_some();
        let is_restarted = view.ranks().any(|rank| !self.continues(view, rank)) && !view.ranks().any(runs_on);
        let may_start = self.now.since(change.asked_at()) < view.parameters.resume_timeout;
        self.identity.durability == Durability::Disk && is_restarted && may_start && !change.is_last()
    }

    /// The next view after the answers so far.
    pub(super) fn decide(&self, change: &ViewChange) -> Decision {
        let (view, answers) = (&**change.view(), self.counted_answers(change));
        let on_disk = self.identity.durability == Durability::Disk;
        let restarted: Vec<bool> = view.ranks().map(|rank| on_disk && !self.continues(view, rank)).collect();
        let Some(cut) = cut_of(view, &answers, &restarted, change.is_last(), self.identity.rules) else {
            return Decision::Wait;
        };
        let Some(ring) = self.ring(change, &cut) else { return Decision::TooFew };
        Decision::Install(Box::new(InstallView {
            from: view.id,
            ring,
            parameters: Parameters { ring: cut.ring, ..view.parameters.clone() },
            dropped: self.dropped(change, &answers, &cut),
            cut: cut.rounds,
            last: change.is_last(),
        }))
    }

    /// The ring of the next view; none if it is smaller than the group's least ring.
    fn ring(&self, change: &ViewChange, cut: &Cut) -> Option<Vec<RingMember>> {
        let view = &**change.view();
        let survivor = |rank| RingMember { origin: Origin::Survivor, ..view.member(rank).clone() };
        let (running, back): (Vec<Rank>, Vec<Rank>) =
            cut.survivors.iter().partition(|rank| self.continues(view, **rank));
        let mut ring: Vec<RingMember> = running.into_iter().map(survivor).collect();
        // Restarted nodes return in their latest incarnations.
        let origin = if cut.from_disks { Origin::Restarted } else { Origin::Joiner };
        let joiners = back.into_iter().filter_map(|rank| self.joiner(view.member(rank).node));
        let mut joiners: Vec<RingMember> = joiners.map(|joiner| RingMember { origin, ..joiner }).collect();
        if !change.is_last() {
            let places = MEMBERS_MAX.saturating_sub(ring.len() + joiners.len());
            joiners.extend(self.joiners(view, places));
            joiners.sort_by_key(|joiner| joiner.node);
            if ring.len() + joiners.len() < usize::from(view.parameters.ring_min) {
                return None;
            }
        }
        ring.append(&mut joiners);
        Some(ring)
    }

    /// The members that are not survivors, each with the reason.
    fn dropped(&self, change: &ViewChange, answers: &[Option<Wedged>], cut: &Cut) -> Vec<(NodeId, Dropped)> {
        let view = &**change.view();
        let is_silent =
            |rank: Rank| answers[rank.at()].is_none() && change.awaits_answer(rank) || self.is_void(view.member(rank));
        let reason = |rank: Rank| match is_silent(rank) {
            true => Dropped::Silent,
            false if self.coordinating.is_leaving(view.member(rank).node) => Dropped::Left,
            false if self.coordinating.is_suspending(view.member(rank).node) => Dropped::Suspended,
            false => Dropped::Blamed,
        };
        let gone = view.ranks().filter(|rank| !cut.survivors.contains(rank));
        gone.map(|rank| (view.member(rank).node, reason(rank))).collect()
    }

    /// Whether the incarnation in a view is the node's latest.
    fn continues(&self, view: &View, rank: Rank) -> bool {
        !self.log.state().is_stale(view.member(rank))
    }

    /// The answers that count for the cut. Answers of leaving members do not count, as long as another complete member
    /// answered. Answers of members whose links went down later count only beside one of a complete member in reach, as
    /// if they were not complete.
    pub(super) fn counted_answers(&self, change: &ViewChange) -> Vec<Option<Wedged>> {
        let member = |rank: Rank| change.view().member(rank);
        let stays = |rank: Rank| change.is_last() || self.stays(change.view(), member(rank).node);
        let mut answers = change.answers().to_vec();
        change.view().ranks().filter(|rank| self.is_void(member(*rank))).for_each(|rank| answers[rank.at()] = None);
        let in_reach = |answers: &[Option<Wedged>], rank: Rank| {
            change.is_in_reach(rank) && answers[rank.at()].as_ref().is_some_and(|answer| answer.complete)
        };
        if change.view().ranks().any(|rank| stays(rank) && in_reach(&answers, rank)) {
            change.view().ranks().filter(|rank| !stays(*rank)).for_each(|rank| answers[rank.at()] = None);
        }
        let one_continues =
            change.view().ranks().any(|rank| self.continues(change.view(), rank) && in_reach(&answers, rank));
        for rank in change.view().ranks().filter(|rank| !change.is_in_reach(*rank)) {
            // It may be gone: another one has to be the last complete member that stays.
            let incomplete = |answer| Wedged { complete: false, ..answer };
            answers[rank.at()] = answers[rank.at()].take().filter(|_| one_continues).map(incomplete);
        }
        answers
    }

    /// Whether a member is on the next ring as far as it decides itself. If all of the ring leave, the coordinator stays
    /// until another node has taken over.
    fn stays(&self, view: &View, node: NodeId) -> bool {
        let departing = self.coordinating.departing(view, self.identity.me, usize::from(view.parameters.ring_min));
        let leaves = |node: NodeId| departing.contains(&node);
        let is_keeper = node == self.identity.me && self.identity.rules.holds(Rule::OneStays);
        !leaves(node) || is_keeper && view.ring.iter().all(|member| leaves(member.node))
    }

    /// Whether a place on the ring belongs to an incarnation that is over and, with `Memory`, holds nothing, whatever
    /// it answered.
    fn is_void(&self, member: &RingMember) -> bool {
        self.identity.durability == Durability::Memory
            && self.log.state().is_stale(member)
            && self.identity.rules.holds(Rule::StaleMemberIsVoid)
    }

    fn joiner(&self, node: NodeId) -> Option<RingMember> {
        joiner(self.identity, self.log, self.peers, node)
    }

    /// Evicted nodes that join the view after a view, up to the number of free places.
    pub(super) fn joiners(&self, view: &View, places: usize) -> Vec<RingMember> {
        let evictions = &self.peers.evictions;
        let joins = |(node, at): &(NodeId, Time)| {
            let is_recent = self.now.since(*at) <= self.timeouts.silence_max(*node);
            let is_linked = *node == self.identity.me || self.peers.is_linked(*node);
            let leaves = self.coordinating.is_departing(*node) || self.log.state().has_left(*node);
            let stays = !leaves || !self.identity.rules.holds(Rule::LeftIsLogged);
            !evictions.keeps_out(*node, self.now) && is_recent && is_linked && stays && view.rank_of(*node).is_none()
        };
        evictions.ready().filter(joins).filter_map(|(node, _)| self.joiner(node)).take(places).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::id::{Index, Round, ViewId};
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, MEMBER, drain, pair};
    use crate::view::Place;
    use crate::wire::Findings;

    /// The coordinator of a group of two, after it has started a view change.
    fn changing(parameters: Parameters) -> Machine {
        let (mut coordinator, _) = pair(parameters);
        coordinator.view_change().start(false);
        drain(&mut coordinator);
        coordinator
    }

    /// An answer of the other member, without findings.
    fn answer(machine: &Machine, complete: bool) -> Wedged {
        Wedged {
            view: ViewId(1),
            incarnation: machine.log.state().incarnation(MEMBER).expect("the log lists it"),
            frontiers: vec![Round(0); 2],
            complete,
            first: Index(u64::from(complete)),
            digest: Digest(0),
            cursor: Place::default(),
            findings: Findings::default(),
        }
    }

    /// None at any node but the coordinator.
    fn next_view(machine: &Machine) -> Option<NextView<'_>> {
        let coordinating = machine.coordinating.as_ref()?;
        let (identity, log, peers, now) = (&machine.identity, &machine.log, &machine.peers, machine.timers.now());
        Some(NextView { identity, log, coordinating, peers, timeouts: machine.timeouts(), now })
    }

    fn decide(machine: &Machine) -> Decision {
        next_view(machine).expect("it coordinates").decide(machine.change().expect("it has started"))
    }

    #[test]
    fn only_the_coordinator_decides_and_not_before_all_have_answered() {
        let (_, member) = pair(Parameters::default());
        assert!(next_view(&member).is_none());
        let mut coordinator = changing(Parameters::default());
        let awaits = |machine: &Machine| {
            next_view(machine).zip(machine.change()).is_some_and(|(next, change)| next.awaits_answers(change))
        };
        assert!(awaits(&coordinator));
        let answer = answer(&coordinator, true);
        let taken = coordinator.coordinating.as_mut().and_then(Coordinating::change_mut).expect("it changes");
        assert_eq!(taken.answer(MEMBER, answer), Ok(()));
        assert!(!awaits(&coordinator));
        let Decision::Install(next) = decide(&coordinator) else { panic!("all have answered") };
        assert_eq!((next.from, next.ring.len(), next.dropped), (ViewId(1), 2, Vec::new()));
    }

    #[test]
    fn a_member_that_leaves_or_is_silent_is_dropped_with_its_reason() {
        let mut coordinator = changing(Parameters::default());
        let Decision::Install(next) = decide(&coordinator) else { panic!("the coordinator is complete") };
        assert_eq!(next.dropped, [(MEMBER, Dropped::Silent)]);
        let right = answer(&coordinator, true);
        let coordinating = coordinator.coordinating.as_mut().expect("it coordinates");
        coordinating.on_leave(MEMBER);
        let change = coordinating.change_mut().expect("it has started");
        assert_eq!(change.answer(MEMBER, right), Ok(()));
        let Decision::Install(next) = decide(&coordinator) else { panic!("the coordinator is complete") };
        let ring: Vec<NodeId> = next.ring.iter().map(|member| member.node).collect();
        assert_eq!((ring, next.dropped), (vec![COORDINATOR], vec![(MEMBER, Dropped::Left)]));
    }

    #[test]
    fn a_ring_smaller_than_the_least_is_not_installed() {
        let coordinator = changing(Parameters { ring_min: 2, ..Parameters::default() });
        assert!(matches!(decide(&coordinator), Decision::TooFew));
    }
}
