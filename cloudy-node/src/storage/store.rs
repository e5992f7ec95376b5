//! Ordered records of several groups, durable, with one thread that writes.

use core::fmt;
use core::ops::{Bound, RangeBounds};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use cloudy_proto::GroupId;
use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use super::bulk::{self, BulkWriter, Gate};
use super::error::{OpenStoreError, StoreError, SubmitError, guarded, open_error, read_error, write_error};
use super::forgotten::{self, is_forgotten};
use super::op::{KEY_BYTES_MAX, Op, Record, STORE_BACKLOG_BYTES_MAX, Submission, Table, VALUE_BYTES_MAX};
use super::packs::{self, GONE, PACKS};
use super::record::{self, RECORDS};
use super::writer::{self, Completion, Directory, Queue, Shared, Stop};

/// Memory for records that are read or written.
pub const STORE_CACHE_BYTES: usize = 64 << 20;

/// Ordered records by group, [`Table`] and key, durable once completed; see the [module](super).
///
/// Its methods may be called from several threads at once. Opening, reading and closing wait for the disk: in async
/// code they belong on a thread for blocking work. [`submit`](Self::submit) never waits.
pub(crate) struct Store {
    shared: Arc<Shared>,
    gate: Gate,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Creates a new store on an empty backend, and opens it. `on_completion` is called on the store's own thread, for
    /// each group after each sync; it should return quickly, because nothing is written meanwhile.
    ///
    /// # Errors
    /// [`OpenStoreError::NotEmpty`] if the backend is not empty; else the reason for which it cannot be written.
    #[cfg(any(test, feature = "fault"))]
    pub(crate) fn create_on(
        backend: impl StorageBackend,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Self, OpenStoreError> {
        Self::start(create_database(backend)?, None, on_completion, |write| write())
    }

    /// Opens the store of the backend, and verifies every page of it. `on_completion` as in
    /// [`create_on`](Self::create_on).
    ///
    /// # Errors
    /// There is no store, or it is damaged or cannot be read; the backend is unchanged.
    #[cfg(any(test, feature = "fault"))]
    pub(crate) fn open_on(
        backend: impl StorageBackend,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Self, OpenStoreError> {
        Self::start(open_database(backend)?, None, on_completion, |write| write())
    }

    pub(super) fn start(
        database: Database,
        directory: Option<Directory>,
        mut on_completion: impl FnMut(Completion) + Send + 'static,
        guard: impl FnOnce(&mut dyn FnMut()) + Send + 'static,
    ) -> Result<Self, OpenStoreError> {
        let shared = Arc::new(Shared {
            database,
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            written: Condvar::new(),
            directory,
        });
        let thread = std::thread::Builder::new().name("cloudy-store".to_owned()).spawn({
            let shared = shared.clone();
            move || guard(&mut || writer::run(&shared, &mut on_completion))
        });
        let gate = Arc::new(Mutex::new(Some(Arc::clone(&shared))));
        Ok(Self { shared, gate, thread: Some(thread.map_err(OpenStoreError::Thread)?) })
    }

    /// Queues operations of a group, to be carried out in order and all or none. Returns at once; a [`Completion`] with
    /// this ticket or a higher one reports that they are on disk. A group's tickets must rise. An empty submission is a
    /// barrier: it is completed once everything before is.
    ///
    /// # Errors
    /// The reason for which nothing was queued. A failed write is not an error here: the completion has it.
    pub(crate) fn submit(&self, group: GroupId, ops: Vec<Op>, ticket: u64) -> Result<(), SubmitError> {
        ops.iter().try_for_each(check)?;
        let submission = Submission::new(group, ops, Some(ticket));
        let mut queue = self.shared.queue();
        if queue.ended {
            return Err(SubmitError::Ended);
        }
        if queue.backlog_bytes >= STORE_BACKLOG_BYTES_MAX {
            return Err(SubmitError::Overloaded { backlog_bytes: queue.backlog_bytes });
        }
        if submission.ops.iter().any(|op| matches!(op, Op::Forget)) {
            queue.forgotten.insert(group);
        } else {
            queue.forgotten.remove(&group);
        }
        // The first caller has woken the thread, which takes the whole queue.
        let is_first = queue.push(submission);
        drop(queue);
        if is_first {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Writes large values from threads that may wait.
    pub(crate) fn bulk_writer(&self) -> BulkWriter {
        BulkWriter(Arc::clone(&self.gate))
    }

    /// Bytes that wait for the disk: keys, values and a fixed cost for each operation and submission. At
    /// [`STORE_BACKLOG_BYTES_MAX`] nothing else is accepted.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.shared.queue().backlog_bytes
    }

    /// The times of transactions with their syncs.
    #[cfg(feature = "admin")]
    pub(crate) fn syncs(&self) -> crate::histogram::Histogram {
        self.shared.queue().syncs.clone()
    }

    /// The records of a range of keys in order, each with its checksum verified, up to `limit_bytes` as stored (34 more
    /// than key and value for each); at least one if there is any. To continue, start after the last key; an empty
    /// answer is the end. Queued records are not read until they are completed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if any record up to the limit is; then none of them is returned.
    pub(crate) fn range(
        &self,
        group: GroupId,
        table: Table,
        keys: impl RangeBounds<[u8]>,
        limit_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let Some((from, to)) = record::full_range(group, table, &keys) else { return Ok(Vec::new()) };
        let bounds = (as_slice(&from), as_slice(&to));
        let read = guarded(|| {
            let read = self.shared.database.begin_read()?;
            let (records, packs) = (read.open_table(RECORDS)?, read.open_table(PACKS)?);
            let (mut found, mut found_bytes) = (Vec::new(), 0);
            if is_forgotten(&records, group)? {
                return Ok(Ok(found));
            }
            for entry in records.range::<&[u8]>(bounds)? {
                let (key, value) = entry?;
                found_bytes += record::whole_bytes(key.value(), value.value());
                if found_bytes > limit_bytes && !found.is_empty() {
                    break;
                }
                let packed = |place| packs::read(&packs, place);
                let record = match record::unsealed(group, table, key.value(), value.value(), packed)? {
                    Ok(record) => record,
                    Err(damaged) => return Ok(Err(damaged)),
                };
                found.push(record);
            }
            Ok(Ok(found))
        });
        read.map_err(read_error)?
    }

    /// The last record whose key is this one or before it, with its checksum verified; none if all follow it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is.
    pub(crate) fn last_up_to(&self, group: GroupId, table: Table, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let range = (Bound::Unbounded, Bound::Included(key));
        let Some((from, to)) = record::full_range(group, table, &range) else { return Ok(None) };
        let bounds = (as_slice(&from), as_slice(&to));
        let read = guarded(|| {
            let read = self.shared.database.begin_read()?;
            let (records, packs) = (read.open_table(RECORDS)?, read.open_table(PACKS)?);
            if is_forgotten(&records, group)? {
                return Ok(Ok(None));
            }
            let Some(last) = records.range::<&[u8]>(bounds)?.next_back() else { return Ok(Ok(None)) };
            let (key, value) = last?;
            let packed = |place| packs::read(&packs, place);
            Ok(record::unsealed(group, table, key.value(), value.value(), packed)?.map(Some))
        });
        read.map_err(read_error)?
    }

    /// The keys of a table, in order. Their values are not read.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub(crate) fn keys(&self, group: GroupId, table: Table) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some((from, to)) = record::full_range(group, table, &..) else { return Ok(Vec::new()) };
        let read = guarded(|| {
            let records = self.shared.database.begin_read()?.open_table(RECORDS)?;
            let keys = records.range::<&[u8]>((as_slice(&from), as_slice(&to)))?;
            keys.map(|entry| Ok(record::key_of(entry?.0.value()).to_vec())).collect()
        });
        read.map_err(read_error)
    }

    /// The number of records of a table, and their bytes with their values.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub(crate) fn size(&self, group: GroupId, table: Table) -> Result<(u64, u64), StoreError> {
        let Some((from, to)) = record::full_range(group, table, &..) else { return Ok((0, 0)) };
        let read = guarded(|| {
            let records = self.shared.database.begin_read()?.open_table(RECORDS)?;
            let (mut count, mut bytes) = (0, 0);
            for entry in records.range::<&[u8]>((as_slice(&from), as_slice(&to)))? {
                let (key, sealed) = entry?;
                count += 1;
                bytes += record::whole_bytes(key.value(), sealed.value()) as u64;
            }
            Ok((count, bytes))
        });
        read.map_err(read_error)
    }

    /// The groups with records that are not forgotten, ordered by id.
    ///
    /// # Errors
    /// The database is damaged or cannot be read.
    pub(crate) fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let read = guarded(|| {
            let records = self.shared.database.begin_read()?.open_table(RECORDS)?;
            let groups = forgotten::first_keys(&records)?.into_iter();
            Ok(groups.filter(|(_, key)| !record::is_forgotten_key(key)).map(|(group, _)| group).collect())
        });
        read.map_err(read_error)
    }

