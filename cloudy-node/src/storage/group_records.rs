//! One group's records in the store: what a machine gives out, as operations, and back (`protocol.md` P7).
//!
//! ```text
//! Meta    "group"             what the group is        Slots   view, round, lane   a message slot, once
//!         "vote"              of consensus             Result  first index         refers to a slot, or holds
//!         "complete"          of the latest view                                   what was fetched
//!         "wedged"            the latest view frozen
//!         "snapshot"          of the application
//!         "log"               in place of older commands
//!         "base"              where the voter's log begins
//! Log     0, position         committed commands
//!         1, position         the voter's log
//! ```
//!
//! Numbers in keys are big-endian, so that the order of keys is the order of things; numbers in values are
//! little-endian.

use std::ops::Bound;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudy_proto::slot::{Batch, Slot, check_body};
use cloudy_proto::wire::ConsensusEntry;
use cloudy_proto::{
    ConsensusId, GroupId, Incarnation, Index, LogIndex, NodeId, Rank, Record, Round, Seq, Stored, StoredBody,
    StoredEntry, StoredError, ViewId, Vote,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::StoreError;
use super::record::{self, Op, Table};
use super::store::Store;

const GROUP_KEY: &[u8] = b"group";
const VOTE_KEY: &[u8] = b"vote";
const LOG_KEY: &[u8] = b"log";
const BASE_KEY: &[u8] = b"base";
const SNAPSHOT_KEY: &[u8] = b"snapshot";
const COMPLETE_KEY: &[u8] = b"complete";
const WEDGED_KEY: &[u8] = b"wedged";
/// Committed entries of the control log.
const COMMITTED: u8 = 0;
/// The log of a voter.
const VOTERS_LOG: u8 = 1;
/// What is read at once.
const READ_BYTES: usize = 4 << 20;

/// What a group is, beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupMeta {
    /// Its name.
    pub name: String,
    /// Who founded it.
    pub founder: NodeId,
    /// As in [`GroupConfig`](crate::GroupConfig).
    pub outbox_bytes_max: u64,
    /// As in [`GroupConfig`](crate::GroupConfig).
    pub retain_bytes: u64,
}

/// Why a group cannot be read back. What is stored is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadGroupError {
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record is none of this version's, though its checksum is right.
    #[error(
        "a record in table {table} of group {group} is none that this version of cloudy writes: use the version that wrote it, or start with a new data directory and let the node join again"
    )]
    Foreign {
        /// Whose record.
        group: GroupId,
        /// In which table.
        table: Table,
    },
    /// The records contradict each other.
    #[error(
        "the records of group {group} contradict each other ({cause}): restore the data directory from a backup that is not older than its last run, or start with a new one and let the node join again"
    )]
    Contradiction {
        /// Whose records.
        group: GroupId,
        /// How.
        cause: StoredError,
    },
}

/// What the group is, to be stored before anything else of it.
pub(crate) fn meta_op(meta: &GroupMeta) -> Op {
    put(Table::Meta, GROUP_KEY.to_vec(), encoded(meta))
}

/// Makes operations of one group's records.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Whose log the voter's log is.
    voter: ConsensusId,
}

impl Recorder {
    /// One that goes on where an earlier run's stopped.
    pub(crate) fn after(stored: &Stored) -> Self {
        Self { voter: stored.voter() }
    }

    /// The operations that store a record.
    pub(crate) fn ops(&mut self, record: Record, ops: &mut Vec<Op>) {
        match record {
            Record::Vote(vote) => {
                if core::mem::replace(&mut self.voter, vote.voter) != vote.voter {
                    ops.push(delete_from(LogIndex(0)));
                    ops.push(Op::DeleteRange {
                        table: Table::Meta,
                        from: BASE_KEY.to_vec(),
                        to: [BASE_KEY, &[0]].concat(),
                    });
                }
                ops.push(put(Table::Meta, VOTE_KEY.to_vec(), encode_vote(vote)));
            }
            Record::Entries(entries) => {
                ops.extend(entries.first().map(|first| delete_from(first.index)));
                ops.extend(
                    entries.iter().map(|entry| put(Table::Log, log_key(VOTERS_LOG, entry.index), encoded(entry))),
                );
            }
            Record::Base { base, alone } => {
                let to = if alone { vec![VOTERS_LOG + 1] } else { log_key(VOTERS_LOG, base.index.next()) };
                ops.push(Op::DeleteRange { table: Table::Log, from: vec![VOTERS_LOG], to });
                ops.push(put(Table::Meta, BASE_KEY.to_vec(), encoded(&base)));
            }
            Record::Log { index, term, state } => {
                let to = log_key(COMMITTED, index.next());
                ops.push(Op::DeleteRange { table: Table::Log, from: vec![COMMITTED], to });
                ops.push(put(Table::Meta, LOG_KEY.to_vec(), encoded(&(index, term, state))));
            }
            Record::Command { index, term, command } => {
                let mut value = BytesMut::with_capacity(8 + command.len());
                value.put_u64_le(term);
                value.put_slice(&command);
                ops.push(put(Table::Log, log_key(COMMITTED, index), value.freeze()));
            }
            Record::Slot { view, lane, slot } => {
                ops.push(put(Table::Slots, slot_key(view, slot.round, lane), encode_slot(&slot)));
            }
            Record::Entry(entry) => {
                ops.push(put(Table::Result, result_key(entry.first_index), encode_entry(&entry)));
            }
            Record::Snapshot(snapshot) => {
                let first = result_key(snapshot.first_index);
                ops.push(Op::DeleteRange { table: Table::Result, from: Vec::new(), to: first });
                if let Some((view, round, lane)) = snapshot.slot {
                    let to = slot_key(view, round, lane);
                    ops.push(Op::DeleteRange { table: Table::Slots, from: Vec::new(), to });
                }
                ops.push(put(Table::Meta, SNAPSHOT_KEY.to_vec(), encoded(&snapshot)));
            }
            Record::Complete { view, first } => {
                let mut value = BytesMut::new();
                value.put_u64_le(view.0);
                value.put_u64_le(first.0);
                ops.push(put(Table::Meta, COMPLETE_KEY.to_vec(), value.freeze()));
            }
            Record::Wedged { view } => ops.push(put(Table::Meta, WEDGED_KEY.to_vec(), encoded(&view))),
        }
    }
}

