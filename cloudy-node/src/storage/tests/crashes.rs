//! The power fails during each single operation on the disk; everything completed is there, and nothing is there in
//! part.

use std::collections::BTreeMap;

use super::packs::packs_of;
use super::*;

/// Crash images for each operation: nothing kept, all kept, and parts.
const SEEDS: u64 = 6;
const SUBMISSIONS: u64 = 12;

type Records = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Large and small values, replaced and deleted: the database grows, splits and frees pages.
fn submission(ticket: u64) -> Vec<Op> {
    let mut ops = vec![put(Table::Meta, b"last", &ticket.to_be_bytes())];
    for part in 0..4 {
        let length = [10, 3_000, 40_000, 300][(ticket + part) as usize % 4];
        ops.push(put(Table::Slots, &[ticket as u8, part as u8], &noise(ticket * 4 + part, length)));
        ops.push(put(Table::Log, &[part as u8], &noise(ticket ^ part, 50)));
    }
    if ticket >= 5 {
        ops.push(Op::DeleteRange { table: Table::Slots, from: vec![ticket as u8 - 5], to: vec![ticket as u8 - 4] });
    }
    if ticket >= 7 {
        // There are more than that, or fewer.
        ops.push(Op::DeleteFirst {
            table: Table::Slots,
            from: Vec::new(),
            to: vec![ticket as u8 - 2],
            count_max: ticket as usize - 6,
        });
    }
    ops
}

/// The stored records after the first submissions, for each number of them.
fn states() -> Vec<Records> {
    let mut states = vec![Records::new()];
    for ticket in 1..=SUBMISSIONS {
        let mut state = states.last().unwrap().clone();
        for op in submission(ticket) {
            match op {
                Op::Put { table, key, value } => drop(state.insert((table, key), value.to_vec())),
                Op::Forget => state.clear(),
                Op::DeleteRange { table, from, to } => {
                    state.retain(|(at, key), _| *at != table || *key < from || *key >= to);
                }
                Op::DeleteFirst { table, from: _, to, count_max } => {
                    let mut left = count_max;
                    state.retain(|(at, key), _| {
                        let stays = *at != table || *key >= to || left == 0;
                        left -= usize::from(!stays);
                        stays
                    });
                }
            }
        }
        states.push(state);
    }
    states
}

fn stored(opened: &Opened) -> Records {
    let tables = [Table::Meta, Table::Log, Table::Slots, Table::Result];
    let records =
        tables.map(|table| opened.all(GROUP, table).into_iter().map(move |(key, value)| ((table, key), value)));
    records.into_iter().flatten().collect()
}

/// Submits `together` at a time until the disk fails. How many were completed.
fn run(opened: &Opened, together: u64) -> u64 {
    let mut completed = 0;
    for first in (1..=SUBMISSIONS).step_by(together as usize) {
        let last = (first + together - 1).min(SUBMISSIONS);
        for ticket in first..=last {
            opened.store.submit(GROUP, submission(ticket), ticket).unwrap();
        }
        while completed < last {
            let completion = opened.next();
            if completion.result.is_err() {
                return completed;
            }
            completed = completion.ticket;
        }
    }
    completed
}

/// Crashes at every operation of a run on a copy of `image`; how many crash points there were.
fn crash_everywhere(image: &[u8], states: &[Records], together: u64) -> u64 {
    let mut undone = 0;
    for operation in 1.. {
        let disk = FaultDisk::with_image(image.to_vec());
        disk.end_power_at(operation);
        let completed = match Opened::open(&disk) {
            Ok(opened) => run(&opened, together),
            Err(_) => 0,
        };
        for seed in 0..SEEDS {
            let image = disk.crash_image(seed.wrapping_add(operation * SEEDS * u64::from(seed >= 2)));
            let disk = FaultDisk::with_image(image);
            let opened = Opened::open(&disk).unwrap_or_else(|error| {
                panic!("crash at operation {operation}, seed {seed}: {error}");
            });
            let found = stored(&opened);
            // Each of them is a database that is opened twice.
            if operation % 4 == 0 {
                packs_of(&disk);
            }
            let at = states.iter().position(|state| *state == found);
            let at = at.unwrap_or_else(|| panic!("crash at operation {operation}, seed {seed}: in halves"));
            assert!(
                at as u64 >= completed,
                "crash at operation {operation}, seed {seed}: {completed} completed, {at} there"
            );
            undone += u64::from((at as u64) < SUBMISSIONS);
        }
        if completed == SUBMISSIONS {
            assert!(undone > operation, "the crashes undid nothing: did they happen?");
            return operation;
        }
    }
    unreachable!("the run ends")
}

fn empty_store() -> Vec<u8> {
    let disk = FaultDisk::default();
    Opened::create(&disk).store.close().unwrap();
    disk.image()
}

#[test]
fn after_a_crash_at_any_operation_what_was_completed_is_there() {
    let points = crash_everywhere(&empty_store(), &states(), 1);
    assert!(points > 100, "only {points} crash points");
}

#[test]
fn submissions_that_share_a_sync_survive_together_or_in_order() {
    crash_everywhere(&empty_store(), &states(), 4);
}

#[test]
fn a_crash_while_recovering_from_a_crash_loses_nothing() {
    let states = states();
    let disk = FaultDisk::with_image(empty_store());
    let opened = Opened::open(&disk).unwrap();
    assert_eq!(run(&opened, 1), SUBMISSIONS);
    // The store is open: as it is, the image needs recovery.
    let crashed = disk.crash_image(0);
    drop(opened);
    let whole = FaultDisk::with_image(crashed.clone());
    drop(Opened::open(&whole).unwrap());
    let operations = whole.operations();
    assert!(operations > 1);
    for operation in 1..=operations {
        let disk = FaultDisk::with_image(crashed.clone());
        disk.end_power_at(operation);
        drop(Opened::open(&disk));
        for seed in 0..SEEDS {
            let again = Opened::open(&FaultDisk::with_image(disk.crash_image(seed))).unwrap();
            assert!(stored(&again) == states[SUBMISSIONS as usize], "crash at operation {operation}, seed {seed}");
        }
    }
}

#[test]
fn a_crash_while_a_store_is_made_leaves_nothing_that_opens_as_another() {
    for operation in 1.. {
        let disk = FaultDisk::default();
        disk.end_power_at(operation);
        let made = Store::create_on(disk.clone(), |_| {}).and_then(|store| Ok(store.close()?));
        for seed in 0..SEEDS {
            // Either refused, or an empty store; a directory is not finished before this is done.
            if let Ok(opened) = Opened::open(&FaultDisk::with_image(disk.crash_image(seed))) {
                assert_eq!(opened.store.groups().unwrap(), []);
            }
        }
        if made.is_ok() {
            break;
        }
    }
}
