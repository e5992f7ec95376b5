//! The records that a node of a `Disk` group stores (`protocol.md` §3.2, §6.2, §7).
//!
//! Records are output in order and become durable in order: after a crash the disk has all records up to some point. So
//! a disk is its machine at an earlier moment, and every message to others was sent after the sync of its records.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::VoterRole;
use crate::digest::{Digest, ResultBase, digest_of};
use crate::id::{ConsensusId, Incarnation, Index, LogIndex, NodeId, Rank, Round, Seq, ViewId};
use crate::slot::{Batch, Slot};
use crate::view::InstalledView;
use crate::wire::ConsensusEntry;

/// A record. A later one with the same key replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The state that a voter must keep.
    Vote(Vote),
    /// The voter's log from the first of these on; they replace entries at and after that position.
    Entries(Vec<ConsensusEntry>),
    /// The voter's log up to here is not kept.
    Base {
        /// The start of the kept part.
        base: LogBase,
        /// Whether later entries are dropped as well, because they belong to another leader's log.
        alone: bool,
    },
    /// The state that replaces the entries of the control log up to one.
    Log {
        /// The last entry that it includes.
        index: LogIndex,
        /// The term of that one; zero if it is unknown.
        term: u64,
        /// The encoded state.
        state: Bytes,
    },
    /// A committed entry of the control log.
    Command {
        /// Its position.
        index: LogIndex,
        /// Its term, by which a voter with the entry knows that it is committed; zero if it is unknown.
        term: u64,
        /// The encoded [`Command`](crate::Command); empty at the start of a term.
        command: Bytes,
    },
    /// A message slot.
    Slot {
        /// The view.
        view: ViewId,
        /// The lane.
        lane: Rank,
        /// The slot.
        slot: Slot,
    },
    /// An entry of the result.
    Entry(StoredEntry),
    /// A view at its place in the result: the entries that follow were approved in it.
    View(InstalledView),
    /// The application's state; the result before it is not needed.
    Snapshot(StoredSnapshot),
    /// A part of a fetched state. It is kept while a snapshot names its id, and as long as it is of the latest id among
    /// such records.
    SnapshotPart {
        /// The id of the state's parts, as in [`StateParts::id`].
        id: u64,
        /// Its offset in the state.
        offset: u64,
        /// The bytes.
        part: Bytes,
    },
    /// From this checkpoint on the stored result can be read without earlier records.
    Checkpoint {
        /// The checkpoint.
        base: StoredBase,
        /// The index of the checkpoint that it replaces.
        instead_of: Option<Index>,
    },
    /// The stored result begins here: earlier records are not kept.
    Begin(StoredBase),
    /// The result reaches up to the view's first index.
    Complete {
        /// The view; zero for a node from before the first one.
        view: ViewId,
        /// Its first index.
        first: Index,
    },
    /// A view is frozen: the records before this one contain this node's answer for it.
    Wedged {
        /// The view.
        view: ViewId,
    },
    /// A record of the next version, for the tests of rolling upgrades.
    #[cfg(feature = "next-version")]
    Next,
}

/// The consensus library's state, beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// This voter's id, which it keeps with this state. Another id than before makes the earlier log void. Zero: it
    /// gave up its id.
    pub voter: ConsensusId,
    /// The latest term.
    pub term: u64,
    /// The candidate of its vote in that term; zero for none.
    pub voted_for: ConsensusId,
    /// A position up to which the log is committed.
    pub commit: LogIndex,
}

/// The dropped part of a voter's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBase {
    /// The last entry of that part.
    pub index: LogIndex,
    /// Its term.
    pub term: u64,
    /// The participants of the consensus after it.
    pub electors: Vec<(ConsensusId, VoterRole)>,
}

/// An entry of the result in its stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The node that broadcast it.
    pub origin: NodeId,
    /// The incarnation of that node.
    pub incarnation: Incarnation,
    /// The sequence number of the first payload.
    pub first_seq: Seq,
    /// Number of payloads.
    pub count: u32,
    /// The payloads.
    pub body: StoredBody,
}

