//! The state of the control log: the same at every node that has applied the same entries.

mod compact;
mod entries;
mod forget;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use entries::Entries;

use crate::command::{Command, Dropped, InstallView, SessionPlan, VoterRole};
use crate::digest::Checkpoint;
use crate::id::{ConsensusId, Incarnation, LogIndex, NodeId, Round, ViewId};
use crate::limits::{FORGET_EVERY, REPORT_TEXTS_MAX};
use crate::rules::{Rule, Rules};
use crate::view::{Origin, RingMember, View};
use crate::wire::{CommandError, decode_command};

/// The applied part of the log, and the resulting state.
#[derive(Debug, Default)]
pub(crate) struct ControlState {
    rules: Rules,
    entries: Entries,
    /// The applied entries, for tests.
    #[cfg(feature = "mutations")]
    pub(crate) history: History,
    creator: Option<NodeId>,
    incarnations: BTreeMap<NodeId, (Incarnation, u64)>,
    view: Option<Arc<View>>,
    /// The cut that led to that view.
    cut: Vec<Round>,
    dropped: Vec<(NodeId, Dropped)>,
    session: SessionCommands,
    electors: BTreeMap<ConsensusId, (NodeId, VoterRole)>,
    /// Nodes that were on a ring, as far as the log remembers.
    members_ever: BTreeSet<NodeId>,
    reports: BTreeMap<NodeId, (Checkpoint, Bytes)>,
    closed: bool,
    /// The nodes that left by themselves and did not return.
    left: BTreeSet<NodeId>,
    /// The random streams of a session: numbered as incarnations join the ring, in its order.
    streams: BTreeMap<(NodeId, Incarnation), u64>,
    /// The feature level; zero if none was set.
    level: u16,
}

/// The state of the group's session, according to the log.
#[derive(Debug, Default)]
struct SessionCommands {
    plan: Option<SessionPlan>,
    kickstarted: Option<SessionPlan>,
    grace: bool,
}

/// Applied entries. They decide nothing, so `Debug` leaves them out.
#[cfg(feature = "mutations")]
#[derive(Default)]
pub(crate) struct History(pub(crate) Vec<(LogIndex, Bytes)>);

#[cfg(feature = "mutations")]
impl core::fmt::Debug for History {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("_")
    }
}

/// The effect of a command.
#[derive(Clone, Debug)]
pub(crate) enum Applied {
    /// An incarnation of a node began.
    Incarnated { node: NodeId, incarnation: Incarnation, run: u64 },
    /// A view is in force; the view before ended at the cut.
    Installed { view: Arc<View>, before: Option<Arc<View>>, cut: Vec<Round>, dropped: Vec<(NodeId, Dropped)> },
    /// SEND has begun.
    Kickstarted(SessionPlan),
    /// GRACE has begun.
    Grace,
    /// A member's result is complete.
    Reported { node: NodeId, result: Checkpoint, report: Bytes },
    /// The group is closed.
    Closed,
    /// A node outside the ring has left.
    Left { node: NodeId },
    /// The feature level has risen.
    Level,
    /// A command of the next version.
    #[cfg(feature = "next-version")]
    Next,
    /// A view was to follow the latest, but lists an incarnation of a joiner that is over.
    Outdated,
    /// No effect, or another command came first.
    Nothing,
}

impl ControlState {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The position to apply next.
    pub(crate) fn next(&self) -> LogIndex {
        self.entries.next()
    }

    /// Entries from a position on; none if one of them is not kept.
    pub(crate) fn tail(&self, next: LogIndex) -> Option<impl Iterator<Item = &Bytes>> {
        self.entries.tail(next)
    }

    /// Number of kept entries.
    pub(crate) fn kept(&self) -> usize {
        self.entries.len()
    }

    /// The state of the log up to a position, for nodes that lack dropped entries.
    pub(crate) fn compacted(&self) -> Option<&(LogIndex, Bytes)> {
        self.entries.compacted()
    }

    /// Replaces all entries but the last few by the encoded state.
    pub(crate) fn compact(&mut self, state: Bytes, keep: usize) {
        self.entries.compact(state, keep);
    }

    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    pub(crate) fn creator(&self) -> Option<NodeId> {
        self.creator
    }

