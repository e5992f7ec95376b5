//! Why a replica stops.

use cloudy_proto::{Digest, Index, NodeId};

use crate::group::EndReason;
use crate::storage::ReadGroupError;

/// Why a replica applies no further commands. Each handle of it gives the reason ([`Replica::closed`](crate::Replica::closed)).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The group ended at this node. After [`EndReason::Final`] the state has every command of the group.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The state was applied more slowly than the result grew, and this node has no newer snapshot.
    #[error(
        "the result before index {resume_from} is no longer retained here, and the state is behind it: raise retain_bytes (on disk: retain_disk_bytes), or apply faster"
    )]
    Lagged {
        /// The first retained index.
        resume_from: Index,
    },
    /// The next entries are on the disk, and cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadGroupError),
    /// A snapshot cannot be used.
    #[error(
        "cannot restore the snapshot at index {index}: {reason}; do all members run the same version of the application?"
    )]
    Restore {
        /// The last index that the snapshot covers.
        index: Index,
        /// The reason.
        reason: String,
    },
    /// The application panicked. Its state may be half changed, so it is not read any longer.
    #[error(
        "the state machine panicked in {during} at index {index}: {message}; correct it, then start the process again"
    )]
    Panicked {
        /// The method: `apply`, `members_changed`, `snapshot` or `restore`.
        during: &'static str,
        /// The index that it worked on.
        index: Index,
        /// The message of the panic.
        message: String,
    },
    /// The state here differs from the others', and no majority of the members agrees with it. It is not read any longer.
    #[error(transparent)]
    Diverged(Box<StateDivergence>),
    /// The last handle was dropped.
    #[error("the last handle of this replica was dropped")]
    Dropped,
}

impl ReplicaError {
    /// The state is not what the commands make of it.
    pub(super) fn spoils_state(&self) -> bool {
        matches!(self, Self::Panicked { .. } | Self::Diverged(_))
    }
}

/// States of members that differ after the same commands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "after index {index} the snapshot's digest is {digest} here and differs at {}: the state machine depends on more than its commands (time, random numbers, the order of a hash map, its version), or memory is corrupt; compare the states, then start the nodes that differ with empty data directories",
    names(.others)
)]
#[non_exhaustive]
pub struct StateDivergence {
    /// The index of the snapshot.
    pub index: Index,
    /// The digest of this node's snapshot.
    pub digest: Digest,
    /// The members that differ from this node, each with its digest.
    pub others: Vec<(NodeId, Digest)>,
}

fn names(others: &[(NodeId, Digest)]) -> String {
    let each = others.iter().map(|(node, digest)| format!("node {} ({digest})", node.short()));
    each.collect::<Vec<_>>().join(", ")
}
