//! Where entries leave the protocol: result, retained part, and what the driver is told.

use std::collections::VecDeque;

use crate::catch_up::Retained;
use crate::id::{Incarnation, NodeId, ViewId};
use crate::io::{Approval, Entry, Output};
use crate::pending::Record;
use crate::rules::Rules;
use crate::slot::Batch;
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
}

impl Delivery {
    /// A slot passed the cursor: its payloads enter the result.
    pub(crate) fn enter(&mut self, view: &View, from: (NodeId, Incarnation), batch: Batch, record: Option<&Record>) {
        let confirmed = record.map(|record| record.confirmations(view)).unwrap_or_default();
        self.append(view.id, from, batch, confirmed);
    }

    /// An entry was fetched by index: it continues the result.
    pub(crate) fn fetched(&mut self, entry: Entry) {
        self.append(entry.view, (entry.origin, entry.incarnation), entry.batch, Vec::new());
    }

    fn append(
        &mut self,
        view: ViewId,
        (origin, incarnation): (NodeId, Incarnation),
        batch: Batch,
        confirmed: Vec<(NodeId, core::time::Duration)>,
    ) {
        let Some(entry) = self.result.append(view, origin, incarnation, batch, self.rules) else { return };
        if origin == self.me && incarnation == self.incarnation {
            self.outputs.push_back(Output::Approved(Approval {
                first_seq: entry.batch.first_seq,
                count: entry.batch.count,
                first_index: entry.first_index,
                view,
                confirmed,
            }));
        }
        self.retained.push(entry.clone());
        self.outputs.push_back(Output::Deliver(entry));
    }
}
