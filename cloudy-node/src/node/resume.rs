//! The resumption of a node's groups from its data directory.

use std::sync::Arc;

use crate::driver::disk::{Disk, Synced};
use crate::driver::{Command, ResumedGroup};
use crate::handle::Group;
use crate::health::Health;
use crate::node::{Node, StartError};
use crate::storage::{DataDir, ReadGroupError, read_group, stored_states};

/// The thread that writes to the data directory.
const STORE_WRITER: &str = "storage writer";

/// Opens the store of a data directory, and reads all groups in it.
pub(super) async fn open_store(data_dir: DataDir, health: Health) -> Result<(Disk, Vec<ResumedGroup>), StartError> {
    let synced = Arc::new(Synced::default());
    let opened = tokio::task::spawn_blocking(move || {
        let told = Arc::clone(&synced);
        let of_writer = health.clone();
        let on_completion = move |completion| {
            of_writer.trip(STORE_WRITER);
            told.take(completion);
        };
        let of_panic = health.clone();
        let store =
            data_dir.open_store_guarded(on_completion, move |write| of_panic.run_blocking(STORE_WRITER, write))?;
        let groups = store.groups().map_err(ReadGroupError::Store)?;
        let mut stored = Vec::new();
        let mut begun = Vec::new();
        for id in groups {
            match read_group(&store, id)? {
                Some((meta, read)) => {
                    let states = stored_states(&store, id)?;
                    stored.push(ResumedGroup { id, meta, stored: read, states });
                }
                None => begun.push(id),
            }
        }
        let mut disk = Disk::new(store, synced, health).map_err(StartError::Thread)?;
        // No view was ever in their logs, so no other node depends on them.
        begun.into_iter().for_each(|id| disk.forget(id, None));
        Ok((disk, stored))
    });
    match opened.await {
        Ok(opened) => opened,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Resumes all stored groups.
pub(super) async fn resume_all(node: &Node, stored: Vec<ResumedGroup>) -> Result<Vec<Group>, StartError> {
    let mut resumed = Vec::new();
    for group in stored {
        let id = group.id;
        match node.mailbox.ask(|reply| Command::Resume { group: Box::new(group), reply }).await {
            Ok(Ok(group)) => resumed.push(node.handle(group)),
            Ok(Err(cause)) => return Err(ReadGroupError::Contradiction { group: id, cause }.into()),
            Err(reason) => return Err(reason.into()),
        }
    }
    Ok(resumed)
}
