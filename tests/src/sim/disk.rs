//! A node's disk: it outlives the node's processes, and of what was not synced when one dies it keeps the first part.

use std::collections::VecDeque;

use cloudy_proto::{Entry, Index, Record, Stored, StoredBase, StoredError};

/// One disk.
#[derive(Debug, Default)]
pub struct Disk {
    /// What it keeps whatever happens.
    stored: Stored,
    /// What it was given since, by ticket.
    unsynced: VecDeque<(u64, Vec<Record>)>,
    /// When the last sync that was begun is done.
    pub busy_until_us: u64,
}

impl Disk {
    /// What is given out under a ticket.
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

    /// All up to a ticket is synced; gives what was not before.
    ///
    /// # Errors
    /// It does not follow what is there.
    pub fn sync(&mut self, ticket: u64) -> Result<Vec<Record>, StoredError> {
        let count = self.unsynced.partition_point(|(unsynced, _)| *unsynced <= ticket);
        self.keep(count)
    }

    /// The process dies: of what is not synced, the first `kept` tickets are found again. Gives those.
    ///
    /// # Errors
    /// They do not follow what is there.
    pub fn crash(&mut self, kept: usize) -> Result<Vec<Record>, StoredError> {
        let records = self.keep(kept);
        self.unsynced.clear();
        self.busy_until_us = 0;
        records
    }

    /// What a process finds that starts.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored.clone()
    }

    /// The last index that comes before what it holds of the result.
    #[must_use]
    pub fn begins(&self) -> Index {
        self.stored.begins().map(StoredBase::index).unwrap_or_default()
    }

    /// What it holds of the result from an index on; none if that is not kept any more.
    #[must_use]
    pub fn part_from(&self, from: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        (from > self.begins()).then(|| self.stored.part_from(from, bytes_max))
    }

    fn keep(&mut self, tickets: usize) -> Result<Vec<Record>, StoredError> {
        let records: Vec<Record> = self.unsynced.drain(..tickets).flat_map(|(_, records)| records).collect();
        records.iter().try_for_each(|record| self.stored.take(record.clone()))?;
        Ok(records)
    }
}
