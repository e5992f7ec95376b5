//! A snapshot that this node fetches (`protocol.md` §7.8). With `Disk` its parts are stored as they arrive, and it is
//! installed once they are synced.

use bytes::Bytes;

use crate::config::Durability;
use crate::id::NodeId;
use crate::machine::fetch::FetchHandler;
use crate::machine::incoming::{Header, Held, Incoming};
use crate::machine::snapshot::SnapshotHandler;
use crate::rules::Rule;
use crate::wire::decode_base;

impl FetchHandler<'_> {
    /// Handles a part of a snapshot. True if it is new.
    pub(super) fn on_snapshot(&mut self, from: NodeId, header: Header, offset: u64, part: &Bytes) -> bool {
        if self.arrival.observes() {
            self.on_truncated(from, header.index.next());
            return false;
        }
        if offset == 0 && !self.start_snapshot(from, header) {
            return false;
        }
        let Some(fetching) = &mut self.fetches.missing else { return false };
        let Held::Snapshot(incoming) = &mut fetching.held else { return false };
        if incoming.header != header || incoming.received() != offset || incoming.is_complete() {
            return false;
        }
        let record = incoming.take(from, part);
        record.into_iter().for_each(|record| self.storage.records.keep(record));
        let waits = self.identity.durability == Durability::Disk && self.identity.rules.holds(Rule::SnapshotIsSynced);
        if waits {
            self.finish_synced();
        } else {
            self.finish_snapshot();
        }
        true
    }

    /// Starts to receive a snapshot unless that has begun. False if it is too large.
    fn start_snapshot(&mut self, from: NodeId, header: Header) -> bool {
        let is_new = self.fetches.missing.as_ref().is_some_and(|fetching| !fetching.held.is_of(header));
        let id = if is_new { self.fetches.next_number() } else { 0 };
        let Some(fetching) = self.fetches.missing.as_mut().filter(|_| is_new) else { return true };
        let Some(incoming) = Incoming::new(header, self.identity.durability, id) else {
            let reason = format!("the snapshot at index {} is larger than a group in memory allows", header.index);
            self.outputs.close_link(from, reason);
            return false;
        };
        fetching.held = Held::Snapshot(incoming);
        true
    }

    /// Installs a complete snapshot once its parts are synced.
    pub(super) fn finish_synced(&mut self) {
        if self.storage.unsynced_fetch_bytes() == 0 {
            self.finish_snapshot();
        }
    }

    /// Installs a snapshot if all of it is received.
    fn finish_snapshot(&mut self) {
        let Some(fetching) = self.fetches.missing.as_mut().filter(|fetching| fetching.held.is_complete_snapshot())
        else {
            return;
        };
        let Held::Snapshot(incoming) = core::mem::take(&mut fetching.held) else { return };
        let (index, source) = (incoming.header.index, incoming.source());
        let (base, state, is_right) = incoming.finish();
        let is_right = is_right || !self.identity.rules.holds(Rule::SnapshotIsVerified);
        let Some((base, view)) = decode_base(&base).filter(|_| is_right) else {
            let reason = format!("the snapshot at index {index} is not what its digest says");
            return self.outputs.close_link(source, reason);
        };
        let mut snapshots = SnapshotHandler {
            identity: self.identity,
            plane: self.plane,
            result: self.result,
            storage: self.storage,
            outputs: self.outputs,
        };
        snapshots.on_fetched(index, base, (view, state));
        self.fetch_on();
    }
}
