//! The way of entries into the result: the result itself, its records, and the outputs that follow.

use core::time::Duration;

use crate::id::{Incarnation, NodeId, Rank, Round, ViewId};
use crate::io::{Approval, ApprovedItem, Entry, Output};
use crate::outputs::Outputs;
use crate::pending::Record as Pending;
use crate::records::Records;
use crate::result_log::ResultLog;
use crate::rules::{Rule, Rules};
use crate::slot::Batch;
use crate::stored::{Record, StoredBody, StoredEntry};
use crate::view::{InstalledView, View};

/// The parts of the machine that an entry passes on its way into the result.
pub(crate) struct Delivery<'a> {
    /// The node and incarnation of own messages.
    pub(crate) own: (NodeId, Incarnation),
    pub(crate) rules: Rules,
    pub(crate) result: &'a mut ResultLog,
    pub(crate) records: &'a mut Records,
    pub(crate) outputs: &'a mut Outputs,
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

impl Delivery<'_> {
    /// Adds the messages of a slot that passed the cursor.
    pub(crate) fn enter(&mut self, view: &View, (rank, round): (Rank, Round), batch: Batch, record: Option<&Pending>) {
        let confirmed = record.map(|record| record.confirmations(view)).unwrap_or_default();
        let member = view.member(rank);
        let from = (member.node, member.incarnation);
        self.append(Entering { view: view.id, from, batch, slot: Some((rank, round)), confirmed });
    }

    /// Adds an entry that was fetched by index: it continues the result.
    pub(crate) fn fetched(&mut self, entry: Entry) {
        let Entry { view, origin, incarnation, batch, .. } = entry;
        self.append(Entering { view, from: (origin, incarnation), batch, slot: None, confirmed: Vec::new() });
    }

    /// Adds an entry that an earlier incarnation stored.
    pub(crate) fn restored(&mut self, entry: &StoredEntry, batch: Batch) {
        let (origin, incarnation) = (entry.origin, entry.incarnation);
        let state = self.result.state_mut();
        if let Some(entry) = state.append(entry.view, origin, incarnation, batch, entry.slot(), self.rules) {
            self.deliver(entry);
        }
    }

    /// A view begins in the result: what enters next was approved in it. Nothing happens if it has begun already.
    pub(crate) fn begin_view(&mut self, view: InstalledView) {
        if !self.result.state_mut().begin_view(&view) {
            return;
        }
        if self.rules.holds(Rule::ViewsAreStored) {
            self.records.keep(Record::View(view.clone()));
        }
        self.deliver_view(view);
    }

    /// A view that an earlier incarnation stored.
    pub(crate) fn restored_view(&mut self, view: &InstalledView) {
        if self.result.state_mut().begin_view(view) {
            self.deliver_view(view.clone());
        }
    }

    fn deliver_view(&mut self, view: InstalledView) {
        if let Some(unknown) = self.result.retain_view(view) {
            self.outputs.push(Output::Deliver(ApprovedItem::View(unknown)));
        }
    }

    fn deliver(&mut self, entry: Entry) {
        if let Some(unknown) = self.result.retain(entry) {
            self.outputs.push(Output::Deliver(ApprovedItem::Batch(unknown)));
        }
    }

    fn append(&mut self, entering: Entering) {
        let Entering { view, from: (origin, incarnation), batch, slot, confirmed } = entering;
        let state = self.result.state_mut();
        let Some(entry) = state.append(view, origin, incarnation, batch, slot, self.rules) else { return };
        if self.records.are_stored() {
            let body = match slot {
                Some((lane, round)) => StoredBody::Slot { lane, round },
                None => StoredBody::Here(entry.batch.body.clone()),
            };
            let (first_index, first_seq, count) = (entry.first_index, entry.batch.first_seq, entry.batch.count);
            let stored = StoredEntry { first_index, view, origin, incarnation, first_seq, count, body };
            self.records.keep(Record::Entry(stored));
        }
        if (origin, incarnation) == self.own {
            self.outputs.push(Output::Approved(Approval {
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
