//! Reads parts of stored results while groups run, on a thread of their own, so that nothing else waits for the disk.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes, BytesMut};
use cloudy_proto::slot::Batch;
use cloudy_proto::{
    ApprovedItem, Entry, GroupId, Index, InstalledView, Position, Rank, Record, Round, SnapshotState, StateParts,
    StoredEntry, ViewId,
};
use xxhash_rust::xxh3::Xxh3;

use super::error::ReadGroupError;
use super::group_records::{
    decode_entry, decode_part_key, decode_slot, decode_view, part_key, result_key, slot_key, view_key,
};
use super::op::Table;
use super::store::Store;
use crate::health::Health;

/// What is stored of a result from a position on: beginning with it and without a gap. Nothing if it is not stored yet;
/// none if it is not stored.
pub(crate) type Part = Option<Vec<ApprovedItem>>;

/// Views that are read at once, in bytes.
const VIEWS_BYTES: usize = 16 << 10;

/// Bytes of a state that are read at once to verify it.
const STATE_BYTES: usize = 1 << 20;

type Answer = Box<dyn FnOnce(Result<Part, ReadGroupError>) + Send>;
type StateAnswer = Box<dyn FnOnce(Result<Bytes, ReadGroupError>) + Send>;

enum Wanted {
    State { group: GroupId, from: (u64, u64), bytes_max: usize, answer: StateAnswer },
    Part { group: GroupId, from: Position, bytes_max: usize, answer: Answer },
    End,
}

/// The thread that reads.
pub(crate) struct ResultReads {
    reader: ResultReader,
    thread: Option<JoinHandle<()>>,
}

/// The queue of that thread. Its callers bound it: each waits for one part at a time.
#[derive(Clone, Debug)]
pub(crate) struct ResultReader(mpsc::Sender<Wanted>);

impl ResultReader {
    /// Reads the result of a group from a position on, up to `bytes_max` of slot bodies, and at least one entry. The
    /// answer is given on the thread that reads, and dropped once that has ended.
    pub(crate) fn read(
        &self,
        group: GroupId,
        from: Position,
        bytes_max: usize,
        answer: impl FnOnce(Result<Part, ReadGroupError>) + Send + 'static,
    ) {
        // The thread may have ended.
        let _ = self.0.send(Wanted::Part { group, from, bytes_max, answer: Box::new(answer) });
    }

    /// Reads the parts of a state, given by its id, from an offset on: up to `bytes_max`, none if nothing is stored there.
    /// The answer as in [`read`](Self::read).
    pub(crate) fn read_state(
        &self,
        group: GroupId,
        from: (u64, u64),
        bytes_max: usize,
        answer: impl FnOnce(Result<Bytes, ReadGroupError>) + Send + 'static,
    ) {
        // The thread may have ended.
        let _ = self.0.send(Wanted::State { group, from, bytes_max, answer: Box::new(answer) });
    }
}

impl ResultReads {
    /// # Errors
    /// The operating system has no thread.
    pub(crate) fn start(store: Arc<Store>, health: Health) -> io::Result<Self> {
        let (wanted, next) = mpsc::channel();
        let thread = std::thread::Builder::new().name("cloudy-read".to_owned()).spawn(move || {
            health.run_blocking("storage reader", || {
                while let Ok(wanted) = next.recv() {
                    health.trip("storage reader");
                    match wanted {
                        Wanted::Part { group, from, bytes_max, answer } => {
                            answer(read_part(&store, group, from, bytes_max));
                        }
                        Wanted::State { group, from, bytes_max, answer } => {
                            answer(read_state(&store, group, from, bytes_max));
                        }
                        Wanted::End => break,
                    }
                }
            });
        });
        Ok(Self { reader: ResultReader(wanted), thread: Some(thread?) })
    }

    pub(crate) fn reader(&self) -> &ResultReader {
        &self.reader
    }

    /// Waits until earlier requests are finished, and the thread has released the store.
    pub(crate) fn close(mut self) {
        let _ = self.reader.0.send(Wanted::End);
        if let Some(thread) = self.thread.take() {
            // A read that panicked has no result.
            let _ = thread.join();
        }
    }
}

