//! The driver's interface to the store: it submits the machines' records, and receives what is synced. It never waits.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cloudy_proto::{ApprovedItem, Durability, GroupId, Input, NodeId, Position, Record, Stored};
use tokio::sync::{Notify, oneshot};
use tracing::Level;

use crate::driver::Driver;
use crate::error::ForgetError;
use crate::group::shared::EndReason;
use crate::health::Health;
use crate::repeats::{Repeats, Source};
use crate::storage::{
    Completion, GroupMeta, Op, Recorder, ResultReader, ResultReads, STORE_BACKLOG_BYTES_MAX, StateStore, Store,
    StoreError, meta_op,
};

/// The ticket of a group's metadata, before all records of its machine.
const META_TICKET: u64 = 0;
/// The log text if the disk cannot read entries that a peer lacks.
const UNREADABLE: &str = "a peer lacks entries that cannot be read here";
/// The ticket of the operation that forgets a group, after all records of its machine.
const FORGET_TICKET: u64 = u64::MAX;

/// Completions of the store that the driver has not taken yet: one for each group.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    completions: Mutex<BTreeMap<GroupId, Completion>>,
    reads: Mutex<Vec<ReadFor>>,
    snapshot_reads: Mutex<Vec<SnapshotReadFor>>,
    said: Notify,
}

/// A part of a group's result that was read for a peer; none if the disk cannot read it.
type ReadFor = (GroupId, NodeId, Option<Vec<ApprovedItem>>);

/// Bytes of a state of a group that were read for a peer, with the state's id and the offset.
type SnapshotReadFor = (GroupId, NodeId, (u64, u64), Option<Bytes>);

impl Synced {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Completion>> {
        // A panic under the lock leaves the map valid.
        self.completions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the thread that reads.
    fn take_read(&self, read: ReadFor) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        self.said.notify_one();
    }

    /// Called on the thread that reads.
    fn take_snapshot_read(&self, read: SnapshotReadFor) {
        self.snapshot_reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        self.said.notify_one();
    }

    /// Called on the store's own thread.
    pub(crate) fn take(&self, completion: Completion) {
        self.lock().insert(completion.group, completion);
        self.said.notify_one();
    }
}

/// The state of the disk of a node.
#[cfg(feature = "admin")]
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskSnapshot {
    pub(crate) error: Option<String>,
    pub(crate) backlog_bytes: u64,
    pub(crate) syncs: crate::histogram::Histogram,
}

/// The store, as the driver uses it.
pub(crate) struct Disk {
    store: Arc<Store>,
    reads: ResultReads,
    synced: Arc<Synced>,
    recorders: BTreeMap<GroupId, Recorder>,
    /// Operations that the store had no capacity for: bounded by the groups' windows.
    waiting: VecDeque<(GroupId, Vec<Op>, u64)>,
    /// The callers that wait for a group to be forgotten.
    forgetting: Vec<(GroupId, ForgetReply)>,
    failed: Option<StoreError>,
}

/// The reply to a caller that forgets a group.
pub(crate) type ForgetReply = oneshot::Sender<Result<(), ForgetError>>;

impl Disk {
    /// # Errors
    /// The operating system has no thread to read on.
    pub(crate) fn new(store: Store, synced: Arc<Synced>, health: Health) -> io::Result<Self> {
        let store = Arc::new(store);
        let reads = ResultReads::start(Arc::clone(&store), health)?;
        Ok(Self {
            store,
            reads,
            synced,
            recorders: BTreeMap::new(),
            waiting: VecDeque::new(),
            forgetting: Vec::new(),
            failed: None,
        })
    }

    /// A reader of results for users.
    pub(crate) fn reader(&self) -> ResultReader {
        self.reads.reader().clone()
    }

    /// Stores a new group. Gives the place for the application's states.
    pub(crate) fn begin(&mut self, group: GroupId, meta: &GroupMeta) -> StateStore {
        let states = self.record(group, Recorder::default());
        self.submit(group, vec![meta_op(meta)], META_TICKET);
        states
    }

    /// Continues a stored group. `states` has the number of the parts of each state of the application.
    pub(crate) fn resume(&mut self, group: GroupId, stored: &Stored, states: BTreeMap<u64, u64>) -> StateStore {
        self.record(group, Recorder::after(stored, states))
    }

    fn record(&mut self, group: GroupId, recorder: Recorder) -> StateStore {
        let states = StateStore::new(group, (self.store.bulk_writer(), self.reader()), recorder.leases());
        self.recorders.insert(group, recorder);
        states
    }

    /// Deletes a group; the reply follows once that is certain.
    pub(crate) fn forget(&mut self, group: GroupId, reply: Option<ForgetReply>) {
        self.recorders.remove(&group);
        self.forgetting.extend(reply.map(|reply| (group, reply)));
        self.submit(group, vec![Op::Forget], FORGET_TICKET);
    }

    /// Answers the callers that wait for a group to be forgotten.
    fn answer_forgotten(&mut self, result: &Result<(), StoreError>, of: impl Fn(GroupId) -> bool) {
        for (_, reply) in self.forgetting.extract_if(.., |(group, _)| of(*group)) {
            // A caller that is gone needs no answer.
            let _ = reply.send(result.clone().map_err(ForgetError::from));
        }
    }

    pub(crate) fn persist(&mut self, group: GroupId, ticket: u64, records: Vec<Record>) {
        let Some(recorder) = self.recorders.get_mut(&group) else { return };
        let ops = recorder.ops(records);
        self.submit(group, ops, ticket);
    }

