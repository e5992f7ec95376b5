//! What a member finds against the others of its view (`protocol.md` §6.1).

use core::time::Duration;

use crate::id::{Rank, Round};
use crate::time::Time;
use crate::wire::{Findings, Stall};

/// Heartbeats that a check may come late before the checker itself counts as having slept.
const LATE_HEARTBEATS: u32 = 4;

/// What is watched of one other member.
#[derive(Debug)]
struct Watch {
    heard_at: Time,
    /// What it has confirmed of the own lane, while that holds the own result up, and since when.
    unconfirmed: Option<(Round, Time)>,
}

/// How long a member may take before something is found against it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Between two frames of it.
    pub(crate) silence: Duration,
    /// To let the group go on.
    pub(crate) stall: Duration,
}

/// The watch over one view's members.
#[derive(Debug)]
pub(crate) struct Suspicion {
    watches: Vec<Watch>,
    checked_at: Time,
    findings: Findings,
}

/// What a member sees of its view when it checks.
pub(crate) struct Sight<'a> {
    pub(crate) me: Rank,
    /// Between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// By rank.
    pub(crate) limits: &'a [Limits],
    /// By rank: how far the own lane should have been confirmed, and how far it is.
    pub(crate) confirmed: &'a dyn Fn(Rank) -> (Round, Round),
    /// By rank: when a part of an unfinished own slot last came there.
    pub(crate) taken_at: &'a dyn Fn(Rank) -> Option<Time>,
    /// The slot that the result waits at, who holds it up and how, and since when: no part of it has come since.
    pub(crate) waits: Option<(Rank, Stall, Time)>,
}

impl Suspicion {
    pub(crate) fn new(members: usize, now: Time) -> Self {
        let watch = |_| Watch { heard_at: now, unconfirmed: None };
        Self { watches: (0..members).map(watch).collect(), checked_at: now, findings: Findings::default() }
    }

    /// A frame of a member arrived.
    pub(crate) fn heard(&mut self, rank: Rank, now: Time) {
        self.watches[rank.at()].heard_at = now;
    }

    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Looks at all others; true if something was found that was not before.
    pub(crate) fn check(&mut self, sight: &Sight<'_>, now: Time) -> bool {
        if now.since(self.checked_at) > sight.heartbeat * LATE_HEARTBEATS {
            // Who slept itself cannot tell who was silent meanwhile.
            self.watches.iter_mut().for_each(|watch| *watch = Watch { heard_at: now, unconfirmed: None });
        }
        self.checked_at = now;
        let before = (self.findings.down.len(), self.findings.stalled.len());
        for at in (0..self.watches.len()).filter(|&at| at != sight.me.at()) {
            let (rank, limits) = (Rank(at as u16), sight.limits[at]);
            let watch = &mut self.watches[at];
            if now.since(watch.heard_at) > limits.silence && !self.findings.down.contains(&rank) {
                self.findings.down.push(rank);
            }
            let (due, confirmed) = (sight.confirmed)(rank);
            watch.unconfirmed = match watch.unconfirmed {
                _ if confirmed >= due => None,
                Some((at, since)) if at == confirmed => Some((at, since)),
                _ => Some((confirmed, now)),
            };
            let since = watch.unconfirmed.map(|(_, since)| (sight.taken_at)(rank).map_or(since, |at| at.max(since)));
            if since.is_some_and(|since| now.since(since) > limits.stall) {
                self.stalls(rank, Stall::Unconfirmed);
            }
        }
        // Whose confirmation an approval waits for only its owner knows: it may be the slowest.
        let slowest = sight.limits.iter().map(|limits| limits.stall).max().unwrap_or_default();
        let overdue = |since: &Time| now.since(*since) > slowest;
        let counts = |rank: Rank, stall: Stall| rank != sight.me || stall == Stall::Unsynced;
        if let Some((rank, stall, _)) =
            sight.waits.filter(|(rank, stall, since)| counts(*rank, *stall) && overdue(since))
        {
            self.stalls(rank, stall);
        }
        before != (self.findings.down.len(), self.findings.stalled.len())
    }

    /// The members that were not heard of for longer than half of what they may be silent.
    pub(crate) fn quiet(&self, me: Rank, limits: &[Limits], now: Time) -> Vec<Rank> {
        let is_quiet = |at: &usize| now.since(self.watches[*at].heard_at) > limits[*at].silence / 2;
        (0..self.watches.len()).filter(|&at| at != me.at()).filter(is_quiet).map(|at| Rank(at as u16)).collect()
    }

    /// Forgets what has healed, and every stall.
    pub(crate) fn find_again(&mut self, me: Rank, limits: &[Limits], now: Time) {
        let silent = |at: &usize| now.since(self.watches[*at].heard_at) > limits[*at].silence;
        let others = (0..self.watches.len()).filter(|&at| at != me.at());
        self.findings.down = others.filter(silent).map(|at| Rank(at as u16)).collect();
        self.findings.stalled.clear();
    }

    /// One finding of each kind against each member.
    fn stalls(&mut self, rank: Rank, stall: Stall) {
        let same_kind = |found: &Stall| core::mem::discriminant(found) == core::mem::discriminant(&stall);
        if !self.findings.stalled.iter().any(|(found, kind)| *found == rank && same_kind(kind)) {
            self.findings.stalled.push((rank, stall));
        }
    }
}