/// Reads a group back; none if the store holds nothing of it that a run could go on from. Waits for the disk.
///
/// # Errors
/// What is damaged, or of another version.
pub(crate) fn read_group(store: &Store, group: GroupId) -> Result<Option<(GroupMeta, Stored)>, ReadGroupError> {
    let mut read = Reader { store, group, stored: Stored::default(), meta: None };
    for table in [Table::Meta, Table::Log, Table::Slots, Table::Result] {
        read.table(table)?;
    }
    let Reader { stored, meta, .. } = read;
    Ok(meta.filter(|_| stored.has_view()).map(|meta| (meta, stored)))
}

/// The operations that forget a group.
pub(crate) fn forget_ops() -> Vec<Op> {
    let all = |table| Op::DeleteRange { table, from: Vec::new(), to: vec![0xff; record::KEY_BYTES_MAX] };
    // What the group is goes last: a part of it without that would be found by nobody.
    vec![all(Table::Result), all(Table::Slots), all(Table::Log), all(Table::Meta)]
}

struct Reader<'a> {
    store: &'a Store,
    group: GroupId,
    stored: Stored,
    meta: Option<GroupMeta>,
}

impl Reader<'_> {
    fn table(&mut self, table: Table) -> Result<(), ReadGroupError> {
        let mut from = Bound::Unbounded;
        loop {
            let range = (from.as_ref().map(Vec::as_slice), Bound::Unbounded);
            let records = self.store.range(self.group, table, range, READ_BYTES)?;
            let Some(last) = records.last() else { return Ok(()) };
            from = Bound::Excluded(last.key.clone());
            for record in records {
                self.take(table, &record.key, record.value)?;
            }
        }
    }

    fn take(&mut self, table: Table, key: &[u8], value: Bytes) -> Result<(), ReadGroupError> {
        let foreign = || ReadGroupError::Foreign { group: self.group, table };
        if table == Table::Meta && key == GROUP_KEY {
            self.meta = Some(postcard::from_bytes(&value).map_err(|_| foreign())?);
            return Ok(());
        }
        let record = match table {
            Table::Meta if key == VOTE_KEY => decode_vote(value).map(Record::Vote),
            Table::Meta if key == BASE_KEY => {
                postcard::from_bytes(&value).ok().map(|base| Record::Base { base, alone: false })
            }
            Table::Meta if key == LOG_KEY => {
                postcard::from_bytes(&value).ok().map(|(index, term, state)| Record::Log { index, term, state })
            }
            Table::Meta if key == SNAPSHOT_KEY => postcard::from_bytes(&value).ok().map(Record::Snapshot),
            Table::Meta if key == WEDGED_KEY => postcard::from_bytes(&value).ok().map(|view| Record::Wedged { view }),
            Table::Meta => decode_complete(key, value),
            Table::Log => decode_log(key, value),
            Table::Slots => decode_slot(key, value),
            Table::Result => decode_entry(key, value).map(Record::Entry),
        };
        let record = record.ok_or_else(foreign)?;
        self.stored.take(record).map_err(|cause| ReadGroupError::Contradiction { group: self.group, cause })
    }
}

fn put(table: Table, key: Vec<u8>, value: Bytes) -> Op {
    Op::Put { table, key, value }
}

fn encoded(value: &impl Serialize) -> Bytes {
    // Plain values have an encoding.
    postcard::to_stdvec(value).unwrap_or_default().into()
}

/// The voter's log from a position on is gone.
fn delete_from(index: LogIndex) -> Op {
    Op::DeleteRange { table: Table::Log, from: log_key(VOTERS_LOG, index), to: vec![VOTERS_LOG + 1] }
}

