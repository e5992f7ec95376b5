//! Events for the creator of a group while it gathers members.

use std::sync::Arc;

use cloudy_proto::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::driver::attempt::NotJoined;
use crate::group::shared::Shared;

/// An event before view 1 is installed, for the creator of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreationEvent {
    /// An invited node accepted and becomes a member.
    Accepted {
        /// The node.
        node: NodeId,
    },
    /// An invited node refused.
    Refused {
        /// The node.
        node: NodeId,
        /// The reason.
        reason: String,
    },
    /// The link to a node that had accepted is down. It keeps its place on the ring unless it is uninvited.
    Lost {
        /// The node.
        node: NodeId,
    },
    /// A node without an invitation requests to join.
    AskedToJoin {
        /// The node.
        node: NodeId,
    },
}

/// The parts of a new group that the driver returns to the creating caller.
pub(crate) struct CreationParts {
    pub(crate) group: Arc<Shared>,
    pub(crate) events: mpsc::UnboundedReceiver<CreationEvent>,
    pub(crate) installed: oneshot::Receiver<Result<(), NotJoined>>,
}
