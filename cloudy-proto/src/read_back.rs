//! The stored state of an earlier incarnation (`protocol.md` §6.2, §7, P7).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::command::Command;
use crate::id::{ConsensusId, Index, LogIndex, Rank, Round, ViewId};
use crate::rules::{Rule, Rules};
use crate::slot::{Batch, Slot};
use crate::stored::{LogBase, Record, StoredBase, StoredEntry, StoredSnapshot, Vote};
use crate::view::{InstalledView, Place, View};
use crate::walk::ResultState;
use crate::wire::{CommandError, ConsensusEntry, decode_command, decode_log_state};

/// The fault of stored records: they are not of one node in one group, or are damaged.
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
    /// A slot of the result is missing, or belongs to another index.
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
    /// An entry of the control log, or the state that replaces the entries up to it, does not decode.
    #[error(
        "entry {index} of the stored control log cannot be read: {error}; start this node with the version that wrote it, or a newer one"
    )]
    Command {
        /// Its position.
        index: LogIndex,
        /// The reason why it does not decode.
        error: CommandError,
    },
}

/// The stored state of an earlier incarnation: all of it, or all except the part of the result that is not needed in
/// memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub(crate) vote: Option<Vote>,
    pub(crate) base: Option<LogBase>,
    pub(crate) entries: Vec<ConsensusEntry>,
    /// The state of the control log up to a position.
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
    /// The result up to the entries that are here.
    pub(crate) before: ResultState,
    /// Entries that follow it; the first may begin before its end.
    pub(crate) result: VecDeque<(StoredEntry, Batch)>,
    /// Views that begin among those, in order.
    pub(crate) views: Vec<InstalledView>,
    /// The cost of the entries.
    result_bytes: u64,
    /// The last slot in the result, and its view.
    pub(crate) passed: Option<(ViewId, Place)>,
    /// The ends of lanes of which no entry may be left.
    pub(crate) ends: Option<(ViewId, Vec<Round>)>,
    pub(crate) snapshot: Option<StoredSnapshot>,
    /// The base of the stored result, if it does not begin with index 1.
    pub(crate) begins: Option<StoredBase>,
    /// Later positions at which it may begin, in order.
    pub(crate) bases: Vec<StoredBase>,
}

impl Stored {
    /// The first index of a view, if the stored result reaches it.
    pub(crate) fn first_of(&self, view: &View) -> Option<Index> {
        (self.complete.0 == view.id).then_some(self.complete.1)
    }

    /// Takes a record, in the order of their output.
    ///
    /// # Errors
    /// The record does not follow the earlier ones, and was ignored.
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
            Record::Entry(entry) => {
                let slot = entry.slot().and_then(|(lane, round)| self.slots.get(&(entry.view, round, lane)));
                let batch = entry.batch_in(slot.map(|slot| &slot.batch));
                self.take_entry(entry, batch)?;
            }
            Record::View(view) => {
                let last = self.views.last().map_or(self.before.view_id(), InstalledView::id);
                if view.id() > last {
                    self.views.push(view);
                }
            }
            Record::Snapshot(snapshot) => {
                self.begin_at(&snapshot.begins);
                self.snapshot = Some(snapshot);
            }
            // Its reader finds it by its id.
            Record::SnapshotPart { .. } => {}
            Record::Checkpoint { base, instead_of } => {
                self.bases.retain(|known| Some(known.index()) != instead_of);
                self.bases.push(base);
            }
            Record::Begin(base) => {
                self.begin_at(&base);
                self.begins = Some(base);
            }
            Record::Complete { view, first } => self.complete = self.complete.max((view, first)),
            Record::Wedged { view } => self.wedged = self.wedged.max(view),
            #[cfg(feature = "next-version")]
            Record::Next => {}
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

    /// Removes the entries before the base.
    fn begin_at(&mut self, begins: &StoredBase) {
        while self.result.front().is_some_and(|(entry, _)| entry.first_index < begins.first_index) {
            self.pop_entry();
        }
        if let Some(first) = begins.slot {
            self.slots = self.slots.split_off(&first);
        }
        // Entries that it does not continue belong to an earlier part of the result, or to none.
        let continues = self.result.front().is_none_or(|(entry, _)| entry.first_index == begins.first_index);
        if !continues {
            self.result.clear();
            self.result_bytes = 0;
        }
        self.bases.retain(|known| known.index() > begins.index());
        self.carry_on(begins);
    }

    fn carry_on(&mut self, base: &StoredBase) {
        self.before = ResultState::resumed(base);
        self.ends.clone_from(&base.ends);
        let before = self.before.view_id();
        self.views.retain(|view| view.id() > before);
    }

    /// Moves the views that begin up to one into the state before the entries here.
    fn pass_views(&mut self, last: ViewId) {
        let passed = self.views.partition_point(|view| view.id() <= last);
        self.views.drain(..passed).for_each(|view| {
            self.before.begin_view(&view);
        });
    }

    fn pop_entry(&mut self) -> Option<(StoredEntry, Batch)> {
        let gone = self.result.pop_front()?;
        self.result_bytes -= StoredEntry::kept_bytes(gone.1.body.len());
        Some(gone)
    }

