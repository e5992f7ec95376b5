//! The creation of a group: the creator gathers members, then installs view 1 with its full ring.

use core::fmt;

use cloudy_proto::{NodeId, Request, SessionPlan};

use crate::driver::{CreationEvent, CreationParts};
use crate::error::CreateGroupError;
use crate::handle::Group;
use crate::wait::{Answers, Deadline, Wait};

/// A group that gathers its members. Dropping it gives up the group and notifies the nodes that accepted.
#[must_use = "a creation that is dropped is abandoned"]
pub struct PendingGroup {
    group: Group,
    parts: CreationParts,
    creator_is_member: bool,
    accepted: usize,
    /// Whether view 1 is in force, so that the group is not given up.
    is_created: bool,
}

impl fmt::Debug for PendingGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingGroup").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

impl PendingGroup {
    pub(super) fn new(group: Group, parts: CreationParts, creator_is_member: bool) -> Self {
        Self { group, parts, creator_is_member, accepted: 0, is_created: false }
    }

    /// Invites a node, as soon as its link is up.
    pub fn invite(&self, node: NodeId) {
        self.group.request(Request::Invite { node });
    }

    /// Withdraws an invitation.
    pub fn uninvite(&self, node: NodeId) {
        self.group.request(Request::Uninvite { node });
    }

    /// The reason for which no more events follow.
    pub(crate) async fn end_reason(&self) -> CreateGroupError {
        self.group.shared.ended().await.into()
    }

    /// Returns the next event; none once the node is closed ([`Node::close_reason`](crate::Node::close_reason)).
    ///
    /// Cancel safe.
    pub async fn next_event(&mut self) -> Option<CreationEvent> {
        let event = self.parts.events.recv().await;
        if matches!(event, Some(CreationEvent::Accepted { .. })) {
            self.accepted += 1;
        }
        event
    }

    /// Installs view 1 with all nodes that have accepted, and returns once it is in force here. A session begins as
    /// soon as every member reports its links to all others up.
    ///
    /// Cancel safe: dropped, it gives up the group.
    ///
    /// # Errors
    /// A period of the session is too long, the ring would be empty, view 1 was not in force before the timeout
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]), or the node was closed.
    /// The group is given up.
    pub fn create(self, session: Option<SessionPlan>) -> Wait<'static, Result<Group, CreateGroupError>> {
        Wait::new(Some(self.group.mailbox.wait_timeout), move |deadline| self.create_until(session, deadline))
    }

    async fn create_until(
        mut self,
        session: Option<SessionPlan>,
        deadline: Deadline,
    ) -> Result<Group, CreateGroupError> {
        session.map_or(Ok(()), |plan| plan.validate())?;
        while let Ok(event) = self.parts.events.try_recv() {
            self.accepted += usize::from(matches!(event, CreationEvent::Accepted { .. }));
        }
        if self.accepted == 0 && !self.creator_is_member {
            return Err(CreateGroupError::NoMembers);
        }
        self.group.request(Request::Create { session });
        let installed = deadline.run(&mut self.parts.installed).await;
        match installed {
            Some(Ok(Ok(()))) => {
                self.is_created = true;
                Ok(self.group.clone())
            }
            Some(Ok(Err(_)) | Err(_)) => Err(self.end_reason().await),
            None => {
                let what = format!("group {:?} was not created: view 1 is not in force", self.group.name());
                Err(deadline.passed(what, Answers::default()).into())
            }
        }
    }
}

impl Drop for PendingGroup {
    fn drop(&mut self) {
        if !self.is_created {
            self.group.request(Request::End);
        }
    }
}
