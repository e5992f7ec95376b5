//! The findings of a member against the others of its view (`protocol.md` §6.1).

use core::time::Duration;

use crate::id::{Rank, Round};
use crate::time::Time;
use crate::wire::{Findings, Stall};

/// Number of heartbeats by which a check may be late before the checking node itself counts as stopped.
const LATE_HEARTBEATS: u32 = 4;

/// The observed state of one other member.
#[derive(Debug)]
struct Watch {
    /// The time of the last frame, and of the last datagram.
    heard_at: Time,
    alive_at: Time,
    /// The confirmed frontier of the own lane, while that delays the own result, with the time from which it does.
    unconfirmed: Option<(Round, Time)>,
}

impl Watch {
    fn new(now: Time) -> Self {
        Self { heard_at: now, alive_at: now, unconfirmed: None }
    }

    /// The time without a frame. If datagrams arrive, a frame may wait until a lost one is repeated, which takes
    /// several round trips; but a node may also have left the group, so datagrams count only up to the stall timeout.
    fn silent_for(&self, limits: &Limits, now: Time) -> Duration {
        let unheard = now.since(self.heard_at);
        if unheard > limits.stall { unheard } else { unheard.min(now.since(self.alive_at)) }
    }
}

/// The limits of a member before there is a finding against it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Between two frames of it.
    pub(crate) silence: Duration,
    /// The suspicion time for a member that delays the group.
    pub(crate) stall: Duration,
}

/// The observation of one view's members.
#[derive(Debug)]
pub(crate) struct Suspicion {
    watches: Vec<Watch>,
    checked_at: Time,
    findings: Findings,
}

/// The state of a view at a check.
pub(crate) struct Observation<'a> {
    pub(crate) own: Rank,
    /// The time between two heartbeats.
    pub(crate) heartbeat: Duration,
    /// By rank.
    pub(crate) limits: &'a [Limits],
    /// By rank: the frontier to which the own lane should have been confirmed, and the confirmed one.
    pub(crate) confirmed: &'a dyn Fn(Rank) -> (Round, Round),
    /// By rank: the time at which a part of an unfinished own slot last arrived there.
    pub(crate) taken_at: &'a dyn Fn(Rank) -> Option<Time>,
    /// The slot that the result waits for: the member that delays it, the kind of stall, and the time from which no
    /// part of it has arrived.
    pub(crate) waits: Option<(Rank, Stall, Time)>,
}

impl Suspicion {
    pub(crate) fn new(members: usize, now: Time) -> Self {
        let watch = |_| Watch::new(now);
        Self { watches: (0..members).map(watch).collect(), checked_at: now, findings: Findings::default() }
    }

    /// Notes a frame of a member.
    pub(crate) fn heard(&mut self, rank: Rank, now: Time) {
        self.watches[rank.at()].heard_at = now;
    }

    /// Notes datagrams of a member after some time.
    pub(crate) fn alive(&mut self, rank: Rank, since: Time) {
        let watch = &mut self.watches[rank.at()];
        watch.alive_at = watch.alive_at.max(since);
    }

    /// The other members without a frame for this time.
    pub(crate) fn unheard_for(&self, time: Duration, me: Rank, now: Time) -> impl Iterator<Item = Rank> {
        let others = self.watches.iter().enumerate().filter(move |(at, _)| *at != me.at());
        others.filter(move |(_, watch)| now.since(watch.heard_at) > time).map(|(at, _)| Rank(at as u16))
    }

