//! The storage of this node: records on their way to the disk, the kept part of the result, and the newest snapshot.

use crate::config::Durability;
use crate::id::Index;
use crate::machine::retention::Retention;
use crate::machine::syncs::{Syncs, fetched_bytes};
use crate::records::Records;
use crate::result_log::ResultLog;
use crate::stored::StoredSnapshot;

/// The storage of this node.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) records: Records,
    pub(super) syncs: Syncs,
    pub(super) retention: Retention,
    /// The newest state of the application, from here or fetched.
    pub(super) snapshot: Option<StoredSnapshot>,
}

impl Storage {
    /// Of a result that begins at an index. `retain_bytes` bounds the stored result; none keeps all of it.
    pub(super) fn new(durability: Durability, retain_bytes: Option<u64>, begins: Index) -> Self {
        Self {
            records: Records::new(durability),
            syncs: Syncs::default(),
            retention: Retention::new(retain_bytes, begins),
            snapshot: None,
        }
    }
    /// The first index that can be sent to others, if there is any: from memory or from the disk.
    pub(super) fn first_kept(&self, result: &ResultLog) -> Option<Index> {
        let retained = result.retained().first();
        match self.records.are_stored() {
            false => retained,
            true => retained.map(|first| first.min(self.retention.stored_from())),
        }
    }

    /// Bytes of the fetched result that wait for the disk.
    pub(super) fn unsynced_fetch_bytes(&self) -> u64 {
        self.syncs.fetched_bytes() + fetched_bytes(self.records.waiting())
    }
}
