//! Errors of the start of a node.

use cloudy_proto::NodeId;
use cloudy_proto::limits::ADVERTISED_BYTES_MAX;

use crate::discovery::seeds::SeedError;
use crate::endpoint::{BindError, OpenError};
use crate::health::CloseReason;
use crate::identity::IdentityError;
use crate::storage::{DataDirError, ReadGroupError};

/// The reason for which a node did not start. Nothing is bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Neither a cluster key nor an identity was given.
    #[error("a node needs a cluster key or an identity: links are encrypted and authenticated from the first packet")]
    NoIdentity,
    /// The identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory belongs to another node.
    #[error(
        "the data directory belongs to node {}, and the identity is of node {}: use the identity that DataDir::identity returns",
        directory.short(), identity.short()
    )]
    OtherNode {
        /// The node of the directory.
        directory: NodeId,
        /// The node of the identity.
        identity: NodeId,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A group in the data directory cannot be read, so no group is resumed.
    #[error(transparent)]
    ReadGroup(#[from] ReadGroupError),
    /// The operating system has no thread for reading the data directory.
    #[error("cannot start a thread to read the data directory: {0}; raise the limit of threads or processes")]
    Thread(std::io::Error),
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The endpoint cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The advertised name is not `HOST:PORT`.
    #[error("the advertised name: {0}")]
    AdvertisedForm(#[from] SeedError),
    /// The advertised name has other characters than visible ASCII ones, or is too long.
    #[error(
        "the advertised name `{name}` has other characters than ASCII ones, or more than {ADVERTISED_BYTES_MAX}; use the form of the name that DNS has (xn--…)"
    )]
    Advertised {
        /// The name.
        name: String,
    },
    /// The cluster's keys revoke this node.
    #[error(
        "node {} is revoked by the cluster's own keys: start it as a new node, with another private key", .node.short()
    )]
    Revoked {
        /// The id of this node.
        node: NodeId,
    },
    /// The clock shows a time before 1970, which certificates cannot contain.
    #[error("this machine's clock shows a time before 1970-01-01: set it, then start the node again")]
    Clock,
    /// The node was closed while its groups were resumed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The admin endpoint cannot be opened.
    #[cfg(feature = "admin")]
    #[error(transparent)]
    Admin(#[from] crate::admin::AdminError),
    /// The address of the socket cannot be determined.
    #[error("cannot determine the socket's address: {0}")]
    Address(std::io::Error),
}