    /// Reads a part of a group's result for a peer that lacks it.
    pub(crate) fn read_for(&self, group: GroupId, to: NodeId, (from, bytes_max): (Position, usize), repeats: &Repeats) {
        let (synced, repeats) = (Arc::clone(&self.synced), repeats.clone());
        self.reads.reader().read(group, from, bytes_max, move |read| {
            let items = read.inspect_err(|error| {
                let text = format_args!("{UNREADABLE}, from index {} on: {error}", from.next);
                repeats.say(Level::ERROR, UNREADABLE, Source::Node(to), text);
            });
            synced.take_read((group, to, items.ok().flatten()));
        });
    }

    /// Reads a state for a peer that lacks it.
    pub(crate) fn read_snapshot_for(
        &self,
        group: GroupId,
        to: NodeId,
        (from, bytes_max): ((u64, u64), usize),
        repeats: &Repeats,
    ) {
        let (synced, repeats) = (Arc::clone(&self.synced), repeats.clone());
        self.reads.reader().read_state(group, from, bytes_max, move |read| {
            let bytes = read.inspect_err(|error| {
                let text = format_args!("{UNREADABLE}, in a snapshot: {error}");
                repeats.say(Level::ERROR, UNREADABLE, Source::Node(to), text);
            });
            synced.take_snapshot_read((group, to, from, bytes.ok()));
        });
    }

    /// The state of the disk, for the admin endpoint.
    #[cfg(feature = "admin")]
    pub(super) fn snapshot(&self) -> DiskSnapshot {
        DiskSnapshot {
            error: self.failed.as_ref().map(ToString::to_string),
            backlog_bytes: self.store.backlog_bytes() as u64,
            syncs: self.store.syncs(),
        }
    }

    fn submit(&mut self, group: GroupId, ops: Vec<Op>, ticket: u64) {
        self.waiting.push_back((group, ops, ticket));
        self.submit_waiting();
    }

    /// In order: later operations wait behind earlier ones. Only the driver submits, so an operation for which there is
    /// capacity is accepted.
    fn submit_waiting(&mut self) {
        while self.store.backlog_bytes() < STORE_BACKLOG_BYTES_MAX {
            let Some((group, ops, ticket)) = self.waiting.pop_front() else { return };
            if let Err(error) = self.store.submit(group, ops, ticket) {
                let cause = error.to_string();
                self.failed.get_or_insert(StoreError::Write { cause });
            }
        }
    }

    /// The completions of submitted operations.
    fn completions(&mut self) -> Result<Vec<(GroupId, u64)>, StoreError> {
        let completions = std::mem::take(&mut *self.synced.lock());
        if let Some(error) = completions.values().find_map(|completion| completion.result.clone().err()) {
            self.failed.get_or_insert(error);
        }
        self.submit_waiting();
        if let Some(error) = self.failed.clone() {
            self.answer_forgotten(&Err(error.clone()), |_| true);
            return Err(error);
        }
        for completion in completions.values().filter(|completion| completion.ticket == FORGET_TICKET) {
            self.answer_forgotten(&Ok(()), |group| group == completion.group);
        }
        Ok(completions.into_values().map(|completion| (completion.group, completion.ticket)).collect())
    }

    fn take_reads(&self) -> Vec<ReadFor> {
        std::mem::take(&mut *self.synced.reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_snapshot_reads(&self) -> Vec<SnapshotReadFor> {
        std::mem::take(&mut *self.synced.snapshot_reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes the submitted operations, and releases the data directory. Waits for the disk.
    pub(crate) fn close(self) {
        self.reads.close();
        let Some(store) = Arc::into_inner(self.store) else { return };
        if let Err(error) = store.close() {
            tracing::error!(%error, "the data directory was not closed properly");
        }
    }
}

/// Returns when the store has completions.
pub(crate) async fn said(synced: Option<Arc<Synced>>) {
    match synced {
        Some(synced) => synced.said.notified().await,
        None => std::future::pending().await,
    }
}

impl Driver {
    pub(super) fn synced(&self) -> Option<Arc<Synced>> {
        self.disk.as_ref().map(|disk| Arc::clone(&disk.synced))
    }

    /// Passes completions to the machines. A failed disk ends every group that depends on it, before anything else is
    /// confirmed.
    pub(super) fn take_completions(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let now = self.turn_at;
        match disk.completions() {
            Ok(completions) => {
                for (group, ticket) in completions {
                    if let Some(run) = self.groups.get_mut(&group) {
                        run.machine.handle(now, Input::Persisted { ticket });
                    }
                }
            }
            Err(error) => return self.disk_failed(&error),
        }
        let results = disk.take_reads().into_iter().map(|(group, to, items)| (group, Input::ResultRead { to, items }));
        let states = disk.take_snapshot_reads().into_iter();
        let states =
            states.map(|(group, to, (id, offset), part)| (group, Input::SnapshotRead { to, id, offset, part }));
        for (group, input) in results.chain(states) {
            match self.groups.get_mut(&group) {
                Some(run) => run.machine.handle(now, input),
                None => {
                    self.handle_closed(group, input);
                }
            }
        }
    }

    fn disk_failed(&mut self, error: &StoreError) {
        let on_disk = |run: &crate::driver::GroupRun| run.machine.durability() == Durability::Disk;
        let ids: Vec<GroupId> = self.groups.iter().filter(|(_, run)| on_disk(run)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(run) = self.groups.get(&id) {
                tracing::error!(group = %run.shared.name, %error, "the disk failed: this node has left the group");
                run.shared.end(EndReason::DiskFailed { cause: error.clone() });
            }
            self.ended(id);
        }
        self.closed.forget_stored();
    }
}
