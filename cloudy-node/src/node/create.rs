//! Creation of groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use cloudy_proto::NodeId;
use cloudy_proto::limits::GROUP_NAME_BYTES_MAX;

use crate::driver::{Command, CreationEvent};
use crate::error::CreateGroupError;
use crate::group::GroupConfig;
use crate::handle::Group;
use crate::node::Node;
use crate::node::pending_group::PendingGroup;
use crate::wait::{Answer, Answers, Awaited, Backoff, Deadline, Wait};

impl Node {
    /// Starts the creation of a group: invite nodes, then call [`PendingGroup::create`].
    ///
    /// Cancel safe: dropped, it gives up the group.
    ///
    /// ```no_run
    /// # async fn example(node: &cloudy_node::Node, friend: cloudy_node::NodeId) -> Result<(), cloudy_node::CreateGroupError> {
    /// use cloudy_node::{CreationEvent, GroupConfig};
    ///
    /// let mut creation = node.prepare_group("chat", GroupConfig::default()).await?;
    /// creation.invite(friend);
    /// while let Some(event) = creation.next_event().await {
    ///     match event {
    ///         CreationEvent::Accepted { .. } => break,
    ///         CreationEvent::AskedToJoin { node } => creation.invite(node),
    ///         _ => {}
    ///     }
    /// }
    /// let group = creation.create(None).await?;
    /// println!("created {}", group.id());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// This node has a group of that name, or is leaving one; or the configuration is not valid.
    pub async fn prepare_group(&self, name: &str, config: GroupConfig) -> Result<PendingGroup, CreateGroupError> {
        config.validate()?;
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(CreateGroupError::NameTooLong);
        }
        let (creator_is_member, name, config) = (config.creator_is_member, name.to_owned(), Box::new(config));
        let parts = self.mailbox.ask(|reply| Command::Create { name, config, reply }).await??;
        let group = self.handle(Arc::clone(&parts.group));
        Ok(PendingGroup::new(group, parts, creator_is_member))
    }

    /// Creates a group of `members` nodes, this one included. It admits nodes that call [`Node::join_group_at`], and
    /// returns once the ring is full and view 1 is in force. A joiner that is lost before the ring is full does not
    /// count. If this node is leaving a group of that name, it waits until it has left.
    ///
    /// Cancel safe: dropped, it gives up the group.
    ///
    /// # Errors
    /// The errors of [`Node::prepare_group`] and [`PendingGroup::create`]. If not all members joined before the timeout
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]), the group is given up:
    /// [`CreateGroupError::TimedOut`] lists the nodes that asked to join, with their answers.
    pub fn create_group(
        &self,
        name: &str,
        members: usize,
        config: GroupConfig,
    ) -> Wait<'_, Result<Group, CreateGroupError>> {
        let name = name.to_owned();
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| self.create_until(name, members, config, deadline))
    }

    async fn create_until(
        &self,
        name: String,
        members: usize,
        config: GroupConfig,
        deadline: Deadline,
    ) -> Result<Group, CreateGroupError> {
        let others = members.saturating_sub(usize::from(config.creator_is_member));
        let mut gathered = Gathered::default();
        let creating = async {
            let mut creation = self.prepare_once_left(&name, config, &mut gathered.refused).await?;
            while gathered.accepted.len() < others {
                let event = creation.next_event().await;
                let Some(event) = event else { return Err(creation.end_reason().await) };
                gathered.take(&creation, event);
            }
            // Other joiners are too late, even those that have accepted meanwhile.
            std::mem::take(&mut gathered.invited).into_iter().for_each(|node| creation.uninvite(node));
            creation.create(None).without_timeout().await
        };
        let created = deadline.run(creating).await;
        created.unwrap_or_else(|| {
            let accepted = gathered.accepted.len();
            let what = format!("group {name:?} was not created: {accepted} of {others} other members joined");
            Err(deadline.passed(what, gathered.answers()).into())
        })
    }

    /// Starts the creation of a group, once this node has left the one of that name.
    async fn prepare_once_left(
        &self,
        name: &str,
        config: GroupConfig,
        answers: &mut Answers,
    ) -> Result<PendingGroup, CreateGroupError> {
        let mut backoff = Backoff::default();
        loop {
            match self.prepare_group(name, config.clone()).await {
                Err(CreateGroupError::Leaving { .. }) => {
                    let words = "this node is leaving a group of that name".to_owned();
                    answers.note(Answer { from: Awaited::Node(self.id()), words });
                }
                creation => {
                    answers.forget(Awaited::Node(self.id()));
                    return creation;
                }
            }
            backoff.pause().await;
        }
    }
}

/// The joiners of a group that is being created.
#[derive(Debug, Default)]
struct Gathered {
    invited: BTreeSet<NodeId>,
    accepted: BTreeSet<NodeId>,
    refused: Answers,
}

impl Gathered {
    fn take(&mut self, creation: &PendingGroup, event: CreationEvent) {
        match event {
            CreationEvent::AskedToJoin { node } => {
                self.refused.forget(Awaited::Node(node));
                creation.invite(node);
                self.invited.insert(node);
            }
            CreationEvent::Accepted { node } => {
                self.invited.remove(&node);
                self.accepted.insert(node);
            }
            // It sends another request if it returns.
            CreationEvent::Lost { node } => {
                if self.accepted.remove(&node) {
                    creation.uninvite(node);
                    let words = "it accepted, and was lost before the ring was full".to_owned();
                    self.refused.note(Answer { from: Awaited::Node(node), words });
                }
            }
            // It may send another request.
            CreationEvent::Refused { node, reason } => {
                self.invited.remove(&node);
                self.refused.note(Answer { from: Awaited::Node(node), words: reason });
            }
        }
    }

    fn answers(self) -> Answers {
        let mut answers = self.refused;
        for node in self.invited {
            answers.note(Answer { from: Awaited::Node(node), words: "it requested to join, and was lost".to_owned() });
        }
        answers
    }
}
