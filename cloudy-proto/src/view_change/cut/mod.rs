//! The cut: the survivors, and the ends of a view's lanes (`protocol.md` §6.3).

use crate::config::RingKind;
use crate::id::{Rank, Round};
use crate::ring::{RingModel, model_of};
use crate::rules::{Rule, Rules};
use crate::view::View;
use crate::wire::{Stall, Wedged};

/// The survivors, and the ends of the lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) survivors: Vec<Rank>,
    pub(crate) rounds: Vec<Round>,
    /// The ring model of the next view.
    pub(crate) ring: RingKind,
    /// Whether no complete member runs on, so that the disks of restarted members decide too: they have everything
    /// below the cut.
    pub(crate) from_disks: bool,
}

/// By rank; none for a member that did not answer, or was excluded.
struct Answers<'a> {
    alive: Vec<Option<&'a Wedged>>,
    /// By rank: whether its disk answered and does not count, because complete members run on.
    joins: &'a [bool],
}

impl Answers<'_> {
    fn is_complete(&self, at: usize) -> bool {
        !self.joins[at] && self.alive[at].is_some_and(|answer| answer.complete)
    }
}

/// The cut of a view by the answers to its `Wedge`, by rank; none while no complete member has answered. Before a view
/// that others follow, members are excluded until no broken pair is left; the last view includes all that answered.
/// `restarted`: by rank, whether an earlier incarnation of it is on the ring, and its disk answered.
pub(crate) fn cut_of(
    view: &View,
    answers: &[Option<Wedged>],
    restarted: &[bool],
    last: bool,
    rules: Rules,
) -> Option<Cut> {
    let model = model_of(view.parameters.ring);
    let alive: Vec<Option<&Wedged>> = answers.iter().map(Option::as_ref).collect();
    let complete = |at: usize| alive[at].is_some_and(|answer| answer.complete);
    if !(0..alive.len()).any(complete) && rules.holds(Rule::SurvivorIsComplete) {
        return None;
    }
    let runs_on = (0..alive.len()).any(|at| complete(at) && !restarted[at]);
    let from_disks = !runs_on || !rules.holds(Rule::RunningFixTheCut);
    let joins: Vec<bool> = restarted.iter().map(|restarted| *restarted && !from_disks).collect();
    let mut answers = Answers { alive, joins: &joins };
    while let Some(dropped) = to_drop(&answers, model).filter(|_| !last) {
        answers.alive[dropped.at()] = None;
    }
    let alive = answers.alive;
    let lane_end = |lane: Rank| {
        let decide = alive.iter().zip(&joins).filter(|(_, joins)| !**joins).filter_map(|(answer, _)| *answer);
        let frontiers = decide.map(|answer| answer.frontiers[lane.at()]);
        if rules.holds(Rule::CutAtMinimum) { frontiers.min() } else { frontiers.max() }
    };
    let rounds = view.ranks().map(|lane| lane_end(lane).unwrap_or_default()).collect();
    let stalls = alive.iter().flatten().any(|answer| !answer.findings.stalled.is_empty());
    let fallback = model.after_stall().filter(|_| stalls);
    let ring = fallback.unwrap_or(view.parameters.ring);
    let survivors = view.ranks().filter(|rank| alive[rank.at()].is_some()).collect();
    Some(Cut { survivors, rounds, ring, from_disks })
}

/// The member with the most findings against it. The last complete member stays, with any findings.
fn to_drop(answers: &Answers<'_>, model: &dyn RingModel) -> Option<Rank> {
    let alive = &answers.alive;
    let against = blame(alive, model);
    let complete = (0..alive.len()).filter(|&at| answers.is_complete(at)).count();
    let stays = |at: usize| complete == 1 && answers.is_complete(at);
    let candidates = (0..alive.len()).filter(|&at| against[at] > 0 && !stays(at));
    let worst = candidates.max_by_key(|&at| (against[at], usize::MAX - whole_lane_holders(alive, at), at))?;
    Some(Rank(worst as u16))
}

/// The number of others that hold all of a member's lane.
fn whole_lane_holders(alive: &[Option<&Wedged>], at: usize) -> usize {
    let Some(end) = alive[at].map(|answer| answer.frontiers[at]) else { return 0 };
    alive
        .iter()
        .enumerate()
        .filter(|(other, answer)| *other != at && answer.is_some_and(|a| a.frontiers[at] >= end))
        .count()
}

/// By rank: the findings against each member. If slots are relayed a member cannot determine which one before it is the
/// cause, so a stall counts against no member.
fn blame(alive: &[Option<&Wedged>], model: &dyn RingModel) -> Vec<usize> {
    let mut against = vec![0; alive.len()];
    let both = |x: usize, y: usize| x != y && alive[x].is_some() && alive.get(y).is_some_and(Option::is_some);
    let found_down = |x: usize, y: usize| alive[x].is_some_and(|answer| answer.findings.down.contains(&Rank(y as u16)));
    for x in 0..alive.len() {
        for y in (x + 1..alive.len()).filter(|&y| both(x, y)) {
            if found_down(x, y) || found_down(y, x) {
                against[x] += 1;
                against[y] += 1;
            }
        }
        let Some(accuser) = alive[x].filter(|_| model.blames_stalls()) else { continue };
        against[x] += usize::from(accuser.findings.stalled.contains(&(Rank(x as u16), Stall::Unsynced)));
        for (accused, stall) in accuser.findings.stalled.iter().filter(|(accused, _)| both(x, accused.at())) {
            match guilt(alive, x, accused.at(), *stall) {
                Guilt::Neither => {}
                Guilt::Accused => against[accused.at()] += 1,
                Guilt::Pair => {
                    against[x] += 1;
                    against[accused.at()] += 1;
                }
            }
        }
    }
    against
}

enum Guilt {
    Neither,
    Accused,
    Pair,
}

/// The member that a stall counts against.
fn guilt(alive: &[Option<&Wedged>], x: usize, y: usize, stall: Stall) -> Guilt {
    let (Some(accuser), Some(accused)) = (alive[x], alive[y]) else { return Guilt::Neither };
    let third = |at: usize| at != x && at != y;
    let accused_if = |yes: bool| if yes { Guilt::Accused } else { Guilt::Pair };
    match stall {
        Stall::Unconfirmed => {
            let covers = |answer: &Wedged| answer.frontiers[x] >= accuser.frontiers[x];
            accused_if(alive.iter().enumerate().any(|(at, answer)| third(at) && answer.is_some_and(covers)))
        }
        Stall::Missing(place) => accused_if(accused.frontiers[y] <= place.round),
        Stall::Unapproved(place) if accused.cursor > place => {
            let reports = |answer: &Wedged| {
                let unapproved =
                    |(rank, stall): &(Rank, Stall)| rank.at() == y && matches!(stall, Stall::Unapproved(_));
                answer.findings.stalled.iter().any(unapproved)
            };
            accused_if(alive.iter().enumerate().all(|(at, answer)| at == y || answer.is_none_or(reports)))
        }
        // It is the reporter's own disk.
        Stall::Unapproved(_) | Stall::Unsynced => Guilt::Neither,
    }
}

#[cfg(test)]
mod tests;
