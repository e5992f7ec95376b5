//! Bytes of unfinished slots: a member or a link that moves the awaited slot is slow, and does not stall (`protocol.md`
//! §6.1).

use crate::id::Rank;
use crate::limits::PROGRESS_BYTES_MIN;
use crate::time::Time;

/// A count that only grows, and the time at which it last grew by [`PROGRESS_BYTES_MIN`].
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    bytes: u64,
    marked: u64,
    at: Option<Time>,
}

impl Moved {
    fn raise(&mut self, bytes: u64, now: Time) {
        self.bytes = self.bytes.max(bytes);
        if self.bytes - self.marked >= PROGRESS_BYTES_MIN {
            (self.marked, self.at) = (self.bytes, Some(now));
        }
    }
}

/// The moved bytes in one view, as one member knows them.
#[derive(Debug)]
pub(super) struct Progress {
    /// By lane: bytes that arrived here.
    here: Vec<Moved>,
    /// By member: bytes of the own lane that arrived there.
    there: Vec<Moved>,
    /// By lane: bytes that arrived at all its recipients together, by its owner's report.
    everywhere: Vec<Moved>,
}

impl Progress {
    pub(super) fn new(members: usize) -> Self {
        let none = || vec![Moved::default(); members];
        Self { here: none(), there: none(), everywhere: none() }
    }

    /// Notes bytes of a lane that arrived here.
    pub(super) fn arrive(&mut self, lane: Rank, bytes: u64, now: Time) {
        if let Some(moved) = self.here.get_mut(lane.at()) {
            moved.raise(moved.bytes.saturating_add(bytes), now);
        }
    }

    /// Handles a member's report: bytes of the own lane that arrived there, and bytes of its lane at all its
    /// recipients.
    pub(super) fn take(&mut self, from: Rank, (taken, everywhere): (u64, u64), now: Time) {
        self.there[from.at()].raise(taken, now);
        self.everywhere[from.at()].raise(everywhere, now);
    }

    /// The report to a member: bytes of its lane that arrived here, and bytes of the own lane at all recipients.
    pub(super) fn told_to(&self, to: Rank) -> (u64, u64) {
        let everywhere = self.there.iter().fold(0_u64, |sum, moved| sum.saturating_add(moved.bytes));
        (self.here[to.at()].bytes, everywhere)
    }

    /// The time at which a member last received a part of the own lane.
    pub(super) fn taken_at(&self, by: Rank) -> Option<Time> {
        self.there[by.at()].at
    }

    /// The time at which a part of any slot last arrived at any member. A member whose skip is awaited may still be
    /// receiving the slot that it skips for, and windows bound the other slots that can arrive meanwhile.
    pub(super) fn moved_at(&self) -> Option<Time> {
        let all = [&self.here, &self.there, &self.everywhere].into_iter().flatten();
        all.filter_map(|moved| moved.at).max()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a_part_of_a_slot_counts_once_it_is_large_enough() {
        let (mut progress, lane) = (Progress::new(3), Rank(1));
        let at = |ms| Time(1) + Duration::from_millis(ms);
        progress.arrive(lane, PROGRESS_BYTES_MIN - 1, at(1));
        assert_eq!(progress.moved_at(), None);
        progress.arrive(lane, 1, at(2));
        progress.arrive(lane, 1, at(3));
        assert_eq!(progress.moved_at(), Some(at(2)));
        progress.take(lane, (0, 2 * PROGRESS_BYTES_MIN), at(4));
        assert_eq!((progress.moved_at(), progress.taken_at(lane)), (Some(at(4)), None));
        progress.take(lane, (PROGRESS_BYTES_MIN, 0), at(5));
        progress.take(lane, (0, 0), at(6));
        assert_eq!(progress.taken_at(lane), Some(at(5)), "a count never sinks");
        assert_eq!(progress.told_to(lane), (PROGRESS_BYTES_MIN + 1, PROGRESS_BYTES_MIN));
        progress.arrive(Rank(3), 1, at(7));
    }
}
