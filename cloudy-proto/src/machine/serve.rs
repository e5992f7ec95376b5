//! Somebody misses a part of the result: it is given from memory, from the disk, or as a snapshot (`protocol.md` §7).

use crate::catch_up::Part;
use crate::config::Durability;
use crate::id::{Index, NodeId, ViewId};
use crate::io::{Entry, Output};
use crate::limits::READ_BYTES_MAX;
use crate::machine::Machine;
use crate::wire::{ControlFrame, Fetched};

impl Machine {
    /// Somebody misses the result from an index on.
    pub(super) fn serve(&mut self, to: NodeId, from: Index) {
        let index = self.delivery.result.index();
        let part = match self.delivery.retained.first() {
            // It began with a snapshot itself, and nothing has come since.
            None if from <= index => Part::Truncated(index.next()),
            _ => self.delivery.retained.part_from(from),
        };
        match part {
            Part::Entries(entries) => self.serve_entries(to, entries),
            Part::Truncated(_) if self.read_for(to, from) => {}
            Part::Truncated(_) => self.serve_no_entries(to),
        }
    }

    /// Asks the disk for what memory does not have any more; false if it is not there either.
    fn read_for(&mut self, to: NodeId, from: Index) -> bool {
        if self.delivery.durability == Durability::Memory || from < self.delivery.stored_from {
            return false;
        }
        // Who asks again meanwhile is answered by what is read already.
        if self.reading.insert(to) {
            self.delivery.outputs.push_back(Output::ReadResult { to, from, bytes_max: READ_BYTES_MAX });
        }
        true
    }

    /// The disk has read what somebody misses.
    pub(super) fn result_read(&mut self, to: NodeId, entries: Option<Vec<Entry>>) {
        if !self.reading.remove(&to) {
            return;
        }
        match entries {
            // It is not synced yet, or a snapshot takes its place: who misses it asks again.
            Some(entries) if entries.is_empty() => {}
            Some(entries) => self.serve_entries(to, entries),
            None => self.serve_no_entries(to),
        }
    }

    fn serve_entries(&mut self, to: NodeId, entries: Vec<Entry>) {
        let view = self.state.view().map_or(ViewId(0), |view| view.id);
        // Who is not complete itself does not know where its view begins.
        let first = match self.member.as_ref().or(self.former.as_ref()) {
            Some(member) => member.first,
            None => self.final_result.map_or(Index(0), |result| result.index.next()),
        };
        let index = self.delivery.result.index();
        entries.into_iter().for_each(|entry| self.send_control(to, ControlFrame::Fetched(fetched(entry))));
        let digest = self.ends_before(first).digest;
        self.send_control(to, ControlFrame::Fetched(Fetched::End { index, view, first, digest }));
    }

    fn serve_no_entries(&mut self, to: NodeId) {
        if !self.serve_snapshot(to, 0) {
            let first = self.first_kept().unwrap_or(self.delivery.result.index().next());
            self.send_control(to, ControlFrame::Fetched(Fetched::Truncated { first }));
        }
    }
}

fn fetched(entry: Entry) -> Fetched {
    Fetched::Entry {
        first_index: entry.first_index,
        view: entry.view,
        origin: entry.origin,
        incarnation: entry.incarnation,
        first_seq: entry.batch.first_seq,
        count: entry.batch.count,
        body: entry.batch.body,
    }
}
