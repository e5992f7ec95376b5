//! Reads a group when its node starts: only the part of its result that the node retains in memory.

use std::ops::Bound;

use cloudy_proto::{GroupId, Record, Rules, Stored, StoredError};

use super::error::ReadGroupError;
use super::group_records::{GROUP_KEY, GroupMeta, decode, first_keys, result_key};
use super::op::{self, Table};
use super::result_reads::read_entries;
use super::store::Store;

/// Maximum bytes of one read.
const READ_BYTES: usize = 4 << 20;

/// Reads a group, with the newest part of its result; none if the store has nothing of it from which a node could
/// continue. Waits for the disk.
///
/// # Errors
/// A record is damaged, or of another version.
pub(crate) fn read_group(store: &Store, group: GroupId) -> Result<Option<(GroupMeta, Stored)>, ReadGroupError> {
    let mut read = Reader { store, group, stored: Stored::default(), meta: None };
    for table in [Table::Meta, Table::Log, Table::Checkpoints, Table::Views] {
        read.table(table, Bound::Unbounded)?;
    }
    let Some(meta) = read.meta.take().filter(|_| read.stored.is_relied_on(Rules::default())) else { return Ok(None) };
    let (first, slot) = first_keys(&read.stored.begin_reading(meta.retain_bytes));
    read.result(Bound::Included(first), meta.retain_bytes)?;
    read.table(Table::Slots, Bound::Included(slot))?;
    Ok(Some((meta, read.stored)))
}

struct Reader<'a> {
    store: &'a Store,
    group: GroupId,
    stored: Stored,
    meta: Option<GroupMeta>,
}

impl Reader<'_> {
    fn table(&mut self, table: Table, mut from: Bound<Vec<u8>>) -> Result<(), ReadGroupError> {
        loop {
            let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let records = self.store.range(self.group, table, range, READ_BYTES)?;
            let Some(last) = records.last() else { return Ok(()) };
            from = Bound::Excluded(last.key.clone());
            for record in records {
                self.take(table, record)?;
            }
        }
    }

    fn take(&mut self, table: Table, op::Record { key, value }: op::Record) -> Result<(), ReadGroupError> {
        let foreign = || ReadGroupError::Foreign { group: self.group, table };
        if table == Table::Meta && key == GROUP_KEY {
            self.meta = Some(postcard::from_bytes(&value).map_err(|_| foreign())?);
            return Ok(());
        }
        match decode(table, &key, value).ok_or_else(foreign)? {
            Record::Slot { view, lane, slot } => self.stored.read_slot(view, lane, slot),
            record => self.stored.take(record).map_err(|cause| self.contradiction(cause))?,
        }
        Ok(())
    }

    fn result(&mut self, mut from: Bound<Vec<u8>>, retain_bytes: u64) -> Result<(), ReadGroupError> {
        loop {
            let entries = read_entries(self.store, self.group, from, READ_BYTES)?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            from = Bound::Excluded(result_key(last.first_index));
            for (entry, batch) in entries {
                let read = self.stored.read_entry(entry, batch, retain_bytes);
                read.map_err(|cause| self.contradiction(cause))?;
            }
        }
    }

    fn contradiction(&self, cause: StoredError) -> ReadGroupError {
        ReadGroupError::Contradiction { group: self.group, cause }
    }
}
