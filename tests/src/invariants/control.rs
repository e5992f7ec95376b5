//! There is one control log, each of its terms has one coordinator, and its entries decide who votes (`protocol.md` §6,
//! §6.6).

use std::collections::BTreeMap;

use bytes::Bytes;
use cloudy_proto::wire::{ConsensusMessage, decode_command};
use cloudy_proto::{Command, Incarnation, InstallView, Machine, NodeId, Origin, Status, ViewId, VoterRole};

use super::{Broken, Failure, Judge};
use crate::sim::corruption::Corrupted;
use crate::sim::node::place_of_run;
use crate::sim::stats::{Met, Stats};

/// The checkers' record of the control log and of the nodes that keep it.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// The entries that at least one node has applied.
    log: Vec<Bytes>,
    /// The voters from each position on.
    voters: BTreeMap<usize, Vec<usize>>,
    /// The participants of the consensus, by their id there.
    electors: BTreeMap<u64, (usize, VoterRole)>,
    /// By position: changes of the participants that were proposed and not applied by any node.
    proposed: BTreeMap<u64, (u64, usize, VoterRole)>,
    /// By node: its latest run, and the place of that.
    runs_now: BTreeMap<NodeId, (Incarnation, usize)>,
    /// All runs, by place.
    runs: BTreeMap<(NodeId, Incarnation), usize>,
    /// Every view that took effect, and the position that it has in the log.
    installed: Vec<(usize, InstallView)>,
    /// By run: its random stream.
    streams: BTreeMap<usize, u64>,
    /// By term: who coordinates.
    terms: BTreeMap<u64, usize>,
    /// By position: the state of the log up to there.
    states: BTreeMap<usize, Bytes>,
    /// By node.
    nodes: Vec<Follower>,
}

/// The checkers' record of a node.
#[derive(Clone, Debug, Default)]
struct Follower {
    /// The number of entries it has applied.
    applied: usize,
    /// Its process has ended.
    dead: bool,
    /// It holds itself for the coordinator.
    coordinates: bool,
    /// A coordinator was in its reach once.
    coordinated: bool,
    /// It has said that it lost the coordinator, and of none since.
    lost: bool,
}

impl Control {
    /// One more process follows the log.
    pub(super) fn started(&mut self) {
        self.nodes.push(Follower::default());
    }

    /// The place of a run.
    pub(super) fn run_of(&self, node: NodeId, incarnation: Incarnation) -> Option<usize> {
        self.runs.get(&(node, incarnation)).copied()
    }

