//! The state of a coordinator: it begins with a term and ends with it (`protocol.md` §6.1).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ConsensusId, LogIndex, NodeId, ViewId};
use crate::machine::control_log::ControlLog;
use crate::machine::peers::Peers;
use crate::machine::send_control;
use crate::machine::slow_learners::SlowLearners;
use crate::outputs::Outputs;
use crate::time::Time;
use crate::view::View;
use crate::view_change::ViewChange;

/// The state of the coordinator in one term. Every term starts with a new one, so nothing of it outlives the term.
#[derive(Debug)]
pub(super) struct Coordinating {
    term: u64,
    /// The next log entry that each follower needs, its id as a voter, and the highest feature level it supports.
    followers: BTreeMap<NodeId, (LogIndex, ConsensusId, u16)>,
    /// Members whose links to all others are up, with the view.
    ready: BTreeMap<NodeId, ViewId>,
    /// Members that suspect others in a view that is not in force here yet, and whether that view is wedged.
    early_suspects: BTreeMap<NodeId, (ViewId, bool)>,
    /// Members that are off the ring and have not left, with the time from which on this coordinator knows that.
    absent: BTreeMap<NodeId, Time>,
    /// The view change in progress.
    change: Option<ViewChange>,
    /// Nodes that leave or stop.
    leaving: BTreeMap<NodeId, Leaving>,
    /// The time of the last view change without the leaving members.
    released_at: Option<Time>,
    lack: CompleteLack,
    proposed: Proposed,
    /// Observers that have the whole final result.
    finished_observers: BTreeSet<NodeId>,
    /// Nodes that cannot keep up.
    pub(super) slow_learners: SlowLearners,
}

/// The request of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leaving {
    /// Whether it only stops, and will return.
    returns: bool,
    /// Whether [`Command::Left`](crate::Command::Left) was proposed for it.
    is_proposed: bool,
}

/// Proposals of this term, which are not repeated.
#[derive(Debug, Default)]
struct Proposed {
    kickstart: bool,
    /// The highest feature level.
    level: u16,
    reports: BTreeSet<NodeId>,
    /// The latest incarnation of each node.
    runs: BTreeMap<NodeId, u64>,
}

/// The time from which no complete member answers, and of the last notification of the followers.
#[derive(Debug, Default)]
struct CompleteLack {
    since: Option<Time>,
    notified_at: Option<Time>,
}

impl Coordinating {
    pub(super) fn new(term: u64) -> Self {
        Self {
            term,
            followers: BTreeMap::new(),
            ready: BTreeMap::new(),
            early_suspects: BTreeMap::new(),
            absent: BTreeMap::new(),
            change: None,
            leaving: BTreeMap::new(),
            released_at: None,
            lack: CompleteLack::default(),
            proposed: Proposed::default(),
            finished_observers: BTreeSet::new(),
            slow_learners: SlowLearners::default(),
        }
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }
}

/// Followers of the control log.
impl Coordinating {
    pub(super) fn on_follow(&mut self, node: NodeId, next: LogIndex, voter: ConsensusId, level: u16) {
        self.followers.insert(node, (next, voter, level));
    }

    /// Notes that the link to a node went down, or a new one came up.
    pub(super) fn on_link_changed(&mut self, node: NodeId) {
        self.followers.remove(&node);
    }

    pub(super) fn has_follower(&self, node: NodeId) -> bool {
        self.followers.contains_key(&node)
    }

    pub(super) fn followers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.followers.keys().copied()
    }

    /// Sends each follower the log entries that it lacks.
    pub(super) fn send_log(&mut self, log: &ControlLog, peers: &Peers, outputs: &mut Outputs) {
        for (node, (next, ..)) in &mut self.followers {
            for frame in log.frames_after(next) {
                send_control(peers, outputs, *node, frame);
            }
        }
    }

    /// The id under which a follower votes or voted, if it has one.
    pub(super) fn voter_name(&self, node: NodeId) -> Option<ConsensusId> {
        self.followers.get(&node).map(|(_, id, _)| *id).filter(|id| id.0 > 0)
    }

    /// The highest feature level that a follower supports; none if it does not follow.
    pub(super) fn level_of(&self, node: NodeId) -> Option<u16> {
        self.followers.get(&node).map(|(.., level)| *level)
    }
}

