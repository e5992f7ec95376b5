//! What can go wrong with a node, its links and its coming into groups.

use std::net::SocketAddr;

use cloudy_proto::limits::GROUP_NAME_BYTES_MAX;
use cloudy_proto::wire::COUNTER_MAX;
use cloudy_proto::{Index, NodeId};

use crate::driver::GROUPS_MAX;
use crate::endpoint::{BindError, OpenError};
use crate::group::EndReason;
use crate::health::{CloseReason, NodeFailure};
use crate::identity::IdentityError;
use crate::storage::{DataDirError, ReadGroupError, StoreError};
use crate::tls::LinkFailure;
use crate::wait::TimedOut;

/// A node that did not start; nothing is bound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither a cluster key nor an identity was given.
    #[error("a node needs a cluster key or an identity: links are encrypted and authenticated from the first packet")]
    NoIdentity,
    /// The identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory is another node's.
    #[error(
        "the data directory belongs to node {}, and the identity is of node {}: take the one that DataDir::identity gives",
        directory.short(), identity.short()
    )]
    OtherNode {
        /// The directory's node.
        directory: NodeId,
        /// The identity's.
        identity: NodeId,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A group in the data directory cannot be read back, so none goes on.
    #[error(transparent)]
    ReadGroup(#[from] ReadGroupError),
    /// The operating system gives no thread for reading the data directory.
    #[error("a thread to read the data directory on: {0}; raise the limit on threads or processes")]
    Thread(#[source] std::io::Error),
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The endpoint cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The keys shut this very node out.
    #[error(
        "node {} is revoked by the cluster's own keys: start it as a new node, with another private key", .node.short()
    )]
    Revoked {
        /// This node.
        node: NodeId,
    },
    /// The clock shows a time before 1970, which certificates cannot name.
    #[error("this machine's clock shows a time before 1970-01-01: set it, then start the node again")]
    Clock,
    /// The node was closed while its groups were resumed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The socket does not say where it is bound.
    #[error("the socket's address: {0}")]
    Address(#[from] std::io::Error),
}

/// A link that did not come about; links that there were are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No connection, or the other side refused it.
    #[error("{address}: {failure}")]
    Link {
        /// The address that was dialled, or where the peer dialled from.
        address: SocketAddr,
        /// What went wrong.
        failure: LinkFailure,
    },
    /// This node itself is at that address.
    #[error("{address} is this node itself")]
    Itself {
        /// The address.
        address: SocketAddr,
    },
    /// Another process with this node's identity is at that address.
    #[error(
        "{address} is another process with this node's identity: give each node a data directory and a node key of its own, and never copy them"
    )]
    SameIdentity {
        /// The address.
        address: SocketAddr,
    },
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed by a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
    /// No attempt was finished in time; where one was, its error is given.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl ConnectError {
    /// Dialling again would end the same.
    pub(crate) fn is_final(&self) -> bool {
        let Self::Link { failure, .. } = self else { return true };
        failure.is_refusal() || matches!(failure, LinkFailure::Full | LinkFailure::Address { .. })
    }
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

/// A group that is not forgotten, or may be there again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// The group runs here, and others may rely on this member's vote and on what it holds.
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
    /// The disk did not answer in time; the group is forgotten once it does.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// A group that was not joined; this node is not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// This node is in a group of that name, or waits for one.
    #[error("this node is in a group named {name:?} already, or waits for one: leave that one first")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// This node is in as many groups as it may be, or waits to join them.
    #[error("this node is in {GROUPS_MAX} groups or waits to join them, the most a node may: leave one first")]
    TooManyGroups,
    /// The name is too long.
    #[error("a group's name has at most {GROUP_NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// No result has that index.
    #[error(
        "no result can have index {from}: the largest index is {COUNTER_MAX}; give the first index to read, 1 for all of the result"
    )]
    NoSuchIndex {
        /// The index to begin at.
        from: Index,
    },
    /// The group does not take this node, and will not.
    #[error("group {name:?} was not joined: {reason}")]
    Refused {
        /// The name.
        name: String,
        /// In words.
        reason: String,
    },
    /// The group has stopped for good: nobody can join it any more, so create another. What is only too early is tried again
    /// until [`JoinError::TimedOut`].
    #[error("group {name:?} was not joined, and never will be: {reason}")]
    Gone {
        /// The name.
        name: String,
        /// In words.
        reason: String,
    },
    /// The group runs, and the beginning of its result is gone.
    #[error(
        "group {name:?} was not joined: its result before index {first} is no longer retained by any member, and a \
         member has the whole of it; raise retain_bytes (on disk: retain_disk_bytes; of slaves: `--retain`) at the members, or observe the group from that index on"
    )]
    Truncated {
        /// The name.
        name: String,
        /// The first index that is retained.
        first: Index,
    },
    /// The group keeps its result on disk.
    #[error(
        "group {name:?} keeps its result on disk, and this node has no data directory: start it with          NodeBuilder::data_dir, or `--data DIR`"
    )]
    NeedsDataDir {
        /// The name.
        name: String,
    },
    /// The group ended here before this node was a part of it.
    #[error("group {name:?} was not joined: {reason}")]
    EndedHere {
        /// The name.
        name: String,
        /// Why.
        reason: EndReason,
    },
    /// What was too early, or out of reach, stayed so until the wait was over.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The contact could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// This node is shut out of its cluster.
    #[error("this node's identity was revoked in its cluster, for good: no node links to it any more")]
    Revoked,
    /// Another process has this node's identity, and this one has ended.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed by a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
}

impl JoinError {
    /// The group ended here while this node was about to join it.
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
