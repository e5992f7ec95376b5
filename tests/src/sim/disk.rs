//! A node's disk, which outlives the node's processes. When a process crashes, the disk keeps the first part of the
//! records that were not synced. The real store can take its place, on a disk that keeps any of them.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use cloudy_node::fault::{CrashCounters, DiskFault, GroupDisk, GroupDiskError};
use cloudy_proto::{
    ApprovedItem, Digest, Index, Position, Record, Rules, SnapshotState, StateParts, Stored, StoredBase, StoredError,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::sim::dice::Dice;
use crate::sim::plan::DiskPlan;
use crate::sim::world::GROUP;

/// Operations on a disk during which the power goes, at most: more than two syncs take.
const CRASH_OPERATIONS: u64 = 24;

/// The size of a stored part of a state.
const PIECE_BYTES: usize = 24;

/// One disk.
#[derive(Debug, Default)]
pub struct Disk {
    /// The records that it keeps in any case.
    stored: Stored,
    /// The records since the last sync, by ticket.
    unsynced: VecDeque<(u64, Vec<Record>)>,
    /// The synced parts of states, by id and offset.
    parts: BTreeMap<u64, BTreeMap<u64, Bytes>>,
    /// The state that is fetched, or was last.
    fetched: Option<u64>,
    /// Parts that were deleted: an older copy of the disk has them.
    deleted: BTreeMap<u64, BTreeMap<u64, Bytes>>,
    /// When the last sync that was begun is done.
    pub busy_until_us: u64,
    /// All that is stored in a store too.
    is_real: bool,
    real: Option<GroupDisk>,
}

/// A fault of a disk in a check.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Records do not follow the stored ones.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The store fails, or does not open.
    #[error(transparent)]
    Store(#[from] GroupDiskError),
    /// It holds a state that its node never reached since its last sync.
    #[error("what the store holds after a crash is not what was given out up to any point since the last sync")]
    Other,
}

impl Disk {
    /// One as the plan wants it. A store is made once something is synced.
    #[must_use]
    pub fn of(plan: &DiskPlan) -> Self {
        Self { is_real: plan.real, ..Self::default() }
    }

    /// Its store, if it has one.
    fn store(&mut self) -> Result<Option<&mut GroupDisk>, DiskError> {
        if self.is_real && self.real.is_none() {
            self.real = Some(GroupDisk::create(GROUP)?);
        }
        Ok(self.real.as_mut())
    }

    /// Takes the records of a ticket.
    pub fn put(&mut self, ticket: u64, records: Vec<Record>) {
        self.unsynced.push_back((ticket, records));
    }

    /// Tickets that are not synced.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The last ticket that was given out.
    #[must_use]
    pub fn last_ticket(&self) -> u64 {
        self.unsynced.back().map_or(0, |(ticket, _)| *ticket)
    }

    /// Syncs all records up to a ticket; returns the newly synced ones.
    ///
    /// # Errors
    /// The records do not follow the stored ones, or the store fails.
    pub fn sync(&mut self, ticket: u64) -> Result<Vec<Record>, DiskError> {
        let count = self.unsynced.partition_point(|(unsynced, _)| *unsynced <= ticket);
        let records = self.keep(count)?;
        if let Some(store) = self.store()?.filter(|_| !records.is_empty()) {
            store.put(records.clone())?;
        }
        Ok(records)
    }

    /// The process crashes: of the records that are not synced, the first tickets are found again. Returns those, and
    /// the fate of the writes.
    ///
    /// # Errors
    /// They do not follow the stored ones, or differ from what the store holds.
    pub fn crash(&mut self, dice: &mut Dice) -> Result<(Vec<Record>, CrashCounters), DiskError> {
        let (mut met, mut kept) = (CrashCounters::default(), dice.between(0, self.unsynced.len() as u64) as usize);
        self.store()?;
        if let Some(real) = self.real.take() {
            let batches = self.unsynced.iter().map(|(_, records)| records.clone()).collect();
            let (operations, seed) = (dice.between(1, CRASH_OPERATIONS), dice.between(0, u64::from(u32::MAX)));
            let (opened, found, counted) = real.crash(batches, operations, seed)?;
            met = counted;
            kept = self.kept_of(found.as_ref())?;
            // The next start deletes what no state relies on.
            self.real = found.map(|_| opened);
        }
        let records = self.keep(kept)?;
        self.unsynced.clear();
        self.busy_until_us = 0;
        Ok((records, met))
    }

    /// An operation fails while what is not synced is stored, and the process ends. Of what is not synced, some first
    /// tickets are found again. Returns those records, and whether the operation of a store failed.
    ///
    /// # Errors
    /// The records do not follow what is stored, or are not what the store holds, or the store continues after a failure.
    pub fn fail(&mut self, fault: DiskFault, dice: &mut Dice) -> Result<(Vec<Record>, bool), DiskError> {
        let mut kept = dice.between(0, self.unsynced.len() as u64) as usize;
        let mut store_failed = false;
        self.store()?;
        if let Some(real) = self.real.take() {
            let batches = self.unsynced.iter().map(|(_, records)| records.clone()).collect();
            let (operations, seed) = (dice.between(1, CRASH_OPERATIONS / 2), dice.between(0, u64::from(u32::MAX)));
            let (opened, found, failed) = real.fail(batches, operations, fault, seed)?;
            store_failed = failed;
            kept = self.kept_of(found.as_ref())?;
            // The next start deletes what never had a view.
            self.real = found.map(|_| opened);
        }
        let records = self.keep(kept)?;
        self.unsynced.clear();
        self.busy_until_us = 0;
        Ok((records, store_failed))
    }

    /// The number of tickets after the last sync that a store has kept.
    fn kept_of(&self, found: Option<&Stored>) -> Result<usize, DiskError> {
        let mut folded = self.stored.clone();
        for kept in 0..=self.unsynced.len() {
            let whole = is_group(&folded).then(|| folded.clone().newest(u64::MAX)).transpose()?;
            if found == whole.as_ref() {
                return Ok(kept);
            }
            let (_, records) = self.unsynced.get(kept).ok_or(DiskError::Other)?;
            records.iter().try_for_each(|record| folded.take(record.clone()))?;
        }
        Err(DiskError::Other)
    }

    /// An older copy replaces its content; records that were not synced are lost.
    pub fn put_back(&mut self, copy: Stored) {
        let mut parts = core::mem::take(&mut self.deleted);
        parts.append(&mut self.parts);
        *self = Self { stored: copy, parts, ..Self::default() };
    }

    /// Stores a state of the node's own application, and syncs.
    ///
    /// # Errors
    /// The store fails.
    pub fn store_state(&mut self, id: u64, state: &Bytes) -> Result<StateParts, DiskError> {
        let pieces = (0..state.len()).step_by(PIECE_BYTES);
        let pieces = pieces.map(|at| (at as u64, state.slice(at..state.len().min(at + PIECE_BYTES))));
        let pieces: BTreeMap<u64, Bytes> = pieces.collect();
        if let Some(store) = self.store()? {
            store.put_state(id, &pieces)?;
        }
        self.parts.insert(id, pieces);
        Ok(StateParts { id, length: state.len() as u64, digest: Digest(xxh3_128(state)) })
    }

    /// A stored state; none if a part is missing.
    #[must_use]
    pub fn state(&self, parts: StateParts) -> Option<Bytes> {
        let mut state = BytesMut::new();
        while (state.len() as u64) < parts.length {
            state.extend_from_slice(&self.state_part(parts.id, state.len() as u64, usize::MAX)?);
        }
        Some(state.freeze())
    }

    /// Bytes of a stored state from an offset on; none if there are none.
    #[must_use]
    pub fn state_part(&self, id: u64, offset: u64, bytes_max: usize) -> Option<Bytes> {
        let (at, part) = self.parts.get(&id)?.range(..=offset).next_back()?;
        let start = usize::try_from(offset - at).ok().filter(|start| *start < part.len())?;
        Some(part.slice(start..part.len().min(start.saturating_add(bytes_max))))
    }

    /// Keeps a part of a fetched state. The one before it is deleted, unless it is the snapshot.
    fn keep_part(&mut self, id: u64, offset: u64, part: Bytes) {
        let before = self.fetched.replace(id).filter(|before| *before != id && self.current() != Some(*before));
        before.into_iter().for_each(|before| self.delete_state(before));
        self.parts.entry(id).or_default().insert(offset, part);
    }

    fn delete_state(&mut self, id: u64) {
        if let Some(parts) = self.parts.remove(&id) {
            self.deleted.insert(id, parts);
        }
    }

    /// The id of the parts of the snapshot.
    fn current(&self) -> Option<u64> {
        match self.stored.snapshot()?.state {
            SnapshotState::Parts(parts) => Some(parts.id),
            SnapshotState::Here(_) => None,
        }
    }

    /// A process that starts with the synced records continues in the group.
    #[must_use]
    pub fn holds_group(&self) -> bool {
        is_group(&self.stored)
    }

    /// The records that a starting process finds.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// The last index before its part of the result.
    #[must_use]
    pub fn begins(&self) -> Index {
        self.stored.begins().map(StoredBase::index).unwrap_or_default()
    }

    /// What it holds of the result from a position on; none if that is not kept.
    #[must_use]
    pub fn part_from(&self, from: Position, bytes_max: usize) -> Option<Vec<ApprovedItem>> {
        (from.next > self.begins()).then(|| self.stored.part_from(from, bytes_max)).flatten()
    }

    fn keep(&mut self, tickets: usize) -> Result<Vec<Record>, DiskError> {
        let records: Vec<Record> = self.unsynced.drain(..tickets).flat_map(|(_, records)| records).collect();
        for record in &records {
            let before = self.current();
            self.stored.take(record.clone())?;
            if let Record::SnapshotPart { id, offset, part } = record {
                self.keep_part(*id, *offset, part.clone());
            }
            let replaced = before.filter(|before| self.current() != Some(*before));
            replaced.into_iter().for_each(|before| self.delete_state(before));
        }
        Ok(records)
    }
}

fn is_group(stored: &Stored) -> bool {
    stored.is_relied_on(Rules::default())
}
