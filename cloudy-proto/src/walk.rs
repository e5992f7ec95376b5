//! The cursor walk: the only way into a result (`protocol.md` §3.4).

use std::collections::{BTreeMap, VecDeque};

use crate::digest::{Checkpoint, Digest, ResultBase, ResultDigest};
use crate::id::{Incarnation, Index, NodeId, Rank, Round, Seq, ViewId};
use crate::io::Entry;
use crate::lane::{Held, Lane};
use crate::rules::{Rule, Rules};
use crate::slot::Batch;
use crate::stored::{StoredBase, StoredEntry};
use crate::view::{InstalledView, Place};

/// The position of the walk through one view's slots.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    cursor: Place,
}

impl Walk {
    /// One that has passed a slot.
    pub(crate) fn at(cursor: Place) -> Self {
        Self { cursor }
    }

    /// The slot that the walk waits at.
    pub(crate) fn cursor(&self) -> Place {
        self.cursor
    }

    /// Passes slots known to be skipped, and takes the next approved message; none if it has to wait.
    #[inline]
    pub(crate) fn step(&mut self, lanes: &mut [Lane], rules: Rules) -> Option<(Rank, Held)> {
        let at_cursor = &lanes[self.cursor.rank.at()];
        let waits = at_cursor.first_open() == self.cursor.round && at_cursor.first_approved().is_none();
        if waits && rules.holds(Rule::CursorWaitsForUnknown) {
            return None;
        }
        let places = lanes.iter().enumerate().map(|(at, lane)| {
            let known_only = rules.holds(Rule::CursorWaitsForUnknown) || lane.held_slots() > 0;
            let round = if known_only { lane.first_open() } else { Round(u64::MAX) };
            Place { round, rank: Rank(at as u16) }
        });
        let place = places.min()?;
        debug_assert!(place >= self.cursor || !rules.holds(Rule::CursorWaitsForUnknown), "the cursor never goes back");
        self.cursor = place;
        let lane = &mut lanes[place.rank.at()];
        lane.first_approved()?;
        lane.pop().map(|held| (place.rank, held))
    }
}

/// Checkpoints from which the result can be carried on: far more than lie between what is delivered and what an
/// application has applied.
const BASES_MAX: usize = 16;

/// The description of a result without its payloads: length, digest, and the last number of each run in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResultState {
    index: Index,
    /// Its size on a disk from its beginning on.
    bytes: u64,
    digest: ResultDigest,
    /// The last view that has begun in it: at each view's first index there is a checkpoint, also for a node that fetches
    /// (`protocol.md` §8).
    view: Option<InstalledView>,
    bases: VecDeque<StoredBase>,
    last_seqs: BTreeMap<(NodeId, Incarnation), Seq>,
    /// It begins at a later index, so an incarnation's numbers before that are not known.
    lacks_numbers: bool,
}

impl ResultState {
    /// A state that begins at a later index, without the earlier entries: its digest differs from every other.
    pub(crate) fn beginning_at(index: Index) -> Self {
        let before = Index(index.0.saturating_sub(1));
        let lacks_numbers = before > Index(0);
        Self { index: before, digest: ResultDigest::after(before), lacks_numbers, ..Self::default() }
    }

    /// A digest that continues from a checkpoint.
    pub(crate) fn resumed(from: &StoredBase) -> Self {
        let base = &from.base;
        Self {
            index: from.index(),
            bytes: from.bytes_before,
            digest: ResultDigest::resumed(base),
            view: base.view.clone(),
            bases: VecDeque::from([from.clone()]),
            last_seqs: base.last_numbers.clone(),
            lacks_numbers: false,
        }
    }

    /// The newest base from which it can be carried on, if there is any.
    pub(crate) fn newest_base(&self) -> Option<&StoredBase> {
        self.bases.back()
    }

    /// Its size on a disk from its beginning on, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest base at or before an index; none if all that are known come later. From its beginning a result can
    /// always be carried on.
    pub(crate) fn base_before(&self, index: Index) -> Option<StoredBase> {
        let known = self.bases.iter().rev().find(|kept| kept.index() <= index).cloned();
        let all_known = self.bases.len() < BASES_MAX;
        let start = || StoredBase { first_index: Index(1), ..StoredBase::default() };
        known.or_else(|| all_known.then(start))
    }

    fn keep_base(&mut self, kept: StoredBase) {
        if self.bases.len() == BASES_MAX {
            self.bases.pop_front();
        }
        self.bases.push_back(kept);
    }

    /// Its length.
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    /// The last view that has begun in it.
    pub(crate) fn view(&self) -> Option<&InstalledView> {
        self.view.as_ref()
    }

    /// Its id; zero for none.
    pub(crate) fn view_id(&self) -> ViewId {
        self.view.as_ref().map_or(ViewId(0), InstalledView::id)
    }

    /// A view begins: what is appended next was approved in it. False if it has begun already.
    pub(crate) fn begin_view(&mut self, view: &InstalledView) -> bool {
        if view.id() <= self.view_id() {
            return false;
        }
        // A base at this index has nothing of what follows.
        self.checkpoint();
        self.digest.begin_view(&view.view);
        self.view = Some(view.clone());
        true
    }

