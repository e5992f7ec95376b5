//! What a node of a `Disk` group stores (`protocol.md` §3.2, §6.2, §7).
//!
//! Records are given out in order and become durable in order: what is found after a crash is what was given out up to
//! some point. So a disk is its machine at an earlier moment, and whatever others were told came after its sync.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::Standing;
use crate::digest::ResultBase;
use crate::id::{ConsensusId, Incarnation, Index, LogIndex, NodeId, Rank, Round, Seq, ViewId};
use crate::slot::{Batch, Slot};
use crate::view::InstalledView;
use crate::wire::ConsensusEntry;

/// One thing to store. A later one of the same name replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What a voter must not forget.
    Vote(Vote),
    /// The voter's log from the first of these on; what stood there and after is gone.
    Entries(Vec<ConsensusEntry>),
    /// The voter's log up to here is not kept.
    Base {
        /// Where it goes on.
        base: LogBase,
        /// What came after that is gone as well: it was of another leader's log.
        alone: bool,
    },
    /// In place of the entries of the control log up to one.
    Log {
        /// The last entry that it stands for.
        index: LogIndex,
        /// The term of that one; zero if it is not known.
        term: u64,
        /// What they come to, encoded.
        state: Bytes,
    },
    /// A committed entry of the control log.
    Command {
        /// Its position.
        index: LogIndex,
        /// Its term, by which a voter that has it knows that it is committed; zero if it is not known.
        term: u64,
        /// The encoded [`Command`](crate::Command); empty at the begin of a term.
        command: Bytes,
    },
    /// A message slot.
    Slot {
        /// Of this view.
        view: ViewId,
        /// Of this lane.
        lane: Rank,
        /// The slot.
        slot: Slot,
    },
    /// An entry of the result.
    Entry(StoredEntry),
    /// A view at its place in the result: the entries that follow were approved in it.
    View(InstalledView),
    /// The application's state; what the result holds before it is needed no more.
    Snapshot(StoredSnapshot),
    /// From here on the stored result can be read without what comes before.
    Checkpoint {
        /// Where.
        base: StoredBase,
        /// The one at this index is not needed.
        instead_of: Option<Index>,
    },
    /// The stored result begins here: what comes before is not kept.
    Begin(StoredBase),
    /// The result reaches up to the view's first index.
    Complete {
        /// The view; zero for who was there before the first one.
        view: ViewId,
        /// Its first index.
        first: Index,
    },
    /// A view is frozen: what this node answers for it is among the records before this one.
    Wedged {
        /// The view.
        view: ViewId,
    },
}

/// The consensus library's state, beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// This voter's name, which it keeps with this state. Another name than before: the log before is void. Zero: it gave
    /// up its name.
    pub voter: ConsensusId,
    /// The latest term.
    pub term: u64,
    /// Whom it voted for in that term; zero for nobody.
    pub voted_for: ConsensusId,
    /// How far the log is committed, at least.
    pub commit: LogIndex,
}

/// What a voter knows of the part of its log that is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBase {
    /// The last entry of that part.
    pub index: LogIndex,
    /// Its term.
    pub term: u64,
    /// The participants of the consensus after it.
    pub electors: Vec<(ConsensusId, Standing)>,
}

/// An entry of the result as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The node that broadcast it.
    pub origin: NodeId,
    /// In which run of its process.
    pub incarnation: Incarnation,
    /// The first payload's number.
    pub first_seq: Seq,
    /// How many payloads.
    pub count: u32,
    /// The payloads.
    pub body: StoredBody,
}

/// Where an entry's payloads are: each is stored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredBody {
    /// In the entry's record: it was fetched.
    Here(Bytes),
    /// In a slot's record, which may begin with payloads that are not this entry's.
    Slot {
        /// Of this lane of the entry's view.
        lane: Rank,
        /// The slot's round.
        round: Round,
    },
}

/// What an entry costs on a disk beside its payloads: its record, its slot's, and their places in the database.
const ENTRY_COST_BYTES: u64 = 256;

impl StoredEntry {
    /// What an entry with payloads of so many bytes costs on a disk, about.
    #[must_use]
    pub fn kept_bytes(body_bytes: usize) -> u64 {
        body_bytes as u64 + ENTRY_COST_BYTES
    }

    /// The last payload's index.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.first_index.0 + u64::from(self.count) - 1)
    }

    /// The lane and round of the slot that holds it; none if its payloads are in its own record.
    #[must_use]
    pub fn slot(&self) -> Option<(Rank, Round)> {
        match self.body {
            StoredBody::Slot { lane, round } => Some((lane, round)),
            StoredBody::Here(_) => None,
        }
    }

    /// The payloads: from its own record, or taken out of the slot that holds them. None if that is not the one.
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

/// A place in the stored result from which on it can be read without what comes before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBase {
    /// What the result carries on from.
    pub base: ResultBase,
    /// The entry that the first message after the base is in, or that it follows: earlier ones are needed no more.
    pub first_index: Index,
    /// Slots before this one are needed no more.
    pub slot: Option<(ViewId, Round, Rank)>,
    /// A view, and where each lane's messages ended in it: earlier slots of a lane may be gone.
    pub ends: Option<(ViewId, Vec<Round>)>,
    /// What was stored of the result before, in bytes of [`StoredEntry::kept_bytes`].
    pub bytes_before: u64,
}

impl StoredBase {
    /// The last index that comes before.
    #[must_use]
    pub fn index(&self) -> Index {
        self.base.checkpoint.index
    }
}

/// A snapshot of the application's state as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// The last index that the state knows.
    pub index: Index,
    /// Where the stored result begins: at or before that index.
    pub begins: StoredBase,
    /// The view in force at that index.
    pub view: Option<InstalledView>,
    /// What the application said.
    pub state: Bytes,
}
