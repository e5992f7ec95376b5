//! Bytes altered on disk: found and said, never given out as data, never repaired.

use core::ops::Bound;

use redb::{Database, ReadableTable};

use super::super::packs::PACKS;
use super::record::RECORDS;
use super::*;

fn filled() -> (FaultDisk, Opened) {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    for ticket in 0..4 {
        let ops = (0..8).map(|key| put(Table::Result, &[ticket, key], &value(ticket, key))).collect();
        opened.put(ops, ticket.into()).unwrap();
    }
    (disk, opened)
}

fn value(ticket: u8, key: u8) -> Vec<u8> {
    noise(u64::from(ticket) << 8 | u64::from(key), 200)
}

fn good() -> Vec<(Vec<u8>, Vec<u8>)> {
    (0..4).flat_map(|ticket| (0..8).map(move |key| (vec![ticket, key], value(ticket, key)))).collect()
}

/// The outcome of reading an image with one altered byte: an error, with the disk unchanged, or the stored records.
fn refused(image: &[u8], at: usize, flip: u8) -> bool {
    let mut altered = image.to_vec();
    altered[at] ^= flip;
    let disk = FaultDisk::with_image(altered.clone());
    let error = match Opened::open(&disk) {
        Ok(opened) => {
            assert!(opened.all(GROUP, Table::Result) == good(), "byte {at}: wrong data");
            return false;
        }
        Err(error) => error.to_string(),
    };
    assert!(error.contains("restore the data directory from a backup"), "byte {at}: {error}");
    assert!(disk.image() == altered, "byte {at}: a damaged store was written to");
    true
}

/// The header, everything around the values, and a sample of the rest.
fn places(image: &[u8]) -> Vec<usize> {
    let page = 4_096;
    let probes: Vec<Vec<u8>> = [(0, 0), (1, 3), (2, 7), (3, 7)].map(|(ticket, key)| value(ticket, key)).to_vec();
    let holds = |chunk: &[u8]| probes.iter().any(|probe| chunk.windows(probe.len()).any(|at| at == probe));
    let mut places: Vec<usize> = (0..320).collect();
    for (at, chunk) in image.chunks(page).enumerate() {
        let step = if holds(chunk) { 7 } else { 509 };
        places.extend((0..chunk.len()).step_by(step).map(|offset| at * page + offset));
    }
    places
}

#[test]
fn an_altered_byte_in_a_closed_store_is_refused_or_harmless() {
    let (disk, opened) = filled();
    opened.store.close().unwrap();
    let image = disk.image();
    let refusals = places(&image).into_iter().filter(|at| refused(&image, *at, 1 << (at % 8))).count();
    assert!(refusals > 100, "only {refusals}");
    // Of the copies of a value one is in use, and all its bytes count.
    let probe = value(2, 7);
    let used: Vec<usize> = copies(&image, &probe).into_iter().filter(|at| refused(&image, *at, 0x10)).collect();
    assert_eq!(used.len(), 1);
    for offset in 0..probe.len() {
        assert!(refused(&image, used[0] + offset, 0x10), "byte {offset} of a value");
    }
}

/// The places of these bytes in the image; a database leaves pages behind that it no longer uses.
fn copies(image: &[u8], bytes: &[u8]) -> Vec<usize> {
    let windows = image.windows(bytes.len()).enumerate();
    windows.filter(|(_, window)| *window == bytes).map(|(at, _)| at).collect()
}

#[test]
fn an_altered_value_is_refused_after_a_crash_too() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    let large = noise(99, 40_000);
    opened.put(vec![put(Table::Meta, b"large", &large)], 1).unwrap();
    for ticket in 2..5 {
        opened.put((0..40).map(|key| put(Table::Result, &[key], &value(1, key))).collect(), ticket).unwrap();
    }
    let image = disk.crash_image(0);
    let mut refusals = 0;
    for at in copies(&image, &large) {
        let mut altered = image.clone();
        altered[at + 20_000] ^= 1;
        let disk = FaultDisk::with_image(altered.clone());
        match Opened::open(&disk) {
            Ok(opened) => assert!(opened.all(GROUP, Table::Meta) == [(b"large".to_vec(), large.clone())]),
            Err(error) => {
                assert!(error.to_string().starts_with("the database was altered on disk ("), "{error}");
                assert!(disk.image() == altered);
                refusals += 1;
            }
        }
    }
    assert_eq!(refusals, 1, "the copy in use");
}