fn log_key(which: u8, index: LogIndex) -> Vec<u8> {
    let mut key = vec![which];
    key.extend_from_slice(&index.0.to_be_bytes());
    key
}

pub(super) fn result_key(first_index: Index) -> Vec<u8> {
    first_index.0.to_be_bytes().to_vec()
}

pub(super) fn slot_key(view: ViewId, round: Round, lane: Rank) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&view.0.to_be_bytes());
    key.extend_from_slice(&round.0.to_be_bytes());
    key.extend_from_slice(&lane.0.to_be_bytes());
    key
}

fn encode_vote(vote: Vote) -> Bytes {
    let mut value = BytesMut::new();
    [vote.voter.0, vote.term, vote.voted_for.0, vote.commit.0].into_iter().for_each(|number| value.put_u64_le(number));
    value.freeze()
}

fn decode_vote(mut value: Bytes) -> Option<Vote> {
    let mut next = || value.try_get_u64_le().ok();
    let vote =
        Vote { voter: ConsensusId(next()?), term: next()?, voted_for: ConsensusId(next()?), commit: LogIndex(next()?) };
    value.is_empty().then_some(vote)
}

fn decode_complete(key: &[u8], mut value: Bytes) -> Option<Record> {
    let (view, first) = (ViewId(value.try_get_u64_le().ok()?), Index(value.try_get_u64_le().ok()?));
    (key == COMPLETE_KEY && value.is_empty()).then_some(Record::Complete { view, first })
}

fn decode_log(mut key: &[u8], mut value: Bytes) -> Option<Record> {
    let (which, index) = (key.try_get_u8().ok()?, LogIndex(key.try_get_u64().ok()?));
    match which {
        _ if !key.is_empty() => None,
        COMMITTED => {
            let term = value.try_get_u64_le().ok()?;
            Some(Record::Command { index, term, command: value })
        }
        VOTERS_LOG => {
            let entry: ConsensusEntry = postcard::from_bytes(&value).ok()?;
            (entry.index == index).then(|| Record::Entries(vec![entry]))
        }
        _ => None,
    }
}

fn encode_slot(slot: &Slot) -> Bytes {
    let mut value = BytesMut::with_capacity(20 + slot.batch.body.len());
    value.put_u64_le(slot.prev.0);
    value.put_u64_le(slot.batch.first_seq.0);
    value.put_u32_le(slot.batch.count);
    value.put_slice(&slot.batch.body);
    value.freeze()
}

pub(super) fn decode_slot(mut key: &[u8], mut value: Bytes) -> Option<Record> {
    let (view, round) = (ViewId(key.try_get_u64().ok()?), Round(key.try_get_u64().ok()?));
    let lane = Rank(key.try_get_u16().ok()?);
    let (prev, first_seq) = (Round(value.try_get_u64_le().ok()?), Seq(value.try_get_u64_le().ok()?));
    let count = value.try_get_u32_le().ok()?;
    check_body(&value, count).ok()?;
    let batch = Batch { first_seq, count, body: value };
    key.is_empty().then_some(Record::Slot { view, lane, slot: Slot { round, prev, batch } })
}

/// How a value says that its payloads are in it.
const HERE: u8 = 0;
/// How it says that they are in a slot.
const IN_SLOT: u8 = 1;

fn encode_entry(entry: &StoredEntry) -> Bytes {
    let mut value = BytesMut::new();
    value.put_u64_le(entry.view.0);
    value.put_slice(&entry.origin.0);
    value.put_u64_le(entry.incarnation.0);
    value.put_u64_le(entry.first_seq.0);
    value.put_u32_le(entry.count);
    match &entry.body {
        StoredBody::Here(body) => {
            value.put_u8(HERE);
            value.put_slice(body);
        }
        StoredBody::Slot { lane, round } => {
            value.put_u8(IN_SLOT);
            value.put_u16_le(lane.0);
            value.put_u64_le(round.0);
        }
    }
    value.freeze()
}

pub(super) fn decode_entry(mut key: &[u8], mut value: Bytes) -> Option<StoredEntry> {
    let first_index = Index(key.try_get_u64().ok()?);
    let view = ViewId(value.try_get_u64_le().ok()?);
    let mut origin = [0; 32];
    value.try_copy_to_slice(&mut origin).ok()?;
    let (incarnation, first_seq) = (Incarnation(value.try_get_u64_le().ok()?), Seq(value.try_get_u64_le().ok()?));
    let count = value.try_get_u32_le().ok()?;
    let body = match value.try_get_u8().ok()? {
        HERE => {
            check_body(&value, count).ok()?;
            StoredBody::Here(value)
        }
        IN_SLOT => {
            let (lane, round) = (Rank(value.try_get_u16_le().ok()?), Round(value.try_get_u64_le().ok()?));
            value.is_empty().then_some(StoredBody::Slot { lane, round })?
        }
        _ => return None,
    };
    let entry = StoredEntry { first_index, view, origin: NodeId(origin), incarnation, first_seq, count, body };
    key.is_empty().then_some(entry)
}
