//! One group's records in the store: what a machine gives out, as operations, and back (`protocol.md` P7).
//!
//! ```text
//! Meta    "group"             what the group is        Slots        view, round, lane   a message slot, once
//!         "vote"              of consensus             Result       first index         refers to a slot, or holds
//!         "complete"          of the latest view                                        what was fetched
//!         "wedged"            the latest view frozen   Checkpoints  index               from here on the result can
//!         "snapshot"          of the application                                        be read
//!         "begin"             of the result
//!         "log"               in place of older commands
//!         "base"              where the voter's log begins
//! Log     0, position         committed commands
//!         1, position         the voter's log
//! Views   view                a view, and the index that it begins before
//! Snapshots id, offset        a part of a state of the application
//! ```
//!
//! Numbers in keys are big-endian, so that the order of keys is the order of things; numbers in values are
//! little-endian.
//!
//! Of the slots and the result what comes before the beginning of the result is not read, and goes a few records
//! at a time, so that nothing waits for it.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cloudy_proto::slot::{Batch, Slot, check_body};
use cloudy_proto::wire::ConsensusEntry;
use cloudy_proto::{
    ConsensusId, Incarnation, Index, InstalledView, LogIndex, NodeId, Rank, Record, Round, Seq, SnapshotState, Stored,
    StoredBase, StoredBody, StoredEntry, StoredSnapshot, ViewId, Vote,
};
use serde::{Deserialize, Serialize};

use super::kept_states::{KeptStates, Leases};
use super::op::{Op, Table, Value};

pub(super) const GROUP_KEY: &[u8] = b"group";
const VOTE_KEY: &[u8] = b"vote";
const LOG_KEY: &[u8] = b"log";
const BASE_KEY: &[u8] = b"base";
const SNAPSHOT_KEY: &[u8] = b"snapshot";
const BEGIN_KEY: &[u8] = b"begin";
const COMPLETE_KEY: &[u8] = b"complete";
const WEDGED_KEY: &[u8] = b"wedged";
/// The record kind of the next version.
#[cfg(feature = "next-version")]
pub(super) const NEXT_KEY: &[u8] = b"next";
/// Committed entries of the control log.
const COMMITTED: u8 = 0;
/// The log of a voter.
const VOTERS_LOG: u8 = 1;
/// Number of records of one table that a submission deletes, beside twice the number that it stores.
const DELETED_MIN: usize = 256;

/// The metadata of a group, beside its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupMeta {
    /// Its name.
    pub name: String,
    /// The node that created it.
    pub creator: NodeId,
    /// As in [`GroupConfig`](crate::GroupConfig).
    pub outbox_bytes_max: u64,
    /// As in [`GroupConfig`](crate::GroupConfig).
    pub retain_bytes: u64,
    /// As in [`GroupConfig`](crate::GroupConfig).
    pub retain_disk_bytes: Option<u64>,
}

/// The operation that stores the metadata, before anything else of the group.
pub(crate) fn meta_op(meta: &GroupMeta) -> Op {
    put(Table::Meta, GROUP_KEY.to_vec(), encoded(meta))
}

/// Whether a record belongs to the control log or its voter, or is the group's metadata.
pub(crate) fn is_of_log(table: Table, key: &[u8]) -> bool {
    let keys = [GROUP_KEY, VOTE_KEY, LOG_KEY, BASE_KEY];
    table == Table::Log || (table == Table::Meta && keys.contains(&key))
}

/// Converts one group's records to operations.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The voter of the voter's log.
    voter: ConsensusId,
    /// The first needed entry and slot of the result: earlier ones are deleted.
    begins: Option<(Vec<u8>, Vec<u8>)>,
    states: KeptStates,
}

impl Recorder {
    /// A recorder that continues after the stored records of an earlier process.
    /// `states` has the number of the parts of each stored state.
    pub(crate) fn after(stored: &Stored, states: BTreeMap<u64, u64>) -> Self {
        let current = stored.snapshot().and_then(|snapshot| parts_of(&snapshot.state));
        Self {
            voter: stored.voter(),
            begins: stored.begins().map(first_keys),
            states: KeptStates::after(states, current),
        }
    }