    /// All runs that the log lists, and their places.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&(NodeId, Incarnation), &usize)> {
        self.runs.iter()
    }

    /// The number of entries of the log that a node has applied: a run is named after its entry.
    pub(super) fn applied(&self, node: usize) -> u64 {
        self.nodes[node].applied as u64
    }

    /// The random stream of a run.
    pub(super) fn stream_of(&self, place: usize) -> Option<u64> {
        self.streams.get(&place).copied()
    }

    /// The latest view that a log of a length installs.
    pub(super) fn view_at(&self, entries: usize) -> ViewId {
        ViewId(self.installed.iter().filter(|(position, _)| *position <= entries).count() as u64)
    }

    /// The latest view that the log installs.
    pub(super) fn latest_view(&self) -> ViewId {
        ViewId(self.installed.len() as u64)
    }

    /// The command that installed a view.
    pub(super) fn install_of(&self, view: ViewId) -> Option<&InstallView> {
        self.installed.get((view.0 as usize).wrapping_sub(1)).map(|(_, install)| install)
    }

    /// The nodes that vote, as far as one of them knows the log.
    fn voters_at(&self, applied: usize) -> &[usize] {
        self.voters.range(..=applied).next_back().map(|(_, voters)| &voters[..]).unwrap_or_default()
    }

    fn incarnate(&mut self, node: NodeId, run: u64) {
        let run = place_of_run(run);
        if self.runs_now.get(&node).is_none_or(|(_, known)| *known != run) {
            let incarnation = Incarnation(self.log.len() as u64);
            self.runs_now.insert(node, (incarnation, run));
            self.runs.insert((node, incarnation), run);
        }
    }

    /// A view takes effect if it follows the latest, and its joiners are the latest runs; true if so.
    fn install(&mut self, install: &InstallView) -> bool {
        let ended = self.installed.last().is_some_and(|(_, install)| install.last);
        let mut joiners = install.ring.iter().filter(|member| member.origin != Origin::Survivor);
        let latest = |node| self.runs_now.get(&node).map(|(incarnation, _)| *incarnation);
        let stale = joiners.any(|joiner| latest(joiner.node) != Some(joiner.incarnation));
        if ended || stale || install.from.0 != self.installed.len() as u64 {
            return false;
        }
        self.installed.push((self.log.len(), install.clone()));
        for member in &install.ring {
            if let Some(&place) = self.runs.get(&(member.node, member.incarnation)) {
                let next = self.streams.len() as u64;
                self.streams.entry(place).or_insert(next);
            }
        }
        true
    }

    /// A node coordinates in a term.
    pub(super) fn coordinates(&mut self, node: usize, term: u64) -> Result<(), Broken> {
        let known = *self.terms.entry(term).or_insert(node);
        if known == node {
            return Ok(());
        }
        Err(("a term has one coordinator", format!("term {term}: also node {known}")))
    }

    /// A node says that a coordinator is there again, or for too long not.
    pub(super) fn said(&mut self, node: usize, lost: bool) {
        self.nodes[node].lost = lost;
    }

    /// The voters after each change that may be next: one that was proposed, or a learner's promotion, which a leader
    /// decides by what is still on its way to it.
    fn next_voters(&self) -> Vec<Vec<usize>> {
        let learners = self.electors.iter().filter(|(_, (_, role))| *role == VoterRole::Learner);
        let promoted = learners.map(|(id, (place, _))| (*id, *place, VoterRole::Voter));
        let changes = self.proposed.values().copied().chain(promoted);
        changes.map(|(id, place, role)| self.voters_after(id, place, role)).collect()
    }

    /// The voters after a change.
    fn voters_after(&self, id: u64, place: usize, role: VoterRole) -> Vec<usize> {
        let mut electors = self.electors.clone();
        electors.insert(id, (place, role));
        let voters = electors.values().filter(|(_, role)| *role == VoterRole::Voter);
        voters.map(|(place, _)| *place).collect()
    }

    fn elect(&mut self, id: u64, node: usize, role: VoterRole) {
        self.electors.insert(id, (node, role));
        let voters = self.electors.values().filter(|(_, role)| *role == VoterRole::Voter);
        self.voters.insert(self.log.len(), voters.map(|(node, _)| *node).collect());
    }
}

impl Judge {
    /// Checks a node after a step: it has applied the same entries of the log as every other node, and new entries are
    /// valid.
    ///
    /// # Errors
    /// If it is another log, or an entry must not be in it.
    pub fn applied(
        &mut self,
        node: usize,
        machine: &mut Machine,
        status: &Status,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let checked = self.apply(node, machine, stats);
        checked.map_err(|(rule, what)| self.failure(rule, node, what))?;
        let coordinator = status.coordinator.map(|id| self.place_of(id));
        let follower = &mut self.control.nodes[node];
        let began = coordinator == Some(node) && !follower.coordinates;
        follower.coordinates = coordinator == Some(node);
        follower.coordinated |= coordinator.is_some();
        if follower.coordinates {
            self.nodes[node].may_wedge = self.nodes[node].view;
        }
        if began && self.control.nodes.iter().filter(|node| node.coordinates).count() > 1 {
            stats.met(Met::TwoCoordinators);
        }
        Ok(())
    }

