//! What links report to the driver.

use std::net::SocketAddr;

use cloudy_proto::wire::{NodeFrame, StreamHeader};
use cloudy_proto::{Admission, Frame, NodeId};
use tokio::sync::oneshot;

use super::{NewLink, Taken};
use crate::link_error::{ConnectError, LinkFailure};

/// What links have to say.
pub(crate) enum LinkMail {
    /// Both sides said hello.
    Up(NewLink),
    /// The connection is gone.
    Down { peer: NodeId, link: u64, failure: LinkFailure },
    /// An address was dialled that leads to a peer which another connection has just linked.
    DialledAgain { address: SocketAddr, peer: NodeId },
    /// No connection came about.
    DialFailed { address: SocketAddr, error: ConnectError },
    /// A peer refused this node for good.
    RevokedHere { by: NodeId },
    /// Another process with this node's identity has been met, here or by a peer.
    SameIdentity { process: u64, address: SocketAddr, by: NodeId },
    /// A frame on the node stream.
    Node { peer: NodeId, link: u64, frame: NodeFrame, taken: Taken },
    /// The peer opened a stream: what to do with it?
    Opened { peer: NodeId, link: u64, header: StreamHeader, reply: oneshot::Sender<Admission> },
    /// Frames of a stream that is read.
    Frames { peer: NodeId, link: u64, header: StreamHeader, frames: Vec<Frame>, taken: Taken },
    /// Bytes of a frame of a lane that takes long.
    Arriving { peer: NodeId, link: u64, header: StreamHeader, bytes: u64 },
}
