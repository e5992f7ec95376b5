//! A group's records as its machine gives them out, and as they are read back (`protocol.md` P7).

use std::sync::Arc;

use bytes::BytesMut;
use cloudy_proto::slot::{Batch, Slot, push_payload};
use cloudy_proto::wire::{ConsensusEntry, encode_command};
use cloudy_proto::{
    ApprovedItem, Checkpoint, Command, ConsensusId, Incarnation, Index, InstallView, InstalledView, LogBase, LogIndex,
    NodeId, Parameters, Position, Rank, Record as Given, ResultBase, Round, Seq, SnapshotState, Stored, StoredBase,
    StoredBody, StoredEntry, StoredError, StoredSnapshot, View, ViewId, Vote, VoterRole,
};

use super::super::group_reads::read_group;
use super::super::group_records::{Recorder, meta_op};
use super::super::result_reads::read_part;
use super::*;

const ORIGIN: NodeId = NodeId([3; 32]);

fn meta(retain_bytes: u64) -> GroupMeta {
    let (name, retain_disk_bytes) = ("ledger".to_owned(), Some(7));
    GroupMeta { name, creator: ORIGIN, outbox_bytes_max: 5, retain_bytes, retain_disk_bytes }
}

fn batch(first_seq: u64, count: u32) -> Batch {
    let mut body = BytesMut::new();
    (0..count).for_each(|at| push_payload(&mut body, &[at as u8; 9]));
    Batch { first_seq: Seq(first_seq), count, body: body.freeze() }
}

fn slot(lane: u16, round: u64, prev: u64, first_seq: u64) -> Given {
    let slot = Slot { round: Round(round), prev: Round(prev), batch: batch(first_seq, 2) };
    Given::Slot { view: ViewId(1), lane: Rank(lane), slot }
}

fn entry(first_index: u64, first_seq: u64, count: u32, body: StoredBody) -> Given {
    let (first_index, first_seq) = (Index(first_index), Seq(first_seq));
    // The last two views begin before index 6.
    let (view, incarnation) = (ViewId(if first_index.0 < 6 { 1 } else { 3 }), Incarnation(4));
    Given::Entry(StoredEntry { first_index, view, origin: ORIGIN, incarnation, first_seq, count, body })
}

fn in_slot(lane: u16, round: u64) -> StoredBody {
    StoredBody::Slot { lane: Rank(lane), round: Round(round) }
}

fn view(id: u64, first: u64) -> InstalledView {
    let view = View { id: ViewId(id), ring: Vec::new(), parameters: Parameters::default(), last: false };
    InstalledView { first: Index(first), view: Arc::new(view) }
}

fn entries(positions: &[(u64, u64)]) -> Given {
    let entry = |&(index, term)| ConsensusEntry {
        term,
        index: LogIndex(index),
        change: None,
        command: Bytes::from(vec![index as u8]),
    };
    Given::Entries(positions.iter().map(entry).collect())
}

fn vote(voter: u64, term: u64) -> Given {
    let (voted_for, commit) = (ConsensusId(voter), LogIndex(1));
    Given::Vote(Vote { voter: ConsensusId(voter), term, voted_for, commit })
}

fn first_view() -> Bytes {
    let (from, cut, dropped) = (ViewId(0), Vec::new(), Vec::new());
    let install = InstallView { from, ring: Vec::new(), parameters: Parameters::default(), cut, last: false, dropped };
    encode_command(&Command::InstallView(install))
}

/// The state of a log with a first view and nothing else: each other field is none or empty.
fn log_state() -> Bytes {
    [&[0, 0, 0, 1], &first_view()[1..], &[0; 9]].concat().into()
}

fn base(index: u64, alone: bool) -> Given {
    let base = LogBase { index: LogIndex(index), term: 2, electors: vec![(ConsensusId(1), VoterRole::Voter)] };
    Given::Base { base, alone }
}

