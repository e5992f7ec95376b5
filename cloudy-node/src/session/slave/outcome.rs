//! The configuration, events, outcomes and errors of a slave.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use cloudy_proto::{Durability, GroupId, Index, NoCompleteMember, NodeId, Phase, Rank, ViewId};

use crate::error::JoinError;
use crate::group::{EndReason, EventsError};
use crate::handle::LeaveError;
use crate::session::name::SessionName;
use crate::session::numbers::NotANumber;
use crate::session::result_file::{ResultFile, ResultFileError};
use crate::session::sum::Summary;
use crate::storage::ReadGroupError;

/// The timeout for the end of a session: for the cut, and for the entries that this slave still lacks.
pub(super) const ENDING_MAX: Duration = Duration::from_secs(10);
/// The configuration of a slave.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SlaveConfig<'a> {
    /// The session: masters of other sessions are refused.
    pub session: SessionName,
    /// The file for the result, written while the session runs. A failure of the file does not affect the session
    /// ([`SlaveOutcome::file_error`]).
    pub result: Option<&'a mut ResultFile>,
    /// Maximum numbers that the slave broadcasts in a second; none for no limit. An evicted slave returns only while
    /// others retain the entries that it lacks, so set a limit where that matters.
    pub numbers_per_second_max: Option<NonZeroU32>,
}

impl<'a> SlaveConfig<'a> {
    cloudy_proto::setters! {
        session: SessionName,
        result: Option<&'a mut ResultFile>,
        numbers_per_second_max: Option<NonZeroU32>,
    }
}

/// A slave's way to stop in a session. Before a session, either way ends its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveStop {
    /// It leaves: the session continues without it, and it has no result. The last slave of a session ends it.
    Leave,
    /// It ends the session for all, early and with a result.
    End,
}

/// An event of a slave, for observers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SlaveEvent {
    /// It waits for the next master that invites it.
    Waiting,
    /// It is on the ring.
    Joined {
        /// The master.
        master: NodeId,
        /// Its rank.
        rank: Rank,
        /// Number of slaves.
        members: usize,
        /// The durability of the session's result.
        durability: Durability,
    },
    /// The next phase has begun.
    Phase(Phase),
    /// Another view is in force, with this slave or without it.
    View {
        /// The id of the view.
        id: ViewId,
        /// The members of its ring, in order.
        members: Vec<NodeId>,
    },
    /// The session has stopped, because no node in reach has the whole result. Over with the next view.
    NoCompleteMember(NoCompleteMember),
    /// The session is over before SEND, without a result. The slave waits for the next master.
    NotBegun {
        /// The master.
        master: NodeId,
        /// The cause.
        cause: NotBegun,
    },
    /// Messages approved so far.
    Approved(u64),
}

/// The reason for which a session was over before SEND.
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

/// The lengths of the phases at a slave; zero for phases that it never saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// SEND.
    pub send: Duration,
    /// GRACE.
    pub grace: Duration,
    /// STOP, until the result was final.
    pub stop: Duration,
}

/// The outcome of a session at a slave.
#[derive(Debug)]
pub struct SlaveOutcome {
    /// The result.
    pub summary: Summary,
    /// Its rank on the ring.
    pub rank: Rank,
    /// The master.
    pub master: NodeId,
    /// The lengths of the phases.
    pub timings: Timings,
    /// The session's group. Its data in a data directory is not needed
    /// ([`Node::forget_group`](crate::Node::forget_group)).
    pub group: GroupId,
    /// The reason for which the requested result file is incomplete.
    pub file_error: Option<ResultFileError>,
}

/// A session without a result at this slave. The node is unchanged, and can wait for another master.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlaveError {
    /// This node cannot wait for a master.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It was stopped before a session began.
    #[error("stopped while waiting for a master")]
    StoppedWaiting,
    /// Only from [`stored_result`](super::stored_result): the session was over before SEND.
    #[error("the master, node {}, {cause} before SEND, so there is no result; start another session", master.short())]
    NotBegun {
        /// The master.
        master: NodeId,
        /// The cause.
        cause: NotBegun,
    },
    /// It has left the session, as requested.
    #[error("this slave has left the session; {approved} messages were approved here until then")]
    Left {
        /// The session's group. Its data in a data directory is not needed
        /// ([`Node::forget_group`](crate::Node::forget_group)).
        group: GroupId,
        /// Messages that were approved here until then.
        approved: u64,
    },
    /// It was requested to leave the session, and could not before the timeout. The others detect that it is gone.
    #[error(transparent)]
    NotLeaving(LeaveError),
    /// A majority of the voters is out of reach, so this slave cannot learn how the session ends.
    #[error(
        "a majority of the session's voters is out of reach, and its periods are over: no result is final here; check the network between the hosts, and the other slaves"
    )]
    NoCoordinator,
    /// The session ended in another way before its result was final here.
    #[error("the session has no result here: {reason}")]
    Ended {
        /// The reason.
        reason: EndReason,
    },
    /// This slave was too slow for the session's events.
    #[error(transparent)]
    Events(EventsError),
    /// The session was requested to end, and did not.
    #[error("the session did not end within {ENDING_MAX:?}; is the master, node {}, still running?", master.short())]
    NotEnding {
        /// The master.
        master: NodeId,
    },
    /// STOP began, and the result was not complete before the timeout.
    #[error("the result was not complete within {after:?} after STOP began; check the network between the slaves")]
    Overdue {
        /// The timeout.
        after: Duration,
    },
    /// This slave read less than the result has. This is a defect; no result is better than a wrong one.
    #[error("{read} messages were read of a result of {length}; this is a defect in cloudy")]
    Incomplete {
        /// Messages read.
        read: u64,
        /// The result's length.
        length: Index,
    },
    /// The result grew faster than it was read.
    #[error(
        "this slave read the result too slowly: the result before message {resume_from} is not retained; raise retain_bytes \
         in NodeBuilder::join_config, give it more CPU, or broadcast less"
    )]
    Lagged {
        /// The first retained index.
        resume_from: Index,
    },
    /// No slave retains the beginning of the result.
    #[error(
        "this slave missed the result before message {first}, and no slave retains that; raise retain_bytes \
         in NodeBuilder::join_config at the slaves, or begin another session"
    )]
    NotRetained {
        /// The first retained index.
        first: Index,
    },
    /// The result cannot be read from this slave's disk.
    #[error(transparent)]
    Unreadable(#[from] ReadGroupError),
    /// A message in the result is not a number.
    #[error(transparent)]
    Number(#[from] NotANumber),
}
