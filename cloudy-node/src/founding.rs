//! How a group begins: a founder gathers members, then installs view 1 with its full ring.

use std::time::Duration;

use cloudy_proto::{NodeId, ParametersError, Request, SessionPlan};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{GROUPS_MAX, NotJoined};
use crate::group::{EndReason, Group};
use crate::health::{CloseReason, NodeFailure};
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// A group that could not be founded; there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundError {
    /// The configuration cannot work.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// A group of that name lives at this node.
    #[error("this node has a group named {name:?} already: end that one, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// This node is leaving a group of that name. [`Node::create_group`](crate::Node::create_group) waits until it has left.
    #[error(
        "this node is leaving a group named {name:?}: try again when Group::leave has returned, or delete what this node holds of it by Node::forget_group"
    )]
    Leaving {
        /// The name.
        name: String,
    },
    /// The group is to keep its result on disk.
    #[error(
        "group {name:?} is to keep its result on disk, and this node has no data directory: start it with NodeBuilder::data_dir, or `--data DIR`"
    )]
    NeedsDataDir {
        /// The name.
        name: String,
    },
    /// This node is in as many groups as it may be, or waits to join them.
    #[error("this node is in {GROUPS_MAX} groups or waits to join them, the most a node may: leave one first")]
    TooManyGroups,
    /// The name is too long.
    #[error("a group's name has at most {} bytes", cloudy_proto::limits::GROUP_NAME_BYTES_MAX)]
    NameTooLong,
    /// Nobody has accepted, and the founder takes no place on the ring itself.
    #[error("nobody is on the ring: no node has accepted the invitation")]
    NoMembers,
    /// This node is shut out of its cluster.
    #[error("this node's identity was revoked in its cluster, for good: no node links to it any more")]
    Revoked,
    /// Another process has this node's identity, and this one has ended.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed by a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
    /// The group ended here before view 1 was in force.
    #[error("the group was not created: {0}")]
    Ended(EndReason),
    /// Not all who were to take part did so in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl From<CloseReason> for FoundError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

impl From<EndReason> for FoundError {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::ShutDown => Self::ShutDown,
            EndReason::NodeFailed(failure) => Self::NodeFailed(failure),
            EndReason::Revoked => Self::Revoked,
            EndReason::SameIdentity => Self::SameIdentity,
            reason => Self::Ended(reason),
        }
    }
}

/// What a founder hears before view 1 is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What the driver gives to whoever founds.
pub(crate) struct FoundingParts {
    pub(crate) group: Group,
    pub(crate) events: mpsc::UnboundedReceiver<FoundingEvent>,
    pub(crate) installed: oneshot::Receiver<Result<(), NotJoined>>,
}

/// A group that gathers its members. Dropping it abandons the group; those who accepted are told.
#[must_use = "a founding that is dropped is abandoned"]
pub struct Founding {
    parts: Option<FoundingParts>,
    founder_is_member: bool,
    accepted: usize,
    wait_timeout: Duration,
}

impl std::fmt::Debug for Founding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Founding").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

impl Founding {
    pub(crate) fn new(parts: FoundingParts, founder_is_member: bool, wait_timeout: Duration) -> Self {
        Self { parts: Some(parts), founder_is_member, accepted: 0, wait_timeout }
    }

    fn request(&self, request: Request) {
        if let Some(parts) = &self.parts {
            parts.group.request(request);
        }
    }

    /// Asks a node to become a member, as soon as its link is up.
    pub fn invite(&self, node: NodeId) {
        self.request(Request::Invite { node });
    }

    /// No longer waits for a node that was asked.
    pub fn uninvite(&self, node: NodeId) {
        self.request(Request::Uninvite { node });
    }

    /// Why nothing more happens here.
    pub(crate) async fn end_reason(&self) -> FoundError {
        match &self.parts {
            Some(parts) => parts.group.shared.ended().await.into(),
            None => FoundError::ShutDown,
        }
    }

    /// What happens next; none once the node is closed ([`Node::close_reason`](crate::Node::close_reason)).
    pub async fn next_event(&mut self) -> Option<FoundingEvent> {
        let event = self.parts.as_mut()?.events.recv().await;
        if matches!(event, Some(FoundingEvent::Accepted { .. })) {
            self.accepted += 1;
        }
        event
    }

    /// Installs view 1 with everybody who has accepted, and returns once it is in force here. A session begins as soon
    /// as all members report their links to all others up.
    ///
    /// # Errors
    /// A period of the session is too long, there would be nobody on the ring, view 1 was not in force in time
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]), or the node was closed; the
    /// group is abandoned.
    pub fn found(self, session: Option<SessionPlan>) -> Wait<'static, Result<Group, FoundError>> {
        Wait::new(Some(self.wait_timeout), move |deadline| self.found_until(session, deadline))
    }

    async fn found_until(mut self, session: Option<SessionPlan>, deadline: Deadline) -> Result<Group, FoundError> {
        session.map_or(Ok(()), |plan| plan.validate())?;
        while let Some(parts) = self.parts.as_mut() {
            match parts.events.try_recv() {
                Ok(FoundingEvent::Accepted { .. }) => self.accepted += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if self.accepted == 0 && !self.founder_is_member {
            return Err(FoundError::NoMembers);
        }
        self.request(Request::Found { session });
        let Some(parts) = &mut self.parts else { return Err(FoundError::ShutDown) };
        let installed = deadline.run(&mut parts.installed).await;
        let group = parts.group.clone();
        match installed {
            Some(Ok(Ok(()))) => {
                // It is not given up any more.
                self.parts = None;
                Ok(group)
            }
            Some(Ok(Err(_)) | Err(_)) => Err(group.shared.ended().await.into()),
            None => {
                let what = format!("group {:?} was not created: view 1 is not in force", group.name());
                Err(deadline.passed(what, Answers::default()).into())
            }
        }
    }
}

impl Drop for Founding {
    fn drop(&mut self) {
        self.request(Request::End);
    }
}