/// A place where the result may begin: inside or at the end of an entry, which a slot holds.
fn checkpoint(index: u64, first_index: u64, (round, lane): (u64, u16)) -> StoredBase {
    let base = ResultBase {
        checkpoint: Checkpoint { index: Index(index), ..Checkpoint::default() },
        view: Some(view(1, 1)),
        run: Some((ORIGIN, Incarnation(4), Seq(index))),
        last_numbers: [((ORIGIN, Incarnation(4)), Seq(index - 1))].into(),
    };
    StoredBase {
        base,
        first_index: Index(first_index),
        slot: Some((ViewId(1), Round(round), Rank(lane))),
        ends: Some((ViewId(1), vec![Round(8), Round(1)])),
        bytes_before: 300 * (first_index - 1),
    }
}

/// Records that a machine may hand out, in its order.
fn given() -> Vec<Given> {
    vec![
        vote(1, 1),
        entries(&[(1, 1), (2, 1), (3, 1)]),
        Given::Complete { view: ViewId(0), first: Index(1) },
        Given::Command { index: LogIndex(1), term: 2, command: first_view() },
        Given::View(view(1, 1)),
        Given::Complete { view: ViewId(1), first: Index(1) },
        Given::Wedged { view: ViewId(1) },
        slot(0, 0, 0, 1),
        slot(1, 0, 0, 1),
        // Entries of an earlier leader are removed.
        entries(&[(2, 2)]),
        entry(1, 1, 2, in_slot(0, 0)),
        // A part of a slot: the rest was in the result already.
        entry(3, 2, 1, in_slot(1, 0)),
        Given::Checkpoint { base: checkpoint(2, 1, (0, 0)), instead_of: None },
        Given::Checkpoint { base: checkpoint(3, 3, (0, 1)), instead_of: Some(Index(2)) },
        slot(0, 7, 1, 3),
        entry(4, 3, 2, in_slot(0, 7)),
        Given::View(view(2, 6)),
        Given::View(view(3, 6)),
        entry(6, 1, 3, StoredBody::Here(batch(1, 3).body)),
        Given::View(view(4, 9)),
        Given::Checkpoint { base: checkpoint(4, 4, (7, 0)), instead_of: None },
        Given::Command { index: LogIndex(2), term: 2, command: Bytes::new() },
        Given::Begin(checkpoint(3, 3, (0, 1))),
        Given::Snapshot(StoredSnapshot {
            index: Index(5),
            begins: checkpoint(4, 4, (7, 0)),
            view: Some(view(1, 1)),
            state: SnapshotState::Here(Bytes::from_static(b"state")),
        }),
        Given::Log { index: LogIndex(1), term: 2, state: log_state() },
        base(1, false),
        Given::Command { index: LogIndex(3), term: 2, command: Bytes::new() },
        entries(&[(3, 2)]),
        // Others know more entries than this node ever did.
        Given::Log { index: LogIndex(9), term: 2, state: log_state() },
        base(9, true),
        entries(&[(10, 3)]),
        Given::Command { index: LogIndex(10), term: 2, command: Bytes::new() },
        // The voter lost its name, and its log with it.
        vote(9, 3),
        entries(&[(1, 3)]),
    ]
}

fn store(opened: &Opened, records: &[Given], retain_bytes: u64) {
    let mut recorder = Recorder::default();
    opened.store.submit(GROUP, vec![meta_op(&meta(retain_bytes))], 0).unwrap();
    for (at, record) in records.iter().enumerate() {
        let ops = recorder.ops(vec![record.clone()]);
        opened.store.submit(GROUP, ops, at as u64 + 1).unwrap();
    }
    while opened.next().ticket < records.len() as u64 {}
}

