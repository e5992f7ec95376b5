//! Bulk values, many of one transaction in one pack: a page of the database has room for a power of two of bytes, so a
//! value that has pages of its own leaves up to half of what is written empty.
//!
//! ```text
//! cloudy records       group, table, key ─► checksum, the value, or pack, offset and length
//! cloudy packs         pack, offset      ─► a piece of the values of one group in one transaction
//! cloudy packs' gone   pack              ─► how many of its values are deleted, if some are and some are not
//! ```
//!
//! A pack is deleted with the last of its values.

use std::collections::BTreeMap;

use bytes::Bytes;
use cloudy_proto::GroupId;
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::op::{Op, Submission, Table, VALUE_BYTES_MAX, Value};
use super::record::{self, Place};

/// The pieces of packs, by pack and offset.
pub(super) const PACKS: TableDefinition<'static, PieceKey, &[u8]> = TableDefinition::new("cloudy packs");
/// The number of values of a pack without a reference.
pub(super) const GONE: TableDefinition<'static, u64, u32> = TableDefinition::new("cloudy packs' gone");

pub(super) type PieceKey = (u64, u64);

/// Smaller values are in their records: a few of them share a page.
const PACKED_BYTES_MIN: usize = 1 << 10;
/// The size of the database's smallest page.
const PAGE_BYTES: usize = 4 << 10;
/// The maximum page of a pack: the read for one of its values.
const PIECE_PAGE_BYTES_MAX: usize = 128 << 10;
/// Capacity in a page for what the database writes around a value, and some more.
const PAGE_OVERHEAD_BYTES: usize = 64;
/// A page with fewer used eighths is halved.
const PAGE_EIGHTHS_MIN: usize = 7;

/// The values of tables that are deleted in the order in which they were stored, so that a pack does not remain for one
/// of its values.
pub(super) fn packed(op: &Op) -> Option<(Table, &Value)> {
    match op {
        Op::Put { table, value, .. } if table.is_bulk() && value.len() >= PACKED_BYTES_MIN => Some((*table, value)),
        _ => None,
    }
}

/// A pack has values that are deleted at about the same time: of one group, and either of states or of the result.
type PackKey = (GroupId, bool);

fn pack_key(group: GroupId, table: Table) -> PackKey {
    (group, table == Table::Snapshots)
}

/// The positions of a batch's bulk values: for each pack in the order of its operations.
pub(super) struct Places(BTreeMap<PackKey, std::vec::IntoIter<Place>>);

impl Places {
    pub(super) fn next(&mut self, group: GroupId, table: Table) -> Option<Place> {
        self.0.get_mut(&pack_key(group, table))?.next()
    }
}

/// Writes the bulk values of a batch: a pack of its own for each group, because groups are forgotten one by one.
pub(super) fn store(transaction: &WriteTransaction, batch: &[Submission]) -> Result<Places, redb::Error> {
    let mut values: BTreeMap<PackKey, Vec<&Value>> = BTreeMap::new();
    for submission in batch {
        for (table, value) in submission.ops.iter().filter_map(packed) {
            values.entry(pack_key(submission.group, table)).or_default().push(value);
        }
    }
    let mut places = BTreeMap::new();
    if values.is_empty() {
        return Ok(Places(places));
    }
    let mut packs = transaction.open_table(PACKS)?;
    // A pack that is gone has no references, so its number is free.
    let first = packs.last()?.map_or(0, |(last, _)| last.value().0 + 1);
    for (pack, (key, values)) in (first..).zip(values) {
        store_pack(&mut packs, pack, &values)?;
        places.insert(key, places_of(pack, &values).into_iter());
    }
    Ok(Places(places))
}

fn places_of(pack: u64, values: &[&Value]) -> Vec<Place> {
    let (mut at, of) = (0, values.len() as u32);
    let mut place = |value: &&Value| {
        let place = Place { pack, at, value_bytes: value.len() as u32, of };
        at += value.len() as u64;
        place
    };
    values.iter().map(&mut place).collect()
}

