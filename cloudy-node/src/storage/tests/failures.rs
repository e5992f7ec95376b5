//! A disk that is full or fails to sync stops the store, and nothing is completed after that.

use super::*;

const VALUE_BYTES: usize = 50_000;

fn op(ticket: u64) -> Vec<Op> {
    vec![put(Table::Slots, &ticket.to_be_bytes(), &noise(ticket, VALUE_BYTES))]
}

fn count(image: Vec<u8>) -> usize {
    let opened = Opened::open(&FaultDisk::with_image(image)).unwrap();
    let found = opened.all(GROUP, Table::Slots);
    for (at, (key, value)) in found.iter().enumerate() {
        let ticket = at as u64 + 1;
        assert_eq!(*key, ticket.to_be_bytes());
        assert!(*value == noise(ticket, VALUE_BYTES));
    }
    found.len()
}

/// Submits until one fails. The number that were completed, and the error.
fn until_failure(opened: &Opened) -> (u64, StoreError) {
    for ticket in 1..1_000 {
        if let Err(error) = opened.put(op(ticket), ticket) {
            return (ticket - 1, error);
        }
    }
    panic!("the disk never failed")
}

fn stays_dead(opened: Opened, disk: &FaultDisk, completed: u64, error: &StoreError) {
    let operations = disk.operations();
    for ticket in completed + 2..completed + 10 {
        assert_eq!(opened.put(op(ticket), ticket).as_ref(), Err(error), "every later submission fails alike");
    }
    assert_eq!(opened.put(Vec::new(), completed + 10).as_ref(), Err(error), "a barrier too");
    assert_eq!(opened.store.backlog_bytes(), 0);
    assert_eq!(opened.store.close().as_ref(), Err(error));
    assert_eq!(disk.operations(), operations, "nothing is tried again");
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing_completed() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    disk.limit_bytes(Some(8 << 20));
    let (completed, error) = until_failure(&opened);
    assert!(completed > 10, "only {completed}");
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    let words = error.to_string();
    assert!(words.starts_with("cannot store (") && words.contains("free space, replace the disk"), "{words}");
    // Space again: the store must not notice.
    disk.limit_bytes(None);
    stays_dead(opened, &disk, completed, &error);
    for image in [disk.image(), disk.crash_image(0), disk.crash_image(1), disk.crash_image(9)] {
        let found = count(image) as u64;
        assert!(found == completed || found == completed + 1, "{completed} completed, {found} there");
    }
}

#[test]
fn each_failed_sync_is_the_last_one() {
    let create = FaultDisk::default();
    let opened = Opened::create(&create);
    opened.store.close().unwrap();
    for failing in 1..12 {
        let disk = FaultDisk::with_image(create.image());
        disk.fail_sync(failing);
        let Ok(opened) = Opened::open(&disk) else { continue };
        let (completed, error) = until_failure(&opened);
        assert!(error.to_string().contains("the sync failed"), "{error}");
        stays_dead(opened, &disk, completed, &error);
        // The operating system has dropped the writes that it could not sync.
        assert_eq!(count(disk.crash_image(0)) as u64, completed, "sync {failing}");
    }
}

#[test]
fn a_failure_completes_what_was_queued_behind_it_with_the_same_error() {
    let disk = FaultDisk::default();
    let opened = Opened::create(&disk);
    disk.hold_syncs();
    opened.store.submit(GROUP, op(1), 1).unwrap();
    assert!(disk.wait_for_held_sync(PATIENCE), "no sync came");
    let other = GroupId([9; 16]);
    opened.store.submit(GROUP, op(2), 2).unwrap();
    opened.store.submit(other, op(3), 3).unwrap();
    disk.fail_sync(disk.syncs() + 1);
    disk.release_syncs();
    let first = opened.next();
    let error = first.result.clone().unwrap_err();
    assert_eq!((first.group, first.ticket), (GROUP, 1));
    let failed = |group, ticket| Completion { group, ticket, result: Err(error.clone()) };
    assert_eq!([opened.next(), opened.next()], [failed(GROUP, 2), failed(other, 3)]);
}

#[test]
fn one_failed_operation_stops_the_store_although_the_disk_works_again() {
    let create = FaultDisk::default();
    Opened::create(&create).store.close().unwrap();
    let mut failed = 0;
    for fault in [DiskFault::Io, DiskFault::Full, DiskFault::Short] {
        for operation in 1..60 {
            let disk = FaultDisk::with_image(create.image());
            let Ok(opened) = Opened::open(&disk) else { panic!("the store does not open") };
            disk.fail_operation(disk.operations() + operation, fault);
            let (completed, error) = until_failure(&opened);
            failed += 1;
            stays_dead(opened, &disk, completed, &error);
            for image in [disk.image(), disk.crash_image(0), disk.crash_image(1), disk.crash_image(operation + 2)] {
                let found = count(image) as u64;
                let is_prefix = found == completed || found == completed + 1;
                assert!(is_prefix, "{fault:?} at {operation}: {completed} completed, {found} there");
            }
        }
    }
    assert_eq!(failed, 3 * 59);
}
