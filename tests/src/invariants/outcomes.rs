//! Verdicts on broadcasts never change: at all nodes, in all incarnations, after any event (`protocol.md` §2).

use std::collections::BTreeMap;

use cloudy_proto::{Incarnation, Machine, MessageId, NodeId, Outcome, Seq};

use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// An incarnation that no log of a run gets to.
const NEVER_LISTED: Incarnation = Incarnation(1 << 40);

/// The verdicts that were given out.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// By process: from this number on its broadcasts were rejected.
    rejected_from: BTreeMap<usize, u64>,
}

impl Verdicts {
    fn reject(&mut self, place: usize, seq: u64) {
        let from = self.rejected_from.entry(place).or_insert(seq);
        *from = seq.min(*from);
    }

    /// A broadcast enters a result.
    pub(super) fn may_enter(&self, place: usize, seq: u64) -> Result<(), Broken> {
        match self.rejected_from.get(&place).filter(|from| seq >= **from) {
            Some(from) => {
                let what = format!("payload {seq} of node {place}, rejected from {from} on");
                Err(("what was rejected is in no result", what))
            }
            None => Ok(()),
        }
    }
}

impl Judge {
    /// Asks a node for the outcomes of the broadcasts of every incarnation: of the last one in the longest result, and
    /// of the next one.
    ///
    /// # Errors
    /// If it names an incarnation that it does not have, or a verdict is not what every result says.
    pub fn asks_outcomes(&mut self, node: usize, machine: &Machine, stats: &mut Stats) -> Result<(), Failure> {
        if self.is_tainted(node) || self.nodes[node].diverged {
            return Ok(());
        }
        let checked = self.names_itself(node, machine).and_then(|()| self.ask_all(machine, stats));
        checked.map_err(|(rule, what)| self.failure(rule, node, what))
    }

    /// A process has one incarnation, the one that the log lists for it: receipts are made of it.
    fn names_itself(&mut self, node: usize, machine: &Machine) -> Result<(), Broken> {
        let (incarnation, own) = (machine.incarnation(), &mut self.nodes[node].incarnation);
        if incarnation == *own {
            return Ok(());
        }
        let before = core::mem::replace(own, incarnation);
        let name = self.node_of(node);
        if before == Incarnation(0) && self.control.run_of(name, incarnation) == Some(node) {
            return Ok(());
        }
        Err(("a process has one incarnation, by the log", format!("{incarnation} after {before}")))
    }

    fn ask_all(&mut self, machine: &Machine, stats: &mut Stats) -> Result<(), Broken> {
        for (&(origin, incarnation), &place) in self.control.runs() {
            let last = self.ghost.through_of(place);
            let ask = |seq| machine.outcome(MessageId { origin, incarnation, seq: Seq(seq) });
            if last > 0 && ask(last) == Outcome::Rejected {
                let what = format!("rejects payload {last} of node {place}");
                return Err(("what is in a result is not rejected", what));
            }
            match ask(last + 1) {
                Outcome::Approved => {
                    let what = format!("payload {} of node {place}", last + 1);
                    return Err(("what is approved is in a result", what));
                }
                Outcome::Rejected => {
                    stats.met(Met::OutcomeRejected);
                    self.verdicts.reject(place, last + 1);
                }
                Outcome::Open => {}
            }
            for incarnation in [Incarnation(0), NEVER_LISTED] {
                let id = MessageId { origin, incarnation, seq: Seq(1) };
                if machine.outcome(id) != Outcome::Open {
                    return Err(("an id that nobody was given is open", format!("{id:?}")));
                }
            }
        }
        Ok(())
    }

    /// An incarnation for which an up-to-date node has no verdict: one that is over, as the node knows; with a final
    /// result, any that the node knows.
    pub(super) fn undecided(&self, node: usize, machine: &Machine) -> Option<String> {
        let is_final = machine.final_outcomes().is_some();
        let applied = self.control.applied(node);
        let known = || self.control.runs().filter(|((_, incarnation), _)| incarnation.0 <= applied);
        let is_over = |node, incarnation| known().any(|((other, later), _)| *other == node && *later > incarnation);
        let mut runs = known().filter(|((node, incarnation), _)| is_final || is_over(*node, *incarnation));
        runs.find_map(|(&(origin, incarnation), &place)| {
            let last = self.ghost.through_of(place);
            let ask = |seq| machine.outcome(MessageId { origin, incarnation, seq: Seq(seq) });
            let approves = last == 0 || ask(last) == Outcome::Approved;
            let decided = approves && ask(last + 1) == Outcome::Rejected;
            (!decided)
                .then(|| format!("no verdict on node {place}, incarnation {incarnation}, payload {last} and after"))
        })
    }

    fn node_of(&self, place: usize) -> NodeId {
        let home = self.home_of[place];
        self.homes.iter().find(|(_, known)| **known == home).map_or(NodeId([0; 32]), |(id, _)| *id)
    }
}
