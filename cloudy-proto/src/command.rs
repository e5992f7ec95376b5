//! The control log's commands: plain data, opaque to the consensus library (`protocol.md` §6, §9).

use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{Parameters, ParametersError, check_times};
use crate::digest::Checkpoint;
use crate::id::{ConsensusId, Incarnation, NodeId, Round, ViewId};
use crate::view::RingMember;

/// One entry of the control log.
#[expect(clippy::large_enum_variant, reason = "a command is decoded, applied and dropped: hardly any exists at once")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first entry; the creator is the voter [`ConsensusId::CREATOR`].
    Created {
        /// The node that creates the group.
        creator: NodeId,
    },
    /// A process of a node starts; the position of the entry is its incarnation.
    Incarnate {
        /// The node.
        node: NodeId,
        /// The process's own number for this incarnation: a repeated command has no effect.
        run: u64,
    },
    /// The group is a session with this plan, from its kickstart on.
    Session(SessionPlan),
    /// The view after `from`. It takes effect only if `from` is the latest view and every joiner's incarnation is the
    /// latest of its node.
    InstallView(InstallView),
    /// SEND begins (`protocol.md` §9).
    Kickstart(SessionPlan),
    /// SEND is over: GRACE.
    Grace,
    /// The result of a member is complete (`protocol.md` §9, STOP).
    Report {
        /// The member.
        node: NodeId,
        /// Its length and digest.
        result: Checkpoint,
        /// The report of its application.
        report: Bytes,
    },
    /// Every member has reported its final result, or the timeout has passed.
    Close,
    /// A change of the voters of this log (`protocol.md` §6.6).
    Voter {
        /// The voter's name in the consensus library.
        id: ConsensusId,
        /// The node of the voter.
        node: NodeId,
        /// Its role from then on.
        role: VoterRole,
    },
    /// A node outside the ring has left by itself. It takes effect only while the node is on no ring and this is its
    /// latest incarnation.
    Left {
        /// The node.
        node: NodeId,
        /// Its incarnation; zero if it never had one.
        incarnation: Incarnation,
    },
    /// The group uses the commands, frames and records of this feature level (`protocol.md` §6.10). A level never falls.
    Level {
        /// The level.
        level: u16,
    },
    /// A command of the next version, for the tests of rolling upgrades.
    #[cfg(feature = "next-version")]
    Next,
}

/// The content of [`Command::InstallView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallView {
    /// The view before.
    pub from: ViewId,
    /// The members.
    pub ring: Vec<RingMember>,
    /// The parameters that they share.
    pub parameters: Parameters,
    /// For each lane of `from`, by rank: slots below this round are approved, the others are skips.
    pub cut: Vec<Round>,
    /// Whether no view follows.
    pub last: bool,
    /// The nodes of the view before that are not on this ring, with the reasons.
    pub dropped: Vec<(NodeId, Dropped)>,
}

/// The reason for which a view change excludes a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// It gave no answer.
    Silent,
    /// It answered, but others reported it as failed or stalled.
    Blamed,
    /// It requested to leave.
    Left,
    /// It announced that it stops and will return.
    Suspended,
}

/// The role of a node in the consensus library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterRole {
    /// It receives the log, so that it can vote soon.
    Learner,
    /// It votes.
    Voter,
    /// It takes no part.
    Gone,
}

/// The phases of a session and their lengths. Lengths need no equal clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionPlan {
    /// The length of SEND, in which members broadcast.
    pub send: Duration,
    /// The length of GRACE, in which messages in flight are approved.
    pub grace: Duration,
    /// The maximum length of STOP.
    pub stop: Duration,
    /// The seed of the random numbers.
    pub seed: u64,
}

impl SessionPlan {
    /// A plan with these periods, and the seed 0.
    #[must_use]
    pub const fn new(send: Duration, grace: Duration, stop: Duration) -> Self {
        Self { send, grace, stop, seed: 0 }
    }

    crate::setters! {
        send: Duration,
        grace: Duration,
        stop: Duration,
        seed: u64,
    }

    /// Checks the periods against the protocol's limit.
    ///
    /// # Errors
    /// The first period that is too long.
    pub fn validate(&self) -> Result<(), ParametersError> {
        check_times(&[("send", self.send), ("grace", self.grace), ("stop", self.stop)])
    }
}

/// The state of the log after an entry: it replaces the entries up to that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogState {
    pub(crate) creator: Option<NodeId>,
    pub(crate) session: Option<SessionPlan>,
    /// The latest incarnation of each node, with the process's own number for it.
    pub(crate) incarnations: Vec<(NodeId, Incarnation, u64)>,
    /// The command that installed the present view.
    pub(crate) installed: Option<InstallView>,
    pub(crate) electors: Vec<(ConsensusId, NodeId, VoterRole)>,
    /// The nodes that were ever on a ring.
    pub(crate) members_ever: Vec<NodeId>,
    /// The nodes that left by themselves and did not return.
    pub(crate) left: Vec<NodeId>,
    /// The node and incarnation of each random stream of a session.
    pub(crate) streams: Vec<(NodeId, Incarnation, u64)>,
    /// The plan, once SEND has begun.
    pub(crate) kickstarted: Option<SessionPlan>,
    /// Whether GRACE has begun.
    pub(crate) grace: bool,
    /// The members with a complete result, and the reports of their applications.
    pub(crate) reports: Vec<(NodeId, Checkpoint, Bytes)>,
    /// Whether the group is closed.
    pub(crate) closed: bool,
    /// The feature level; zero if none was set.
    pub(crate) level: u16,
}
