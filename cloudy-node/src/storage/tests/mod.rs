//! The store on disks that lose, tear, alter and refuse.

mod crashes;
mod damage;
mod data_dir;
mod failures;
mod forgotten;
mod groups;
mod packs;
mod process;
mod records;
mod states;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::GroupId;

use super::data_dir::{DATABASE_FILE, LOCK_FILE, NODE_KEY_FILE};
use super::data_files::FORMAT_FILE;
use super::op::{KEY_BYTES_MAX, Record, VALUE_BYTES_MAX, Value};
use super::*;
use crate::fault::{DiskFault, FaultDisk};

/// Longer than any test needs: who waits this long waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

const GROUP: GroupId = GroupId([7; 16]);

/// A store and its completions.
struct Opened {
    store: Store,
    completions: Receiver<Completion>,
}

impl Opened {
    fn create(disk: &FaultDisk) -> Self {
        let (sender, completions) = channel();
        let store = Store::create_on(disk.clone(), move |completion| sender.send(completion).unwrap()).unwrap();
        Self { store, completions }
    }

    fn open(disk: &FaultDisk) -> Result<Self, OpenStoreError> {
        let (sender, completions) = channel();
        // The test may have dropped its end.
        let store = Store::open_on(disk.clone(), move |completion| drop(sender.send(completion)))?;
        Ok(Self { store, completions })
    }

    fn next(&self) -> Completion {
        self.completions.recv_timeout(PATIENCE).expect("a completion")
    }

    /// Submits for [`GROUP`] and waits for the completion.
    fn put(&self, ops: Vec<Op>, ticket: u64) -> Result<(), StoreError> {
        self.store.submit(GROUP, ops, ticket).unwrap();
        let completion = self.next();
        assert_eq!((completion.group, completion.ticket), (GROUP, ticket));
        completion.result
    }

    fn all(&self, group: GroupId, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs(self.store.range(group, table, .., usize::MAX).unwrap())
    }
}

fn pairs(records: Vec<Record>) -> Vec<(Vec<u8>, Vec<u8>)> {
    records.into_iter().map(|record| (record.key, record.value.to_vec())).collect()
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Op {
    Op::Put { table, key: key.to_vec(), value: Bytes::copy_from_slice(value).into() }
}

/// Bytes that a seed determines.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}