/// Members that are ready, and members that suspect others.
impl Coordinating {
    /// Notes that a member's links to all others are up. True if that is new.
    pub(super) fn on_ready(&mut self, node: NodeId, view: ViewId) -> bool {
        self.ready.insert(node, view) != Some(view)
    }

    pub(super) fn has_ready(&self, node: NodeId, view: ViewId) -> bool {
        self.ready.get(&node) == Some(&view)
    }

    pub(super) fn are_all_ready(&self, view: &View) -> bool {
        view.ring.iter().all(|member| self.has_ready(member.node, view.id))
    }

    /// Keeps a suspicion about a view that is not in force here yet.
    pub(super) fn keep_suspicion(&mut self, from: NodeId, view: ViewId, wedged: bool) {
        self.early_suspects.insert(from, (view, wedged));
    }

    /// Handles a view that is in force. Returns a member that is ready in it or a later one, and the kept suspicions.
    pub(super) fn on_view(&mut self, view: ViewId) -> (Option<NodeId>, BTreeMap<NodeId, (ViewId, bool)>) {
        self.ready.retain(|_, of| *of >= view);
        (self.ready.keys().next().copied(), core::mem::take(&mut self.early_suspects))
    }
}

/// The view change in progress.
impl Coordinating {
    pub(super) fn change(&self) -> Option<&ViewChange> {
        self.change.as_ref()
    }

    pub(super) fn change_mut(&mut self) -> Option<&mut ViewChange> {
        self.change.as_mut()
    }

    /// The view change in progress, if its outcome was not proposed yet.
    pub(super) fn undecided_change(&self) -> Option<&ViewChange> {
        self.change.as_ref().filter(|change| !change.is_proposed())
    }

    pub(super) fn start_change(&mut self, change: ViewChange) {
        self.change = Some(change);
    }

    /// Ends the view change.
    pub(super) fn finish_change(&mut self) {
        self.change = None;
    }

    /// Ends a view change whose outcome was proposed.
    pub(super) fn take_proposed_change(&mut self) -> Option<ViewChange> {
        self.change.take_if(|change| change.is_proposed())
    }
}

/// Nodes that leave or stop.
impl Coordinating {
    /// Notes a node's request to leave. True if [`Command::Left`](crate::Command::Left) was proposed for it.
    pub(super) fn on_leave(&mut self, node: NodeId) -> bool {
        let leaving = self.leaving.entry(node).or_default();
        leaving.returns = false;
        leaving.is_proposed
    }

    /// Notes that a node stops and will return.
    pub(super) fn on_suspend(&mut self, node: NodeId) {
        self.leaving.entry(node).or_insert(Leaving { returns: true, is_proposed: false });
    }

    pub(super) fn note_left_proposed(&mut self, node: NodeId) {
        self.leaving.insert(node, Leaving { returns: false, is_proposed: true });
    }

    /// Whether a node has requested to leave for good.
    pub(super) fn is_leaving(&self, node: NodeId) -> bool {
        self.leaving.get(&node).is_some_and(|leaving| !leaving.returns)
    }

    /// Whether a node stops and will return.
    pub(super) fn is_suspending(&self, node: NodeId) -> bool {
        self.leaving.get(&node).is_some_and(|leaving| leaving.returns)
    }

    /// Whether a node has requested to leave or to stop.
    pub(super) fn is_departing(&self, node: NodeId) -> bool {
        self.leaving.contains_key(&node)
    }

    /// The members that the next view leaves out by their own request. A member that only stops keeps its place if the
    /// ring would be smaller than a number without it: a view change could not take effect then, and the member stops
    /// anyway. The coordinator is the last of these to go.
    pub(super) fn departing(&self, view: &View, coordinator: NodeId, least: usize) -> BTreeSet<NodeId> {
        let nodes = || view.ring.iter().map(|member| member.node);
        let mut departing: BTreeSet<NodeId> = nodes().filter(|node| self.is_leaving(*node)).collect();
        let mut suspending: Vec<NodeId> = nodes().filter(|node| self.is_suspending(*node)).collect();
        suspending.sort_by_key(|node| *node == coordinator);
        let spare = view.members().saturating_sub(departing.len()).saturating_sub(least.max(1));
        departing.extend(suspending.into_iter().take(spare));
        departing
    }

