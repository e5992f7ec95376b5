//! The records of one group in a real store on a disk that fails, without concurrency: for simulators.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use cloudy_proto::{GroupId, NodeId, Record, Stored};
use thiserror::Error;

use super::disk::{CrashCounters, DiskFault, FaultDisk};
use crate::storage::{
    Completion, GroupMeta, Op, OpenStoreError, ReadGroupError, Recorder, Store, StoreError, SubmitError, check_state,
    meta_op, put_part, read_group, stored_states,
};

/// The records of a `Disk` group's machine, in the store that nodes use, on a [`FaultDisk`].
///
/// Every call returns once the disk has finished it, so that equal calls give equal disks.
#[derive(Debug)]
pub struct GroupDisk {
    group: GroupId,
    disk: FaultDisk,
    store: Store,
    completions: Receiver<Completion>,
    recorder: Recorder,
    /// The ticket of the last submission.
    ticket: u64,
}

/// The reason for which a [`GroupDisk`] cannot carry out an operation.
#[derive(Debug, Error)]
pub enum GroupDiskError {
    /// There is no store, or it is damaged.
    #[error(transparent)]
    Open(#[from] OpenStoreError),
    /// The store does not accept the operation.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The store cannot write.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// The stored data cannot be read.
    #[error(transparent)]
    Read(#[from] ReadGroupError),
    /// The store accepted records after one of its operations had failed, so that later records could follow a gap.
    #[error("the store stored records after an operation on its disk had failed")]
    StoredAfterFailure,
}

impl GroupDisk {
    /// A new store on an empty disk.
    ///
    /// # Errors
    /// The store cannot be created.
    pub fn create(group: GroupId) -> Result<Self, GroupDiskError> {
        let disk = FaultDisk::default();
        let (sender, completions) = channel();
        // A crashed node receives no completions.
        let store = Store::create_on(disk.clone(), move |completion| drop(sender.send(completion)))?;
        let mut made = Self { group, disk, store, completions, recorder: Recorder::default(), ticket: 0 };
        let creator = NodeId([0; 32]);
        let meta = GroupMeta {
            name: "simulated".to_owned(),
            creator,
            outbox_bytes_max: 1,
            // All of the result is read.
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

    /// Stores a state of the application, given by its id, in these parts, and syncs.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn put_state(&mut self, id: u64, parts: &BTreeMap<u64, Bytes>) -> Result<(), GroupDiskError> {
        self.submit(parts.iter().map(|(offset, part)| put_part(id, *offset, part.clone())).collect())
    }

    fn submit(&mut self, ops: Vec<Op>) -> Result<(), GroupDiskError> {
        self.ticket += 1;
        self.store.submit(self.group, ops, self.ticket)?;
        let completion = self.completions.recv().map_err(|_| StoreError::Ended)?;
        Ok(completion.result?)
    }

    /// Fails the power after some operations on the disk, while these records are stored one after the other; at once
    /// if there are none. Then opens the store again on the remaining data, and returns the stored group, if there is
    /// one.
    ///
    /// # Errors
    /// The store cannot be opened, or its data cannot be read.
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

    /// Fails one operation on the disk while these records are stored one after the other; the disk works again
    /// afterwards. The store must refuse everything after the failure. Its process ends, and the store is opened again
    /// on the disk's data: all writes that succeeded, or with an odd seed what a power failure leaves of them. Returns
    /// the stored group, if there is one, and whether the operation occurred.
    ///
    /// # Errors
    /// The store accepts records after the failure, or cannot be opened or read afterwards.
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

    /// Opens the store again on the content of a disk.
    fn opened(self, image: Vec<u8>) -> Result<(Self, Option<Stored>), GroupDiskError> {
        // The image has nothing of what the store writes when it is dropped.
        self.disk.end_power_at(0);
        let disk = FaultDisk::with_image(image);
        let (sender, completions) = channel();
        let store = Store::open_on(disk.clone(), move |completion| drop(sender.send(completion)))?;
        let stored = read_group(&store, self.group)?.map(|(_, stored)| stored);
        let states = stored_states(&store, self.group)?;
        let recorder = stored.as_ref().map(|stored| Recorder::after(stored, states)).unwrap_or_default();
        if let Some(snapshot) = stored.as_ref().and_then(Stored::snapshot) {
            check_state(&store, self.group, &snapshot.state)?;
        }
        Ok((Self { group: self.group, disk, store, completions, recorder, ticket: 0 }, stored))
    }
}