#[test]
fn whatever_was_given_out_so_far_reads_back_as_it_folds() {
    let all = given();
    let mut folded = Stored::default();
    for (at, record) in all.iter().enumerate() {
        folded.take(record.clone()).unwrap();
        for retain_bytes in [1, 300, 600, 10_000] {
            let opened = Opened::create(&FaultDisk::default());
            store(&opened, &all[..=at], retain_bytes);
            let read = read_group(&opened.store, GROUP).unwrap();
            // Before its first view there is no group to come back to.
            let expected = (at >= 3).then(|| (meta(retain_bytes), folded.clone().newest(retain_bytes).unwrap()));
            assert_eq!(read, expected, "after {record:?}, {retain_bytes} bytes");
        }
    }
    assert_eq!((folded.voter(), folded.index()), (ConsensusId(9), Index(8)));
}

#[test]
fn a_group_is_read_back_as_soon_as_its_voter_holds_a_view_or_is_one_of_several() {
    let entry = |index, command| {
        Given::Entries(vec![ConsensusEntry { term: 1, index: LogIndex(index), change: None, command }])
    };
    let creator = [vote(1, 1), Given::Complete { view: ViewId(0), first: Index(1) }, entry(1, Bytes::new())];
    let voted_for_view = [creator.to_vec(), vec![entry(2, first_view())]].concat();
    for (records, is_read) in [(creator.to_vec(), false), (voted_for_view, true), (vec![vote(9, 0)], true)] {
        let opened = Opened::create(&FaultDisk::default());
        store(&opened, &records, 1);
        assert_eq!(read_group(&opened.store, GROUP).unwrap().is_some(), is_read, "{records:?}");
    }
}

#[test]
fn a_part_of_the_result_is_read_from_any_index_on_in_pieces_of_any_size() {
    let begin = given().iter().position(|record| matches!(record, Given::Begin(_))).unwrap();
    // With all of it, with the part that a bound leaves, and with the part after a snapshot.
    for (records, first) in [(given()[..begin].to_vec(), 1), (given()[..=begin].to_vec(), 3), (given(), 4)] {
        let opened = Opened::create(&FaultDisk::default());
        store(&opened, &records, 1);
        let mut stored = Stored::default();
        records.into_iter().for_each(|record| stored.take(record).unwrap());
        for from in (1..12).map(Index) {
            let position = Position::beginning_at(from);
            let whole = stored.part_from(position, usize::MAX).unwrap_or_default();
            let entries =
                |items: &[ApprovedItem]| items.iter().filter_map(ApprovedItem::entry).cloned().collect::<Vec<_>>();
            let views = |items: &[ApprovedItem]| -> Vec<u64> {
                let id = |item: &ApprovedItem| match item {
                    ApprovedItem::View(view) => Some(view.id().0),
                    ApprovedItem::Batch(_) => None,
                };
                items.iter().filter_map(id).collect()
            };
            assert_eq!(whole.is_empty(), !(first..=8).contains(&from.0), "from {from}");
            assert!(entries(&whole).first().is_none_or(|entry| entry.first_index == from));
            let in_force_first = if from.0 < 6 { vec![1, 2, 3, 4] } else { vec![3, 4] };
            assert!(whole.is_empty() || views(&whole) == in_force_first, "from {from}: {whole:?}");
            for bytes_max in [0, 10, 25, 45, 100, 1_000] {
                let part = read_part(&opened.store, GROUP, position, bytes_max).unwrap().unwrap_or_default();
                assert!(
                    whole.starts_with(&part) && part.is_empty() == whole.is_empty(),
                    "from {from}, {bytes_max} bytes"
                );
                let part = entries(&part);
                let bytes: usize = part.iter().map(|entry| entry.batch.body.len()).sum();
                assert!(part.len() <= 1 || bytes <= bytes_max, "from {from}, {bytes_max} bytes");
            }
            // Deleted entries are gone; later ones are not there yet.
            let expected = (from.0 >= first).then_some(whole);
            assert_eq!(read_part(&opened.store, GROUP, position, 10_000).unwrap(), expected, "from {from}");
        }
    }
}

