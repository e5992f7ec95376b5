//! Errors of groups and keys that a node returns.

use cloudy_proto::limits::GROUP_NAME_BYTES_MAX;
use cloudy_proto::wire::COUNTER_MAX;
use cloudy_proto::{Index, ParametersError};

use crate::cluster_keys::RevokedFullError;
use crate::endpoint::OpenError;
use crate::group::EndReason;
use crate::health::{CloseReason, NodeFailure};
use crate::identity::IdentityError;
use crate::link::GROUPS_MAX;
use crate::link_error::ConnectError;
use crate::storage::StoreError;
use crate::wait::TimedOut;

/// The reason for which a group was not created. It does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateGroupError {
    /// The configuration is not valid.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// This node has a group of that name.
    #[error("this node has a group named {name:?} already: close that one, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// This node is leaving a group of that name. [`Node::create_group`](crate::Node::create_group) waits until it has left.
    #[error(
        "this node is leaving a group named {name:?}: try again when Group::leave has returned, or delete its data at this node by Node::forget_group"
    )]
    Leaving {
        /// The name.
        name: String,
    },
    /// The group's result is kept on disk, and this node has no data directory.
    #[error(
        "group {name:?} keeps its result on disk, and this node has no data directory: start it with NodeBuilder::data_dir"
    )]
    NeedsDataDir {
        /// The name.
        name: String,
    },
    /// This node is in the maximum number of groups, or waits to join them.
    #[error("this node is in {GROUPS_MAX} groups or waits to join them, which is the maximum: leave one first")]
    TooManyGroups,
    /// The name is too long.
    #[error("a group's name has at most {} bytes", cloudy_proto::limits::GROUP_NAME_BYTES_MAX)]
    NameTooLong,
    /// No node has accepted, and the creator takes no place on the ring.
    #[error("the ring is empty: no node has accepted the invitation")]
    NoMembers,
    /// This node's identity was revoked.
    #[error("this node's identity was revoked in its cluster, for good: no node links to it")]
    Revoked,
    /// Another process has this node's identity, and this process has closed its node.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed because of a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
    /// The group closed here before view 1 was in force.
    #[error("the group was not created: {0}")]
    Ended(EndReason),
    /// Not all intended members accepted before the timeout.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl From<CloseReason> for CreateGroupError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

impl From<EndReason> for CreateGroupError {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::ShutDown => Self::ShutDown,
            EndReason::NodeFailed(failure) => Self::NodeFailed(failure),
            EndReason::Revoked => Self::Revoked,
            EndReason::SameIdentity => Self::SameIdentity,
            reason => Self::Ended(reason),
        }
    }
}

/// The reason for which a group is not forgotten, or may exist again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// The group runs here, and others may depend on this member's vote and data.
    #[error(
        "group {name:?} runs at this node: call Group::leave first; once that was called it can be forgotten, even if the \
         node could not leave in time, and may then be missed by the others"
    )]
    Running {
        /// The group's name.
        name: String,
    },
    /// The data directory cannot be written.
    #[error(transparent)]
    Disk(#[from] StoreError),
    /// The node was closed meanwhile.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The disk did not answer before the timeout; the group is forgotten once it does.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// The reason for which a group was not joined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// This node is in a group of that name, or waits to join one.
    #[error("this node is in a group named {name:?} already, or waits to join one: leave that one first")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// This node is in the maximum number of groups, or waits to join them.
    #[error("this node is in {GROUPS_MAX} groups or waits to join them, which is the maximum: leave one first")]
    TooManyGroups,
    /// The name is too long.
    #[error("a group's name has at most {GROUP_NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// A result never has that index.
    #[error(
        "no result can have index {from}: the largest index is {COUNTER_MAX}; give the first index to read, 1 for all of the result"
    )]
    NoSuchIndex {
        /// The requested index.
        from: Index,
    },
    /// The group refuses this node, for good.
    #[error("group {name:?} was not joined: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The group has stopped for good, so no node can join it: create another. Refusals that may change are retried
    /// until [`JoinError::TimedOut`].
    #[error("group {name:?} was not joined, and never will be: {reason}")]
    Gone {
        /// The name.
        name: String,
        /// The reason.
        reason: String,
    },
    /// The group runs, and no member retains the beginning of its result.
    #[error(
        "group {name:?} was not joined: its result before index {first} is not retained by any member, and members need the whole result; raise retain_bytes (on disk: retain_disk_bytes) at the members, or observe the group from that index on"
    )]
    Truncated {
        /// The name.
        name: String,
        /// The first retained index.
        first: Index,
    },
    /// The group's result is kept on disk, and this node has no data directory.
    #[error(
        "group {name:?} keeps its result on disk, and this node has no data directory: start it with NodeBuilder::data_dir"
    )]
    NeedsDataDir {
        /// The name.
        name: String,
    },
    /// The group's result is kept in memory, and this node was to keep it on disk.
    #[error(
        "group {name:?} keeps its result in memory, and this node was to keep it on disk: open it with Durability::Memory, or create another group on disk, by a name of its own"
    )]
    InMemory {
        /// The name.
        name: String,
    },
    /// The group closed here before this node had joined it.
    #[error("group {name:?} was not joined: {reason}")]
    EndedHere {
        /// The name.
        name: String,
        /// The reason.
        reason: EndReason,
    },
    /// No node admitted this one before the timeout: each was out of reach, or not ready.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The node at the address could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// This node's identity was revoked.
    #[error("this node's identity was revoked in its cluster, for good: no node links to it")]
    Revoked,
    /// Another process has this node's identity, and this process has closed its node.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed because of a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
}

impl JoinError {
    /// The error for a group that closed here while this node joined it.
    pub(crate) fn of_end(name: String, reason: EndReason) -> Self {
        match reason {
            EndReason::Revoked => Self::Revoked,
            EndReason::SameIdentity => Self::SameIdentity,
            EndReason::ShutDown => Self::ShutDown,
            EndReason::NodeFailed(failure) => Self::NodeFailed(failure),
            reason => Self::EndedHere { name, reason },
        }
    }
}

impl From<CloseReason> for JoinError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

/// The reason for which a node did not accept new keys. It keeps the earlier ones.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetKeysError {
    /// No identity can be made with these keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The endpoint cannot use the identity.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node was shut down, or a part of it failed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// The reason for which a node was not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The maximum number of nodes is revoked.
    #[error(transparent)]
    Full(#[from] RevokedFullError),
    /// The node was shut down, or a part of it failed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}
