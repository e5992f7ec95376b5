//! What a node of a `Disk` group stores, and what an earlier run's records come to (`protocol.md` §3.2, §6.2).
//!
//! Records are given out in order and become durable in order: what is found after a crash is what was given out up to
//! some point. So a disk is its machine at an earlier moment, and whatever others were told came after its sync.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Standing};
use crate::digest::ResultBase;
use crate::id::{ConsensusId, Incarnation, Index, LogIndex, NodeId, Rank, Round, Seq, ViewId};
use crate::slot::{Batch, Slot};
use crate::wire::{ConsensusEntry, decode_command, decode_log_state};

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
    /// The application's state; what the result holds before it is needed no more.
    Snapshot(StoredSnapshot),
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
    /// This voter's name, which it keeps with this state. Another name than before: the log before is void.
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
    /// Who takes part in the consensus after it.
    pub electors: Vec<(ConsensusId, Standing)>,
}

/// An entry of the result as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// Who broadcast it.
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

impl StoredEntry {
    /// The last payload's index.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.first_index.0 + u64::from(self.count) - 1)
    }

    /// The payloads, taken out of the slot that holds them; none if it is not the one.
    #[must_use]
    pub fn batch_of(&self, slot: &Batch) -> Option<Batch> {
        let before = u32::try_from(self.first_seq.0.checked_sub(slot.first_seq.0)?).ok()?;
        let fits = before.checked_add(self.count).is_some_and(|end| end == slot.count);
        fits.then(|| slot.without_first(before))
    }
}

/// A snapshot of the application's state as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// The last index that the state knows.
    pub index: Index,
    /// Where the stored result begins: at or before that index.
    pub base: ResultBase,
    /// The entry that the result's first message is in: earlier ones are needed no more.
    pub first_index: Index,
    /// The slot of that entry: those before it are needed no more.
    pub slot: Option<(ViewId, Round, Rank)>,
    /// A view, and where each lane's messages ended in it: earlier slots of a lane may be gone.
    pub ends: Option<(ViewId, Vec<Round>)>,
    /// What the application said.
    pub state: Bytes,
}

/// What is wrong with records that were read back: they are not one node's of one group, or were damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// A position is missing.
    #[error("the stored control log has a gap before entry {0}")]
    Log(LogIndex),
    /// The consensus library's log has a gap.
    #[error("the stored log of the voter has a gap before entry {0}")]
    Voter(LogIndex),
    /// An index is missing.
    #[error("the stored result has a gap before index {0}")]
    Result(Index),
    /// A slot is missing that the result refers to, or is another one.
    #[error("the slot that holds index {0} of the result is missing or is another one")]
    Slot(Index),
    /// A lane's chain is broken.
    #[error("the stored slots of lane {lane} in view {view} do not follow each other")]
    Lane {
        /// The view.
        view: ViewId,
        /// The lane.
        lane: Rank,
    },
    /// An entry of the control log is no command.
    #[error("entry {0} of the stored control log is no command of this version")]
    Command(LogIndex),
}

/// What the records of an earlier run come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub(crate) vote: Option<Vote>,
    pub(crate) base: Option<LogBase>,
    pub(crate) entries: Vec<ConsensusEntry>,
    /// What the control log up to a position comes to.
    pub(crate) log: Option<(LogIndex, Bytes)>,
    /// The control log's entries after that.
    pub(crate) commands: Vec<Bytes>,
    /// The term of the last one.
    pub(crate) log_term: u64,
    pub(crate) complete: (ViewId, Index),
    /// The latest view that was frozen.
    pub(crate) wedged: ViewId,
    /// In the slots' order.
    pub(crate) slots: BTreeMap<(ViewId, Round, Rank), Slot>,
    pub(crate) result: Vec<(StoredEntry, Batch)>,
    pub(crate) snapshot: Option<StoredSnapshot>,
}

impl Stored {
    /// Takes a record: in the order in which they were given out, or table by table, each in the order of its keys, and
    /// slots before the result.
    ///
    /// # Errors
    /// The record does not follow those before; nothing of it was taken.
    pub fn take(&mut self, record: Record) -> Result<(), StoredError> {
        match record {
            Record::Vote(vote) => {
                if self.vote.is_some_and(|before| before.voter != vote.voter) {
                    self.entries.clear();
                    self.base = None;
                }
                self.vote = Some(vote);
            }
            Record::Entries(entries) => self.take_entries(entries)?,
            Record::Base { base, alone } => self.take_base(base, alone),
            Record::Log { index, term, state } => {
                if index >= self.log_last() {
                    self.log_term = term;
                }
                let surplus = index.0.saturating_sub(self.log_before().0);
                let surplus = usize::try_from(surplus).unwrap_or(usize::MAX).min(self.commands.len());
                self.commands.drain(..surplus);
                self.log = Some((index, state));
            }
            Record::Command { index, term, command } => {
                if index != self.log_last().next() {
                    return Err(StoredError::Log(index));
                }
                self.log_term = term;
                self.commands.push(command);
            }
            Record::Slot { view, lane, slot } => {
                self.slots.insert((view, slot.round, lane), slot);
            }
            Record::Entry(entry) => self.take_entry(entry)?,
            Record::Snapshot(snapshot) => self.take_snapshot(snapshot),
            Record::Complete { view, first } => self.complete = self.complete.max((view, first)),
            Record::Wedged { view } => self.wedged = self.wedged.max(view),
        }
        Ok(())
    }

