//! Bulk values are stored together in packs, and a pack is deleted with the last of them.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::packs::{GONE, PACKS};
use super::record::RECORDS;
use super::record::place_of;
use super::*;

const OTHER: GroupId = GroupId([8; 16]);

/// Bytes of each pack's pieces, in order. Each pack is referred to by as many records as it should be.
pub(super) fn packs_of(disk: &FaultDisk) -> BTreeMap<u64, Vec<usize>> {
    let copy = FaultDisk::with_image(disk.image());
    let database = Database::builder().create_with_backend(copy).unwrap();
    let read = database.begin_read().unwrap();
    let (mut packs, mut living) = (BTreeMap::<u64, Vec<usize>>::new(), BTreeMap::<u64, (u32, u32)>::new());
    for piece in read.open_table(PACKS).unwrap().iter().unwrap() {
        let (key, piece) = piece.unwrap();
        packs.entry(key.value().0).or_default().push(piece.value().len());
    }
    for record in read.open_table(RECORDS).unwrap().iter().unwrap() {
        if let Some(place) = place_of(record.unwrap().1.value()) {
            let (count, of) = living.entry(place.pack).or_default();
            (*count, *of) = (*count + 1, place.of);
        }
    }
    let mut gone = BTreeMap::new();
    for entry in read.open_table(GONE).unwrap().iter().unwrap() {
        let (pack, count) = entry.unwrap();
        gone.insert(pack.value(), count.value());
    }
    assert!(packs.keys().eq(living.keys()), "{packs:?} and what refers to them, {living:?}");
    for (pack, (count, of)) in living {
        assert_eq!(count + gone.remove(&pack).unwrap_or(0), of, "of pack {pack}");
    }
    assert_eq!(gone, BTreeMap::new(), "of packs that are no more");
    packs
}

fn bulk(keys: core::ops::Range<u8>, value_bytes: usize) -> Vec<Op> {
    keys.map(|key| put(Table::Slots, &[key], &noise(key.into(), value_bytes))).collect()
}

fn delete(from: u8, to: u8) -> Vec<Op> {
    vec![Op::DeleteRange { table: Table::Slots, from: vec![from], to: vec![to] }]
}

#[test]
fn values_of_any_size_are_read_back_from_their_pack() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    let mut sizes: Vec<usize> =
        (1_022..1_027).chain([4_031, 4_032, 4_033, 16_404, 131_008, 131_009, 700_000]).collect();
    sizes.extend((0..60).map(|at| (at * 7_919) % 40_000));
    let value = |at: usize| noise(at as u64, sizes[at]);
    let parted = |at: usize| {
        let (whole, key) = (Bytes::from(value(at)), vec![at as u8]);
        let head = whole.slice(..whole.len().min(20));
        let body = whole.slice(head.len()..);
        Op::Put { table: Table::Slots, key, value: Value { head, body } }
    };
    // In transactions of one value, of a few, and of many.
    for (ticket, at) in [0..1, 1..4, 4..12, 12..sizes.len()].into_iter().enumerate() {
        opened.put(at.map(parted).collect(), ticket as u64 + 1).unwrap();
    }
    let expected: Vec<_> = (0..sizes.len()).map(|at| (vec![at as u8], value(at))).collect();
    assert!(opened.all(GROUP, Table::Slots) == expected);
    for (key, value) in expected {
        let one = opened.store.last_up_to(GROUP, Table::Slots, &key).unwrap().unwrap();
        assert!(one.key == key && one.value == value, "{key:?}");
    }
    assert_eq!(packs_of(&disk).len(), 3, "the first transaction has a small value only");
}

#[test]
fn pages_of_a_pack_are_filled() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    for (ticket, count) in (1..40).enumerate() {
        opened.put(bulk(0..count, 16_404), ticket as u64 + 1).unwrap();
        let pieces = packs_of(&disk).pop_last().unwrap().1;
        let page = |bytes: &usize| (bytes + 64).next_power_of_two().max(4_096);
        let (bytes, pages): (usize, usize) = (pieces.iter().sum(), pieces.iter().map(page).sum());
        assert_eq!(bytes, usize::from(count) * 16_404);
        assert!(pages <= bytes * 8 / 7 + 4_096 && pieces.iter().all(|bytes| page(bytes) <= 128 << 10), "{pieces:?}");
    }
}

#[test]
fn a_pack_goes_with_the_last_of_its_values() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    opened.put(bulk(0..8, 3_000), 1).unwrap();
    opened.put(bulk(8..12, 3_000), 2).unwrap();
    assert_eq!(packs_of(&disk).len(), 2);
    // A few at a time, more than there are, and once more.
    for (ticket, (from, to)) in [(0, 3), (5, 9), (5, 9)].into_iter().enumerate() {
        opened.put(delete(from, to), ticket as u64 + 3).unwrap();
        assert_eq!(packs_of(&disk).len(), 2);
    }
    let rest = [3, 4, 9, 10, 11].map(|key| (vec![key], noise(key.into(), 3_000)));
    assert!(opened.all(GROUP, Table::Slots) == rest);
    // One is deleted, the other replaced by a small value.
    opened.put(delete(3, 4), 6).unwrap();
    opened.put(vec![put(Table::Slots, &[4], b"small")], 7).unwrap();
    assert_eq!(packs_of(&disk).len(), 1);
    opened.put(vec![Op::DeleteFirst { table: Table::Slots, from: Vec::new(), to: vec![12], count_max: 3 }], 8).unwrap();
    assert!(opened.all(GROUP, Table::Slots) == [(vec![11], noise(11, 3_000))]);
    opened.put(delete(0, 200), 9).unwrap();
    assert_eq!(packs_of(&disk).len(), 0);
    // The number of the first pack is used again.
    opened.put([bulk(0..4, 3_000), bulk(0..2, 5_000), delete(1, 2)].concat(), 10).unwrap();
    let expected = [(0, 5_000), (2, 3_000), (3, 3_000)].map(|(key, bytes)| (vec![key], noise(key.into(), bytes)));
    assert!(opened.all(GROUP, Table::Slots) == expected);
    assert_eq!(packs_of(&disk).into_keys().collect::<Vec<_>>(), [0]);
    opened.put([bulk(20..22, 3_000), delete(0, 200)].concat(), 11).unwrap();
    assert_eq!(packs_of(&disk).len(), 0, "nothing is left of what came and went in one transaction");
}

#[test]
fn groups_share_no_pack_and_single_facts_are_in_none() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    opened.store.submit(GROUP, bulk(0..3, 2_000), 1).unwrap();
    opened.store.submit(OTHER, bulk(0..3, 2_000), 1).unwrap();
    while opened.next().group != OTHER {}
    assert_eq!(packs_of(&disk).len(), 2);
    opened.put(delete(0, 200), 2).unwrap();
    assert_eq!((opened.all(GROUP, Table::Slots).len(), opened.all(OTHER, Table::Slots).len()), (0, 3));
    assert_eq!(packs_of(&disk).len(), 1);
    opened.put(vec![put(Table::Meta, b"state", &noise(1, 50_000))], 3).unwrap();
    assert_eq!(packs_of(&disk).len(), 1);
}

#[test]
fn a_packed_value_counts_as_if_it_lay_in_its_record() {
    let opened = Opened::create(&FaultDisk::default());
    opened.put(bulk(0..10, 2_000), 1).unwrap();
    let read = |limit_bytes| opened.store.range(GROUP, Table::Slots, .., limit_bytes).unwrap().len();
    assert_eq!([0, 2_035, 4_069, 4_070, 20_349, 20_350].map(read), [1, 1, 1, 2, 9, 10]);
}
