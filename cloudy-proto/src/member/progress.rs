//! Bytes of slots that are not finished: a member or a link that moves the slot waited for is slow, and does not stall
//! (`protocol.md` §6.1).

use crate::id::Rank;
use crate::limits::PROGRESS_BYTES_MIN;
use crate::time::Time;

/// A count that only grows, and when it last grew by [`PROGRESS_BYTES_MIN`].
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

/// What one member knows of the bytes that move in one view.
#[derive(Debug)]
pub(super) struct Progress {
    /// By lane: what has come here.
    here: Vec<Moved>,
    /// By member: what has come there of the own lane.
    there: Vec<Moved>,
    /// By lane: what has come to its recipients together, as its owner says.
    everywhere: Vec<Moved>,
}

impl Progress {
    pub(super) fn new(members: usize) -> Self {
        let none = || vec![Moved::default(); members];
        Self { here: none(), there: none(), everywhere: none() }
    }

    /// So many more bytes of a lane have come here.
    pub(super) fn arrive(&mut self, lane: Rank, bytes: u64, now: Time) {
        if let Some(moved) = self.here.get_mut(lane.at()) {
            moved.raise(moved.bytes.saturating_add(bytes), now);
        }
    }

    /// A member says what has come there of the own lane, and everywhere of its own.
    pub(super) fn take(&mut self, from: Rank, (taken, everywhere): (u64, u64), now: Time) {
        self.there[from.at()].raise(taken, now);
        self.everywhere[from.at()].raise(everywhere, now);
    }

    /// What to say to a member: what has come here of its lane, and everywhere of the own.
    pub(super) fn told_to(&self, to: Rank) -> (u64, u64) {
        let everywhere = self.there.iter().fold(0_u64, |sum, moved| sum.saturating_add(moved.bytes));
        (self.here[to.at()].bytes, everywhere)
    }

    /// When a member last took a part of the own lane.
    pub(super) fn taken_at(&self, by: Rank) -> Option<Time> {
        self.there[by.at()].at
    }

    /// When a part of any slot last came to any member. A member whose skip is waited for may still be receiving the slot
    /// that it skips for, and windows bound what other slots can come meanwhile.
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