fn store_pack(
    packs: &mut redb::Table<'_, PieceKey, &'static [u8]>,
    pack: u64,
    values: &[&Value],
) -> Result<(), redb::Error> {
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    let mut parts = values.iter().flat_map(|value| value.parts());
    let (mut at, mut part, mut piece) = (0, &[][..], Vec::new());
    while at < bytes {
        let piece_bytes = piece_bytes(bytes - at);
        piece.clear();
        piece.reserve(piece_bytes);
        while piece.len() < piece_bytes {
            if part.is_empty() {
                let Some(next) = parts.next() else { break };
                part = next;
            }
            let (now, later) = part.split_at(part.len().min(piece_bytes - piece.len()));
            piece.extend_from_slice(now);
            part = later;
        }
        packs.insert((pack, at as u64), piece.as_slice())?;
        at += piece_bytes;
    }
    Ok(())
}

/// The part of a pack's rest for the next page, which is filled well, except the last one.
fn piece_bytes(rest_bytes: usize) -> usize {
    let least = (rest_bytes + PAGE_OVERHEAD_BYTES).next_power_of_two();
    let page = least.clamp(PAGE_BYTES, PIECE_PAGE_BYTES_MAX);
    let full = page - PAGE_OVERHEAD_BYTES;
    if rest_bytes >= full || page == PAGE_BYTES || rest_bytes >= page / 8 * PAGE_EIGHTHS_MIN {
        rest_bytes.min(full)
    } else {
        page / 2 - PAGE_OVERHEAD_BYTES
    }
}

/// The value at a position; a shorter one if a part is missing.
pub(super) fn read(packs: &impl ReadableTable<PieceKey, &'static [u8]>, place: Place) -> Result<Bytes, redb::Error> {
    let Place { pack, at, value_bytes, .. } = place;
    let value_bytes = (value_bytes as usize).min(VALUE_BYTES_MAX);
    let mut value = Vec::with_capacity(value_bytes);
    let Some(first) = packs.range((pack, 0)..=(pack, at))?.next_back() else { return Ok(Bytes::new()) };
    let (key, piece) = first?;
    let skipped = usize::try_from(at - key.value().1).unwrap_or(usize::MAX);
    take(&mut value, piece.value().get(skipped..).unwrap_or_default(), value_bytes);
    let Some(end) = at.checked_add(value_bytes as u64).filter(|_| value.len() < value_bytes) else {
        return Ok(value.into());
    };
    for piece in packs.range((pack, at + 1)..(pack, end))? {
        take(&mut value, piece?.1.value(), value_bytes);
    }
    Ok(value.into())
}

fn take(value: &mut Vec<u8>, piece: &[u8], value_bytes: usize) {
    value.extend_from_slice(&piece[..piece.len().min(value_bytes - value.len())]);
}

/// Records that a transaction deletes or replaces, if they refer to packs.
#[derive(Default)]
pub(super) struct Deleted(BTreeMap<u64, (u32, u32)>);

impl Deleted {
    /// Notes a value of the database.
    pub(super) fn note(&mut self, sealed: &[u8]) {
        if let Some(place) = record::place_of(sealed) {
            let (count, of) = self.0.entry(place.pack).or_default();
            (*count, *of) = (*count + 1, place.of);
        }
    }

    /// Deletes the packs without references.
    pub(super) fn settle(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (mut packs, mut gone) = (transaction.open_table(PACKS)?, transaction.open_table(GONE)?);
        for (pack, (count, of)) in self.0 {
            let before = gone.get(pack)?.map_or(0, |before| before.value());
            let count = count.saturating_add(before);
            if count < of {
                gone.insert(pack, count)?;
            } else {
                gone.remove(pack)?;
                packs.retain_in((pack, 0)..=(pack, u64::MAX), |_, _| false)?;
            }
        }
        Ok(())
    }
}
