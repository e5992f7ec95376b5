//! `Disk`: records that were not output yet.

use crate::config::Durability;
use crate::id::{Rank, ViewId};
use crate::lane::Held;
use crate::slot::Slot;
use crate::stored::Record;

/// Records in the order in which they become durable; always empty with `Memory`.
#[derive(Debug)]
pub(crate) struct Records {
    durability: Durability,
    waiting: Vec<Record>,
}

impl Records {
    pub(crate) fn new(durability: Durability) -> Self {
        Self { durability, waiting: Vec::new() }
    }

    /// Whether records are stored at all.
    #[inline]
    pub(crate) fn are_stored(&self) -> bool {
        self.durability == Durability::Disk
    }

    #[inline]
    pub(crate) fn keep(&mut self, record: Record) {
        if self.are_stored() {
            self.waiting.push(record);
        }
    }

    /// Keeps a received message slot.
    #[inline]
    pub(crate) fn keep_slot(&mut self, view: ViewId, lane: Rank, held: Option<&Held>) {
        if self.are_stored()
            && let Some(Held { round, prev, batch }) = held
        {
            let slot = Slot { round: *round, prev: *prev, batch: batch.clone() };
            self.waiting.push(Record::Slot { view, lane, slot });
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn waiting(&self) -> &[Record] {
        &self.waiting
    }

    /// Takes all of them for the output.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        core::mem::take(&mut self.waiting)
    }
}
