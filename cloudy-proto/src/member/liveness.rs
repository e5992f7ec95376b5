//! Which members live and move the result on, as this member sees it (`protocol.md` §6.1).

use core::time::Duration;

use crate::id::Rank;
use crate::io::WaitCause;
use crate::member::Member;
use crate::member::progress::Progress;
use crate::time::Time;
use crate::view::Place;
use crate::view_change::{Limits, Observation, Suspicion};
use crate::wire::{Findings, Stall};

/// The signs of life of the other members, and the place at which the result waits.
#[derive(Debug)]
pub(super) struct Liveness {
    suspicion: Suspicion,
    pub(super) progress: Progress,
    /// The place at which the walk waits, and the time since when a message slot has waited behind it.
    waits: (Place, Time),
    /// A message slot waits.
    lags: bool,
}

impl Liveness {
    pub(super) fn new(members: usize, now: Time) -> Self {
        Self {
            suspicion: Suspicion::new(members, now),
            progress: Progress::new(members),
            waits: (Place::default(), now),
            lags: false,
        }
    }

    /// The walk is at a place, and a message slot waits behind that place, or none does.
    pub(super) fn on_walk(&mut self, cursor: Place, lags: bool, now: Time) {
        let lagged = core::mem::replace(&mut self.lags, lags);
        if cursor != self.waits.0 || !lagged {
            self.waits = (cursor, now);
        }
    }
}

impl Member {
    /// Notes a frame of a member.
    pub(crate) fn heard(&mut self, rank: Rank, now: Time) {
        self.liveness.suspicion.heard(rank, now);
    }

    /// Notes datagrams of a member after some time.
    pub(crate) fn alive(&mut self, rank: Rank, since: Time) {
        self.liveness.suspicion.alive(rank, since);
    }

    /// The other members from which no frame has come for longer than a time.
    pub(crate) fn unheard_for(&self, time: Duration, now: Time) -> impl Iterator<Item = Rank> {
        self.liveness.suspicion.unheard_for(time, self.rank, now)
    }

    /// Notes bytes of an unfinished slot of a lane.
    pub(crate) fn arrive(&mut self, lane: Rank, bytes: u64, now: Time) {
        self.liveness.progress.arrive(lane, bytes, now);
    }

    /// §6.3: forgets findings that do not hold at this moment. Of a wedged view no stall can be found.
    pub(crate) fn find_again(&mut self, limits: &[Limits], now: Time) {
        self.liveness.suspicion.find_again(self.rank, limits, now);
    }

    /// §6.2: the members without a frame for a while.
    pub(crate) fn quiet(&self, limits: &[Limits], now: Time) -> Vec<Rank> {
        self.liveness.suspicion.quiet(self.rank, limits, now)
    }

    /// The findings against others in this view.
    pub(crate) fn findings(&self) -> &Findings {
        self.liveness.suspicion.findings()
    }

    /// §6.1: finds members that have failed or stalled; true if there is something new to report.
    pub(crate) fn suspect(&mut self, limits: &[Limits], now: Time) -> bool {
        let cursor = self.walk.cursor();
        let own_end = self.lanes[self.rank.at()].frontier();
        let reached = if self.rank <= cursor.rank { cursor.round.next() } else { cursor.round };
        let pending = &self.pending;
        let confirmed = |rank: Rank| (reached.min(own_end), pending.confirmed(rank));
        let confirmed_here = self.lanes[cursor.rank.at()].confirmed() > cursor.round;
        let stall = match self.wait_cause(cursor) {
            WaitCause::Slot => Some(Stall::Missing(cursor)),
            WaitCause::OwnDisk => Some(Stall::Unsynced),
            WaitCause::Approval | WaitCause::Confirmation => confirmed_here.then_some(Stall::Unapproved(cursor)),
        };
        let who = if stall == Some(Stall::Unsynced) { self.rank } else { cursor.rank };
        let moved_at = self.liveness.progress.moved_at().filter(|_| stall != Some(Stall::Unsynced));
        let since = moved_at.map_or(self.liveness.waits.1, |at| at.max(self.liveness.waits.1));
        let waits = stall.filter(|_| self.result_lags() && self.is_complete()).map(|stall| (who, stall, since));
        let (heartbeat, progress) = (self.view.parameters.heartbeat, &self.liveness.progress);
        let taken_at = |rank: Rank| progress.taken_at(rank);
        let seen = Observation { own: self.rank, heartbeat, limits, confirmed: &confirmed, taken_at: &taken_at, waits };
        self.liveness.suspicion.check(&seen, now)
    }

    /// The member that the result waits for at its cursor, what is missing, and since when; none if every known message is in
    /// the result.
    pub(crate) fn waits_at(&self) -> Option<(Rank, WaitCause, Time)> {
        let cursor = self.walk.cursor();
        let cause = self.wait_cause(cursor);
        let rank = match cause {
            WaitCause::OwnDisk => self.rank,
            WaitCause::Slot | WaitCause::Approval => cursor.rank,
            WaitCause::Confirmation => {
                let unconfirmed = |rank: &Rank| *rank != self.rank && self.pending.confirmed(*rank) <= cursor.round;
                self.view.ranks().find(unconfirmed).unwrap_or(self.rank)
            }
        };
        self.result_lags().then_some((rank, cause, self.liveness.waits.1))
    }

    fn wait_cause(&self, cursor: Place) -> WaitCause {
        let lane = &self.lanes[cursor.rank.at()];
        if lane.frontier() <= cursor.round {
            WaitCause::Slot
        } else if lane.stored() <= cursor.round {
            WaitCause::OwnDisk
        } else if cursor.rank == self.rank {
            WaitCause::Confirmation
        } else {
            WaitCause::Approval
        }
    }

    pub(super) fn result_lags(&self) -> bool {
        self.lanes.iter().any(|lane| lane.held_slots() > 0)
    }
}
