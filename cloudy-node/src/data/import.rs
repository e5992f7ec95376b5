//! A new data directory with a new group, from messages.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cloudy_proto::{Durability, GroupId, Index, NodeId, Parameters};

use super::error::DataError;
use crate::cluster_key::ClusterKey;
use crate::group::GroupConfig;
use crate::handle::Group;
use crate::node::Node;
use crate::storage::{DATA_FILES, DataDir};

/// A data directory that is being created. Dropped before [`finish`](Self::finish), it leaves an unfinished import:
/// delete it by [`discard`](Self::discard).
#[derive(Debug)]
pub struct Importer {
    path: PathBuf,
    node: Node,
    group: Group,
    count: u64,
}

/// A finished import.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The new node that owns the directory.
    pub node: NodeId,
    /// The id of the new group.
    pub group: GroupId,
    /// The index of the last message.
    pub last: Index,
}

impl Importer {
    /// Creates a data directory at `path`, which is unused or an empty directory, with a new node that is the only
    /// member of a new group on disk. No other node can reach it during the import: its key is in no other process.
    ///
    /// Not cancel safe: dropped, it may leave the directory.
    ///
    /// # Errors
    /// The directory is in use or not empty, or the node cannot be started; then nothing is left.
    pub async fn create(path: &Path, name: &str) -> Result<Self, DataError> {
        let of_dir = path.to_owned();
        let created = tokio::task::spawn_blocking(move || DataDir::create(&of_dir)).await;
        let dir = created.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
        let begun = Self::begin(dir, name).await;
        if begun.is_err() {
            delete(path);
        }
        begun
    }

    async fn begin(dir: DataDir, name: &str) -> Result<Self, DataError> {
        let path = dir.path().to_owned();
        let identity = dir.identity(&ClusterKey::generate()?)?;
        let node = Node::builder().identity(identity).data_dir(dir).start().await?;
        let parameters = Parameters::default().durability(Durability::Disk);
        match node.create_group(name, 1, GroupConfig::default().parameters(parameters)).await {
            Ok(group) => Ok(Self { path, node, group, count: 0 }),
            Err(error) => {
                node.shutdown().await;
                Err(error.into())
            }
        }
    }

    /// Adds the next message. It waits while earlier ones are being stored.
    ///
    /// Cancel safe: a dropped call has added the message or not.
    ///
    /// # Errors
    /// The message is too large, or the disk has failed.
    pub async fn message(&mut self, payload: impl Into<Bytes>) -> Result<(), DataError> {
        drop(self.group.broadcast(payload.into()).await?);
        self.count += 1;
        Ok(())
    }

    /// Waits until every message is stored, and closes the directory. Each message has the index of its position.
    ///
    /// Not cancel safe: dropped, it leaves an unfinished import.
    ///
    /// # Errors
    /// The disk has failed: the directory is deleted.
    pub async fn finish(self) -> Result<Imported, DataError> {
        let flushed = self.group.flush().without_timeout().await;
        let stored = self.group.status().await.map_or(0, |status| status.index.0);
        let (node, group, count) = (self.node.id(), self.group.id(), self.count);
        if let Err(error) = flushed {
            self.discard().await;
            return Err(error.into());
        }
        if stored != count {
            self.discard().await;
            return Err(DataError::Incomplete { imported: count, stored });
        }
        self.node.shutdown().await;
        Ok(Imported { node, group, last: Index(count) })
    }

    /// Ends the import, and deletes what it has created.
    ///
    /// Not cancel safe: dropped, it may leave an unfinished import.
    pub async fn discard(self) {
        self.node.shutdown().await;
        delete(&self.path);
    }
}

/// Deletes the files of an unfinished import, the one that marks a data directory first.
fn delete(path: &Path) {
    for file in DATA_FILES {
        // It may not exist.
        let _ = fs::remove_file(path.join(file));
    }
    // Other files are not of this import.
    let _ = fs::remove_dir(path);
}
