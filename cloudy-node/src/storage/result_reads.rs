//! Reads parts of stored results while groups run, on a thread of their own, so that nothing else waits for the disk.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use cloudy_proto::slot::Batch;
use cloudy_proto::{
    ApprovedItem, Entry, GroupId, Index, InstalledView, Position, Rank, Record, Round, StoredEntry, ViewId,
};

use super::error::ReadGroupError;
use super::group_records::{decode_entry, decode_slot, decode_view, result_key, slot_key, view_key};
use super::op::Table;
use super::store::Store;
use crate::health::Health;

/// What is stored of a result from a position on: beginning with it and without a gap. Nothing if it is not stored yet;
/// none if it is not stored.
pub(crate) type Part = Option<Vec<ApprovedItem>>;

/// Views that are read at once, in bytes.
const VIEWS_BYTES: usize = 16 << 10;

type Answer = Box<dyn FnOnce(Result<Part, ReadGroupError>) + Send>;

enum Wanted {
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
}

impl ResultReads {
    /// # Errors
    /// The operating system has no thread.
    pub(crate) fn start(store: Arc<Store>, health: Health) -> io::Result<Self> {
        let (wanted, next) = mpsc::channel();
        let thread = std::thread::Builder::new().name("cloudy-read".to_owned()).spawn(move || {
            health.run_blocking("storage reader", || {
                while let Ok(Wanted::Part { group, from, bytes_max, answer }) = next.recv() {
                    health.trip("storage reader");
                    answer(read_part(&store, group, from, bytes_max));
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
/// What is damaged, or of another version.
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
