//! What a store holds and is asked for: tables, values, operations, and their bounds.

use core::fmt;

use bytes::Bytes;
use cloudy_proto::GroupId;

/// What may wait for the disk, the submission that passes it included whole.
pub(crate) const STORE_BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Bytes of a record's key.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of a record's value: several slots of the greatest size.
pub(crate) const VALUE_BYTES_MAX: usize = 64 << 20;

/// What an operation counts towards the backlog besides its bytes.
const OP_COST_BYTES: usize = 64;

/// What a record is about. Each group has each table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
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
    /// The views of the result.
    Views,
}

impl Table {
    /// Its records are many and large, and go in about the order in which they came.
    pub(super) fn is_bulk(self) -> bool {
        matches!(self, Self::Slots | Self::Result)
    }

    /// On disk: never another number for the same table.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Log => 2,
            Self::Slots => 3,
            Self::Result => 4,
            Self::Checkpoints => 5,
            Self::Views => 6,
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
        })
    }
}

/// What is put: one part behind the other, so that a large one need not be copied to get a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Value {
    /// The first part; may be empty.
    pub head: Bytes,
    /// The second part; may be empty.
    pub body: Bytes,
}

impl Value {
    /// Of both parts, in bytes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// As it is read back.
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
    /// The record of this key has this value from here on.
    Put {
        /// In which table.
        table: Table,
        /// Up to [`KEY_BYTES_MAX`]. Records are ordered by the bytes of their keys.
        key: Vec<u8>,
        /// Up to [`VALUE_BYTES_MAX`].
        value: Value,
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
    /// All records of the group are gone for good: they are not read once this is completed, and are deleted in
    /// bounded pieces beside later work, after a restart too. Nothing else of the group may follow.
    Forget,
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
                Self::Forget => 0,
            }
    }
}

/// A record as it was read, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key as it was put.
    pub key: Vec<u8>,
    /// The value as it was put.
    pub value: Bytes,
}

/// What one call of `submit` handed in.
pub(super) struct Submission {
    pub(super) group: GroupId,
    pub(super) ops: Vec<Op>,
    pub(super) ticket: u64,
    pub(super) cost_bytes: usize,
}