#[test]
fn a_snapshot_leaves_nothing_of_what_came_before_it_and_forgetting_leaves_nothing_at_all() {
    let opened = Opened::create(&FaultDisk::default());
    store(&opened, &given(), 1);
    assert_eq!(opened.all(GROUP, Table::Slots).len(), 1, "the slot that the result begins in");
    assert_eq!(opened.all(GROUP, Table::Result).len(), 2);
    assert_eq!(opened.all(GROUP, Table::Checkpoints).len(), 0, "it begins there");
    assert_eq!(opened.all(GROUP, Table::Views).len(), 4, "the view in force there, and those that follow");
    opened.store.submit(GROUP, vec![Op::Forget], u64::MAX).unwrap();
    assert_eq!(opened.next().result, Ok(()));
    assert_eq!(opened.store.groups().unwrap(), []);
}

/// The power goes during each single operation, and the beginning of the result goes with a few of them.
#[test]
fn after_a_crash_at_any_operation_a_group_is_what_was_given_out_up_to_some_point() {
    const RETAIN_BYTES: u64 = 300;
    let (all, mut folded) = (given(), Stored::default());
    let mut folds = vec![None, None];
    for (at, record) in all.iter().enumerate() {
        folded.take(record.clone()).unwrap();
        folds.push((at >= 3).then(|| (meta(RETAIN_BYTES), folded.clone().newest(RETAIN_BYTES).unwrap())));
    }
    for operation in 1.. {
        let disk = FaultDisk::default();
        let opened = Opened::create(&disk);
        disk.end_power_at(disk.operations() + operation);
        let mut recorder = Recorder::default();
        let given = all.iter().map(|record| recorder.ops(vec![record.clone()]));
        let mut completed = 0;
        for (ticket, ops) in std::iter::once(vec![meta_op(&meta(RETAIN_BYTES))]).chain(given).enumerate() {
            if opened.put(ops, ticket as u64).is_err() {
                break;
            }
            completed = ticket + 1;
        }
        for seed in 0..3 {
            let again = Opened::open(&FaultDisk::with_image(disk.crash_image(seed))).unwrap();
            let read = read_group(&again.store, GROUP).unwrap();
            assert!(folds[completed..].contains(&read), "operation {operation}, seed {seed}: {completed} completed");
        }
        if completed > all.len() {
            assert!(operation > 50, "only {operation} crash points");
            break;
        }
    }
}

#[test]
fn records_that_contradict_each_other_or_are_no_records_are_told() {
    let refused = |ops: Vec<Op>| {
        let opened = Opened::create(&FaultDisk::default());
        store(&opened, &given(), 1);
        opened.store.submit(GROUP, ops, 100).unwrap();
        assert_eq!(opened.next().result, Ok(()));
        read_group(&opened.store, GROUP).unwrap_err()
    };
    let contradiction = |cause| ReadGroupError::Contradiction { group: GROUP, cause };
    let index = |index: u64| index.to_be_bytes().to_vec();
    let gone = |table, from: Vec<u8>, to: Vec<u8>| vec![Op::DeleteRange { table, from, to }];
    assert_eq!(refused(gone(Table::Result, index(4), index(6))), contradiction(StoredError::Result(Index(6))));
    assert_eq!(refused(gone(Table::Slots, vec![], vec![0xff])), contradiction(StoredError::Slot(Index(4))));
    assert_eq!(
        refused(vec![put(Table::Log, &[&[0][..], &index(12)].concat(), &[0; 8])]),
        contradiction(StoredError::Log(LogIndex(12)))
    );
    for table in [Table::Meta, Table::Log, Table::Checkpoints, Table::Slots, Table::Result] {
        for (key, value) in [(&b"vote"[..], &b"short"[..]), (&[0; 30], b""), (b"", b"")] {
            if matches!(table, Table::Slots | Table::Result) && key < &[0, 0, 0, 0, 0, 0, 0, 1][..] {
                // Entries before the beginning are not read.
                continue;
            }
            let foreign = refused(vec![put(table, key, value)]);
            assert_eq!(foreign, ReadGroupError::Foreign { group: GROUP, table }, "{key:?}");
        }
    }
}
