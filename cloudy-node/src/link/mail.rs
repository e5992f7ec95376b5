//! Messages of links to the driver.

use std::net::SocketAddr;

use cloudy_proto::wire::{NodeFrame, StreamHeader};
use cloudy_proto::{Admission, Frame, NodeId};
use tokio::sync::oneshot;

use super::{NewLink, Taken};
use crate::link_error::{ConnectError, LinkFailure};

/// A message of a link to the driver.
pub(crate) enum LinkMail {
    /// Both sides have sent their hello.
    Up(NewLink),
    /// The connection is closed.
    Down { peer: NodeId, link: u64, failure: LinkFailure },
    /// The dialled address leads to a peer that another connection has just linked.
    DialledAgain { address: SocketAddr, peer: NodeId },
    /// No connection was established.
    DialFailed { address: SocketAddr, error: ConnectError },
    /// A peer refused this node for good.
    RevokedHere { by: NodeId },
    /// Another process with this node's identity was detected, here or by a peer.
    SameIdentity { process: u64, address: SocketAddr, by: NodeId },
    /// A frame on the node stream.
    Node { peer: NodeId, link: u64, frame: NodeFrame, taken: Taken },
    /// The peer opened a stream; the reply admits it or not.
    Opened { peer: NodeId, link: u64, header: StreamHeader, reply: oneshot::Sender<Admission> },
    /// Frames of an admitted stream.
    Frames { peer: NodeId, link: u64, header: StreamHeader, frames: Vec<Frame>, taken: Taken },
    /// Bytes of a large frame of a lane that is arriving.
    Arriving { peer: NodeId, link: u64, header: StreamHeader, bytes: u64 },
}