    /// Writes the queue, completes it, and closes the database; the directory is free when this returns.
    ///
    /// # Errors
    /// The first failure, if there was one: records that were completed before it are on disk.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        let joined = self.end(Stop::Drained).map_or(Ok(()), JoinHandle::join);
        let failed = self.shared.queue().failed.clone();
        let shared = self.shared.clone();
        drop(self);
        // The thread has ended, so this is the only reference.
        let closed = match Arc::into_inner(shared) {
            Some(shared) => guarded(|| shared.database.close().map_err(redb::Error::from)).map_err(write_error),
            None => Ok(()),
        };
        match (failed, joined) {
            (Some(error), _) => Err(error),
            (None, Err(_)) => Err(StoreError::Ended),
            (None, Ok(())) => closed,
        }
    }

    fn end(&mut self, stop: Stop) -> Option<JoinHandle<()>> {
        self.shared.queue().stop.get_or_insert(stop);
        self.shared.wake.notify_one();
        self.shared.written.notify_all();
        bulk::close(&self.gate);
        self.thread.take()
    }
}

impl Drop for Store {
    /// Queued records that are not being written are dropped and never completed. The thread ends by itself after the
    /// write in progress, and the directory is free only then.
    fn drop(&mut self) {
        self.end(Stop::Abandoned);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("backlog_bytes", &self.backlog_bytes()).finish_non_exhaustive()
    }
}

