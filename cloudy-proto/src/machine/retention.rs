//! `Disk`: the kept part of the result, and the checkpoints from which it can be read (`protocol.md` §7.4).

use crate::id::Index;
use crate::limits::STORED_BASES_MAX;
use crate::stored::StoredBase;

/// The part of the result on a node's disk.
#[derive(Debug)]
pub(crate) struct Retention {
    bytes_max: Option<u64>,
    /// The index from which on the result is stored, or about to be.
    stored_from: Index,
    /// The cost of the dropped part.
    bytes_before: u64,
    /// The newest checkpoint on the disk.
    newest: Index,
    /// The positions at which the stored part may begin, in order.
    bases: Vec<StoredBase>,
}

impl Retention {
    /// Of a result that begins at an index.
    pub(super) fn new(bytes_max: Option<u64>, stored_from: Index) -> Self {
        Self { bytes_max, stored_from, bytes_before: 0, newest: Index(0), bases: Vec::new() }
    }

    /// Notes that the stored result begins here.
    pub(super) fn begin_at(&mut self, base: &StoredBase) {
        self.stored_from = base.index().next();
        self.bytes_before = base.bytes_before;
        self.newest = self.newest.max(base.index());
        self.bases.retain(|known| known.index() > base.index());
    }

    /// The first index that is stored, or about to be.
    pub(super) fn stored_from(&self) -> Index {
        self.stored_from
    }

    /// The newest checkpoint on the disk.
    pub(super) fn newest(&self) -> Index {
        self.newest
    }

    /// Adds a position at which it may begin. Returns the one that it replaces, if there are too many.
    pub(super) fn add(&mut self, base: StoredBase) -> Option<Index> {
        self.newest = base.index();
        let full = self.bases.len() >= STORED_BASES_MAX;
        let gone = full.then(|| self.least_missed(base.bytes_before)).flatten().map(|at| self.bases.remove(at).index());
        self.bases.push(base);
        gone
    }

    /// The position whose removal leaves the smallest gap, relative to its distance: so there is always one near any
    /// position.
    fn least_missed(&self, end_bytes: u64) -> Option<usize> {
        let costs = self.bases.windows(3).map(|bases| {
            let (from, to) = (bases[0].bytes_before, bases[2].bytes_before);
            (u128::from(to.saturating_sub(from)), u128::from(end_bytes.saturating_sub(from)) + 1)
        });
        let least = costs
            .enumerate()
            .min_by(|(_, (gap, back)), (_, (other_gap, other_back))| (gap * other_back).cmp(&(other_gap * back)));
        least.map(|(at, _)| at + 1)
    }

    fn exceeds(&self, end_bytes: u64, bytes_before: u64) -> bool {
        self.bytes_max.is_some_and(|bytes_max| end_bytes.saturating_sub(bytes_before) > bytes_max)
    }

    /// Whether the stored result is longer than its maximum.
    pub(super) fn is_too_long(&self, end_bytes: u64) -> bool {
        self.exceeds(end_bytes, self.bytes_before)
    }

    /// Its new beginning then: as early as the maximum allows, and not after an index.
    pub(super) fn new_beginning(&self, end_bytes: u64, held_by_all: Index) -> Option<&StoredBase> {
        let possible = self.bases.iter().take_while(|base| base.index() <= held_by_all);
        let earliest = possible.clone().find(|base| !self.exceeds(end_bytes, base.bytes_before));
        earliest.or_else(|| possible.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints at these bytes.
    fn with(bytes: impl IntoIterator<Item = u64>, bytes_max: u64) -> Retention {
        let mut retention = Retention::new(Some(bytes_max), Index(1));
        for bytes_before in bytes {
            let mut base = StoredBase { bytes_before, ..StoredBase::default() };
            base.base.checkpoint.index = Index(bytes_before);
            retention.add(base);
        }
        retention
    }

    #[test]
    fn of_any_number_of_checkpoints_few_are_kept_and_one_is_near_wherever_one_looks() {
        let retention = with((1..10_000).map(|at| at * 100), 0);
        assert_eq!(retention.bases.len(), STORED_BASES_MAX);
        for back in [100, 1_000, 5_000, 20_000, 100_000, 500_000] {
            let from = 999_900 - back;
            let near =
                retention.bases.iter().rfind(|base| base.bytes_before <= from).map_or(0, |base| base.bytes_before);
            assert!(999_900 - near <= 2 * back, "{back}: {near}");
        }
    }

    #[test]
    fn entries_over_the_bound_are_dropped_unless_a_member_may_lack_them() {
        let begins =
            |retention: &Retention, end, held| retention.new_beginning(end, Index(held)).map(|base| base.bytes_before);
        let retention = with([100, 200, 300, 400], 250);
        assert!(!retention.is_too_long(250) && retention.is_too_long(251));
        assert_eq!(begins(&retention, 450, 400), Some(200));
        assert_eq!(begins(&retention, 451, 400), Some(300));
        assert_eq!(begins(&retention, 451, 250), Some(200), "a member may miss what comes after");
        assert_eq!(begins(&retention, 451, 99), None);
        assert_eq!(begins(&retention, 900, 900), Some(400), "what follows the newest checkpoint stays");
    }
}