#[test]
fn damage_in_the_last_transaction_of_a_crashed_store_undoes_at_most_that_one() {
    let (disk, opened) = filled();
    let image = disk.crash_image(0);
    drop(opened);
    let undone = copies(&image, &value(3, 7)).into_iter().filter(|at| {
        let mut altered = image.clone();
        altered[*at] ^= 1;
        let found = Opened::open(&FaultDisk::with_image(altered)).unwrap().all(GROUP, Table::Result);
        assert!(found == good()[..24] || found == good());
        found.len() == 24
    });
    assert_eq!(undone.count(), 1);
}

/// Alters records through the database itself, so that its pages verify and only our checksum can tell.
fn alter(image: Vec<u8>, alteration: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>)) -> FaultDisk {
    let disk = FaultDisk::with_image(image);
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    alteration(&mut transaction.open_table(RECORDS).unwrap());
    transaction.commit().unwrap();
    database.close().unwrap();
    disk
}

#[test]
fn each_byte_of_a_record_is_under_its_checksum() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    opened.put(vec![put(Table::Result, b"key", b"some value"), put(Table::Result, b"other", b"")], 1).unwrap();
    opened.store.close().unwrap();
    let image = disk.image();
    let mut entry = None;
    alter(image.clone(), |records| {
        let (key, value) = records.first().unwrap().unwrap();
        entry = Some((key.value().to_vec(), value.value().to_vec()));
    });
    let (key, sealed) = entry.unwrap();
    assert_eq!((key.len(), sealed.len()), (16 + 1 + 3, 16 + 1 + 10));
    let expected = StoreError::Damaged { group: GROUP, table: Table::Result, key: "6b6579".to_owned() };
    let words = "the record 6b6579 in table result of group 07070707070707070707070707070707 was altered on disk: \
                 check the disk, then restore the data directory from a backup made since its last run, or start with a new \
                 one and let the node join again";
    assert_eq!(expected.to_string(), words);
    for at in 0..sealed.len() {
        let disk = alter(image.clone(), |records| {
            let mut altered = sealed.clone();
            altered[at] ^= 0x40;
            records.insert(key.as_slice(), altered.as_slice()).unwrap();
        });
        let opened = Opened::open(&disk).unwrap();
        assert_eq!(opened.store.range(GROUP, Table::Result, .., usize::MAX), Err(expected.clone()), "byte {at}");
        let rest = (core::ops::Bound::Excluded(&b"key"[..]), core::ops::Bound::Unbounded);
        assert_eq!(opened.store.range(GROUP, Table::Result, rest, usize::MAX).unwrap().len(), 1, "the rest is read");
    }
    // A value cut short, one that lost its checksum, and a record that was moved.
    for length in [sealed.len() - 1, 16, 15, 0] {
        let disk = alter(image.clone(), |records| drop(records.insert(key.as_slice(), &sealed[..length]).unwrap()));
        assert_eq!(Opened::open(&disk).unwrap().store.range(GROUP, Table::Result, .., 0), Err(expected.clone()));
    }
    for (at, table) in [(0, Table::Result), (16, Table::Log), (19, Table::Result)] {
        let mut moved = key.clone();
        moved[at] ^= 6;
        let group = GroupId(moved[..16].try_into().unwrap());
        let disk = alter(image.clone(), |records| drop(records.insert(moved.as_slice(), sealed.as_slice()).unwrap()));
        let read = Opened::open(&disk).unwrap().store.range(group, table, .., usize::MAX);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "moved at {at}: {read:?}");
    }
}

