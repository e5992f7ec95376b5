//! Stored records are read back, and records submitted together are synced together.

use core::ops::Bound;

use super::*;

const OTHER: GroupId = GroupId([8; 16]);

fn delete(table: Table, from: &[u8], to: &[u8]) -> Op {
    Op::DeleteRange { table, from: from.to_vec(), to: to.to_vec() }
}

fn keys(records: Vec<Record>) -> Vec<Vec<u8>> {
    records.into_iter().map(|record| record.key).collect()
}

#[test]
fn records_are_told_apart_by_group_and_table_and_survive_closing() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    assert_eq!(opened.store.groups().unwrap(), []);
    let last = GroupId([0xff; 16]);
    for (ticket, group) in [OTHER, GROUP, last].into_iter().enumerate() {
        let value = [group.0[0]];
        let ops = vec![put(Table::Log, b"b", &value), put(Table::Log, b"a", b""), put(Table::Result, b"a", &value)];
        opened.store.submit(group, ops, ticket as u64).unwrap();
        assert_eq!(opened.next(), Completion { group, ticket: ticket as u64, result: Ok(()) });
    }
    let check = |opened: &Opened| {
        assert_eq!(opened.store.groups().unwrap(), [GROUP, OTHER, last]);
        for group in [GROUP, OTHER, last] {
            let value = vec![group.0[0]];
            let log = vec![(b"a".to_vec(), vec![]), (b"b".to_vec(), value.clone())];
            assert_eq!(opened.all(group, Table::Log), log);
            assert_eq!(opened.all(group, Table::Result), [(b"a".to_vec(), value)]);
            assert_eq!(opened.all(group, Table::Slots), []);
            assert_eq!(opened.all(group, Table::Meta), []);
        }
    };
    check(&opened);
    opened.store.close().unwrap();
    let opened = Opened::open(&disk).unwrap();
    check(&opened);
    assert_eq!(opened.store.range(GroupId([9; 16]), Table::Log, .., 100).unwrap(), []);
}

#[test]
fn operations_are_done_in_order_and_deleting_spares_what_is_not_named() {
    let opened = Opened::create(&FaultDisk::default());
    let fill = (0..10).map(|key| put(Table::Slots, &[key], b"old")).collect();
    opened.put(fill, 1).unwrap();
    opened.put((0..10).map(|key| put(Table::Log, &[key], b"log")).collect(), 2).unwrap();
    let ops = vec![
        delete(Table::Slots, &[3], &[6]),
        put(Table::Slots, &[4], b"new"),
        put(Table::Slots, &[8], b"newer"),
        delete(Table::Slots, &[9], &[9]),
        delete(Table::Slots, &[9], &[1]),
        put(Table::Slots, &[7], b"gone"),
        delete(Table::Slots, &[7], &[7, 0]),
    ];
    opened.put(ops, 3).unwrap();
    let expected: Vec<(Vec<u8>, Vec<u8>)> = [0, 1, 2, 4, 6, 8, 9]
        .map(|key| {
            (
                vec![key],
                if key == 4 {
                    "new"
                } else if key == 8 {
                    "newer"
                } else {
                    "old"
                }
                .into(),
            )
        })
        .to_vec();
    assert_eq!(opened.all(GROUP, Table::Slots), expected);
    assert_eq!(opened.all(GROUP, Table::Log).len(), 10);
}

