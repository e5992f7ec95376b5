//! Errors of work on a data directory.

use std::path::PathBuf;

use cloudy_proto::{AloneError, Index};

use crate::error::CreateGroupError;
use crate::handle::{BroadcastError, FlushError};
use crate::identity::IdentityError;
use crate::node::StartError;
use crate::storage::{DataDirError, ReadGroupError, StoreError};

/// The reason for which work on a data directory failed. An existing directory is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DataDirError),
    /// A group in it cannot be read.
    #[error(transparent)]
    Read(#[from] ReadGroupError),
    /// There is no such group.
    #[error("{} has no group {asked:?}: name one of {known}", path.display())]
    NoGroup {
        /// The directory.
        path: PathBuf,
        /// The requested name or id.
        asked: String,
        /// The names and ids of its groups.
        known: String,
    },
    /// There is more than one group, and none was named.
    #[error("{} has several groups: name one of {known}", path.display())]
    SeveralGroups {
        /// The directory.
        path: PathBuf,
        /// The names and ids of its groups.
        known: String,
    },
    /// There is no group.
    #[error("{} has no group: the node has created and joined none on disk, or has forgotten it", path.display())]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The requested part of the result is not stored.
    #[error("the result before index {first} is not in this directory: begin at {first}")]
    NotStored {
        /// The first stored index.
        first: Index,
    },
    /// The group is to be deleted, and has not ended as far as the directory knows.
    #[error(
        "group {name:?} has not ended, as far as this directory knows: other members may need this node's vote and data; start the node, and let it leave first"
    )]
    NotEnded {
        /// The group's name.
        name: String,
    },
    /// A part of the result is missing.
    #[error("the stored result has a gap before index {before}: verify the directory, and restore it from a backup")]
    Gap {
        /// The index behind the gap.
        before: Index,
    },
    /// No identity for the directory's node.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No node could be started on the directory.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The new group was not created.
    #[error(transparent)]
    Create(#[from] CreateGroupError),
    /// The new group does not accept a message.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    /// The new group has not stored all messages.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// The key of a new cluster cannot be generated.
    #[error(transparent)]
    Generate(#[from] crate::cluster_key::GenerateClusterKeyError),
    /// A member of the group answers, so the group is not lost.
    #[error("the group is not lost: {answers}; start this node again, and let it rejoin")]
    MembersAnswer {
        /// The nodes that answered.
        answers: String,
    },
    /// The group cannot be continued from this directory.
    #[error("cannot recover the group from this directory: {cause}")]
    Alone {
        /// The cause.
        cause: AloneError,
    },
    /// The node has not become the only member.
    #[error("the group was not recovered: {state}; the directory is unchanged")]
    NotRecovered {
        /// Its state.
        state: String,
    },
    /// The directory has other records than were written.
    #[error("the new group has {stored} messages after an import of {imported}: check the disk, and import again")]
    Incomplete {
        /// Number of messages that were imported.
        imported: u64,
        /// Number of messages in the group.
        stored: u64,
    },
}

impl From<StoreError> for DataError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}