    pub(super) fn released_at(&self) -> Option<Time> {
        self.released_at
    }

    pub(super) fn note_released(&mut self, now: Time) {
        self.released_at = Some(now);
    }
}

/// Newcomers, reports and the start of a session: each is proposed once.
impl Coordinating {
    /// True if this process of the node was not proposed before.
    pub(super) fn propose_run(&mut self, node: NodeId, run: u64) -> bool {
        self.proposed.runs.insert(node, run) != Some(run)
    }

    /// Notes an incarnation of a node in the log: a later process is proposed again, and no process of it has requested
    /// to leave.
    pub(super) fn on_run_listed(&mut self, node: NodeId, run: u64) {
        self.proposed.runs.retain(|known, proposed| *known != node || *proposed != run);
        self.leaving.remove(&node);
    }

    /// True if the report of the node was not proposed before.
    pub(super) fn propose_report(&mut self, node: NodeId) -> bool {
        self.proposed.reports.insert(node)
    }

    /// True if the start of the session was not proposed before.
    pub(super) fn propose_kickstart(&mut self) -> bool {
        !core::mem::replace(&mut self.proposed.kickstart, true)
    }

    /// Whether former members were off the ring for less than a time: those that are in no view in force.
    pub(super) fn misses(&mut self, former: &BTreeSet<NodeId>, now: Time, lasting: Duration) -> bool {
        self.absent.retain(|node, _| former.contains(node));
        for node in former {
            self.absent.entry(*node).or_insert(now);
        }
        self.absent.values().any(|since| now.since(*since) < lasting)
    }

    /// True if no feature level as high was proposed before.
    pub(super) fn propose_level(&mut self, level: u16) -> bool {
        let is_higher = level > self.proposed.level;
        self.proposed.level = self.proposed.level.max(level);
        is_higher
    }

    pub(super) fn on_observer_finished(&mut self, node: NodeId) {
        self.finished_observers.insert(node);
    }

    pub(super) fn on_observer_gone(&mut self, node: NodeId) {
        self.finished_observers.remove(&node);
    }

    pub(super) fn has_finished(&self, observer: NodeId) -> bool {
        self.finished_observers.contains(&observer)
    }
}

/// A view without a complete member.
impl Coordinating {
    /// Notes that a complete member answers, or none is needed.
    pub(super) fn on_complete_member(&mut self) {
        self.lack = CompleteLack::default();
    }

