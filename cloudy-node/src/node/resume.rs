//! A node comes back with what its data directory holds.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::driver::disk::{Disk, Synced};
use crate::driver::{Command, Mailbox, ResumedGroup};
use crate::group::Group;
use crate::node::StartError;
use crate::storage::{DataDir, ReadGroupError, read_group};

/// Opens the store of a data directory, and reads all that it holds.
pub(super) async fn open_store(data_dir: DataDir) -> Result<(Disk, Vec<ResumedGroup>), StartError> {
    let synced = Arc::new(Synced::default());
    let opened = tokio::task::spawn_blocking(move || {
        let told = Arc::clone(&synced);
        let store = data_dir.open_store(move |completion| told.take(completion))?;
        let groups = store.groups().map_err(ReadGroupError::Store)?;
        let mut stored = Vec::new();
        let mut begun = Vec::new();
        for id in groups {
            match read_group(&store, id)? {
                Some((meta, read)) => stored.push(ResumedGroup { id, meta, stored: read }),
                None => begun.push(id),
            }
        }
        let mut disk = Disk::new(store, synced).map_err(StartError::Thread)?;
        // Nobody relies on them: no view was ever in their logs.
        begun.into_iter().for_each(|id| disk.forget(id));
        Ok((disk, stored))
    });
    match opened.await {
        Ok(opened) => opened,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// All groups that were stored go on.
pub(super) async fn resume_all(mailbox: &Mailbox, stored: Vec<ResumedGroup>) -> Result<Vec<Group>, StartError> {
    let mut resumed = Vec::new();
    for group in stored {
        let (id, (reply, answer)) = (group.id, oneshot::channel());
        mailbox.send(Command::Resume { group: Box::new(group), reply }).await;
        match answer.await {
            Ok(Ok(group)) => resumed.push(group),
            Ok(Err(cause)) => return Err(ReadGroupError::Contradiction { group: id, cause }.into()),
            // The driver runs as long as this handle to it.
            Err(_) => break,
        }
    }
    Ok(resumed)
}
