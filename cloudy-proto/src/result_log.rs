//! The result at this node: its state, its newest entries in memory, and the part that the application knows.

use crate::catch_up::Retained;
use crate::digest::Checkpoint;
use crate::id::Index;
use crate::io::{ApprovedItem, Entry};
use crate::stored::StoredBase;
use crate::view::InstalledView;
use crate::walk::ResultState;

/// The result at this node.
#[derive(Debug)]
pub(crate) struct ResultLog {
    state: ResultState,
    retained: Retained,
    /// The application knows everything up to here from a snapshot.
    restored_to: Index,
}

impl ResultLog {
    /// A result that begins at an index, and retains this number of bytes in memory.
    pub(crate) fn new(index: Index, retain_bytes: u64) -> Self {
        Self { state: ResultState::beginning_at(index), retained: Retained::new(retain_bytes), restored_to: Index(0) }
    }

    #[inline]
    pub(crate) fn state(&self) -> &ResultState {
        &self.state
    }

    #[inline]
    pub(crate) fn state_mut(&mut self) -> &mut ResultState {
        &mut self.state
    }

    /// The newest entries, for nodes that fetch.
    #[inline]
    pub(crate) fn retained(&self) -> &Retained {
        &self.retained
    }

    /// Notes that transfers still have to send the result from an index on.
    pub(crate) fn need(&mut self, from: Option<Index>) {
        self.retained.need(from);
    }

    /// Makes a checkpoint of the end of the result.
    pub(crate) fn checkpoint(&mut self) -> Checkpoint {
        self.state.checkpoint()
    }

    /// The index of the snapshot that the application has, or zero.
    #[inline]
    pub(crate) fn restored_to(&self) -> Index {
        self.restored_to
    }

    /// Notes a snapshot for the application.
    pub(crate) fn on_restored(&mut self, index: Index) {
        self.restored_to = index;
    }

    /// Continues the result from a base; the part before it is dropped.
    pub(crate) fn resume_at(&mut self, base: &StoredBase) {
        self.state = ResultState::resumed(base);
        self.retained.restart(base.base.view.clone());
    }

    /// Continues the result after the stored part of an earlier incarnation.
    pub(crate) fn resume_from(&mut self, state: &ResultState) {
        self.state.clone_from(state);
        self.retained.restart(state.view().cloned());
    }

    /// Releases the memory of entries for other nodes.
    pub(crate) fn forget_retained(&mut self) {
        self.retained.restart(None);
    }

    /// The view in force at an index, as far back as it is known.
    pub(crate) fn view_at(&self, index: Index) -> Option<&InstalledView> {
        self.retained.view_at(index)
    }

    /// Keeps a view that begins. Gives it if the application does not know it from a snapshot.
    pub(crate) fn retain_view(&mut self, view: InstalledView) -> Option<InstalledView> {
        if view.first == self.state.index().next() {
            self.retained.push(ApprovedItem::View(view.clone()));
        } else {
            // The result begins here, in the middle of the view.
            self.retained.restart(Some(view.clone()));
        }
        (view.first > self.restored_to).then_some(view)
    }

    /// Retains an appended entry. Returns the part of it that the application does not know.
    #[inline]
    pub(crate) fn retain(&mut self, entry: Entry) -> Option<Entry> {
        self.retained.push(ApprovedItem::Batch(entry.clone()));
        let known = (self.restored_to.0 + 1).saturating_sub(entry.first_index.0);
        if known == 0 {
            Some(entry)
        } else if known < u64::from(entry.batch.count) {
            let first_index = Index(entry.first_index.0 + known);
            let batch = entry.batch.without_first(known as u32);
            Some(Entry { first_index, batch, ..entry })
        } else {
            None
        }
    }
}