    /// Appends what is not in it yet; none if all of it is.
    pub(crate) fn append(
        &mut self,
        view: ViewId,
        origin: NodeId,
        incarnation: Incarnation,
        batch: Batch,
        slot: Option<(Rank, Round)>,
        rules: Rules,
    ) -> Option<Entry> {
        let mut last = self.last_seq(origin, incarnation);
        if !rules.holds(Rule::NumbersAreOfAnIncarnation) {
            let of_origin = self.last_seqs.iter().filter(|((known, _), _)| *known == origin);
            last = of_origin.map(|(_, seq)| *seq).max().unwrap_or_default();
        }
        let batch = match last.0.checked_sub(batch.first_seq.0) {
            Some(known) if rules.holds(Rule::Deduplicated) => {
                let known = u32::try_from(known + 1).unwrap_or(u32::MAX);
                if known >= batch.count {
                    return None;
                }
                batch.without_first(known)
            }
            _ => batch,
        };
        self.last_seqs.insert((origin, incarnation), batch.last_seq());
        let checkpoints = self.digest.append(origin, incarnation, &batch);
        let first_index = self.index.next();
        self.index = Index(self.index.0 + u64::from(batch.count));
        let bytes_before = self.bytes;
        self.bytes += StoredEntry::kept_bytes(batch.body.len());
        for checkpoint in checkpoints {
            let last = Seq(batch.first_seq.0 + (checkpoint.index.0 - first_index.0));
            let mut last_numbers = self.last_seqs.clone();
            last_numbers.insert((origin, incarnation), last);
            let run = Some((origin, incarnation, last.next()));
            let base = ResultBase { checkpoint, view: self.view.clone(), run, last_numbers };
            let (rank, round) = slot.unwrap_or_default();
            let slot = Some((view, round, rank));
            self.keep_base(StoredBase { base, first_index, slot, ends: None, bytes_before });
        }
        Some(Entry { first_index, view, origin, incarnation, batch })
    }

    /// The last number of a run in the result.
    pub(crate) fn last_seq(&self, origin: NodeId, incarnation: Incarnation) -> Seq {
        self.last_seqs.get(&(origin, incarnation)).copied().unwrap_or_default()
    }

    pub(crate) fn last_seqs(&self) -> &BTreeMap<(NodeId, Incarnation), Seq> {
        &self.last_seqs
    }

    /// No number of an incarnation in it is missing: it begins with index 1, or with the numbers before its beginning.
    pub(crate) fn knows_all_numbers(&self) -> bool {
        !self.lacks_numbers
    }

    pub(crate) fn latest_checkpoint(&self) -> Checkpoint {
        self.digest.latest()
    }

    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        let before = self.digest.latest();
        let checkpoint = self.digest.checkpoint();
        if checkpoint.index > before.index {
            let (view, run, last_numbers) = (self.view.clone(), self.digest.run(), self.last_seqs.clone());
            // Later slots are of later views.
            let slot = Some((self.view_id().next(), Round(0), Rank(0)));
            let base = ResultBase { checkpoint, view, run, last_numbers };
            let (first_index, bytes_before) = (self.index.next(), self.bytes);
            self.keep_base(StoredBase { base, first_index, slot, ends: None, bytes_before });
        }
        checkpoint
    }

    pub(crate) fn digest_at(&self, index: Index) -> Option<Digest> {
        self.digest.at(index)
    }

    /// The end of the result before an index. The digest is zero if that is not kept.
    pub(crate) fn end_before(&self, first: Index) -> Checkpoint {
        let index = Index(first.0.saturating_sub(1));
        Checkpoint { index, digest: self.digest_at(index).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;

    use super::*;
    use crate::config::Parameters;
    use crate::slot::push_payload;
    use crate::view::View;

    #[test]
    fn a_result_continues_from_a_base_at_the_first_index_of_a_view_without_loss() {
        let batch = |first, count: u32| {
            let mut body = BytesMut::new();
            (0..count).for_each(|_| push_payload(&mut body, b"x"));
            Batch { first_seq: Seq(first), count, body: body.freeze() }
        };
        let (node, run, rules) = (NodeId([1; 32]), Incarnation(2), Rules::default());
        let append = |result: &mut ResultState, view, batch| {
            result.append(ViewId(view), node, run, batch, None, rules).map(|entry| entry.first_index)
        };
        let view = |id, first| {
            let view = View { id: ViewId(id), ring: Vec::new(), parameters: Parameters::default(), last: false };
            InstalledView { first: Index(first), view: Arc::new(view) }
        };
        let mut whole = ResultState::default();
        assert!(whole.begin_view(&view(1, 1)) && !whole.begin_view(&view(1, 1)));
        assert_eq!(append(&mut whole, 1, batch(1, 2)), Some(Index(1)));
        assert!(whole.begin_view(&view(2, 3)));
        assert_eq!(append(&mut whole, 2, batch(3, 3)), Some(Index(3)));
        let kept = whole.base_before(Index(5)).unwrap_or_default();
        assert_eq!((kept.base.checkpoint.index, kept.base.last_numbers[&(node, run)]), (Index(2), Seq(2)));
        let mut resumed = ResultState::resumed(&kept);
        assert_eq!(resumed.view(), Some(&view(1, 1)), "the view in force there");
        let mut other = resumed.clone();
        assert!(resumed.begin_view(&view(2, 3)) && other.begin_view(&view(3, 3)));
        assert_eq!(append(&mut resumed, 2, batch(1, 2)), None, "that is in it");
        assert_eq!(append(&mut resumed, 2, batch(3, 3)), Some(Index(3)));
        assert_eq!(append(&mut other, 3, batch(3, 3)), Some(Index(3)));
        assert_eq!(resumed.checkpoint(), whole.checkpoint());
        assert_ne!(other.checkpoint(), whole.checkpoint(), "a view is a part of the digest");
    }
}
