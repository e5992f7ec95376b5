//! The control log is one, each of its terms has one coordinator, and who votes is what it says (`protocol.md` §6, §6.6).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cloudy_proto::wire::decode_command;
use cloudy_proto::{Command, Standing, Status};

use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// What is known of the control log and of those who keep it.
#[derive(Debug)]
pub(super) struct Control {
    /// As far as somebody has applied it.
    log: Vec<Bytes>,
    /// Who votes from a position on.
    voters: BTreeMap<usize, BTreeSet<usize>>,
    /// Who takes part in the consensus, by its name there.
    electors: BTreeMap<u64, (usize, Standing)>,
    /// By term: who coordinates.
    terms: BTreeMap<u64, usize>,
    /// By node.
    nodes: Vec<Follower>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
struct Follower {
    /// How many entries it has applied.
    applied: usize,
    /// It holds itself for the coordinator.
    coordinates: bool,
    /// A coordinator was in its reach once.
    coordinated: bool,
    /// It has said that it lost the coordinator, and of none since.
    lost: bool,
}

impl Control {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            log: Vec::new(),
            voters: BTreeMap::new(),
            electors: BTreeMap::new(),
            terms: BTreeMap::new(),
            nodes: vec![Follower::default(); nodes],
        }
    }

    /// The nodes that vote, as far as one of them knows the log.
    fn voters_at(&self, applied: usize) -> Option<&BTreeSet<usize>> {
        self.voters.range(..=applied).next_back().map(|(_, voters)| voters)
    }

    fn majority_lives(&self, applied: usize, alive: &dyn Fn(usize) -> bool) -> bool {
        self.voters_at(applied)
            .is_some_and(|voters| voters.iter().filter(|&&node| alive(node)).count() * 2 > voters.len())
    }

    fn votes(&self, node: usize) -> bool {
        self.voters_at(self.nodes[node].applied).is_some_and(|voters| voters.contains(&node))
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

    fn elect(&mut self, id: u64, node: usize, standing: Standing) {
        self.electors.insert(id, (node, standing));
        let voters = self.electors.values().filter(|(_, standing)| *standing == Standing::Voter);
        self.voters.insert(self.log.len(), voters.map(|(node, _)| *node).collect());
    }
}

impl Judge {
    /// A node was stepped: what it has applied of the log is what everybody applies, and new entries can be.
    ///
    /// # Errors
    /// If it is another log, or an entry must not be in it.
    pub fn applied(&mut self, node: usize, log: &[Bytes], status: &Status, stats: &mut Stats) -> Result<(), Failure> {
        let checked = self.apply(node, log);
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

    fn apply(&mut self, node: usize, log: &[Bytes]) -> Result<(), Broken> {
        let from = core::mem::replace(&mut self.control.nodes[node].applied, log.len());
        for (at, entry) in log.iter().enumerate().skip(from) {
            match self.control.log.get(at) {
                Some(known) if known == entry => {}
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
        Ok(())
    }

    /// Somebody is the first to apply an entry.
    fn new_entry(&mut self, entry: &Bytes) -> Result<(), Broken> {
        // An empty entry begins a term of the consensus library.
        if entry.is_empty() {
            return Ok(());
        }
        match decode_command(entry).map_err(|error| ("the log decodes", error.to_string()))? {
            Command::Founded { founder } => self.control.elect(1, self.places[&founder], Standing::Voter),
            Command::Voter { id, node, standing } => self.control.elect(id.0, self.places[&node], standing),
            Command::InstallView(install) => {
                let log = self.views.get_mut(install.from).filter(|log| !log.wedges.has_cut());
                if let Some(log) = log {
                    let through = self.ghost.through_in(install.from, &log.ring);
                    log.wedges.cut(install, &log.view, &through, &log.lanes)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Of the voters that the living know of, whoever knows most, no majority lives. Such a group has no coordinator, and
    /// no view of it changes any more (`protocol.md` P6, §6.6).
    #[must_use]
    pub fn is_stuck(&self, alive: impl Fn(usize) -> bool) -> bool {
        let control = &self.control;
        let known = (0..control.nodes.len()).filter(|&node| alive(node)).map(|node| control.nodes[node].applied);
        !control.majority_lives(known.max().unwrap_or_default(), &alive)
    }

    /// Whatever is known of the log, and by whom: of the voters, a majority lives.
    #[must_use]
    pub fn majorities_live(&self, alive: impl Fn(usize) -> bool) -> bool {
        let control = &self.control;
        let mut voting = (0..control.nodes.len()).filter(|&node| alive(node) && control.votes(node));
        control.majority_lives(control.log.len(), &alive)
            && voting.all(|node| control.majority_lives(control.nodes[node].applied, &alive))
    }

    /// A node's process has died.
    pub fn died(&mut self, node: usize) {
        self.control.nodes[node].coordinates = false;
    }

    /// Who coordinates the group: of several who hold themselves for that, the one with the highest term.
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
