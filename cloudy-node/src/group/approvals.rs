//! Approvals of own broadcasts, kept as long as a receipt may need them.

use std::collections::{BTreeMap, VecDeque};

use cloudy_proto::{Approval, Index, NodeId, Seq, ViewId};

use std::time::Duration;

/// Maximum of approvals that are kept with the times of confirmations, for all readers (`protocol.md` §3.1).
pub(crate) const APPROVALS_KEPT_MAX: usize = 1_024;

/// The place of an approved broadcast in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: Index,
    pub(crate) view: ViewId,
    /// Empty if the confirmations are not kept.
    pub(crate) confirmed: Vec<(NodeId, Duration)>,
}

/// The newest approvals, and the older ones that a receipt may still need: memory grows only with the receipts that the
/// application holds.
#[derive(Debug, Default)]
pub(crate) struct Approvals {
    /// Oldest first.
    newest: VecDeque<Approval>,
    /// By first sequence number, without confirmations.
    older: BTreeMap<u64, Approval>,
    /// One bit for each sequence number with a receipt, by number / 64.
    awaited: BTreeMap<u64, u64>,
}

impl Approvals {
    /// Notes a receipt. Sequence numbers rise.
    pub(crate) fn expect(&mut self, seq: Seq) {
        let (word, bit) = place(seq.0);
        *self.awaited.entry(word).or_default() |= bit;
    }

    /// Notes that a receipt is dropped.
    pub(crate) fn release(&mut self, seq: Seq) {
        let (word, bit) = place(seq.0);
        if let Some(bits) = self.awaited.get_mut(&word) {
            *bits &= !bit;
            if *bits == 0 {
                self.awaited.remove(&word);
            }
        }
        let older = self.older.range(..=seq.0).next_back().map(|(first, approval)| (*first, end(approval)));
        if let Some((first, end)) = older.filter(|(_, end)| seq.0 < *end)
            && !self.is_awaited(first, end)
        {
            self.older.remove(&first);
        }
    }

    pub(crate) fn push(&mut self, approval: Approval) {
        self.newest.push_back(approval);
        if self.newest.len() <= APPROVALS_KEPT_MAX {
            return;
        }
        if let Some(oldest) = self.newest.pop_front()
            && self.is_awaited(oldest.first_seq.0, end(&oldest))
        {
            self.older.insert(oldest.first_seq.0, Approval { confirmed: Vec::new(), ..oldest });
        }
    }

    /// The place of a broadcast; none if a snapshot approved it, which has no indexes.
    pub(crate) fn find(&self, seq: Seq) -> Option<Found> {
        let at = self.newest.partition_point(|approval| end(approval) <= seq.0);
        let newest = self.newest.get(at).filter(|approval| approval.first_seq <= seq);
        let older = || self.older.range(..=seq.0).next_back().map(|(_, approval)| approval);
        let approval = newest.or_else(older).filter(|approval| seq.0 < end(approval))?;
        Some(Found {
            index: Index(approval.first_index.0 + (seq.0 - approval.first_seq.0)),
            view: approval.view,
            confirmed: approval.confirmed.clone(),
        })
    }

    /// Whether a receipt exists for a sequence number from `first` on, below `end`.
    fn is_awaited(&self, first: u64, end: u64) -> bool {
        self.awaited.range(first / 64..=end / 64).any(|(word, bits)| {
            let from = first.saturating_sub(word * 64).min(64);
            let to = end.saturating_sub(word * 64).min(64);
            let mask = |bits: u64| 1u64.checked_shl(bits as u32).map_or(u64::MAX, |bit| bit - 1);
            bits & mask(to) & !mask(from) != 0
        })
    }
}

/// The sequence number that follows the last one of an approval.
fn end(approval: &Approval) -> u64 {
    approval.first_seq.0 + u64::from(approval.count)
}

fn place(seq: u64) -> (u64, u64) {
    (seq / 64, 1 << (seq % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(first_seq: u64, count: u32) -> Approval {
        Approval {
            first_seq: Seq(first_seq),
            count,
            first_index: Index(first_seq * 10),
            view: ViewId(1),
            confirmed: vec![(NodeId([1; 32]), Duration::ZERO)],
        }
    }

    #[test]
    fn an_approval_is_kept_for_as_long_as_its_receipt_however_many_follow() {
        let mut approvals = Approvals::default();
        let slots = 3 * APPROVALS_KEPT_MAX as u64;
        (1..=3 * slots).for_each(|seq| approvals.expect(Seq(seq)));
        (0..slots).for_each(|slot| approvals.push(approval(slot * 3 + 1, 3)));
        for seq in 1..=3 * slots {
            let found = approvals.find(Seq(seq)).expect("its receipt exists");
            let first = (seq - 1) / 3 * 3 + 1;
            assert_eq!(found.index, Index(first * 10 + seq - first));
            approvals.release(Seq(seq));
        }
        assert!(approvals.older.is_empty() && approvals.awaited.is_empty(), "nothing is left behind");
    }

    #[test]
    fn an_approval_without_a_receipt_is_dropped() {
        let mut approvals = Approvals::default();
        let slots = 2 * APPROVALS_KEPT_MAX as u64;
        let kept = [64, 129, 700];
        kept.iter().for_each(|seq| approvals.expect(Seq(*seq)));
        (1..=slots).for_each(|seq| approvals.push(approval(seq, 1)));
        assert_eq!(approvals.older.keys().copied().collect::<Vec<_>>(), kept);
        assert_eq!(approvals.find(Seq(65)), None);
        approvals.release(Seq(129));
        assert_eq!(approvals.older.len(), 2);
        assert_eq!(approvals.find(Seq(slots)).map(|found| found.confirmed.len()), Some(1));
    }
}