    /// Notes that no complete member answers. True if that has lasted for a time, and the followers have not been
    /// notified for another.
    pub(super) fn lacks_complete_for(&mut self, now: Time, lasting: Duration, repeat_every: Duration) -> bool {
        let since = *self.lack.since.get_or_insert(now);
        let is_due = self.lack.notified_at.is_none_or(|at| now.since(at) >= repeat_every);
        let notifies = now.since(since) >= lasting && is_due;
        if notifies {
            self.lack.notified_at = Some(now);
        }
        notifies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::id::Incarnation;
    use crate::view::{Origin, RingMember};

    const ONE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([2; 32]);

    fn view(id: u64) -> View {
        let member = |node| RingMember {
            node,
            incarnation: Incarnation(1),
            origin: Origin::Joiner,
            addresses: Vec::new(),
            advertised: None,
        };
        View { id: ViewId(id), ring: vec![member(ONE), member(OTHER)], parameters: Parameters::default(), last: false }
    }

    #[test]
    fn a_report_of_readiness_counts_for_its_view_only() {
        let mut coordinating = Coordinating::new(1);
        assert!(coordinating.on_ready(ONE, ViewId(2)) && !coordinating.on_ready(ONE, ViewId(2)), "news once");
        coordinating.on_ready(OTHER, ViewId(1));
        assert!(!coordinating.are_all_ready(&view(2)));
        assert_eq!(coordinating.on_view(ViewId(2)).0, Some(ONE), "the report for view 1 is void");
        coordinating.on_ready(OTHER, ViewId(2));
        assert!(coordinating.are_all_ready(&view(2)) && !coordinating.are_all_ready(&view(3)));
    }

    #[test]
    fn a_suspicion_about_a_later_view_is_kept_until_a_view_is_in_force() {
        let mut coordinating = Coordinating::new(1);
        coordinating.keep_suspicion(ONE, ViewId(2), true);
        let kept = coordinating.on_view(ViewId(2)).1;
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), [(ONE, (ViewId(2), true))]);
        assert!(coordinating.on_view(ViewId(2)).1.is_empty());
    }

    #[test]
    fn each_proposal_is_made_once_in_a_term() {
        let mut coordinating = Coordinating::new(1);
        assert_eq!([(); 2].map(|()| coordinating.propose_kickstart()), [true, false]);
        assert_eq!([(); 2].map(|()| coordinating.propose_report(ONE)), [true, false]);
        assert_eq!([8, 8, 7, 9].map(|level| coordinating.propose_level(level)), [true, false, false, true]);
        assert_eq!([7, 7, 8].map(|run| coordinating.propose_run(ONE, run)), [true, false, true]);
        coordinating.on_run_listed(ONE, 8);
        assert!(coordinating.propose_run(ONE, 8), "a run that the log lists may be proposed again");
        assert!(Coordinating::new(2).propose_kickstart(), "a new term starts with nothing proposed");
    }

    #[test]
    fn a_new_incarnation_of_a_node_has_no_request_to_leave() {
        let mut coordinating = Coordinating::new(1);
        assert!(!coordinating.on_leave(ONE), "nothing is proposed yet");
        coordinating.note_left_proposed(ONE);
        assert!(coordinating.on_leave(ONE) && coordinating.is_leaving(ONE));
        coordinating.on_run_listed(ONE, 2);
        assert!(!coordinating.is_leaving(ONE));
    }

    #[test]
    fn a_member_that_only_stops_keeps_its_place_where_the_ring_would_be_too_small() {
        let mut coordinating = Coordinating::new(1);
        let departing = |of: &Coordinating, least| of.departing(&view(1), ONE, least).into_iter().collect::<Vec<_>>();
        coordinating.on_suspend(ONE);
        assert!(coordinating.is_suspending(ONE) && !coordinating.is_leaving(ONE));
        assert_eq!((departing(&coordinating, 1), departing(&coordinating, 2)), (vec![ONE], vec![]));
        coordinating.on_suspend(OTHER);
        assert_eq!(departing(&coordinating, 1), [OTHER], "the coordinator is the last to go");
        coordinating.on_leave(OTHER);
        assert_eq!(departing(&coordinating, 2), [OTHER], "a node that leaves does so in any case");
        coordinating.on_suspend(OTHER);
        assert!(coordinating.is_leaving(OTHER), "for good");
    }

    #[test]
    fn followers_are_notified_repeatedly_while_no_complete_member_answers() {
        let mut coordinating = Coordinating::new(1);
        let mut notifies =
            |at| coordinating.lacks_complete_for(Time(at), Duration::from_micros(10), Duration::from_micros(5));
        assert_eq!([0, 9, 10, 14, 15].map(&mut notifies), [false, false, true, false, true]);
        coordinating.on_complete_member();
        assert!(!coordinating.lacks_complete_for(Time(16), Duration::from_micros(10), Duration::from_micros(5)));
    }

    #[test]
    fn a_follower_is_forgotten_with_its_link() {
        let mut coordinating = Coordinating::new(1);
        coordinating.on_follow(ONE, LogIndex(3), ConsensusId(0), 7);
        coordinating.on_follow(OTHER, LogIndex(4), ConsensusId(9), 8);
        assert_eq!((coordinating.voter_name(ONE), coordinating.voter_name(OTHER)), (None, Some(ConsensusId(9))));
        assert_eq!((coordinating.level_of(ONE), coordinating.level_of(OTHER)), (Some(7), Some(8)));
        coordinating.on_link_changed(ONE);
        assert_eq!(coordinating.level_of(ONE), None);
        assert_eq!(coordinating.followers().collect::<Vec<_>>(), [OTHER]);
    }
}
