//! States of applications in parts: what is written is read, and what nothing needs is deleted.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use cloudy_proto::{Index, Record as Given, SnapshotState, StoredSnapshot};

use super::super::group_records::Recorder;
use super::super::result_reads::{check_state, stored_states};
use super::*;
use crate::health::Health;

/// Several parts, the last of them short.
const STATE_BYTES: usize = (1 << 20) + 77;

struct States {
    store: Arc<Store>,
    reads: ResultReads,
    recorder: Recorder,
    states: StateStore,
    ticket: u64,
    completions: Receiver<Completion>,
}

impl States {
    fn on(opened: Opened, recorder: Recorder) -> Self {
        let store = Arc::new(opened.store);
        let reads = ResultReads::start(Arc::clone(&store), Health::default()).unwrap();
        let states = StateStore::new(GROUP, (store.bulk_writer(), reads.reader().clone()), recorder.leases());
        Self { store, reads, recorder, states, ticket: 0, completions: opened.completions }
    }

    fn write(&self, bytes: &[u8]) -> StoredState {
        let mut writer = self.states.writer();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    /// Stores a record, as the driver does, and waits for it.
    fn put(&mut self, records: Vec<Given>) {
        self.ticket += 1;
        self.store.submit(GROUP, self.recorder.ops(records), self.ticket).unwrap();
        while self.completions.recv_timeout(PATIENCE).expect("a completion").ticket < self.ticket {}
    }

    fn stored(&self) -> BTreeMap<u64, u64> {
        stored_states(&self.store, GROUP).unwrap()
    }

    fn close(self) {
        drop(self.states);
        self.reads.close();
        Arc::into_inner(self.store).expect("nothing else uses it").close().unwrap();
    }
}

fn snapshot(index: u64, state: &StoredState) -> Given {
    let state = SnapshotState::Parts(state.parts());
    Given::Snapshot(StoredSnapshot { index: Index(index), state, ..StoredSnapshot::default() })
}

fn read(state: &StoredState) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    state.reader().read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn a_state_is_read_as_it_was_written_and_deleted_in_pieces_once_nothing_needs_it() {
    let disk = FaultDisk::default();
    let mut states = States::on(Opened::create(&disk), Recorder::default());
    let (first, second) = (noise(1, STATE_BYTES), noise(2, 9 * STATE_BYTES));
    let old = states.write(&first);
    states.put(vec![snapshot(1, &old)]);
    assert_eq!(read(&old).unwrap(), first);
    let new = states.write(&second);
    assert_eq!(read(&new).unwrap(), second);
    states.put(vec![snapshot(2, &new)]);
    states.put(Vec::new());
    assert_eq!(read(&old).unwrap(), first, "a reader still holds it");
    let old_id = old.parts().id;
    drop(old);
    states.put(Vec::new());
    assert!(!states.stored().contains_key(&old_id), "deleted");
    // This state is not handed over.
    let unused = states.write(&second);
    let (id, parts) = (unused.parts().id, states.stored()[&unused.parts().id]);
    drop(unused);
    states.put(Vec::new());
    let left = states.stored()[&id];
    assert!(left > 0 && left < parts, "a piece of {parts}: {left} are left");
    for _ in 0..parts / 8 {
        states.put(Vec::new());
    }
    assert_eq!(states.stored().into_keys().collect::<Vec<_>>(), [new.parts().id]);
    assert_eq!(read(&new).unwrap(), second);
    check_state(&states.store, GROUP, &SnapshotState::Parts(new.parts())).unwrap();
    drop(new);
    states.close();
}

#[test]
fn what_an_unfinished_write_leaves_is_deleted_after_a_restart() {
    let disk = FaultDisk::default();
    let mut states = States::on(Opened::create(&disk), Recorder::default());
    let kept = states.write(&noise(1, STATE_BYTES));
    states.put(vec![snapshot(1, &kept)]);
    let unfinished = states.write(&noise(2, STATE_BYTES));
    let (kept, unfinished) = (kept.parts(), unfinished.parts());
    states.close();
    let opened = Opened::open(&disk).unwrap();
    let mut stored = cloudy_proto::Stored::default();
    let state = SnapshotState::Parts(kept);
    stored.take(Given::Snapshot(StoredSnapshot { index: Index(1), state, ..StoredSnapshot::default() })).unwrap();
    let left = stored_states(&opened.store, GROUP).unwrap();
    assert!(left.contains_key(&unfinished.id));
    let mut states = States::on(opened, Recorder::after(&stored, left));
    states.put(Vec::new());
    assert_eq!(states.stored().into_keys().collect::<Vec<_>>(), [kept.id]);
    states.close();
}

#[test]
fn a_state_with_a_missing_part_is_not_read_to_its_end() {
    let states = States::on(Opened::create(&FaultDisk::default()), Recorder::default());
    let state = states.write(&noise(1, STATE_BYTES));
    let more = cloudy_proto::StateParts { length: state.parts().length + 1, ..state.parts() };
    let longer = states.states.open(more);
    assert!(read(&longer).unwrap_err().to_string().contains("only"));
    let other = cloudy_proto::StateParts { digest: cloudy_proto::Digest(1), ..state.parts() };
    assert!(read(&states.states.open(other)).unwrap_err().to_string().contains("digest"));
    assert!(check_state(&states.store, GROUP, &SnapshotState::Parts(other)).is_err());
    drop((state, longer));
    states.close();
}

#[test]
fn a_forgotten_group_and_a_closed_store_take_no_states() {
    let states = States::on(Opened::create(&FaultDisk::default()), Recorder::default());
    states.store.submit(GROUP, vec![Op::Forget], u64::MAX).unwrap();
    let mut writer = states.states.writer();
    let written = writer.write_all(&noise(1, STATE_BYTES));
    assert!(written.is_err(), "the group is forgotten");
    drop(writer);
    let late = states.states.clone();
    states.close();
    assert!(late.writer().write_all(&noise(1, STATE_BYTES)).is_err(), "the store is closed");
}