#[test]
fn a_range_is_read_in_parts_of_the_size_asked_for() {
    let opened = Opened::create(&FaultDisk::default());
    opened.put((0..20).map(|key| put(Table::Result, &[key], &[key; 100])).collect(), 1).unwrap();
    let (mut read, mut after, mut parts) = (Vec::new(), Bound::Unbounded, 0);
    loop {
        let start = after.as_ref().map(Vec::as_slice);
        let part = keys(opened.store.range(GROUP, Table::Result, (start, Bound::Unbounded), 600).unwrap());
        let Some(last) = part.last() else { break };
        assert!(part.len() <= 4, "600 bytes hold four records of 135");
        after = Bound::Excluded(last.clone());
        read.extend(part);
        parts += 1;
    }
    assert_eq!((read, parts), ((0..20).map(|key| vec![key]).collect(), 5));
    let one = opened.store.range(GROUP, Table::Result, .., 0).unwrap();
    assert_eq!(keys(one), [[0]], "one record however large");

    let ranged = |from: Bound<&[u8]>, to: Bound<&[u8]>| {
        keys(opened.store.range(GROUP, Table::Result, (from, to), usize::MAX).unwrap())
    };
    use Bound::{Excluded, Included, Unbounded};
    assert_eq!(ranged(Included(&[5]), Excluded(&[7])), [[5], [6]]);
    assert_eq!(ranged(Excluded(&[5]), Included(&[7])), [[6], [7]]);
    assert_eq!(ranged(Included(&[5]), Included(&[5])), [[5]]);
    assert_eq!(ranged(Excluded(&[17]), Unbounded), [[18], [19]]);
    assert_eq!(ranged(Unbounded, Excluded(&[1])), [[0]]);
    for nothing in
        [(Included(&[5][..]), Excluded(&[5][..])), (Included(&[7]), Included(&[5])), (Excluded(&[5]), Excluded(&[5]))]
    {
        assert_eq!(ranged(nothing.0, nothing.1), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn what_is_submitted_during_a_sync_shares_the_next_one() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    let before = disk.syncs();
    opened.put(vec![put(Table::Slots, b"alone", b"1")], 1).unwrap();
    let per_commit = disk.syncs() - before;
    assert_eq!(per_commit, 1, "a commit costs one sync");

    disk.hold_syncs();
    opened.store.submit(GROUP, vec![put(Table::Slots, b"first", b"1")], 2).unwrap();
    assert!(disk.wait_for_held_sync(PATIENCE), "no sync came");
    for ticket in 3..=1_000 {
        let (group, key) = if ticket % 2 == 0 { (GROUP, ticket) } else { (OTHER, ticket) };
        opened.store.submit(group, vec![put(Table::Slots, &u64::to_be_bytes(key), b"value")], ticket).unwrap();
    }
    assert!(opened.completions.try_recv().is_err(), "nothing is completed before its sync");
    assert!(opened.store.backlog_bytes() > 998 * (8 + 5));
    let before = disk.syncs();
    disk.release_syncs();
    let done = |group, ticket| Completion { group, ticket, result: Ok(()) };
    assert_eq!(opened.next(), done(GROUP, 2));
    assert_eq!([opened.next(), opened.next()], [done(GROUP, 1_000), done(OTHER, 999)]);
    // One more where the file has to grow.
    assert!(disk.syncs() - before <= 2 * per_commit + 1, "{} syncs", disk.syncs() - before);
    assert_eq!(opened.store.backlog_bytes(), 0);
    assert_eq!(opened.all(OTHER, Table::Slots).len(), 499);
}

#[test]
fn no_operations_are_a_barrier_and_cost_no_sync() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    disk.hold_syncs();
    opened.store.submit(GROUP, vec![put(Table::Meta, b"key", b"value")], 1).unwrap();
    assert!(disk.wait_for_held_sync(PATIENCE), "no sync came");
    opened.store.submit(GROUP, Vec::new(), 2).unwrap();
    assert!(opened.completions.try_recv().is_err());
    let before = disk.syncs();
    disk.release_syncs();
    assert_eq!([opened.next().ticket, opened.next().ticket], [1, 2]);
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn submitting_never_waits_and_the_backlog_has_a_bound() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    disk.hold_syncs();
    let large = Bytes::from(vec![5; STORE_BACKLOG_BYTES_MAX / 4]);
    let submit = |ticket: u64| {
        let op = Op::Put { table: Table::Slots, key: ticket.to_be_bytes().to_vec(), value: large.clone().into() };
        opened.store.submit(GROUP, vec![op], ticket)
    };
    for ticket in 1..=4 {
        submit(ticket).unwrap();
    }
    let backlog_bytes = opened.store.backlog_bytes();
    assert!(backlog_bytes >= STORE_BACKLOG_BYTES_MAX);
    assert_eq!(submit(5), Err(SubmitError::Overloaded { backlog_bytes }));
    assert_eq!(opened.store.submit(GROUP, Vec::new(), 5), Err(SubmitError::Overloaded { backlog_bytes }));
    disk.release_syncs();
    while opened.next().ticket < 4 {}
    submit(5).unwrap();
    assert_eq!(opened.next().ticket, 5);
    let stored = opened.store.range(GROUP, Table::Slots, .., usize::MAX).unwrap();
    assert_eq!(stored.len(), 5, "what was refused left no trace");
}

#[test]
fn what_is_too_long_is_refused_whole() {
    let opened = Opened::create(&FaultDisk::default());
    let long = vec![0; KEY_BYTES_MAX + 1];
    let value = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    for (op, error) in [
        (put(Table::Meta, &long, b""), SubmitError::KeyTooLong { key_bytes: long.len() }),
        (delete(Table::Meta, b"", &long), SubmitError::KeyTooLong { key_bytes: long.len() }),
        (
            Op::Put { table: Table::Meta, key: vec![], value: value.clone().into() },
            SubmitError::ValueTooLarge { value_bytes: value.len() },
        ),
    ] {
        assert_eq!(opened.store.submit(GROUP, vec![put(Table::Meta, b"fine", b""), op], 1), Err(error));
    }
    opened.put(vec![put(Table::Log, &long[1..], b"longest")], 1).unwrap();
    assert_eq!(opened.all(GROUP, Table::Meta), []);
    assert_eq!(opened.all(GROUP, Table::Log).len(), 1);
}

#[test]
fn closing_stores_what_is_queued() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    disk.hold_syncs();
    for ticket in 0..100 {
        opened.store.submit(GROUP, vec![put(Table::Slots, &[ticket], b"value")], ticket.into()).unwrap();
    }
    assert!(disk.wait_for_held_sync(PATIENCE), "no sync came");
    let closing = std::thread::spawn({
        let store = opened.store;
        move || store.close()
    });
    disk.release_syncs();
    closing.join().unwrap().unwrap();
    assert_eq!(opened.completions.iter().last().unwrap().ticket, 99);
    assert_eq!(Opened::open(&disk).unwrap().all(GROUP, Table::Slots).len(), 100);
}

