//! A group is forgotten at once, and deleted in pieces.

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::forgotten::Forgotten;
use super::super::packs::PACKS;
use super::super::record::RECORDS;
use super::super::record::{forgotten_key, group_of};
use super::super::store::create_database;
use super::*;

const OTHER: GroupId = GroupId([9; 16]);
/// Those of several pieces.
const RECORDS_COUNT: u16 = 3_000;

fn values(bytes: usize) -> Vec<Op> {
    (0..RECORDS_COUNT).map(|key| put(Table::Result, &key.to_be_bytes(), &noise(key.into(), bytes))).collect()
}

/// The number of records of the group, its mark included, and the number of pieces of packs of any group.
fn left(database: &Database) -> (usize, usize) {
    let read = database.begin_read().unwrap();
    let records = read.open_table(RECORDS).unwrap();
    let of_group = |key: &[u8]| group_of(key).is_some_and(|(group, _)| group == GROUP);
    let records = records.iter().unwrap().filter(|record| of_group(record.as_ref().unwrap().0.value())).count();
    (records, read.open_table(PACKS).unwrap().iter().unwrap().count())
}

#[test]
fn one_transaction_deletes_a_bounded_piece() {
    let database = create_database(InMemoryBackend::new()).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut forgotten = Forgotten::default();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        for at in 0..RECORDS_COUNT {
            let key = super::super::record::full_key(GROUP, Table::Slots, &at.to_be_bytes());
            records.insert(key.as_slice(), &[0; 20][..]).unwrap();
        }
        forgotten.mark(&mut records, GROUP).unwrap();
    }
    transaction.commit().unwrap();
    let mut before = left(&database).0;
    let mut pieces = 0;
    while !forgotten.is_empty() {
        let transaction = database.begin_write().unwrap();
        forgotten.delete_piece(&transaction).unwrap();
        transaction.commit().unwrap();
        let after = left(&database).0;
        assert!(before - after <= 1_025, "{} at once", before - after);
        (before, pieces) = (after, pieces + 1);
    }
    assert_eq!((before, pieces), (0, 3));
}

#[test]
fn a_forgotten_group_is_invisible_at_once_and_its_deletion_continues_after_a_restart() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    opened.put(values(1_100), 1).unwrap();
    opened.store.submit(OTHER, vec![put(Table::Meta, b"kept", b"here")], 1).unwrap();
    assert_eq!(opened.next().group, OTHER);
    let image = disk.image();
    opened.put(vec![Op::Forget], u64::MAX).unwrap();
    assert_eq!(opened.store.groups().unwrap(), [OTHER]);
    assert_eq!(opened.all(GROUP, Table::Result), []);
    assert_eq!(opened.store.last_up_to(GROUP, Table::Result, &[0xff; 2]).unwrap(), None);
    drop(opened);

    // As if the process had ended right after that.
    let disk = FaultDisk::with_image(image);
    {
        let database = Database::builder().create_with_backend(disk.clone()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(RECORDS).unwrap().insert(forgotten_key(GROUP).as_slice(), &[][..]).unwrap();
        transaction.commit().unwrap();
        assert_eq!(left(&database).0, usize::from(RECORDS_COUNT) + 1);
    }
    let opened = Opened::open(&disk).unwrap();
    assert_eq!(opened.store.groups().unwrap(), [OTHER]);
    // Each transaction takes a piece along.
    for ticket in 2..6 {
        opened.store.submit(OTHER, vec![put(Table::Meta, b"more", b"here")], ticket).unwrap();
        assert_eq!(opened.next().result, Ok(()));
        assert_eq!(opened.all(GROUP, Table::Result), []);
    }
    assert_eq!(opened.all(OTHER, Table::Meta).len(), 2);
    opened.store.close().unwrap();
    let database = Database::builder().create_with_backend(FaultDisk::with_image(disk.image())).unwrap();
    assert_eq!(left(&database), (0, 0));
}
