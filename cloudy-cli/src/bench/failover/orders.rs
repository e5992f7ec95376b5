//! What a node of these benches is told and says.

use std::net::SocketAddr;
use std::path::PathBuf;

use cloudy_node::{NodeId, ViewId};
use serde::{Deserialize, Serialize};

use super::history::Span;

/// What a node is, as long as it lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// It can be cut off from others.
    pub(crate) partitions: bool,
    /// A payload's size.
    pub(crate) size_bytes: usize,
    /// Messages that it broadcasts a second, if it is a member.
    pub(crate) rate_per_s: u64,
    /// The cluster key's file.
    pub(crate) key: PathBuf,
}

/// How a node comes into the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// It founds the group, and is a member; so many others are.
    Founder { others: usize },
    /// It founds the group for so many others, and is no member: as a session's master.
    Master { others: usize },
    /// It joins by the address that it is given.
    Joiner,
}

/// What a node is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Come into the group, a joiner by the node at this address. Answered by [`Word::Joined`].
    Join(Option<SocketAddr>),
    /// Say so once the group is whole. Answered by [`Word::Settled`].
    Settle { members: usize, voters: usize },
    /// Something has failed. Answered by [`Word::Survived`] once that is over.
    Survive(Failed),
    /// Nothing passes to and from these addresses, until the next order of this kind. Not answered.
    CutOff(Vec<SocketAddr>),
    /// Broadcast so many messages at full speed. Answered by [`Word::Filled`] once they are approved.
    Fill { messages: u64 },
    /// Answered by [`Word::Memory`].
    Memory,
    /// The group ends; whoever is asked to ends it. Answered by [`Word::Done`].
    End { ends: bool },
}

/// A failure, for those who survive it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// When, microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// Members that the next view is to be without; none if no other view need come.
    pub(crate) without: Vec<NodeId>,
    /// How long the time before and after is that counts for rates.
    pub(crate) window_us: u64,
}

/// What a node has done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It is in the group.
    Joined {
        node: NodeId,
        /// From the call to its return.
        took_us: u64,
        /// In its result at the return.
        messages: u64,
    },
    /// The group is whole.
    Settled {
        view: ViewId,
        coordinator: NodeId,
        /// Messages in its result.
        messages: u64,
    },
    /// What it saw of a failure.
    Survived(Span),
    /// All that it was to broadcast is approved.
    Filled,
    /// What its process has resident; none where that is not known.
    Memory { kib: Option<u64> },
    /// The final result.
    Done { messages: u64, digest: String },
}
