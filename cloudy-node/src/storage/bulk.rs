//! Large values from threads that may wait: they are written between the operations of the groups, which never wait for
//! them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloudy_proto::GroupId;

use super::error::StoreError;
use super::op::{Op, Submission};
use super::writer::{Queue, Shared};

/// Bulk operations wait while more bytes than this wait for the disk: a small part of what the groups may have there.
const BULK_BACKLOG_BYTES_MAX: usize = 8 << 20;

/// The store, until it closes.
pub(super) type Gate = Arc<Mutex<Option<Arc<Shared>>>>;

/// Waits until no bulk operation is in progress; later ones fail.
pub(super) fn close(gate: &Gate) {
    *gate.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Writes large values. Its methods wait for the disk, and for each other.
#[derive(Clone)]
pub(crate) struct BulkWriter(pub(super) Gate);

impl BulkWriter {
    /// Queues operations of a group, before those that are submitted later.
    ///
    /// # Errors
    /// The store has failed or closes, or the group is forgotten.
    pub(crate) fn put(&self, group: GroupId, ops: Vec<Op>) -> Result<(), StoreError> {
        let gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = gate.as_ref().ok_or(StoreError::Ended)?;
        let mut queue = wait(shared, |queue| queue.backlog_bytes <= BULK_BACKLOG_BYTES_MAX)?;
        if queue.forgotten.contains(&group) {
            return Err(StoreError::Ended);
        }
        let is_first = queue.push(Submission::new(group, ops, None));
        drop(queue);
        if is_first {
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until all earlier operations are on disk.
    ///
    /// # Errors
    /// The store has failed or closes.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        let gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = gate.as_ref().ok_or(StoreError::Ended)?;
        let submitted = shared.queue().submitted;
        wait(shared, |queue| queue.written >= submitted).map(drop)
    }
}

/// Waits for a state of the queue.
fn wait(shared: &Shared, is_so: impl Fn(&Queue) -> bool) -> Result<MutexGuard<'_, Queue>, StoreError> {
    let mut queue = shared.queue();
    loop {
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        if queue.ended || queue.stop.is_some() {
            return Err(StoreError::Ended);
        }
        if is_so(&queue) {
            return Ok(queue);
        }
        queue = shared.written.wait(queue).expect("nothing panics while the queue is locked");
    }
}