#[test]
fn dropping_does_not_wait_for_the_disk() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    opened.put(vec![put(Table::Slots, b"1", b"completed")], 1).unwrap();
    disk.hold_syncs();
    opened.store.submit(GROUP, vec![put(Table::Slots, b"2", b"being written")], 2).unwrap();
    assert!(disk.wait_for_held_sync(PATIENCE), "no sync came");
    opened.store.submit(GROUP, vec![put(Table::Slots, b"3", b"queued")], 3).unwrap();
    let (sender, dropped) = channel();
    let store = opened.store;
    std::thread::spawn(move || {
        drop(store);
        sender.send(()).unwrap();
    });
    dropped.recv_timeout(PATIENCE).expect("the sync is held, and dropping does not wait for it");
    disk.release_syncs();
    let tickets: Vec<u64> = opened.completions.iter().map(|completion| completion.ticket).collect();
    assert_eq!(tickets, [2], "the queue is dropped, the thread has ended");
}

#[test]
fn a_receiver_that_panics_ends_the_store() {
    let disk = FaultDisk::default();
    let store = Store::create_on(disk.clone(), |_| panic!("the receiver's own fault")).unwrap();
    store.submit(GROUP, vec![put(Table::Meta, b"key", b"value")], 1).unwrap();
    assert_eq!(store.close(), Err(StoreError::Ended));
    assert_eq!(Opened::open(&disk).unwrap().all(GROUP, Table::Meta).len(), 1);
}
