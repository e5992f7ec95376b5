//! One group's records in a real store on a disk that fails, used without waiting in between: for simulators.

use std::sync::mpsc::{Receiver, channel};

use cloudy_proto::{GroupId, NodeId, Record, Stored};
use thiserror::Error;

use super::disk::{CrashCounters, DiskFault, FaultDisk};
use crate::storage::{
    Completion, GroupMeta, Op, OpenStoreError, ReadGroupError, Recorder, Store, StoreError, SubmitError, meta_op,
    read_group,
};

/// What a `Disk` group's machine gives out, in the store that nodes use, on a [`FaultDisk`].
///
/// Every call returns once the disk has done what it asks for, so that equal calls give equal disks.
#[derive(Debug)]
pub struct GroupDisk {
    group: GroupId,
    disk: FaultDisk,
    store: Store,
    completions: Receiver<Completion>,
    recorder: Recorder,
    /// Of the last submission.
    ticket: u64,
}

/// Why a [`GroupDisk`] cannot do what it was asked for.
#[derive(Debug, Error)]
pub enum GroupDiskError {
    /// There is no store, or a damaged one.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// The store does not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The store cannot write it.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// What is stored cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadGroupError),
    /// The store took records after one of its operations had failed, so that later records could lie behind a gap.
    #[error("the store stored records after an operation on its disk had failed")]
    StoredAfterFailure,
}

impl GroupDisk {
    /// A new store on an empty disk.
    ///
    /// # Errors
    /// The store cannot be made.
    pub fn create(group: GroupId) -> Result<Self, GroupDiskError> {
        let disk = FaultDisk::default();
        let (sender, completions) = channel();
        // A crashed node receives nothing.
        let store = Store::create_on(disk.clone(), move |completion| drop(sender.send(completion)))?;
        let mut made = Self { group, disk, store, completions, recorder: Recorder::default(), ticket: 0 };
        let founder = NodeId([0; 32]);
        let meta = GroupMeta {
            name: "simulated".to_owned(),
            founder,
            outbox_bytes_max: 1,
            // All is read back.
            retain_bytes: u64::MAX,
            retain_disk_bytes: None,
        };
        made.submit(vec![meta_op(&meta)])?;
        Ok(made)
    }

    /// Stores records, and syncs.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn put(&mut self, records: Vec<Record>) -> Result<(), GroupDiskError> {
        let ops = self.recorder.ops(records);
        self.submit(ops)
    }

    fn submit(&mut self, ops: Vec<Op>) -> Result<(), GroupDiskError> {
        self.ticket += 1;
        self.store.submit(self.group, ops, self.ticket)?;
        let completion = self.completions.recv().map_err(|_| StoreError::Ended)?;
        Ok(completion.result?)
    }

    /// The power goes after some operations on the disk, while these are stored one after the other; with nothing to
    /// store, at once. Then the store is opened again on what the disk kept. Gives what is read back, if that is a
    /// group.
    ///
    /// # Errors
    /// The store does not open, or not what it holds.
    pub fn crash(
        mut self,
        batches: Vec<Vec<Record>>,
        operations: u64,
        seed: u64,
    ) -> Result<(Self, Option<Stored>, CrashCounters), GroupDiskError> {
        self.disk.end_power_at(self.disk.operations() + operations.max(1));
        for records in batches {
            if self.put(records).is_err() {
                break;
            }
        }
        let (image, met) = self.disk.crash(seed);
        let (opened, stored) = self.opened(image)?;
        Ok((opened, stored, met))
    }

    /// One operation on the disk fails while these records are stored one after the other, and the disk works again
    /// afterwards. The store must refuse everything that follows the failure. Its process ends, and the store is opened
    /// again on what the disk gives: all writes that succeeded, or with an odd seed what a power cut leaves of them.
    /// Returns the stored group, if there is one, and whether the operation came to pass.
    ///
    /// # Errors
    /// The store takes records after the failure, or cannot be opened or read afterwards.
    pub fn fail(
        mut self,
        batches: Vec<Vec<Record>>,
        operations: u64,
        how: DiskFault,
        seed: u64,
    ) -> Result<(Self, Option<Stored>, bool), GroupDiskError> {
        self.disk.fail_operation(self.disk.operations() + operations.max(1), how);
        let mut failed = false;
        for records in batches {
            let put = self.put(records);
            if failed && put.is_ok() {
                return Err(GroupDiskError::StoredAfterFailure);
            }
            failed |= put.is_err();
        }
        let image = if seed % 2 == 1 { self.disk.crash_image(seed) } else { self.disk.image() };
        let (opened, stored) = self.opened(image)?;
        Ok((opened, stored, failed))
    }

    /// The store is opened again on what a disk holds.
    fn opened(self, image: Vec<u8>) -> Result<(Self, Option<Stored>), GroupDiskError> {
        // Nothing of what the store writes when it is dropped is in the image.
        self.disk.end_power_at(0);
        let disk = FaultDisk::with_image(image);
        let (sender, completions) = channel();
        let store = Store::open_on(disk.clone(), move |completion| drop(sender.send(completion)))?;
        let stored = read_group(&store, self.group)?.map(|(_, stored)| stored);
        let recorder = stored.as_ref().map(Recorder::after).unwrap_or_default();
        Ok((Self { group: self.group, disk, store, completions, recorder, ticket: 0 }, stored))
    }
}