    fn take_entries(&mut self, entries: Vec<ConsensusEntry>) -> Result<(), StoredError> {
        for entry in entries {
            let before = self.base.as_ref().map_or(0, |base| base.index.0);
            let at = entry.index.0.checked_sub(before + 1).and_then(|at| usize::try_from(at).ok());
            let at = at.filter(|at| *at <= self.entries.len()).ok_or(StoredError::Voter(entry.index))?;
            self.entries.truncate(at);
            self.entries.push(entry);
        }
        Ok(())
    }

    fn take_base(&mut self, base: LogBase, alone: bool) {
        self.entries.retain(|entry| !alone && entry.index > base.index);
        self.base = Some(base);
    }

    /// The last entry of the control log that is not among the commands.
    pub(crate) fn log_before(&self) -> LogIndex {
        self.log.as_ref().map(|(index, _)| *index).unwrap_or_default()
    }

    /// The last entry of the control log.
    pub(crate) fn log_last(&self) -> LogIndex {
        LogIndex(self.log_before().0 + self.commands.len() as u64)
    }

    /// What comes before it goes.
    fn take_snapshot(&mut self, snapshot: StoredSnapshot) {
        self.result.retain(|(entry, _)| entry.first_index >= snapshot.first_index);
        if let Some(first) = snapshot.slot {
            self.slots = self.slots.split_off(&first);
        }
        // Unless it continues what is there, that is of an earlier part of the result, or of none.
        let continues = self.result.first().is_none_or(|(entry, _)| entry.first_index == snapshot.first_index);
        if !continues {
            self.result.clear();
        }
        self.snapshot = Some(snapshot);
    }

    fn take_entry(&mut self, entry: StoredEntry) -> Result<(), StoredError> {
        let start = self.snapshot.as_ref().map_or(Index(1), |snapshot| snapshot.base.checkpoint.index.next());
        let next = self.index().next();
        let last = Index(entry.first_index.0 + u64::from(entry.count) - 1);
        // The first entry may begin before the result does.
        let follows = entry.first_index == next || (next == start && entry.first_index < next && last.next() >= next);
        if !follows {
            return Err(StoredError::Result(entry.first_index));
        }
        let batch = match &entry.body {
            StoredBody::Here(body) => {
                Some(Batch { first_seq: entry.first_seq, count: entry.count, body: body.clone() })
            }
            StoredBody::Slot { lane, round } => {
                let slot = self.slots.get(&(entry.view, *round, *lane));
                slot.and_then(|slot| entry.batch_of(&slot.batch))
            }
        };
        let batch = batch.ok_or(StoredError::Slot(entry.first_index))?;
        self.result.push((entry, batch));
        Ok(())
    }

    /// The name of the voter whose state this is; zero for none.
    #[must_use]
    pub fn voter(&self) -> ConsensusId {
        self.vote.map(|vote| vote.voter).unwrap_or_default()
    }

    /// The voter's term, and the term and position of the last entry of its log: for tests.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn voted_up_to(&self) -> (u64, u64, LogIndex) {
        let base = self.base.as_ref().map_or((0, LogIndex(0)), |base| (base.term, base.index));
        let (log_term, last) = self.entries.last().map_or(base, |entry| (entry.term, entry.index));
        (self.vote.map_or(0, |vote| vote.term), log_term, last)
    }

    /// A view was installed: before that there is no group to come back to.
    #[must_use]
    pub fn has_view(&self) -> bool {
        let is_install = |command: &Bytes| matches!(decode_command(command), Ok(Command::InstallView(_)));
        let compacted = self.log.as_ref().and_then(|(_, state)| decode_log_state(state).ok());
        compacted.is_some_and(|state| state.installed.is_some()) || self.commands.iter().any(is_install)
    }

    /// Nothing was ever stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.log.is_none() && self.vote.is_none() && self.complete.1 == Index(0)
    }

    /// The length of the stored result.
    #[must_use]
    pub fn index(&self) -> Index {
        let start = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.checkpoint.index);
        self.result.last().map_or(start, |(last, _)| Index(last.first_index.0 + u64::from(last.count) - 1))
    }
}