impl Drop for ResultReads {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.reader.0.send(Wanted::End);
    }
}

/// The stored result from a position on, with its views: up to `bytes_max` of slot bodies, and at least one entry. Waits for
/// the disk.
///
/// # Errors
/// A record is damaged, or of another version.
pub(crate) fn read_part(
    store: &Store,
    group: GroupId,
    position: Position,
    bytes_max: usize,
) -> Result<Part, ReadGroupError> {
    let from = position.next;
    let key = store.last_up_to(group, Table::Result, &result_key(from))?.map_or(result_key(from), |first| first.key);
    let stored = read_entries(store, group, Bound::Included(key), bytes_max)?;
    let (mut next, mut part) = (from, Vec::new());
    for (entry, batch) in stored.iter().filter(|(entry, _)| entry.last_index() >= from) {
        // Earlier records may have been deleted between two reads, or the slot of the first entry.
        let Some(batch) = batch.clone().filter(|_| entry.first_index <= next) else { break };
        part.push(Entry::of_stored(entry, batch).beginning_at(next));
        next = entry.last_index().next();
    }
    if part.is_empty() && stored.iter().any(|(entry, _)| entry.last_index() >= from) {
        return Ok(None);
    }
    let views = views_of(store, group, position, &part)?;
    Ok(position.with_views(part, &views))
}

/// The bytes of a stored state, given by its id, from an offset on: up to a number of bytes; none if nothing is stored there.
/// Waits for the disk.
///
/// # Errors
/// A record is damaged, or of another version.
pub(crate) fn read_state(
    store: &Store,
    group: GroupId,
    (id, offset): (u64, u64),
    bytes_max: usize,
) -> Result<Bytes, ReadGroupError> {
    let first = store.last_up_to(group, Table::Snapshots, &part_key(id, offset))?;
    let Some(first) = first.and_then(|first| Some((decode_part_key(&first.key)?, first.value))) else {
        return Ok(Bytes::new());
    };
    let ((of, at), mut bytes) = first;
    let skipped = usize::try_from(offset - at.min(offset)).unwrap_or(usize::MAX);
    if of != id || skipped >= bytes.len() {
        return Ok(Bytes::new());
    }
    bytes.advance(skipped);
    if bytes.len() < bytes_max {
        let (mut read, next) = (BytesMut::from(&bytes[..]), offset + bytes.len() as u64);
        let keys = (Bound::Included(part_key(id, next)), Bound::Included(part_key(id, u64::MAX)));
        let range = (keys.0.as_ref().map(Vec::as_slice), keys.1.as_ref().map(Vec::as_slice));
        for record in store.range(group, Table::Snapshots, range, bytes_max - bytes.len())? {
            if record.key != part_key(id, offset + read.len() as u64) {
                break;
            }
            read.extend_from_slice(&record.value);
        }
        bytes = read.freeze();
    }
    Ok(bytes.slice(..bytes.len().min(bytes_max)))
}

/// Verifies that a state is completely stored. Waits for the disk.
///
/// # Errors
/// A record is damaged, or of another version; or a part is missing or another one.
pub(crate) fn check_state(store: &Store, group: GroupId, state: &SnapshotState) -> Result<(), ReadGroupError> {
    let SnapshotState::Parts(StateParts { id, length, digest }) = *state else { return Ok(()) };
    let (mut offset, mut hasher) = (0, Xxh3::new());
    while offset < length {
        let bytes = read_state(store, group, (id, offset), STATE_BYTES)?;
        let bytes = bytes.slice(..bytes.len().min(usize::try_from(length - offset).unwrap_or(usize::MAX)));
        if bytes.is_empty() {
            return Err(ReadGroupError::Snapshot { group, offset });
        }
        hasher.update(&bytes);
        offset += bytes.len() as u64;
    }
    if hasher.digest128() == digest.0 { Ok(()) } else { Err(ReadGroupError::Snapshot { group, offset }) }
}

