//! Forgotten groups: one mark makes all records of such a group invisible at once. The records are deleted in bounded
//! pieces, each in the transaction of other work.

use std::collections::BTreeSet;

use cloudy_proto::GroupId;
use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::packs::Deleted;
use super::record::{self, RECORDS};

/// Maximum of a forgotten group's records that one transaction deletes: a few milliseconds of work.
const PIECE_RECORDS_MAX: usize = 1_024;

/// The groups that are marked and not completely deleted.
#[derive(Debug, Default)]
pub(super) struct Forgotten(BTreeSet<GroupId>);

impl Forgotten {
    /// The marked groups that an earlier process left.
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let records = database.begin_read()?.open_table(RECORDS)?;
        let groups = first_keys(&records)?.into_iter().filter(|(_, key)| record::is_forgotten_key(key));
        Ok(Self(groups.map(|(group, _)| group).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Marks a group.
    pub(super) fn mark(
        &mut self,
        records: &mut Table<'_, &'static [u8], &'static [u8]>,
        group: GroupId,
    ) -> Result<(), redb::Error> {
        records.insert(record::forgotten_key(group).as_slice(), &[][..])?;
        self.0.insert(group);
        Ok(())
    }

    /// Deletes a piece of one of them. If the transaction is not committed, no later one may be.
    pub(super) fn delete_piece(&mut self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let Some(&group) = self.0.first() else { return Ok(()) };
        let mut deleted = Deleted::default();
        let mut records = transaction.open_table(RECORDS)?;
        let (from, end) = record::records_of(group);
        let next = records.range::<&[u8]>(from.as_slice()..end.as_slice())?.nth(PIECE_RECORDS_MAX).transpose()?;
        let next = next.map(|(key, _)| key.value().to_vec());
        let to = next.as_ref().unwrap_or(&end);
        records.retain_in(from.as_slice()..to.as_slice(), |_: &[u8], sealed: &[u8]| {
            deleted.note(sealed);
            false
        })?;
        if next.is_none() {
            records.remove(record::forgotten_key(group).as_slice())?;
            self.0.remove(&group);
        }
        drop(records);
        deleted.settle(transaction)
    }
}

/// Whether a group is marked.
pub(super) fn is_forgotten(
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
    group: GroupId,
) -> Result<bool, redb::Error> {
    Ok(records.get(record::forgotten_key(group).as_slice())?.is_some())
}

/// Every group with records, with its first key: the mark precedes all others.
pub(super) fn first_keys(
    records: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<(GroupId, Vec<u8>)>, redb::Error> {
    let mut groups = Vec::new();
    let mut from = Some(Vec::new());
    while let Some(start) = from {
        let Some(entry) = records.range::<&[u8]>(start.as_slice()..)?.next() else { break };
        let key = entry?.0.value().to_vec();
        let (group, later) =
            record::group_of(&key).ok_or_else(|| redb::Error::Corrupted("a record belongs to no group".to_owned()))?;
        groups.push((group, key));
        from = later;
    }
    Ok(groups)
}
