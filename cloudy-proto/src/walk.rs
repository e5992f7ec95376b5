//! The cursor walk: the only way into a result (`protocol.md` §3.4).

use std::collections::BTreeMap;

use crate::digest::{Checkpoint, Digest, ResultDigest};
use crate::id::{Incarnation, Index, NodeId, Rank, Round, Seq, ViewId};
use crate::io::Entry;
use crate::lane::{Held, Lane};
use crate::rules::{Rule, Rules};
use crate::slot::Batch;
use crate::view::Place;

/// Where the walk through one view's slots stands.
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
    pub(crate) fn step(&mut self, lanes: &mut [Lane], rules: Rules) -> Option<(Rank, Held)> {
        let places = lanes.iter().enumerate().map(|(at, lane)| {
            let known_only = rules.hold(Rule::CursorWaitsForUnknown) || lane.held_slots() > 0;
            let round = if known_only { lane.first_open() } else { Round(u64::MAX) };
            Place { round, rank: Rank(at as u16) }
        });
        let place = places.min()?;
        debug_assert!(place >= self.cursor || !rules.hold(Rule::CursorWaitsForUnknown), "the cursor never goes back");
        self.cursor = place;
        let lane = &mut lanes[place.rank.at()];
        lane.first_approved()?;
        lane.pop().map(|held| (place.rank, held))
    }
}

/// What a result is, without its payloads: length, digest, and the last number of each run in it.
#[derive(Debug, Default)]
pub(crate) struct ResultState {
    index: Index,
    digest: ResultDigest,
    /// Of the last entry: at each view's first index there is a checkpoint, also for who fetches (`protocol.md` §8).
    view: ViewId,
    last_seqs: BTreeMap<(NodeId, Incarnation), Seq>,
}

impl ResultState {
    /// One that begins at a later index, without what comes before: its digest is nobody else's.
    pub(crate) fn beginning_at(index: Index) -> Self {
        let before = Index(index.0.saturating_sub(1));
        Self { index: before, digest: ResultDigest::after(before), ..Self::default() }
    }

    /// Its length.
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    /// Appends what is not in it yet; none if all of it is.
    pub(crate) fn append(
        &mut self,
        view: ViewId,
        origin: NodeId,
        incarnation: Incarnation,
        batch: Batch,
        rules: Rules,
    ) -> Option<Entry> {
        let last = self.last_seqs.entry((origin, incarnation)).or_default();
        let batch = match last.0.checked_sub(batch.first_seq.0) {
            Some(known) if rules.hold(Rule::Deduplicated) => {
                let known = u32::try_from(known + 1).unwrap_or(u32::MAX);
                if known >= batch.count {
                    return None;
                }
                batch.without_first(known)
            }
            _ => batch,
        };
        *last = batch.last_seq();
        if view > self.view {
            self.digest.checkpoint();
            self.view = view;
        }
        self.digest.append(origin, incarnation, &batch);
        let first_index = self.index.next();
        self.index = Index(self.index.0 + u64::from(batch.count));
        Some(Entry { first_index, view, origin, incarnation, batch })
    }

    /// The last number of a run in the result.
    pub(crate) fn last_seq(&self, origin: NodeId, incarnation: Incarnation) -> Seq {
        self.last_seqs.get(&(origin, incarnation)).copied().unwrap_or_default()
    }

    pub(crate) fn last_seqs(&self) -> &BTreeMap<(NodeId, Incarnation), Seq> {
        &self.last_seqs
    }

    pub(crate) fn latest_checkpoint(&self) -> Checkpoint {
        self.digest.latest()
    }

    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        self.digest.checkpoint()
    }

    pub(crate) fn digest_at(&self, index: Index) -> Option<Digest> {
        self.digest.at(index)
    }
}
