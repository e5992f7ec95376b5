//! The control log's commands: plain data, opaque to the consensus library (`protocol.md` §6, §9).

use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::{Parameters, ParametersError, check_times};
use crate::digest::Checkpoint;
use crate::id::{ConsensusId, Incarnation, NodeId, Round, ViewId};
use crate::view::RingMember;

/// One entry of the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The log begins; its founder is the voter [`ConsensusId::FOUNDER`].
    Founded {
        /// The node that founds the group.
        founder: NodeId,
    },
    /// A run of a node's process begins; the entry's own position is its incarnation.
    Incarnate {
        /// Whose.
        node: NodeId,
        /// The process's own name for its run: saying it twice begins nothing twice.
        run: u64,
    },
    /// The group is a session that does this, from its kickstart on.
    Session(SessionPlan),
    /// The view after `from`. Takes effect only if `from` is the latest view and every joiner's incarnation is its
    /// node's latest.
    InstallView(InstallView),
    /// SEND begins (`protocol.md` §9).
    Kickstart(SessionPlan),
    /// SEND is over: GRACE.
    Grace,
    /// A member's result is complete (`protocol.md` §9, STOP).
    Report {
        /// Whose.
        node: NodeId,
        /// Its length and digest.
        result: Checkpoint,
        /// What its application says of it.
        report: Bytes,
    },
    /// Every member has reported its final result, or the time for it is over.
    Close,
    /// The voters of this log change (`protocol.md` §6.6).
    Voter {
        /// The voter's name in the consensus library.
        id: ConsensusId,
        /// The node that it is.
        node: NodeId,
        /// What it is from here on.
        standing: Standing,
    },
    /// A node that is not on the ring has left by itself. Takes effect only while it is on no ring and this is its latest
    /// run.
    Left {
        /// Which.
        node: NodeId,
        /// Its run; zero if it never had one.
        incarnation: Incarnation,
    },
}

/// What [`Command::InstallView`] carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallView {
    /// The view that it follows.
    pub from: ViewId,
    /// The members.
    pub ring: Vec<RingMember>,
    /// What they share.
    pub parameters: Parameters,
    /// For each lane of `from`, by rank: slots below are approved, the rest are skips.
    pub cut: Vec<Round>,
    /// No view follows.
    pub last: bool,
    /// The nodes that were in the view before and are not on this ring, and why.
    pub dropped: Vec<(NodeId, Dropped)>,
}

/// Why a view change goes on without a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// It gave no answer.
    Silent,
    /// It answered, but others found it down or held up by it.
    Blamed,
    /// It asked to leave.
    Left,
}

/// What a node is to the consensus library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It is sent the log, so that it can vote soon.
    Learner,
    /// It votes.
    Voter,
    /// It does not take part.
    Gone,
}

/// What a session does, and for how long. Durations, so that no two clocks need agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionPlan {
    /// How long members broadcast.
    pub send: Duration,
    /// How long they only finish.
    pub grace: Duration,
    /// What STOP may take: a budget, not a sleep.
    pub stop: Duration,
    /// Of the random numbers.
    pub seed: u64,
}

impl SessionPlan {
    /// With these periods, and the seed 0.
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

/// What the log up to an entry comes to: it stands for these entries where they are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogState {
    pub(crate) founder: Option<NodeId>,
    pub(crate) session: Option<SessionPlan>,
    /// Each node's latest run, and the process's own name for it.
    pub(crate) incarnations: Vec<(NodeId, Incarnation, u64)>,
    /// What led to the view in force.
    pub(crate) installed: Option<InstallView>,
    pub(crate) electors: Vec<(ConsensusId, NodeId, Standing)>,
    /// The nodes that were ever on a ring.
    pub(crate) members_ever: Vec<NodeId>,
    /// The nodes that left by themselves and did not come back.
    pub(crate) left: Vec<NodeId>,
    /// Which of a session's random streams is whose.
    pub(crate) streams: Vec<(NodeId, Incarnation, u64)>,
    /// SEND has begun.
    pub(crate) kickstarted: Option<SessionPlan>,
    /// GRACE has begun.
    pub(crate) grace: bool,
    /// Whose result is complete, and what its application says of it.
    pub(crate) reports: Vec<(NodeId, Checkpoint, Bytes)>,
    /// The group is over.
    pub(crate) closed: bool,
}