    fn take_entry(&mut self, entry: StoredEntry, batch: Option<Batch>) -> Result<(), StoredError> {
        let (start, next) = (self.before.index().next(), self.index().next());
        let last = entry.last_index();
        // The first entry may begin before the result does.
        let begins = self.result.is_empty() && next == start && entry.first_index < next && last.next() >= next;
        if entry.first_index != next && !begins {
            return Err(StoredError::Result(entry.first_index));
        }
        let batch = batch.ok_or(StoredError::Slot(entry.first_index))?;
        if let Some((rank, round)) = entry.slot() {
            self.passed = Some((entry.view, Place { round, rank }));
        }
        self.result_bytes += StoredEntry::kept_bytes(batch.body.len());
        self.result.push_back((entry, batch));
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

    /// Whether others may rely on the stored data, so that the group must not be forgotten: a view is in the log, held by
    /// the voter or applied, or this node was made a voter.
    ///
    /// Until a view is in its log the creator is the only voter and the group has no member, so it has promised nothing.
    #[must_use]
    pub fn is_relied_on(&self, rules: Rules) -> bool {
        let is_install = |command: &Bytes| matches!(decode_command(command), Ok(Command::InstallView(_)));
        let compacted = self.log.as_ref().and_then(|(_, state)| decode_log_state(state).ok());
        let has_view = compacted.is_some_and(|state| state.installed.is_some()) || self.commands.iter().any(is_install);
        // A member applies a view once its voters have synced it, which may be before the creator has stored that it did.
        let votes = self.voter() > ConsensusId::CREATOR;
        let voted_for_view = self.entries.iter().any(|entry| is_install(&entry.command));
        has_view || (rules.holds(Rule::VotersLogIsKept) && (votes || voted_for_view))
    }

    /// Whether nothing was ever stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.log.is_none() && self.vote.is_none() && self.complete.1 == Index(0)
    }

    /// The length of the stored result.
    #[must_use]
    pub fn index(&self) -> Index {
        self.result.back().map_or(self.before.index(), |(last, _)| last.last_index())
    }

    /// The application's snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<&StoredSnapshot> {
        self.snapshot.as_ref()
    }

    /// The base of the stored result; none if it begins with index 1.
    #[must_use]
    pub fn begins(&self) -> Option<&StoredBase> {
        // If there is a snapshot, it names the base.
        self.snapshot.as_ref().map(|snapshot| &snapshot.begins).or(self.begins.as_ref())
    }
}

/// Reads no more of the result than a process has in memory: first the records of the group, its log and the
/// checkpoints, by [`take`](Stored::take), then [`begin_reading`](Stored::begin_reading), then the result's entries from
/// there on, then the slots from there on.
impl Stored {
    /// Chooses the newest checkpoint that at least this number of bytes of result follows. The read part begins there.
    pub fn begin_reading(&mut self, retain_bytes: u64) -> StoredBase {
        let newest_bytes = self.bases.last().map_or(0, |newest| newest.bytes_before);
        let enough = |base: &&StoredBase| newest_bytes.saturating_sub(base.bytes_before) >= retain_bytes;
        let start = self.bases.iter().rfind(enough).or(self.begins()).cloned();
        start.iter().for_each(|start| self.carry_on(start));
        start.unwrap_or_default()
    }

    /// Takes the next entry with its payloads, and drops the oldest entries beyond the bound; the newest always stays.
    ///
    /// # Errors
    /// It does not follow the earlier entries, or there are no payloads.
    pub fn read_entry(
        &mut self,
        entry: StoredEntry,
        batch: Option<Batch>,
        retain_bytes: u64,
    ) -> Result<(), StoredError> {
        self.take_entry(entry, batch)?;
        while self.result_bytes > retain_bytes && self.result.len() > 1 {
            let Some((entry, batch)) = self.pop_entry() else { break };
            self.pass_views(entry.view);
            let slot = entry.slot();
            self.before.append(entry.view, entry.origin, entry.incarnation, batch, slot, Rules::default());
        }
        Ok(())
    }

    /// Takes the next slot. Of the slots that the result has passed, the last of each lane is enough.
    pub fn read_slot(&mut self, view: ViewId, lane: Rank, slot: Slot) {
        if let Some((of, passed)) = self.passed {
            if view < of {
                return;
            }
            if view == of && (Place { round: slot.round, rank: lane }) <= passed {
                let before = self.slots.keys().rfind(|(.., rank)| *rank == lane).copied();
                before.and_then(|before| self.slots.remove(&before));
            }
        }
        self.slots.insert((view, slot.round, lane), slot);
    }

    /// The stored state after a read of at most this number of bytes of the result.
    ///
    /// # Errors
    /// The records do not follow each other.
    pub fn newest(mut self, retain_bytes: u64) -> Result<Self, StoredError> {
        let (result, slots) = (core::mem::take(&mut self.result), core::mem::take(&mut self.slots));
        (self.result_bytes, self.passed) = (0, None);
        let start = self.begin_reading(retain_bytes);
        for (entry, batch) in result.into_iter().filter(|(entry, _)| entry.first_index >= start.first_index) {
            self.read_entry(entry, Some(batch), retain_bytes)?;
        }
        let first = start.slot.unwrap_or_default();
        slots.into_iter().filter(|(key, _)| *key >= first).for_each(|((view, _, lane), slot)| {
            self.read_slot(view, lane, slot);
        });
        Ok(self)
    }
}