    pub(crate) fn session(&self) -> Option<SessionPlan> {
        self.session.plan
    }

    /// The command that led to the present view: the cut of the view before, and the excluded nodes.
    pub(crate) fn passage(&self) -> (&[Round], &[(NodeId, Dropped)]) {
        (&self.cut, &self.dropped)
    }

    /// The plan if SEND has begun, and whether GRACE has.
    pub(crate) fn phases(&self) -> (Option<SessionPlan>, bool) {
        (self.session.kickstarted, self.session.grace)
    }

    /// The complete results.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (NodeId, Checkpoint, &Bytes)> {
        self.reports.iter().map(|(node, (result, report))| (*node, *result, report))
    }

    /// Whether the group is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The feature level of the group: zero if the log sets none.
    pub(crate) fn level(&self) -> u16 {
        self.level
    }

    /// The latest incarnation of a node; none if it never had one, or is forgotten.
    pub(crate) fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.incarnations.get(&node).map(|(incarnation, _)| *incarnation)
    }

    /// Every node with an incarnation in the log.
    pub(crate) fn runs(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.incarnations.keys().copied()
    }

    /// The latest incarnation of each node.
    pub(crate) fn latest_incarnations(&self) -> impl Iterator<Item = (NodeId, Incarnation)> + '_ {
        self.incarnations.iter().map(|(node, (incarnation, _))| (*node, *incarnation))
    }

    /// The participants of the consensus.
    pub(crate) fn electors(&self) -> impl Iterator<Item = (ConsensusId, NodeId, VoterRole)> + '_ {
        self.electors.iter().map(|(id, (node, role))| (*id, *node, *role))
    }

    /// The node of a voter.
    pub(crate) fn elector(&self, id: ConsensusId) -> Option<NodeId> {
        self.electors.get(&id).map(|(node, _)| *node)
    }

    /// Members without a complete result.
    pub(crate) fn unreported(&self) -> impl Iterator<Item = NodeId> + '_ {
        let missing = |node: &NodeId| !self.reports.contains_key(node) && !self.left.contains(node);
        self.members_ever.iter().copied().filter(missing)
    }

    /// Every node that was on a ring once.
    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members_ever.iter().copied()
    }

    /// Whether a node was on a ring once.
    pub(crate) fn was_member(&self, node: NodeId) -> bool {
        self.members_ever.contains(&node)
    }

    /// Whether a place on the ring belongs to an incarnation that is over, because the log lists a newer one of that
    /// node.
    pub(crate) fn is_stale(&self, member: &RingMember) -> bool {
        self.incarnation(member.node).is_some_and(|latest| latest > member.incarnation)
    }

    /// Whether the log lists this process of a node, and none after it.
    pub(crate) fn is_latest_run(&self, node: NodeId, run: u64) -> bool {
        self.incarnations.get(&node).is_some_and(|(_, latest)| *latest == run)
    }

    /// The random stream of an incarnation in a session (`protocol.md` §9): its rank in view 1, or the next number.
    pub(crate) fn stream(&self, node: NodeId, incarnation: Incarnation) -> Option<u64> {
        self.streams.get(&(node, incarnation)).copied()
    }

    /// Whether a node was a member once, and left by itself.
    pub(crate) fn has_left(&self, node: NodeId) -> bool {
        self.left.contains(&node)
    }

    pub(crate) fn has_reported(&self, node: NodeId) -> bool {
        self.reports.contains_key(&node)
    }

    /// Applies the next entry; an empty one begins a term of the consensus library.
    ///
    /// # Errors
    /// It is not a command: nothing was applied.
    pub(crate) fn apply(&mut self, entry: Bytes) -> Result<Applied, CommandError> {
        let command = if entry.is_empty() { None } else { Some(decode_command(&entry)?) };
        #[cfg(feature = "mutations")]
        self.history.0.push((self.next(), entry.clone()));
        self.entries.push(entry);
        let applied = command.map_or(Applied::Nothing, |command| self.take(command));
        if self.next().0.is_multiple_of(FORGET_EVERY) {
            self.forget_surplus();
        }
        Ok(applied)
    }

    fn take(&mut self, command: Command) -> Applied {
        match command {
            Command::Created { creator } => {
                self.creator = Some(creator);
                self.electors.insert(ConsensusId::CREATOR, (creator, VoterRole::Voter));
                Applied::Nothing
            }
            Command::Incarnate { node, run } => self.incarnate(node, run),
            Command::Session(plan) => {
                self.session.plan = Some(plan);
                Applied::Nothing
            }
            Command::InstallView(install) => self.install(install),
            Command::Kickstart(plan) => {
                self.session.kickstarted.get_or_insert(plan);
                Applied::Kickstarted(plan)
            }
            Command::Grace => {
                self.session.grace = true;
                Applied::Grace
            }
            Command::Report { node, result, report } => {
                if !self.members_ever.contains(&node) || self.has_reported(node) {
                    return Applied::Nothing;
                }
                let kept = if self.reports.len() < REPORT_TEXTS_MAX { report.clone() } else { Bytes::new() };
                self.reports.insert(node, (result, kept));
                Applied::Reported { node, result, report }
            }
            Command::Close => {
                self.closed = true;
                Applied::Closed
            }
            Command::Voter { id, node, role } => {
                self.elect(id, node, role);
                Applied::Nothing
            }
            Command::Left { node, incarnation } => {
                let latest = self.incarnation(node).unwrap_or(Incarnation(0)) == incarnation;
                let on_ring = self.view.as_ref().is_some_and(|view| view.rank_of(node).is_some());
                if latest && !on_ring && self.left.insert(node) { Applied::Left { node } } else { Applied::Nothing }
            }
            Command::Level { level } if level > self.level => {
                self.level = level;
                Applied::Level
            }
            Command::Level { .. } => Applied::Nothing,
            #[cfg(feature = "next-version")]
            Command::Next => Applied::Next,
        }
    }

    fn incarnate(&mut self, node: NodeId, run: u64) -> Applied {
        if self.incarnations.get(&node).is_some_and(|(_, known)| *known == run) {
            return Applied::Nothing;
        }
        let mut incarnation = Incarnation(self.next().0 - 1);
        if let Some(clock) = self.incarnation(node).filter(|_| !self.rules.holds(Rule::IncarnationIsNamedByLog)) {
            incarnation = clock;
        }
        self.incarnations.insert(node, (incarnation, run));
        // A new incarnation has returned.
        self.left.remove(&node);
        Applied::Incarnated { node, incarnation, run }
    }

    fn elect(&mut self, id: ConsensusId, node: NodeId, role: VoterRole) {
        match role {
            VoterRole::Gone => self.electors.remove(&id),
            VoterRole::Learner | VoterRole::Voter => self.electors.insert(id, (node, role)),
        };
    }

    fn install(&mut self, install: InstallView) -> Applied {
        let latest = self.view.as_ref().map_or(ViewId(0), |view| view.id);
        let ended = self.view.as_ref().is_some_and(|view| view.last);
        let joiners = install.ring.iter().filter(|member| member.origin != Origin::Survivor);
        let stale = joiners.clone().any(|joiner| self.incarnation(joiner.node) != Some(joiner.incarnation));
        let follows = install.from == latest || !self.rules.holds(Rule::FromIsLatest);
        if !follows || ended {
            return Applied::Nothing;
        }
        if stale {
            return Applied::Outdated;
        }
        let view = Arc::new(View {
            id: install.from.next(),
            ring: install.ring,
            parameters: install.parameters,
            last: install.last,
        });
        self.members_ever.extend(view.ring.iter().map(|member| member.node));
        for member in view.ring.iter().filter(|_| view.parameters.session) {
            let next = self.streams.values().max().map_or(0, |last| last + 1);
            self.streams.entry((member.node, member.incarnation)).or_insert(next);
        }
        self.left.extend(install.dropped.iter().filter(|(_, why)| *why == Dropped::Left).map(|(node, _)| *node));
        self.left.retain(|node| view.rank_of(*node).is_none());
        (self.cut, self.dropped) = (install.cut.clone(), install.dropped.clone());
        let before = self.view.replace(Arc::clone(&view));
        Applied::Installed { view, before, cut: install.cut, dropped: install.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::wire::encode_command;

    fn install(from: u64, incarnation: u64, last: bool) -> Command {
        let ring = vec![RingMember {
            node: NodeId([1; 32]),
            incarnation: Incarnation(incarnation),
            origin: Origin::Joiner,
            addresses: vec![],
            advertised: None,
        }];
        Command::InstallView(InstallView {
            from: ViewId(from),
            ring,
            parameters: Parameters::default(),
            cut: vec![],
            last,
            dropped: vec![],
        })
    }

    fn apply(state: &mut ControlState, command: &Command) -> Applied {
        state.apply(encode_command(command)).unwrap()
    }

    #[test]
    fn a_view_follows_only_the_latest_and_lists_the_latest_incarnation_of_joiners() {
        let mut state = ControlState::default();
        assert!(matches!(apply(&mut state, &install(0, 1, false)), Applied::Outdated), "an unknown run");
        apply(&mut state, &Command::Incarnate { node: NodeId([1; 32]), run: 7 });
        assert!(matches!(apply(&mut state, &install(0, 1, false)), Applied::Outdated), "a run that was never assigned");
        assert!(matches!(apply(&mut state, &install(0, 2, false)), Applied::Installed { .. }));
        assert!(matches!(apply(&mut state, &install(0, 2, false)), Applied::Nothing), "not from the latest view");
        assert!(matches!(apply(&mut state, &install(1, 2, true)), Applied::Installed { .. }));
        assert!(matches!(apply(&mut state, &install(2, 2, false)), Applied::Nothing), "after the last view");
        assert_eq!(state.next(), LogIndex(8), "what changes nothing has its position too");
    }

    #[test]
    fn random_streams_are_counted_as_runs_come_onto_the_ring() {
        let (mut state, one, two) = (ControlState::default(), NodeId([1; 32]), NodeId([2; 32]));
        let member = |node, incarnation| RingMember {
            node,
            incarnation: Incarnation(incarnation),
            origin: Origin::Joiner,
            addresses: vec![],
            advertised: None,
        };
        let ring = |from, ring| {
            let Command::InstallView(before) = install(from, 0, false) else { panic!() };
            let parameters = Parameters { session: true, ..Parameters::default() };
            Command::InstallView(InstallView { ring, parameters, ..before })
        };
        apply(&mut state, &Command::Incarnate { node: one, run: 1 });
        apply(&mut state, &Command::Incarnate { node: two, run: 2 });
        apply(&mut state, &ring(0, vec![member(one, 1), member(two, 2)]));
        let streams = |state: &ControlState| {
            [(one, 1), (two, 2), (one, 4)].map(|(node, run)| state.stream(node, Incarnation(run)))
        };
        assert_eq!(streams(&state), [Some(0), Some(1), None], "the rank in view 1");
        apply(&mut state, &Command::Incarnate { node: one, run: 3 });
        assert!(state.is_stale(&member(one, 1)) && !state.is_stale(&member(two, 2)));
        apply(&mut state, &ring(1, vec![member(two, 2)]));
        apply(&mut state, &ring(2, vec![member(two, 2), member(one, 4)]));
        assert_eq!(streams(&state), [Some(0), Some(1), Some(2)], "a run keeps its own, a new one has the next");
        state.forget_streams();
        assert_eq!(streams(&state), [None, Some(1), Some(2)], "one that is over needs none");
    }

    #[test]
    fn an_incarnation_announced_twice_begins_once() {
        let mut state = ControlState::default();
        let node = NodeId([1; 32]);
        assert!(matches!(state.apply(Bytes::new()), Ok(Applied::Nothing)), "a term begins");
        apply(&mut state, &Command::Incarnate { node, run: 7 });
        assert!(matches!(apply(&mut state, &Command::Incarnate { node, run: 7 }), Applied::Nothing));
        assert_eq!(state.incarnation(node), Some(Incarnation(2)));
        apply(&mut state, &Command::Incarnate { node, run: 8 });
        assert_eq!(state.incarnation(node), Some(Incarnation(4)));
    }
}