    fn apply(&mut self, node: usize, machine: &mut Machine, stats: &mut Stats) -> Result<(), Broken> {
        let (last, entries) = machine.newly_applied();
        let applied = last.0 as usize;
        let from = core::mem::replace(&mut self.control.nodes[node].applied, applied);
        if applied == from {
            return Ok(());
        }
        let is_altered = self.log_altered && self.is_tainted(node);
        for (index, entry) in &entries {
            let at = index.0 as usize - 1;
            match self.control.log.get(at) {
                Some(known) if known == entry => {}
                Some(_) if is_altered => {}
                // Its copy of the entry may be the altered one, and what follows is another log.
                None if is_altered && (at > self.control.log.len() || Corrupted::may_alter(entry)) => return Ok(()),
                None if at > self.control.log.len() => {
                    return Err(("the control log is one", format!("nobody has the entry before {index}")));
                }
                Some(known) => {
                    let what =
                        format!("entry {}: {:?}, elsewhere {:?}", at + 1, decode_command(entry), decode_command(known));
                    return Err(("the control log is one", what));
                }
                None => {
                    self.control.log.push(entry.clone());
                    self.new_entry(entry)?;
                }
            }
        }
        if from + entries.len() < applied {
            stats.met(if from > 0 { Met::LogSkipped } else { Met::LogBegunLate });
            let mut follows = (from + 1..).zip(&entries);
            let gap = follows.find(|(at, (index, _))| *at as u64 != index.0);
            let skipped_to = gap.map_or(applied, |(_, (index, _))| index.0 as usize - 1);
            self.nodes[node].skipped_to = Some(self.control.view_at(skipped_to));
        }
        if is_altered { Ok(()) } else { self.same_state(applied, machine.log_state()) }
    }

    /// Nodes that have applied as much of the log have the same state.
    fn same_state(&mut self, applied: usize, state: Option<Bytes>) -> Result<(), Broken> {
        let Some(state) = state else { return Ok(()) };
        let known = self.control.states.entry(applied).or_insert_with(|| state.clone());
        if *known == state {
            return Ok(());
        }
        Err(("equal logs come to the same", format!("after entry {applied}")))
    }

