//! Deletes a group from the data directory of a node that does not run.

use std::path::Path;
use std::sync::mpsc::channel;

use super::error::DataError;
use super::stored::StoredGroup;
use crate::storage::{DataDir, Op, StoreError};

/// Deletes a group, as [`StoredNode::group`](super::StoredNode::group) described it, from the data directory at `path`.
/// Another group of its name can be opened then. The records are deleted in the background once the node runs.
///
/// Waits for the disk.
///
/// # Errors
/// The group has not ended as far as the directory knows, and `is_forced` is not set ([`DataError::NotEnded`]); a
/// process uses the directory; or the disk cannot be written.
pub fn forget_group(path: &Path, group: &StoredGroup, is_forced: bool) -> Result<(), DataError> {
    if !group.has_ended() && !is_forced {
        return Err(DataError::NotEnded { name: group.name.clone() });
    }
    let (completed, completions) = channel();
    let dir = DataDir::open(path, false)?;
    // The receiver may be gone after an error.
    let store = dir.open_store_guarded(move |completion| drop(completed.send(completion)), |write| write())?;
    store.submit(group.id, vec![Op::Forget], 1).map_err(|_| StoreError::Ended)?;
    let stored = completions.recv().map_err(|_| StoreError::Ended)?;
    stored.result?;
    Ok(store.close()?)
}
