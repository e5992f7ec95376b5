//! What a slave is told, reports and ends with.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use cloudy_proto::{Durability, GroupId, Index, NobodyComplete, NodeId, Phase, Rank, ViewId};

use crate::error::JoinError;
use crate::group::{EndReason, EventsError};
use crate::handle::LeaveError;
use crate::session::name::SessionName;
use crate::session::numbers::NotANumber;
use crate::session::result_file::{ResultFile, ResultFileError};
use crate::session::sum::Summary;
use crate::storage::ReadGroupError;

/// How long a session that was asked to end may take for it: the cut, and what this slave still misses of it.
pub(super) const ENDING_MAX: Duration = Duration::from_secs(10);
/// What a slave is to do beside taking part.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SlaveConfig<'a> {
    /// The session: masters of others are refused.
    pub session: SessionName,
    /// Where to write the result while the session runs. A file that fails costs the file and not the session
    /// ([`SlaveOutcome::file_error`]).
    pub result: Option<&'a mut ResultFile>,
    /// Numbers that it broadcasts in a second, at most; none for as many as there is room for. A slave that was evicted
    /// comes back only while the others retain what it missed, so what it may miss should be bounded where that
    /// matters.
    pub numbers_per_second_max: Option<NonZeroU32>,
}

impl<'a> SlaveConfig<'a> {
    cloudy_proto::setters! {
        session: SessionName,
        result: Option<&'a mut ResultFile>,
        numbers_per_second_max: Option<NonZeroU32>,
    }
}

/// How a slave is to stop in a session. Before a session it stops waiting, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveStop {
    /// It leaves: the session goes on without it, and it has no result. The last slave of a session ends it.
    Leave,
    /// It ends the session for all, early and with a result.
    End,
}

/// What a slave does, for observers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SlaveEvent {
    /// It takes the next master that invites it.
    Waiting,
    /// It is on the ring.
    Joined {
        /// The master.
        master: NodeId,
        /// Its position.
        rank: Rank,
        /// How many slaves there are.
        members: usize,
        /// Where the session keeps its result.
        durability: Durability,
    },
    /// The next phase has begun.
    Phase(Phase),
    /// Another view is in force, with this slave or without it.
    View {
        /// Which.
        id: ViewId,
        /// The members of its ring, in order.
        members: Vec<NodeId>,
    },
    /// The session has stopped: nobody who answers has its whole result. Over with the next view.
    NobodyComplete(NobodyComplete),
    /// The session is over before SEND, without a result. The slave waits for the next master.
    NotBegun {
        /// The master.
        master: NodeId,
        /// What happened.
        cause: NotBegun,
    },
    /// Messages approved so far.
    Approved(u64),
}

/// Why a session was over before SEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// The master, and with it the majority of the voters, was out of reach for the coordinator timeout.
    MasterLost,
    /// The master ended the session.
    Ended,
}

impl fmt::Display for NotBegun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MasterLost => "was lost",
            Self::Ended => "ended the session",
        })
    }
}

/// How long the phases took at a slave; zero for those that it never saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// SEND.
    pub send: Duration,
    /// GRACE.
    pub grace: Duration,
    /// STOP, until the result was final.
    pub stop: Duration,
}

/// A session's end, as a slave sees it.
#[derive(Debug)]
pub struct SlaveOutcome {
    /// What was added up.
    pub summary: Summary,
    /// The position on the ring.
    pub rank: Rank,
    /// The master.
    pub master: NodeId,
    /// How long the phases took.
    pub timings: Timings,
    /// The session's group: what a data directory holds of it is not needed ([`Node::forget_group`](crate::Node::forget_group)).
    pub group: GroupId,
    /// Why the result file is incomplete, if one was asked for and it is.
    pub file_error: Option<ResultFileError>,
}

/// A session without a result at this slave. The node is as before, and can wait for another master.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlaveError {
    /// This node cannot wait for a master.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It was told to stop before a session began.
    #[error("stopped while waiting for a master")]
    StoppedWaiting,
    /// Only from [`stored_result`](super::stored_result): the session was over before SEND.
    #[error("the master, node {}, {cause} before SEND, so there is no result; start another session", master.short())]
    NotBegun {
        /// The master.
        master: NodeId,
        /// What happened.
        cause: NotBegun,
    },
    /// It has left the session, as it was told to.
    #[error("this slave has left the session; {approved} messages were approved here until then")]
    Left {
        /// The session's group: what a data directory holds of it is not needed ([`Node::forget_group`](crate::Node::forget_group)).
        group: GroupId,
        /// Messages approved here until then.
        approved: u64,
    },
    /// It was told to leave the session, and could not in time. The others find out that it is gone.
    #[error(transparent)]
    NotLeaving(LeaveError),
    /// Most of the nodes that decide on the session's views are out of reach: it can end nowhere that this slave sees.
    #[error(
        "most of the nodes that decide on the session are out of reach, and its periods are over: no result is final \
         here; look at the network between the hosts, and at the other slaves"
    )]
    NobodyCoordinates,
    /// The session ended otherwise before its result was final here.
    #[error("the session has no result here: {reason}")]
    Ended {
        /// Why.
        reason: EndReason,
    },
    /// This slave was too slow to follow what happened in the session.
    #[error(transparent)]
    Events(EventsError),
    /// The session was asked to end, and did not.
    #[error("the session did not end within {ENDING_MAX:?}; is the master, node {}, still running?", master.short())]
    NotEnding {
        /// The master.
        master: NodeId,
    },
    /// STOP began, and the result was not complete in time.
    #[error("the result was not complete within {after:?} after STOP began; look at the network between the slaves")]
    Overdue {
        /// The time for it.
        after: Duration,
    },
    /// This slave read less than the result has: a defect, and no result rather than a wrong one.
    #[error("{read} messages were read of a result of {length}; this is a defect in cloudy")]
    Incomplete {
        /// Messages read.
        read: u64,
        /// The result's length.
        length: Index,
    },
    /// The result moved on faster than it was read.
    #[error("this slave was too slow: the result before message {resume_from} is no longer kept; give it more CPU")]
    Lagged {
        /// The first index that could still be read.
        resume_from: Index,
    },
    /// No slave has the beginning of the result.
    #[error(
        "this slave missed the result before message {first}, and no slave retains that any more; start the slaves with \
         a larger `--retain` (in the library: `retain_bytes` in NodeBuilder::join_config), or begin another session"
    )]
    NotRetained {
        /// The first index that is retained.
        first: Index,
    },
    /// The result cannot be read from this slave's disk.
    #[error(transparent)]
    Unreadable(#[from] ReadGroupError),
    /// Something in the result is no number.
    #[error(transparent)]
    Number(#[from] NotANumber),
}
