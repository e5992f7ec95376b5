//! The layout of a record in the database: its key with group and table before it, its value with a checksum before it.

use core::ops::{Bound, RangeBounds};

use bytes::{Buf, Bytes};
use cloudy_proto::GroupId;
use redb::TableDefinition;
use xxhash_rust::xxh3::Xxh3;

use super::error::StoreError;
use super::op::{Record, Table, Value};

const GROUP_BYTES: usize = 16;
const PREFIX_BYTES: usize = GROUP_BYTES + 1;
/// In the position of a table's number.
const FORGOTTEN: u8 = 0;
const CHECKSUM_BYTES: usize = 16;
/// The mark of a sealed value that is complete.
const HERE: u8 = 0;
/// The mark of a sealed value in a pack.
const PACKED: u8 = 1;
const PLACE_BYTES: usize = 24;

/// All records of all groups.
pub(super) const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("cloudy records");

/// The position of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u64,
    pub(super) at: u64,
    pub(super) value_bytes: u32,
    /// The number of values in the pack.
    pub(super) of: u32,
}

/// The key in the database.
pub(super) fn full_key(group: GroupId, table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(PREFIX_BYTES + key.len());
    full.extend_from_slice(&group.0);
    full.push(table.number());
    full.extend_from_slice(key);
    full
}

/// The key of the mark of a forgotten group: it precedes all records of the group.
pub(super) fn forgotten_key(group: GroupId) -> Vec<u8> {
    let mut key = group.0.to_vec();
    key.push(FORGOTTEN);
    key
}

/// Whether a key in the database is the mark of a forgotten group.
pub(super) fn is_forgotten_key(full_key: &[u8]) -> bool {
    full_key.get(GROUP_BYTES) == Some(&FORGOTTEN)
}

/// The keys of all records of a group, without the mark that it is forgotten.
pub(super) fn records_of(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let bound = |number| [&group.0[..], &[number]].concat();
    (bound(FORGOTTEN + 1), bound(u8::MAX))
}

/// First and last key in the database.
pub(super) type FullRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The keys in the database of a range of one table's keys; none when the range is empty or reversed.
pub(super) fn full_range(group: GroupId, table: Table, range: &impl RangeBounds<[u8]>) -> Option<FullRange> {
    let within = |bound: Bound<&[u8]>| bound.map(|key| full_key(group, table, key));
    let (from, to) = (within(range.start_bound()), within(range.end_bound()));
    let from = if from == Bound::Unbounded { Bound::Included(full_key(group, table, &[])) } else { from };
    let to = match to {
        Bound::Unbounded => {
            let mut next_table = full_key(group, table, &[]);
            next_table[GROUP_BYTES] += 1;
            Bound::Excluded(next_table)
        }
        bound => bound,
    };
    let empty = match (&from, &to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    };
    (!empty).then_some((from, to))
}

/// The group of a key in the database, and the first key that any later group could have.
pub(super) fn group_of(full_key: &[u8]) -> Option<(GroupId, Option<Vec<u8>>)> {
    let group: [u8; GROUP_BYTES] = full_key.get(..GROUP_BYTES)?.try_into().ok()?;
    let later = u128::from_be_bytes(group).checked_add(1).map(|id| id.to_be_bytes().to_vec());
    Some((GroupId(group), later))
}

/// The table of a key in the database; none for an unknown number.
pub(super) fn table_of(full_key: &[u8]) -> Option<Table> {
    let number = *full_key.get(GROUP_BYTES)?;
    Table::ALL.into_iter().find(|table| table.number() == number)
}

/// The key of a record within its table.
pub(super) fn key_of(full_key: &[u8]) -> &[u8] {
    full_key.get(PREFIX_BYTES..).unwrap_or_default()
}

/// The first key of the table after the one of this key; none after the last.
pub(super) fn next_table(full_key: &[u8]) -> Option<Vec<u8>> {
    let (group, later) = group_of(full_key).unwrap_or((GroupId([0; GROUP_BYTES]), None));
    let number = full_key.get(GROUP_BYTES).copied().unwrap_or_default();
    if full_key.len() < GROUP_BYTES || number < Table::ALL.len() as u8 {
        return Some([&group.0[..], &[number + 1]].concat());
    }
    later
}

/// The content of a record in the database: its value, or the value's position.
pub(super) fn sealed(full_key: &[u8], value: &Value, place: Option<Place>) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + 1 + place.map_or(value.len(), |_| PLACE_BYTES));
    sealed.extend_from_slice(&[0; CHECKSUM_BYTES]);
    match place {
        None => sealed.push(HERE),
        Some(Place { pack, at, value_bytes, of }) => {
            sealed.push(PACKED);
            [pack, at].iter().for_each(|number| sealed.extend_from_slice(&number.to_le_bytes()));
            [value_bytes, of].iter().for_each(|number| sealed.extend_from_slice(&number.to_le_bytes()));
        }
    }
    let checksum = checksum(full_key, &sealed[CHECKSUM_BYTES..], &value.parts());
    sealed[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    if place.is_none() {
        value.parts().iter().for_each(|part| sealed.extend_from_slice(part));
    }
    sealed
}

/// The position of the value, if it is not in its record.
pub(super) fn place_of(sealed: &[u8]) -> Option<Place> {
    let (kind, mut place) = sealed.get(CHECKSUM_BYTES..)?.split_first()?;
    (*kind == PACKED && place.len() == PLACE_BYTES).then_some(())?;
    let (pack, at) = (place.try_get_u64_le().ok()?, place.try_get_u64_le().ok()?);
    let (value_bytes, of) = (place.try_get_u32_le().ok()?, place.try_get_u32_le().ok()?);
    Some(Place { pack, at, value_bytes, of })
}

/// The size of a record as if its value were in it.
pub(super) fn whole_bytes(full_key: &[u8], sealed: &[u8]) -> usize {
    let packed = place_of(sealed).map(|place| CHECKSUM_BYTES + 1 + place.value_bytes as usize);
    full_key.len() + packed.unwrap_or(sealed.len())
}

/// The record of a key in the database with its content; `read` returns a value in a pack.
pub(super) fn unsealed(
    group: GroupId,
    table: Table,
    full_key: &[u8],
    sealed: &[u8],
    read: impl FnOnce(Place) -> Result<Bytes, redb::Error>,
) -> Result<Result<Record, StoreError>, redb::Error> {
    let key = key_of(full_key);
    let damaged = || StoreError::Damaged { group, table, key: key.iter().map(|byte| format!("{byte:02x}")).collect() };
    let Some((stored, rest)) = sealed.split_at_checked(CHECKSUM_BYTES) else { return Ok(Err(damaged())) };
    let (place, value) = match (place_of(sealed), rest.split_first()) {
        (Some(place), _) => (rest, read(place)?),
        (None, Some((&HERE, value))) => (&rest[..1], Bytes::copy_from_slice(value)),
        _ => return Ok(Err(damaged())),
    };
    let whole = stored == checksum(full_key, place, &[&value]);
    Ok(if whole { Ok(Record { key: key.to_vec(), value }) } else { Err(damaged()) })
}

/// XXH3-128 of group, table, key, the value's position, and the value. The key's length comes first, so that no byte
/// can move from one to another.
fn checksum(full_key: &[u8], place: &[u8], value: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Xxh3::new();
    hash.update(&(full_key.len() as u64).to_le_bytes());
    hash.update(full_key);
    hash.update(place);
    value.iter().for_each(|part| hash.update(part));
    hash.digest128().to_le_bytes()
}