/// The place of an entry's payloads: each is stored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBody {
    /// In the entry's record: it was fetched.
    Here(Bytes),
    /// In a slot's record, which may begin with payloads of another entry.
    Slot {
        /// The lane in the entry's view.
        lane: Rank,
        /// The slot's round.
        round: Round,
    },
}

/// Cost of an entry on a disk beside its payloads: its record, its slot's, and their places in the database.
const ENTRY_COST_BYTES: u64 = 256;

impl StoredEntry {
    /// The approximate cost on a disk of an entry with payloads of this size.
    #[must_use]
    pub fn kept_bytes(body_bytes: usize) -> u64 {
        body_bytes as u64 + ENTRY_COST_BYTES
    }

    /// The last payload's index.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.first_index.0 + u64::from(self.count) - 1)
    }

    /// The lane and round of its slot; none if its payloads are in its own record.
    #[must_use]
    pub fn slot(&self) -> Option<(Rank, Round)> {
        match self.body {
            StoredBody::Slot { lane, round } => Some((lane, round)),
            StoredBody::Here(_) => None,
        }
    }

    /// The payloads: from its own record, or from its slot. None if that is not the one.
    #[must_use]
    pub fn batch_in(&self, slot: Option<&Batch>) -> Option<Batch> {
        match &self.body {
            StoredBody::Here(body) => Some(Batch { first_seq: self.first_seq, count: self.count, body: body.clone() }),
            StoredBody::Slot { .. } => self.batch_of(slot?),
        }
    }

    fn batch_of(&self, slot: &Batch) -> Option<Batch> {
        let before = u32::try_from(self.first_seq.0.checked_sub(slot.first_seq.0)?).ok()?;
        let fits = before.checked_add(self.count).is_some_and(|end| end == slot.count);
        fits.then(|| slot.without_first(before))
    }
}

/// A point from which on the stored result can be read without earlier records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBase {
    /// The base of the result after it.
    pub base: ResultBase,
    /// The entry that the first message after the base is in, or that it follows: earlier ones are not needed.
    pub first_index: Index,
    /// Slots before this one are not needed.
    pub slot: Option<(ViewId, Round, Rank)>,
    /// A view, and the end of each lane's messages in it: earlier slots of a lane may be gone.
    pub ends: Option<(ViewId, Vec<Round>)>,
    /// The cost of the stored result before it, in bytes of [`StoredEntry::kept_bytes`].
    pub bytes_before: u64,
}

impl StoredBase {
    /// The last index before it.
    #[must_use]
    pub fn index(&self) -> Index {
        self.base.checkpoint.index
    }
}

/// A snapshot of the application's state in its stored form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// The last index that the state includes.
    pub index: Index,
    /// The start of the stored result: at or before that index.
    pub begins: StoredBase,
    /// The view in force at that index.
    pub view: Option<InstalledView>,
    /// The application's state.
    pub state: SnapshotState,
}

/// The state of an application, or the place where it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotState {
    /// The state. With `Memory` it has at most
    /// [`MEMORY_SNAPSHOT_BYTES_MAX`](crate::limits::MEMORY_SNAPSHOT_BYTES_MAX).
    Here(Bytes),
    /// `Disk`: its parts are stored, and synced, at this node.
    Parts(StateParts),
}

/// A state of any size that is stored in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateParts {
    /// Distinguishes the parts from those of other states at this node.
    pub id: u64,
    /// The length of the state, in bytes.
    pub length: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}

impl Default for SnapshotState {
    fn default() -> Self {
        Self::Here(Bytes::new())
    }
}

impl SnapshotState {
    /// The length of the state, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Parts(parts) => parts.length,
        }
    }

    /// The digest of its bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Here(bytes) => digest_of([&bytes[..]]),
            Self::Parts(parts) => parts.digest,
        }
    }
}
