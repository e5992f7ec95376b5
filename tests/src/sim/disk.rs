//! A node's disk, which outlives the node's processes. When a process crashes, the disk keeps the first part of the
//! records that were not synced. The real store can take its place, on a disk that keeps any of them.

use std::collections::VecDeque;

use cloudy_node::fault::{CrashCounters, DiskFault, GroupDisk, GroupDiskError};
use cloudy_proto::{ApprovedItem, Index, Position, Record, Rules, Stored, StoredBase, StoredError};

use crate::sim::dice::Dice;
use crate::sim::plan::DiskPlan;
use crate::sim::world::GROUP;

/// Operations on a disk during which the power goes, at most: more than two syncs take.
const CRASH_OPERATIONS: u64 = 24;

/// One disk.
#[derive(Debug, Default)]
pub struct Disk {
    /// The records that it keeps in any case.
    stored: Stored,
    /// The records since the last sync, by ticket.
    unsynced: VecDeque<(u64, Vec<Record>)>,
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
    /// The records do not follow what is stored, or are not what the store holds, or the store goes on after a failure.
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
        *self = Self { stored: copy, ..Self::default() };
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
        records.iter().try_for_each(|record| self.stored.take(record.clone()))?;
        Ok(records)
    }
}

fn is_group(stored: &Stored) -> bool {
    stored.is_relied_on(Rules::default())
}
