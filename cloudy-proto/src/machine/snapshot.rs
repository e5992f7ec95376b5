//! Snapshots of the application's state: the result before one need not be kept, and late joiners start from one
//! (`protocol.md` §7).

use crate::config::Durability;
use crate::digest::ResultBase;
use crate::id::Index;
use crate::io::Output;
use crate::limits::{MEMORY_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::offers::Offers;
use crate::machine::storage::Storage;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::stored::{Record, SnapshotState, StoredBase, StoredSnapshot};
use crate::time::Time;
use crate::view::InstalledView;

/// Keeps the newest snapshot: the application's own, or one that was fetched.
pub(super) struct SnapshotHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) plane: &'a DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a mut Storage,
    pub(super) outputs: &'a mut Outputs,
}

impl SnapshotHandler<'_> {
    /// Handles the application's state after an index. With `Disk` none is kept while one is sent to another node.
    pub(super) fn on_taken(&mut self, index: Index, state: SnapshotState, offers: &mut Offers, now: Time) {
        let known = self.storage.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
        let is_too_large = match self.identity.durability {
            Durability::Memory => state.length() > MEMORY_SNAPSHOT_BYTES_MAX as u64,
            Durability::Disk => state.length() > SNAPSHOT_BYTES_MAX,
        };
        if index <= known || index > self.result.state().index() || is_too_large {
            return;
        }
        if offers.pins_snapshot(self.identity.durability, now) {
            return;
        }
        let end = self.result.state().index();
        let index = if self.identity.rules.holds(Rule::SnapshotIsOfItsIndex) { index } else { index.next().min(end) };
        let Some(kept) = self.result.state().base_before(index) else { return };
        let begins = StoredBase { ends: self.plane.message_ends(), ..kept };
        let view = self.result.view_at(index).filter(|_| self.identity.rules.holds(Rule::SnapshotHasItsView)).cloned();
        self.keep(StoredSnapshot { index, begins, view, state });
    }

    fn keep(&mut self, snapshot: StoredSnapshot) {
        let needed = snapshot.begins.index().next();
        let retained = self.result.retained().first();
        // With a gap behind it, no node could use it. On a disk, memory may lack the rest: the node starts with the
        // disk.
        let first = match self.identity.durability {
            Durability::Memory => retained,
            Durability::Disk if self.identity.rules.holds(Rule::StoredFollowsSnapshot) => {
                retained.map(|_| self.storage.retention.stored_from())
            }
            Durability::Disk => self.storage.first_kept(self.result),
        };
        if first.is_none_or(|first| first <= needed) {
            self.storage.records.keep(Record::Snapshot(snapshot.clone()));
            self.storage.retention.begin_at(&snapshot.begins);
            self.storage.snapshot = Some(snapshot);
        }
    }

    /// Continues the result from the base of a fetched snapshot, and the application from its state.
    pub(super) fn on_fetched(
        &mut self,
        index: Index,
        mut base: ResultBase,
        (view, state): (Option<InstalledView>, SnapshotState),
    ) {
        if !self.identity.rules.holds(Rule::SnapshotHasLastNumbers) {
            base.last_numbers.clear();
        }
        let (after, here) = (base.checkpoint.index, self.result.state().index());
        // If several arrived, a later one may have restored the application already.
        let newer = index > self.result.restored_to();
        if after >= here && index >= after && (after > here || newer) {
            let begins = StoredBase { base, first_index: after.next(), ..StoredBase::default() };
            self.result.resume_at(&begins);
            let known = self.storage.snapshot.take().filter(|_| !newer);
            if newer {
                self.result.on_restored(index);
                self.outputs.push(Output::Restore { index, state: state.clone(), view: view.clone() });
            }
            let fetched = StoredSnapshot { index, begins: begins.clone(), view, state };
            self.keep(known.map_or(fetched, |known| StoredSnapshot { begins, ..known }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};

    use crate::config::Parameters;
    use crate::id::Seq;
    use crate::io::Input;
    use crate::limits::CHECKPOINT_BYTES;
    use crate::machine::tests::{alone, drain};
    use crate::slot::{Batch, push_payload};

    #[test]
    fn a_memory_group_with_large_messages_keeps_a_snapshot() {
        const PAYLOAD_BYTES: usize = 2_000;
        let mut machine = alone(Parameters::default());
        let now = machine.timers.now();
        // Twice the distance of two checkpoints is retained.
        machine.result = crate::result_log::ResultLog::new(Index(1), 2 * CHECKPOINT_BYTES);
        let messages = 4 * CHECKPOINT_BYTES / PAYLOAD_BYTES as u64;
        for seq in 1..=messages {
            let mut body = BytesMut::new();
            push_payload(&mut body, &[7; PAYLOAD_BYTES]);
            machine.handle(now, Input::Broadcast(Batch { first_seq: Seq(seq), count: 1, body: body.freeze() }));
            drain(&mut machine);
        }
        assert!(machine.result.retained().first() > Some(Index(1)), "the beginning is gone from memory");
        machine.handle(
            now,
            Input::Request(crate::io::Request::Snapshot {
                index: Index(messages),
                state: SnapshotState::Here(Bytes::from_static(b"state")),
            }),
        );
        let status = machine.status(now);
        assert_eq!((status.index, status.snapshot), (Index(messages), Some(Index(messages))));
    }
}