    /// The states that are written and read beside the records.
    pub(crate) fn leases(&self) -> Leases {
        self.states.leases()
    }

    /// The operations that store records.
    pub(crate) fn ops(&mut self, records: Vec<Record>) -> Vec<Op> {
        let mut ops = Vec::with_capacity(records.len());
        records.into_iter().for_each(|record| self.put(record, &mut ops));
        if let Some((first, slot)) = &self.begins {
            let count_max = DELETED_MIN + 2 * ops.len();
            let delete = |table, to: &Vec<u8>| Op::DeleteFirst { table, from: Vec::new(), to: to.clone(), count_max };
            ops.extend([delete(Table::Result, first), delete(Table::Slots, slot)]);
        }
        ops.extend(self.states.next_deleted().map(|(id, count_max)| delete_parts(id, count_max)));
        ops
    }

    fn put(&mut self, record: Record, ops: &mut Vec<Op>) {
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
                let key = slot_key(view, slot.round, lane);
                ops.push(put(Table::Slots, key, encode_slot(slot)));
            }
            Record::Entry(entry) => {
                ops.push(put(Table::Result, result_key(entry.first_index), encode_entry(&entry)));
            }
            Record::View(view) => ops.push(put_view(&view)),
            Record::Snapshot(snapshot) => self.put_snapshot(&snapshot, ops),
            Record::SnapshotPart { id, offset, part } => {
                self.states.on_part(id);
                ops.push(put_part(id, offset, part));
            }
            Record::Begin(base) => {
                self.begin_at(&base, ops);
                ops.push(put(Table::Meta, BEGIN_KEY.to_vec(), encoded(&base)));
            }
            Record::Checkpoint { base, instead_of } => {
                ops.extend(instead_of.map(|index| delete_checkpoints(index, index.next())));
                ops.push(put(Table::Checkpoints, result_key(base.index()), encoded(&base)));
            }
            Record::Complete { view, first } => {
                let mut value = BytesMut::new();
                value.put_u64_le(view.0);
                value.put_u64_le(first.0);
                ops.push(put(Table::Meta, COMPLETE_KEY.to_vec(), value.freeze()));
            }
            Record::Wedged { view } => ops.push(put(Table::Meta, WEDGED_KEY.to_vec(), encoded(&view))),
            #[cfg(feature = "next-version")]
            Record::Next => ops.push(put(Table::Meta, NEXT_KEY.to_vec(), Bytes::new())),
        }
    }
}

impl Recorder {
    fn put_snapshot(&mut self, snapshot: &StoredSnapshot, ops: &mut Vec<Op>) {
        self.begin_at(&snapshot.begins, ops);
        self.states.on_snapshot(parts_of(&snapshot.state));
        ops.push(put(Table::Meta, SNAPSHOT_KEY.to_vec(), encoded(snapshot)));
    }

    fn begin_at(&mut self, base: &StoredBase, ops: &mut Vec<Op>) {
        self.begins = Some(first_keys(base));
        ops.push(delete_checkpoints(Index(0), base.index().next()));
        if let Some(view) = &base.base.view {
            // It is in force where the result begins, and may have been stored nowhere else.
            ops.push(Op::DeleteRange { table: Table::Views, from: Vec::new(), to: view_key(view.id()) });
            ops.push(put_view(view));
        }
    }
}

/// The id of the parts of a state.
fn parts_of(state: &SnapshotState) -> Option<u64> {
    match state {
        SnapshotState::Parts(parts) => Some(parts.id),
        SnapshotState::Here(_) => None,
    }
}

/// The operation that stores a part of a state.
pub(crate) fn put_part(id: u64, offset: u64, part: Bytes) -> Op {
    put(Table::Snapshots, part_key(id, offset), part)
}

/// The operation that deletes the first parts of a state.
fn delete_parts(id: u64, count_max: usize) -> Op {
    let to = [&part_key(id, u64::MAX)[..], &[0]].concat();
    Op::DeleteFirst { table: Table::Snapshots, from: part_key(id, 0), to, count_max }
}

