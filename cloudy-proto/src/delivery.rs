//! Where entries leave the protocol: result, retained part, and what the driver is told.

use core::time::Duration;
use std::collections::VecDeque;

use crate::catch_up::Retained;
use crate::config::Durability;
use crate::id::{Incarnation, Index, NodeId, Rank, Round, ViewId};
use crate::io::{Approval, Entry, Output};
use crate::lane::Held;
use crate::pending::Record;
use crate::rules::Rules;
use crate::slot::{Batch, Slot};
use crate::stored::{Record as Stored, StoredBody, StoredEntry};
use crate::view::View;
use crate::walk::ResultState;

/// The result and those who hear of it.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) me: NodeId,
    /// The run whose payloads are own ones.
    pub(crate) incarnation: Incarnation,
    pub(crate) result: ResultState,
    pub(crate) retained: Retained,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) rules: Rules,
    pub(crate) durability: Durability,
    /// The application knows everything up to here from a snapshot.
    pub(crate) restored_to: Index,
    /// `Disk`: from here on the result is stored, or about to be.
    pub(crate) stored_from: Index,
    /// `Disk`: what is to be stored, in order, and was not given out yet.
    pub(crate) records: Vec<Stored>,
}

/// An entry on its way into the result.
struct Entering {
    view: ViewId,
    from: (NodeId, Incarnation),
    batch: Batch,
    /// The slot that holds it; none if it was fetched.
    slot: Option<(Rank, Round)>,
    confirmed: Vec<(NodeId, Duration)>,
}

impl Delivery {
    /// Of a result that begins at an index.
    pub(crate) fn new(me: NodeId, index: Index, retain_bytes: u64, durability: Durability, rules: Rules) -> Self {
        Self {
            me,
            incarnation: Incarnation(0),
            result: ResultState::beginning_at(index),
            retained: Retained::new(retain_bytes),
            outputs: VecDeque::new(),
            rules,
            durability,
            restored_to: Index(0),
            stored_from: index,
            records: Vec::new(),
        }
    }

    /// `Disk`: puts a record behind those before.
    pub(crate) fn keep(&mut self, record: Stored) {
        if self.durability == Durability::Disk {
            self.records.push(record);
        }
    }

    /// A message slot was taken.
    pub(crate) fn keep_slot(&mut self, view: ViewId, lane: Rank, held: Option<&Held>) {
        if self.durability == Durability::Disk
            && let Some(Held { round, prev, batch }) = held
        {
            let slot = Slot { round: *round, prev: *prev, batch: batch.clone() };
            self.records.push(Stored::Slot { view, lane, slot });
        }
    }

    /// A slot passed the cursor: its payloads enter the result.
    pub(crate) fn enter(&mut self, view: &View, (rank, round): (Rank, Round), batch: Batch, record: Option<&Record>) {
        let confirmed = record.map(|record| record.confirmations(view)).unwrap_or_default();
        let member = view.member(rank);
        let from = (member.node, member.incarnation);
        self.append(Entering { view: view.id, from, batch, slot: Some((rank, round)), confirmed });
    }

    /// An entry was fetched by index: it continues the result.
    pub(crate) fn fetched(&mut self, entry: Entry) {
        let Entry { view, origin, incarnation, batch, .. } = entry;
        self.append(Entering { view, from: (origin, incarnation), batch, slot: None, confirmed: Vec::new() });
    }

    /// An entry that an earlier run stored.
    pub(crate) fn restored(&mut self, entry: &StoredEntry, batch: Batch) {
        let (origin, incarnation) = (entry.origin, entry.incarnation);
        if let Some(entry) = self.result.append(entry.view, origin, incarnation, batch, entry.slot(), self.rules) {
            self.deliver(entry);
        }
    }

    /// What the application does not know yet of an entry.
    fn deliver(&mut self, entry: Entry) {
        self.retained.push(entry.clone());
        let known = (self.restored_to.0 + 1).saturating_sub(entry.first_index.0);
        if known == 0 {
            self.outputs.push_back(Output::Deliver(entry));
        } else if known < u64::from(entry.batch.count) {
            let first_index = Index(entry.first_index.0 + known);
            let batch = entry.batch.without_first(known as u32);
            self.outputs.push_back(Output::Deliver(Entry { first_index, batch, ..entry }));
        }
    }

    fn append(&mut self, entering: Entering) {
        let Entering { view, from: (origin, incarnation), batch, slot, confirmed } = entering;
        let Some(entry) = self.result.append(view, origin, incarnation, batch, slot, self.rules) else { return };
        if self.durability == Durability::Disk {
            let body = match slot {
                Some((lane, round)) => StoredBody::Slot { lane, round },
                None => StoredBody::Here(entry.batch.body.clone()),
            };
            let (first_index, first_seq, count) = (entry.first_index, entry.batch.first_seq, entry.batch.count);
            let stored = StoredEntry { first_index, view, origin, incarnation, first_seq, count, body };
            self.records.push(Stored::Entry(stored));
        }
        if origin == self.me && incarnation == self.incarnation {
            self.outputs.push_back(Output::Approved(Approval {
                first_seq: entry.batch.first_seq,
                count: entry.batch.count,
                first_index: entry.first_index,
                view,
                confirmed,
            }));
        }
        self.deliver(entry);
    }
}
