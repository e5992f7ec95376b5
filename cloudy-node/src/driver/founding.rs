//! What the driver tells the creator of a group while it gathers members.

use std::sync::Arc;

use cloudy_proto::NodeId;
use tokio::sync::{mpsc, oneshot};

use crate::driver::attempt::NotJoined;
use crate::group::shared::Shared;

/// What a founder hears before view 1 is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundingEvent {
    /// An invited node will be a member.
    Accepted {
        /// Which.
        node: NodeId,
    },
    /// An invited node will not.
    Refused {
        /// Which.
        node: NodeId,
        /// In words.
        reason: String,
    },
    /// The link to a node that had accepted is down. Unless it is uninvited, it has its place on the ring all the same.
    Lost {
        /// Which.
        node: NodeId,
    },
    /// A node that was not invited asks to be.
    AskedToJoin {
        /// Which.
        node: NodeId,
    },
}

/// What the driver gives to the caller that founds.
pub(crate) struct FoundingParts {
    pub(crate) group: Arc<Shared>,
    pub(crate) events: mpsc::UnboundedReceiver<FoundingEvent>,
    pub(crate) installed: oneshot::Receiver<Result<(), NotJoined>>,
}