pub(super) fn part_key(id: u64, offset: u64) -> Vec<u8> {
    [id.to_be_bytes(), offset.to_be_bytes()].concat()
}

/// The id and the offset in the key of a part.
pub(super) fn decode_part_key(mut key: &[u8]) -> Option<(u64, u64)> {
    let (id, offset) = (key.try_get_u64().ok()?, key.try_get_u64().ok()?);
    key.is_empty().then_some((id, offset))
}

fn put_view(view: &InstalledView) -> Op {
    put(Table::Views, view_key(view.id()), encoded(view))
}

pub(super) fn view_key(view: ViewId) -> Vec<u8> {
    view.0.to_be_bytes().to_vec()
}

pub(super) fn decode_view(key: &[u8], value: &[u8]) -> Option<InstalledView> {
    let view: InstalledView = postcard::from_bytes(value).ok()?;
    (key == view_key(view.id())).then_some(view)
}

fn delete_checkpoints(from: Index, to: Index) -> Op {
    Op::DeleteRange { table: Table::Checkpoints, from: result_key(from), to: result_key(to) }
}

/// The first keys of the result and of the slots.
pub(super) fn first_keys(base: &StoredBase) -> (Vec<u8>, Vec<u8>) {
    let (view, round, lane) = base.slot.unwrap_or_default();
    (result_key(base.first_index), slot_key(view, round, lane))
}

/// The record of a key and its value in one of the small tables.
pub(super) fn decode(table: Table, key: &[u8], value: Bytes) -> Option<Record> {
    match table {
        Table::Meta if key == VOTE_KEY => decode_vote(value).map(Record::Vote),
        Table::Meta if key == BASE_KEY => {
            postcard::from_bytes(&value).ok().map(|base| Record::Base { base, alone: false })
        }
        Table::Meta if key == LOG_KEY => {
            postcard::from_bytes(&value).ok().map(|(index, term, state)| Record::Log { index, term, state })
        }
        Table::Meta if key == SNAPSHOT_KEY => postcard::from_bytes(&value).ok().map(Record::Snapshot),
        Table::Meta if key == WEDGED_KEY => postcard::from_bytes(&value).ok().map(|view| Record::Wedged { view }),
        #[cfg(feature = "next-version")]
        Table::Meta if key == NEXT_KEY => value.is_empty().then_some(Record::Next),
        Table::Meta if key == BEGIN_KEY => postcard::from_bytes(&value).ok().map(Record::Begin),
        Table::Meta => decode_complete(key, value),
        Table::Log => decode_log(key, value),
        Table::Checkpoints => {
            let base: StoredBase = postcard::from_bytes(&value).ok()?;
            (key == result_key(base.index())).then_some(Record::Checkpoint { base, instead_of: None })
        }
        Table::Slots => decode_slot(key, value),
        Table::Result => decode_entry(key, value).map(Record::Entry),
        Table::Views => decode_view(key, &value).map(Record::View),
        Table::Snapshots => decode_part_key(key).map(|(id, offset)| Record::SnapshotPart { id, offset, part: value }),
    }
}

fn put(table: Table, key: Vec<u8>, value: impl Into<Value>) -> Op {
    Op::Put { table, key, value: value.into() }
}

fn encoded(value: &impl Serialize) -> Bytes {
    // Plain values always encode.
    postcard::to_stdvec(value).unwrap_or_default().into()
}

/// Deletes the voter's log from a position on.
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

fn encode_slot(slot: Slot) -> Value {
    let mut head = BytesMut::with_capacity(20);
    head.put_u64_le(slot.prev.0);
    head.put_u64_le(slot.batch.first_seq.0);
    head.put_u32_le(slot.batch.count);
    Value { head: head.freeze(), body: slot.batch.body }
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

/// The mark of a value that contains its payloads.
const HERE: u8 = 0;
/// The mark of a value whose payloads are in a slot.
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
