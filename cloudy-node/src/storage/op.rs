//! Tables, values and operations of a store, with their bounds.

use core::fmt;

use bytes::Bytes;
use cloudy_proto::GroupId;

/// Maximum bytes that wait for the disk, including the whole submission that exceeds it.
pub(crate) const STORE_BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Maximum length of a record's key.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 10;
/// Maximum size of a record's value: several slots of the maximum size.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

/// Cost of an operation in the backlog beside its bytes.
const OP_COST_BYTES: usize = 64;

/// The table of a record. Each group has each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// Single values: the consensus state, watermarks, the group's parameters.
    Meta,
    /// The control log.
    Log,
    /// The slots of the lanes, each once.
    Slots,
    /// The result, which refers to stored slots.
    Result,
    /// Positions from which the result can be read.
    Checkpoints,
    /// The views of the result.
    Views,
    /// The parts of applications' states.
    Snapshots,
}

impl Table {
    /// All tables, ordered by their numbers.
    pub const ALL: [Self; 7] =
        [Self::Meta, Self::Log, Self::Slots, Self::Result, Self::Checkpoints, Self::Views, Self::Snapshots];

    /// Whether its records are many and large, and are deleted in about the order in which they were stored.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, Self::Slots | Self::Result | Self::Snapshots)
    }

    /// The number of a table on disk, which never changes.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Log => 2,
            Self::Slots => 3,
            Self::Result => 4,
            Self::Checkpoints => 5,
            Self::Views => 6,
            Self::Snapshots => 7,
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
            Self::Views => "views",
            Self::Snapshots => "snapshots",
        })
    }
}

/// A value to store: one part behind the other, so that a large one need not be copied to get a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// The first part; may be empty.
    pub head: Bytes,
    /// The second part; may be empty.
    pub body: Bytes,
}

impl Value {
    /// The length of both parts, in bytes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// The value in the form in which it is read.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }

    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }
}

impl From<Bytes> for Value {
    fn from(body: Bytes) -> Self {
        Self { head: Bytes::new(), body }
    }
}

/// One change of a group's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Sets the record of this key to this value.
    Put {
        /// The table.
        table: Table,
        /// Up to [`KEY_BYTES_MAX`]. Records are ordered by the bytes of their keys.
        key: Vec<u8>,
        /// Up to [`VALUE_BYTES_MAX`].
        value: Value,
    },
    /// Deletes the records from `from` to just before `to`; an empty or reversed range has no effect.
    DeleteRange {
        /// The table.
        table: Table,
        /// The first key, up to [`KEY_BYTES_MAX`].
        from: Vec<u8>,
        /// The key after the last, up to [`KEY_BYTES_MAX`].
        to: Vec<u8>,
    },
    /// Deletes all records of the group for good: they are not read once this is completed, and are deleted in bounded
    /// pieces beside later work, also after a restart. No other operation of the group may follow.
    Forget,
    /// Deletes the first records of a range: a bounded piece of work, however many there are.
    DeleteFirst {
        /// The table.
        table: Table,
        /// The first key, up to [`KEY_BYTES_MAX`]; empty for the beginning of the table.
        from: Vec<u8>,
        /// The key before which records are deleted, up to [`KEY_BYTES_MAX`].
        to: Vec<u8>,
        /// Maximum number of deleted records.
        count_max: usize,
    },
}

impl Op {
    pub(super) fn cost_bytes(&self) -> usize {
        OP_COST_BYTES
            + match self {
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::DeleteRange { from, to, .. } => from.len() + to.len(),
                Self::DeleteFirst { from, to, .. } => from.len() + to.len(),
                Self::Forget => 0,
            }
    }
}

/// A record that was read, with its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The stored key.
    pub key: Vec<u8>,
    /// The stored value.
    pub value: Bytes,
}

/// The operations of one call of `submit`.
pub(super) struct Submission {
    pub(super) group: GroupId,
    pub(super) ops: Vec<Op>,
    /// None if its group is not told of it.
    pub(super) ticket: Option<u64>,
    pub(super) cost_bytes: usize,
}

impl Submission {
    pub(super) fn new(group: GroupId, ops: Vec<Op>, ticket: Option<u64>) -> Self {
        let cost_bytes = size_of::<Self>() + ops.iter().map(Op::cost_bytes).sum::<usize>();
        Self { group, ops, ticket, cost_bytes }
    }
}
