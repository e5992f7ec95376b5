//! Snapshots of the application's state: the result before one need not be kept, and late joiners start from one
//! (`protocol.md` §7).

use bytes::{Bytes, BytesMut};

use crate::config::Durability;
use crate::digest::{ResultBase, digest_of};
use crate::id::{Index, NodeId};
use crate::io::Output;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::machine::Machine;
use crate::machine::incoming::{Header, Held, Incoming};
use crate::rules::Rule;
use crate::stored::{Record, StoredBase, StoredSnapshot};
use crate::view::InstalledView;
use crate::wire::decode_base;

impl Machine {
    /// Handles the application's state after an index.
    pub(super) fn snapshot_taken(&mut self, index: Index, state: Bytes) {
        let known = self.storage.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.index);
        if index <= known || index > self.result.state().index() || state.len() > SNAPSHOT_BYTES_MAX {
            return;
        }
        if self.pins_snapshot() {
            return;
        }
        let end = self.result.state().index();
        let index = if self.identity.rules.holds(Rule::SnapshotIsOfItsIndex) { index } else { index.next().min(end) };
        let Some(kept) = self.result.state().base_before(index) else { return };
        let begins = StoredBase { ends: self.message_ends(), ..kept };
        let view = self.result.view_at(index).filter(|_| self.identity.rules.holds(Rule::SnapshotHasItsView)).cloned();
        self.keep_snapshot(StoredSnapshot { index, begins, view, state });
    }

    fn keep_snapshot(&mut self, snapshot: StoredSnapshot) {
        let needed = snapshot.begins.index().next();
        let retained = self.result.retained().first();
        // With a gap behind it, no node could use it. On a disk, memory may lack the rest: the node starts with the
        // disk.
        let first = match self.identity.durability {
            Durability::Memory => retained,
            Durability::Disk if self.identity.rules.holds(Rule::StoredFollowsSnapshot) => {
                retained.map(|_| self.storage.retention.stored_from())
            }
            Durability::Disk => self.first_kept(),
        };
        if first.is_none_or(|first| first <= needed) {
            self.storage.records.keep(Record::Snapshot(snapshot.clone()));
            self.begin_stored(&snapshot.begins);
            self.storage.snapshot = Some(snapshot);
        }
    }

    /// The first index that can be sent to others, if there is any: from memory or from the disk.
    pub(super) fn first_kept(&self) -> Option<Index> {
        let retained = self.result.retained().first();
        match self.identity.durability {
            Durability::Memory => retained,
            Durability::Disk => retained.map(|first| first.min(self.storage.retention.stored_from())),
        }
    }

    /// Handles a part of a snapshot. True if it is new.
    pub(super) fn take_part(&mut self, from: NodeId, header: Header, offset: u64, part: &Bytes) -> bool {
        if self.arrival.observes() {
            self.truncated(from, header.index.next());
            return false;
        }
        let Some(fetching) = &mut self.catch_up.fetching else { return false };
        if offset == 0 && !fetching.held.is_of(header) {
            fetching.held = Held::Snapshot(Incoming { header, bytes: BytesMut::new() });
        }
        let Held::Snapshot(incoming) = &mut fetching.held else { return false };
        if incoming.header != header || incoming.bytes.len() as u64 != offset {
            return false;
        }
        incoming.bytes.extend_from_slice(part);
        if incoming.bytes.len() as u64 == header.length
            && let Held::Snapshot(incoming) = core::mem::take(&mut fetching.held)
        {
            self.finish_snapshot(from, incoming);
        }
        true
    }

    /// Handles a complete snapshot.
    fn finish_snapshot(&mut self, from: NodeId, incoming: Incoming) {
        let Incoming { header, bytes } = incoming;
        let mut state = bytes.freeze();
        let is_right = digest_of([&state[..]]) == header.digest;
        let base_length = usize::try_from(header.base_length).unwrap_or(usize::MAX).min(state.len());
        match decode_base(&state.split_to(base_length)).filter(|_| is_right) {
            Some((base, view)) => self.begin_with(header.index, base, (view, state)),
            None => self.breach(from, format!("the snapshot at index {} is not what its digest says", header.index)),
        }
    }

    /// Continues the result from a base, and the application from a state.
    fn begin_with(&mut self, index: Index, mut base: ResultBase, (view, state): (Option<InstalledView>, Bytes)) {
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
            self.keep_snapshot(known.map_or(fetched, |known| StoredSnapshot { begins, ..known }));
        }
        self.fetch_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
                state: Bytes::from_static(b"state"),
            }),
        );
        let status = machine.status(now);
        assert_eq!((status.index, status.snapshot), (Index(messages), Some(Index(messages))));
    }
}