    pub(crate) fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Checks all others; true if there is a new finding.
    pub(crate) fn check(&mut self, seen: &Observation<'_>, now: Time) -> bool {
        if now.since(self.checked_at) > seen.heartbeat * LATE_HEARTBEATS {
            // A node that was stopped itself does not know which peers were silent meanwhile.
            self.watches.iter_mut().for_each(|watch| *watch = Watch::new(now));
        }
        self.checked_at = now;
        let before = (self.findings.down.len(), self.findings.stalled.len());
        for at in (0..self.watches.len()).filter(|&at| at != seen.own.at()) {
            let (rank, limits) = (Rank(at as u16), seen.limits[at]);
            let watch = &mut self.watches[at];
            if watch.silent_for(&limits, now) > limits.silence && !self.findings.down.contains(&rank) {
                self.findings.down.push(rank);
            }
            let (due, confirmed) = (seen.confirmed)(rank);
            watch.unconfirmed = match watch.unconfirmed {
                _ if confirmed >= due => None,
                Some((at, since)) if at == confirmed => Some((at, since)),
                _ => Some((confirmed, now)),
            };
            let since = watch.unconfirmed.map(|(_, since)| (seen.taken_at)(rank).map_or(since, |at| at.max(since)));
            if since.is_some_and(|since| now.since(since) > limits.stall) {
                self.stalls(rank, Stall::Unconfirmed);
            }
        }
        // Only its owner knows whose confirmation an approval waits for: it may be the slowest member.
        let slowest = seen.limits.iter().map(|limits| limits.stall).max().unwrap_or_default();
        let overdue = |since: &Time| now.since(*since) > slowest;
        let counts = |rank: Rank, stall: Stall| rank != seen.own || stall == Stall::Unsynced;
        if let Some((rank, stall, _)) =
            seen.waits.filter(|(rank, stall, since)| counts(*rank, *stall) && overdue(since))
        {
            self.stalls(rank, stall);
        }
        before != (self.findings.down.len(), self.findings.stalled.len())
    }

    /// The members without a frame for longer than half of their allowed silence.
    pub(crate) fn quiet(&self, me: Rank, limits: &[Limits], now: Time) -> Vec<Rank> {
        let is_quiet = |at: &usize| self.watches[*at].silent_for(&limits[*at], now) > limits[*at].silence / 2;
        (0..self.watches.len()).filter(|&at| at != me.at()).filter(is_quiet).map(|at| Rank(at as u16)).collect()
    }

    /// Drops findings that have healed, and all stalls.
    pub(crate) fn find_again(&mut self, me: Rank, limits: &[Limits], now: Time) {
        let silent = |at: &usize| self.watches[*at].silent_for(&limits[*at], now) > limits[*at].silence;
        let others = (0..self.watches.len()).filter(|&at| at != me.at());
        self.findings.down = others.filter(silent).map(|at| Rank(at as u16)).collect();
        self.findings.stalled.clear();
    }

    /// Adds a stall: at most one finding of each kind against each member.
    fn stalls(&mut self, rank: Rank, stall: Stall) {
        let same_kind = |found: &Stall| core::mem::discriminant(found) == core::mem::discriminant(&stall);
        if !self.findings.stalled.iter().any(|(found, kind)| *found == rank && same_kind(kind)) {
            self.findings.stalled.push((rank, stall));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { silence: Duration::from_millis(300), stall: Duration::from_secs(2) };

    /// The milliseconds after which a member counts as failed that sends nothing, or datagrams without a frame up to a
    /// time.
    fn down_after(datagrams_until_ms: u64) -> u64 {
        let at = |ms| Time(1) + Duration::from_millis(ms);
        let mut suspicion = Suspicion::new(2, at(0));
        let seen = Observation {
            own: Rank(0),
            heartbeat: Duration::from_millis(50),
            limits: &[LIMITS, LIMITS],
            confirmed: &|_| (Round(0), Round(0)),
            taken_at: &|_| None,
            waits: None,
        };
        (1..)
            .map(|tick| tick * 50)
            .find(|&ms| {
                let is_quiet = suspicion.unheard_for(Duration::from_millis(100), Rank(0), at(ms)).next().is_some();
                if is_quiet && ms <= datagrams_until_ms {
                    suspicion.alive(Rank(1), at(ms - 20));
                }
                suspicion.check(&seen, at(ms))
            })
            .unwrap()
    }

    #[test]
    fn datagrams_without_a_frame_are_a_sign_of_life_up_to_the_time_of_a_stall() {
        assert_eq!(down_after(0), 350);
        assert_eq!(down_after(1_000), 1_300, "300 ms after the last datagram");
        assert_eq!(down_after(10_000), 2_050);
    }
}