/// Alters a piece of a pack, or takes it away.
fn alter_piece(image: Vec<u8>, piece: (u64, u64), altered: Option<&[u8]>) -> Opened {
    let disk = FaultDisk::with_image(image);
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut packs = transaction.open_table(PACKS).unwrap();
        let before = packs.remove(piece).unwrap();
        assert!(before.is_some(), "there is no piece {piece:?}");
        drop(before);
        altered.iter().for_each(|altered| drop(packs.insert(piece, *altered).unwrap()));
    }
    transaction.commit().unwrap();
    database.close().unwrap();
    Opened::open(&disk).unwrap()
}

#[test]
fn each_byte_of_a_packed_value_and_of_its_place_is_under_the_checksum() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    let (first, second) = (noise(1, 2_000), noise(2, 140_000));
    let ops = vec![put(Table::Slots, b"1", &first), put(Table::Slots, b"2", &second)];
    opened.put(ops, 1).unwrap();
    opened.store.close().unwrap();
    let image = disk.image();
    let damaged = |key: &str| StoreError::Damaged { group: GROUP, table: Table::Slots, key: key.to_owned() };
    let read = |opened: &Opened, key: &[u8]| {
        opened.store.range(GROUP, Table::Slots, (Bound::Included(key), Bound::Included(key)), usize::MAX)
    };
    let first_page = 131_072 - 64;
    let pack = [first, second].concat();
    for at in [0, 1_999, 2_000, first_page - 1, first_page, pack.len() - 1] {
        let piece = if at < first_page { 0 } else { first_page };
        let end = if at < first_page { first_page } else { pack.len() };
        let mut altered = pack[piece..end].to_vec();
        altered[at - piece] ^= 0x20;
        let opened = alter_piece(image.clone(), (0, piece as u64), Some(&altered));
        let (bad, good, key) = if at < 2_000 { ("31", b"2", b"1") } else { ("32", b"1", b"2") };
        assert_eq!(read(&opened, key), Err(damaged(bad)), "byte {at}");
        assert!(read(&opened, good).is_ok(), "byte {at}");
    }
    // A piece is lost, or cut short.
    for (piece, left, keys) in [(0, None, 2), (0, Some(&pack[..1_000]), 2), (first_page, None, 1)] {
        let opened = alter_piece(image.clone(), (0, piece as u64), left);
        assert_eq!([b"1", b"2"].iter().filter(|key| read(&opened, **key).is_err()).count(), keys);
    }
    let mut entry = None;
    alter(image.clone(), |records| {
        let (key, value) = records.last().unwrap().unwrap();
        entry = Some((key.value().to_vec(), value.value().to_vec()));
    });
    let (key, sealed) = entry.unwrap();
    assert_eq!(sealed.len(), 16 + 1 + 24);
    for at in 0..sealed.len() {
        let disk = alter(image.clone(), |records| {
            let mut altered = sealed.clone();
            altered[at] ^= 0x80;
            records.insert(key.as_slice(), altered.as_slice()).unwrap();
        });
        assert_eq!(read(&Opened::open(&disk).unwrap(), b"2"), Err(damaged("32")), "byte {at} of the place");
    }
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let foreign = FaultDisk::default();
    let database = Database::builder().create_with_backend(foreign.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("someone else's")).unwrap();
    transaction.commit().unwrap();
    database.close().unwrap();
    for image in [Vec::new(), noise(1, 100), noise(2, 1 << 20), vec![0; 1 << 20]] {
        let disk = FaultDisk::with_image(image.clone());
        let error = Opened::open(&disk).err().unwrap();
        assert!(error.to_string().contains("restore the data directory from a backup"), "{error}");
        assert!(disk.image() == image);
        if !image.is_empty() {
            let error = Store::create_on(disk.clone(), |_| {}).unwrap_err();
            assert!(matches!(error, OpenStoreError::NotEmpty), "{error}");
            assert!(disk.image() == image);
        }
    }
    let error = Opened::open(&foreign).err().unwrap();
    assert!(matches!(error, OpenStoreError::NotAStore { .. }), "{error}");
    assert!(error.to_string().starts_with("there is no database of a cloudy node ("), "{error}");
}