    /// Checks an entry that a node is the first to apply.
    fn new_entry(&mut self, entry: &Bytes) -> Result<(), Broken> {
        // An empty entry begins a term of the consensus library.
        if entry.is_empty() {
            return Ok(());
        }
        match decode_command(entry).map_err(|error| ("the log decodes", error.to_string()))? {
            Command::Created { creator } => self.control.elect(1, self.home_of(creator), VoterRole::Voter),
            Command::Incarnate { node, run } => self.control.incarnate(node, run),
            Command::Voter { id, node, role } => {
                let place = self.elector_place(id.0, node);
                self.control.elect(id.0, place, role);
            }
            Command::InstallView(install) if self.control.install(&install) => {
                self.is_without_those_who_left(&install)?;
                self.has_complete_survivor(&install)?;
                if let Some(log) = self.views.get_mut(install.from) {
                    let through = self.ghost.through_in(install.from, &log.ring);
                    log.wedges.cut(install, &log.view, &through, &log.lanes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A run that has left does not come onto a ring again.
    fn is_without_those_who_left(&self, install: &InstallView) -> Result<(), Broken> {
        let joiners = install.ring.iter().filter(|member| member.origin != Origin::Survivor);
        let mut runs = joiners.filter_map(|member| self.control.run_of(member.node, member.incarnation));
        match runs.find(|place| self.left.contains(place)) {
            None => Ok(()),
            Some(place) => Err(("who has left is on no ring again", format!("place {place}"))),
        }
    }

    /// No majority of the voters that any live node knows of lives. Such a group has no coordinator, and no view of it
    /// changes (`protocol.md` P6, §6.6).
    #[must_use]
    pub fn is_stuck(&self, alive: impl Fn(usize) -> bool) -> bool {
        let control = &self.control;
        let known = (0..control.nodes.len()).filter(|&node| alive(node)).map(|node| self.known_entries(node));
        !self.majority_lives(known.max().unwrap_or_default(), &alive)
    }

    /// A majority of the voters lives, by the log of every node. This holds also after the change that may be on its
    /// way into the log, and also if a node only knows what its disk keeps, since its process may end.
    #[must_use]
    pub fn majorities_live(&self, alive: impl Fn(usize) -> bool) -> bool {
        let control = &self.control;
        let living = (0..control.nodes.len()).filter(|&node| alive(node));
        let known = living.flat_map(|node| {
            let in_memory = self.known_entries(node);
            [in_memory, self.kept_entries(node).unwrap_or(in_memory)].map(|entries| (node, entries))
        });
        let mut voting = known.filter(|&(node, entries)| self.votes(node, entries));
        self.majority_lives(control.log.len(), &alive)
            && voting.all(|(_, entries)| self.majority_lives(entries, &alive))
            && control.next_voters().iter().all(|voters| self.most_live(voters, &alive))
    }

    /// The number of entries of the log that a node knows: its process, or its disk if the process has ended.
    fn known_entries(&self, node: usize) -> usize {
        let follower = &self.control.nodes[node];
        let kept = self.kept_entries(node).filter(|_| follower.dead);
        kept.unwrap_or(follower.applied)
    }

    /// A coordinator sends out a change of the voters after which no majority of them lives, and would if those members
    /// lived that seem to, or nodes that leave: no order of the changes helps against that. Evicted nodes do not count,
    /// since they leave first (`protocol.md` §6.6), unless it is one of them that leaves.
    pub(crate) fn leaves_no_majority(
        &self,
        message: &ConsensusMessage,
        alive: impl Fn(usize) -> bool,
        seems_alive: impl Fn(usize) -> bool,
        leaves: impl Fn(usize) -> bool,
    ) -> bool {
        let ring = self.views.latest().map(|log| &log.ring[..]).unwrap_or_default();
        let is_evicted = |place: usize| !ring.contains(&place) && !leaves(place);
        commands_of(message).any(|(_, command)| {
            let Command::Voter { id, node, role } = command else { return false };
            let changed = self.elector_place(id.0, node);
            let evicted_leaves = role == VoterRole::Gone && is_evicted(changed);
            let trusted = |place: usize| alive(place) || seems_alive(place) && (evicted_leaves || !is_evicted(place));
            let voters = self.control.voters_after(id.0, changed, role);
            !self.most_live(&voters, &alive) && self.most_live(&voters, &trusted)
        })
    }

    fn majority_lives(&self, applied: usize, alive: &dyn Fn(usize) -> bool) -> bool {
        self.most_live(self.control.voters_at(applied), alive)
    }

    fn most_live(&self, voters: &[usize], alive: &dyn Fn(usize) -> bool) -> bool {
        voters.iter().filter(|&&place| self.goes_on(place, alive)).count() * 2 > voters.len()
    }

    /// A voter sends others a possible next entry of the log.
    pub(super) fn proposes(&mut self, message: &ConsensusMessage) {
        for (index, command) in commands_of(message) {
            if let Command::Voter { id, node, role } = command {
                let place = self.elector_place(id.0, node);
                self.control.proposed.insert(index, (id.0, place, role));
            }
        }
        let applied = self.control.log.len() as u64;
        self.control.proposed.retain(|index, _| *index > applied);
    }

    /// The process that is a voter by an id: the creator's first id belongs to its node for ever.
    fn elector_place(&self, id: u64, node: NodeId) -> usize {
        let run = self.control.run_of(node, Incarnation(id));
        run.filter(|_| id > 1).unwrap_or_else(|| self.home_of(node))
    }

    /// A node votes, by so many entries of the log.
    fn votes(&self, node: usize, entries: usize) -> bool {
        let same = |&voter: &usize| match self.disks {
            None => voter == node,
            Some(_) => self.disk_of[voter] == self.disk_of[node],
        };
        self.control.voters_at(entries).iter().any(same)
    }

    /// A node's process has died.
    pub fn died(&mut self, node: usize) {
        let follower = &mut self.control.nodes[node];
        (follower.coordinates, follower.dead) = (false, true);
    }

    /// The group's coordinator: of several nodes that believe to be it, the one with the highest term.
    #[must_use]
    pub fn coordinator(&self) -> Option<usize> {
        let latest = self.control.terms.values().rev().copied().find(|&node| self.control.nodes[node].coordinates);
        latest.or_else(|| self.control.nodes.iter().position(|node| node.coordinates))
    }

    /// A node has said that it lost the coordinator, and of none since; or never knew one.
    #[must_use]
    pub fn knows_of_no_coordinator(&self, node: usize) -> bool {
        let follower = &self.control.nodes[node];
        self.said_lost(node) || !follower.coordinated
    }

    /// A node has said that it lost the coordinator, and of none since.
    #[must_use]
    pub fn said_lost(&self, node: usize) -> bool {
        self.control.nodes[node].lost
    }
}

/// The commands that a consensus message carries, and their positions.
pub(super) fn commands_of(message: &ConsensusMessage) -> impl Iterator<Item = (u64, Command)> {
    let entries = message.entries.iter().filter(|entry| !entry.command.is_empty());
    entries.filter_map(|entry| Some((entry.index.0, decode_command(&entry.command).ok()?)))
}