/// Checks that an operation is within the bounds of its key and value.
fn check(op: &Op) -> Result<(), SubmitError> {
    let (longest_key_bytes, value_bytes) = match op {
        Op::Put { key, value, .. } => (key.len(), value.len()),
        Op::DeleteRange { from, to, .. } => (from.len().max(to.len()), 0),
        Op::DeleteFirst { from, to, .. } => (from.len().max(to.len()), 0),
        Op::Forget => (0, 0),
    };
    if longest_key_bytes > KEY_BYTES_MAX {
        return Err(SubmitError::KeyTooLong { key_bytes: longest_key_bytes });
    }
    if value_bytes > VALUE_BYTES_MAX {
        return Err(SubmitError::ValueTooLarge { value_bytes });
    }
    Ok(())
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(STORE_CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Creates a database with the empty table of records, on disk.
pub(super) fn create_database(backend: impl StorageBackend) -> Result<Database, OpenStoreError> {
    let length = backend.len().map_err(|error| open_error(error.into()))?;
    if length != 0 {
        return Err(OpenStoreError::NotEmpty);
    }
    let made = guarded(|| {
        let database = builder().create_with_backend(backend)?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(PACKS)?;
        transaction.open_table(GONE)?;
        transaction.commit()?;
        Ok(database)
    });
    made.map_err(|error| OpenStoreError::Store(write_error(error)))
}

pub(super) fn open_database(backend: impl StorageBackend) -> Result<Database, OpenStoreError> {
    // An empty file would become a database.
    let length = backend.len().map_err(|error| open_error(error.into()))?;
    if length == 0 {
        return Err(OpenStoreError::NotAStore { cause: "the file is empty".to_owned() });
    }
    let opened = guarded(|| {
        let database = builder().create_with_backend(backend)?;
        let read = database.begin_read()?;
        read.open_table(RECORDS)?;
        read.open_table(PACKS)?;
        read.open_table(GONE)?;
        drop(read);
        Ok(database)
    });
    opened.map_err(open_error)
}
