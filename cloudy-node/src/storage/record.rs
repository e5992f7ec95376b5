//! How a record lies in the database: its key with group and table before it, its value with a checksum before it.

use core::fmt;
use core::ops::{Bound, RangeBounds};

use bytes::Bytes;
use cloudy_proto::GroupId;
use xxhash_rust::xxh3::Xxh3;

use super::error::{StoreError, SubmitError};

/// Bytes of a record's key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of a record's value: several slots of the greatest size.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// What an operation counts towards the backlog besides its bytes.
const OP_COST_BYTES: usize = 64;
const GROUP_BYTES: usize = 16;
const PREFIX_BYTES: usize = GROUP_BYTES + 1;
const CHECKSUM_BYTES: usize = 16;

/// What a record is about. Each group has each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single facts: the consensus state, watermarks, what the group agreed on.
    Meta,
    /// The control log.
    Log,
    /// The slots of the lanes, each once.
    Slots,
    /// The result, which refers to stored slots.
    Result,
    /// Where reading the result may begin.
    Checkpoints,
}

impl Table {
    /// On disk: never another number for the same table.
    fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Log => 2,
            Self::Slots => 3,
            Self::Result => 4,
            Self::Checkpoints => 5,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Slots => "slots",
            Self::Result => "result",
            Self::Checkpoints => "checkpoints",
        })
    }
}

/// One change of a group's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The record of this key has this value from here on.
    Put {
        /// In which table.
        table: Table,
        /// Up to [`KEY_BYTES_MAX`]. Records are ordered by the bytes of their keys.
        key: Vec<u8>,
        /// Up to [`VALUE_BYTES_MAX`].
        value: Bytes,
    },
    /// The records from `from` to just before `to` are gone; an empty or reversed range is none.
    DeleteRange {
        /// In which table.
        table: Table,
        /// The first key, up to [`KEY_BYTES_MAX`].
        from: Vec<u8>,
        /// The key after the last, up to [`KEY_BYTES_MAX`].
        to: Vec<u8>,
    },
    /// The first records of a table are gone: a bounded piece of work, however many there are.
    DeleteFirst {
        /// Of which table.
        table: Table,
        /// Those just before this key at the most, up to [`KEY_BYTES_MAX`].
        to: Vec<u8>,
        /// No more than so many.
        count_max: usize,
    },
}

impl Op {
    pub(super) fn cost_bytes(&self) -> usize {
        OP_COST_BYTES
            + match self {
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::DeleteRange { from, to, .. } => from.len() + to.len(),
                Self::DeleteFirst { to, .. } => to.len(),
            }
    }

    pub(super) fn check(&self) -> Result<(), SubmitError> {
        let (longest_key_bytes, value_bytes) = match self {
            Self::Put { key, value, .. } => (key.len(), value.len()),
            Self::DeleteRange { from, to, .. } => (from.len().max(to.len()), 0),
            Self::DeleteFirst { to, .. } => (to.len(), 0),
        };
        if longest_key_bytes > KEY_BYTES_MAX {
            return Err(SubmitError::KeyTooLong { key_bytes: longest_key_bytes });
        }
        if value_bytes > VALUE_BYTES_MAX {
            return Err(SubmitError::ValueTooLarge { value_bytes });
        }
        Ok(())
    }
}

/// A record as it was read, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key as it was put.
    pub key: Vec<u8>,
    /// The value as it was put.
    pub value: Bytes,
}

/// The key in the database.
pub(super) fn full_key(group: GroupId, table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(PREFIX_BYTES + key.len());
    full.extend_from_slice(&group.0);
    full.push(table.number());
    full.extend_from_slice(key);
    full
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

/// The value in the database.
pub(super) fn sealed(full_key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend_from_slice(&checksum(full_key, value));
    sealed.extend_from_slice(value);
    sealed
}

/// The record of a key and value in the database.
pub(super) fn unsealed(group: GroupId, table: Table, full_key: &[u8], sealed: &[u8]) -> Result<Record, StoreError> {
    let key = full_key.get(PREFIX_BYTES..).unwrap_or_default();
    match sealed.split_at_checked(CHECKSUM_BYTES) {
        Some((stored, value)) if stored == checksum(full_key, value) => {
            Ok(Record { key: key.to_vec(), value: Bytes::copy_from_slice(value) })
        }
        _ => Err(StoreError::Damaged { group, table, key: key.iter().map(|byte| format!("{byte:02x}")).collect() }),
    }
}

/// XXH3-128 of group, table, key and value. The key's length comes first, so that no byte can move from one to another.
fn checksum(full_key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Xxh3::new();
    hash.update(&(full_key.len() as u64).to_le_bytes());
    hash.update(full_key);
    hash.update(value);
    hash.digest128().to_le_bytes()
}