/// The stored states of a group: the number of the parts of each. Waits for the disk.
///
/// # Errors
/// A record is damaged, or of another version.
pub(crate) fn stored_states(store: &Store, group: GroupId) -> Result<BTreeMap<u64, u64>, ReadGroupError> {
    let mut states: BTreeMap<u64, u64> = BTreeMap::new();
    for key in store.keys(group, Table::Snapshots)? {
        let foreign = ReadGroupError::Foreign { group, table: Table::Snapshots };
        *states.entry(decode_part_key(&key).ok_or(foreign)?.0).or_default() += 1;
    }
    Ok(states)
}

/// The last stored index of the result; none if no message is stored.
///
/// # Errors
/// The record is damaged, or of another version.
pub(crate) fn last_index(store: &Store, group: GroupId) -> Result<Option<Index>, ReadGroupError> {
    let Some(last) = store.last_up_to(group, Table::Result, &result_key(Index(u64::MAX)))? else { return Ok(None) };
    let entry = decode_entry(&last.key, last.value).ok_or(ReadGroupError::Foreign { group, table: Table::Result })?;
    Ok(Some(entry.last_index()))
}

/// The views that begin among entries from a position on, and some of those that follow.
fn views_of(
    store: &Store,
    group: GroupId,
    position: Position,
    entries: &[Entry],
) -> Result<Vec<InstalledView>, ReadGroupError> {
    let first = entries.first().filter(|_| position.begins_late()).map_or(position.view.next(), |entry| entry.view);
    let last = entries.last().map_or(ViewId(0), |entry| entry.view);
    let (mut views, mut from) = (Vec::new(), Bound::Included(view_key(first)));
    loop {
        let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let records = store.range(group, Table::Views, range, VIEWS_BYTES)?;
        let Some(end) = records.last() else { return Ok(views) };
        from = Bound::Excluded(end.key.clone());
        for record in &records {
            let view = decode_view(&record.key, &record.value);
            views.push(view.ok_or(ReadGroupError::Foreign { group, table: Table::Views })?);
        }
        // What follows the last entry comes with it or, if it is more, with the next part.
        if views.last().is_some_and(|view| view.id() > last) {
            return Ok(views);
        }
    }
}

/// Reads entries of the stored result from a key on, with their payloads: up to a number of bytes of slot bodies, one
/// entry at least. The payloads of an entry are none if its slot is missing; it is then the only entry.
pub(super) fn read_entries(
    store: &Store,
    group: GroupId,
    from: Bound<Vec<u8>>,
    bytes_max: usize,
) -> Result<Vec<(StoredEntry, Option<Batch>)>, ReadGroupError> {
    let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
    let records = store.range(group, Table::Result, range, bytes_max)?;
    let stored: Option<Vec<StoredEntry>> =
        records.into_iter().map(|record| decode_entry(&record.key, record.value)).collect();
    let stored = stored.ok_or(ReadGroupError::Foreign { group, table: Table::Result })?;
    let slots = slots_of(store, group, &stored, bytes_max)?;
    let (mut bytes, mut entries) = (0, Vec::new());
    for entry in stored {
        let slot = entry.slot().and_then(|(lane, round)| slots.get(&(entry.view, round, lane)));
        let batch = entry.batch_in(slot);
        bytes += batch.as_ref().map_or(bytes_max + 1, |batch| batch.body.len());
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push((entry, batch));
    }
    Ok(entries)
}

type Slots = BTreeMap<(ViewId, Round, Rank), Batch>;

/// The slots of entries, up to a number of bytes: they are stored in the entries' order.
fn slots_of(store: &Store, group: GroupId, stored: &[StoredEntry], bytes_max: usize) -> Result<Slots, ReadGroupError> {
    let mut keys =
        stored.iter().filter_map(|entry| entry.slot().map(|(lane, round)| slot_key(entry.view, round, lane)));
    let Some(first) = keys.next() else { return Ok(Slots::new()) };
    let last = keys.last().unwrap_or_else(|| first.clone());
    let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
    let records = store.range(group, Table::Slots, range, bytes_max)?;
    let slots = records.into_iter().map(|record| match decode_slot(&record.key, record.value) {
        Some(Record::Slot { view, lane, slot }) => Ok(((view, slot.round, lane), slot.batch)),
        _ => Err(ReadGroupError::Foreign { group, table: Table::Slots }),
    });
    slots.collect()
}
