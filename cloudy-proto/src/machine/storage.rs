//! The storage of this node: records on their way to the disk, the kept part of the result, and the newest snapshot.

use crate::config::Durability;
use crate::id::Index;
use crate::machine::durable::Syncs;
use crate::machine::retention::Retention;
use crate::records::Records;
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
}
