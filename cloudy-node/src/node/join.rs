//! Links to other nodes, and joining their groups.

use std::net::SocketAddr;
use std::sync::Arc;

use cloudy_proto::limits::GROUP_NAME_BYTES_MAX;
use cloudy_proto::wire::COUNTER_MAX;
use cloudy_proto::{Index, NodeId};
use tokio::sync::oneshot;

use crate::driver::Command;
use crate::driver::attempt::{Aim, Attempt, Stage};
use crate::error::JoinError;
use crate::group::GroupConfig;
use crate::group::shared::Shared;
use crate::handle::Group;
use crate::link_error::ConnectError;
use crate::node::Node;
use crate::wait::{Answer, Answers, Awaited, Backoff, Deadline, Wait};

pub(crate) type Answered = oneshot::Receiver<Result<Arc<Shared>, Attempt>>;

impl Node {
    /// Dials an address until the link is up, and returns the id of the node there. An attempt is repeated if no node
    /// listens yet, or if it is out of reach.
    ///
    /// Cancel safe: dropped, it stops dialling. A link that is established at that moment stays.
    ///
    /// # Errors
    /// The other node refuses the link, with its reason; or the timeout passed ([`NodeBuilder::wait_timeout`] or
    /// [`Wait::timeout`]), with the last failure.
    ///
    /// [`NodeBuilder::wait_timeout`]: crate::NodeBuilder::wait_timeout
    pub fn connect(&self, address: SocketAddr) -> Wait<'_, Result<NodeId, ConnectError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| self.connect_until(address, deadline))
    }

    async fn connect_until(&self, address: SocketAddr, deadline: Deadline) -> Result<NodeId, ConnectError> {
        let (mut last, mut backoff) = (None, Backoff::default());
        let attempts = async {
            loop {
                match self.connect_once(address).await {
                    Err(error) if !error.is_final() => last = Some(error),
                    answer => return answer,
                }
                backoff.pause().await;
            }
        };
        let linked = deadline.run(attempts).await;
        let passed = |last| match last {
            Some(error) => error,
            None => deadline.passed(format!("{address} was not linked"), Answers::default()).into(),
        };
        linked.unwrap_or_else(|| Err(passed(last)))
    }

    /// One attempt to dial an address.
    pub(crate) async fn connect_once(&self, address: SocketAddr) -> Result<NodeId, ConnectError> {
        self.connect_beside(address, false).await
    }

    /// One attempt to dial an address, on its own or in parallel with other addresses of the same name.
    pub(crate) async fn connect_beside(&self, address: SocketAddr, beside: bool) -> Result<NodeId, ConnectError> {
        self.mailbox.ask(|reply| Command::Connect { address, beside, reply }).await?
    }

    /// Waits for an invitation to a group of that name. A node that does not wait refuses invitations. A node that was
    /// a member of a running group of that name, and was restarted with the same identity, rejoins it as soon as a
    /// member links to it.
    ///
    /// Cancel safe: dropped, it withdraws.
    ///
    /// ```no_run
    /// # async fn example(node: &cloudy_node::Node) -> Result<(), cloudy_node::JoinError> {
    /// // A node that creates a group of this name may invite this node, whenever that is.
    /// let group = node.join_group("chat").await?.joined().without_timeout().await?;
    /// println!("{} has members {:?}", group.name(), group.status().await.map(|status| status.members));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The name is too long.
    pub async fn join_group(&self, name: &str) -> Result<Joining, JoinError> {
        let stage = Stage::default();
        let answer = self.ask_to_join(name, None, (Aim::Member, &stage), &self.join_config).await?;
        Ok(Joining { node: self.clone(), name: name.to_owned(), answer, stage })
    }

    /// Joins a group through the node at an address: its creator, while it gathers members, or any node of a running
    /// group. Returns once this node is on the ring. The node has the whole result, from index 1 on. A node that was a
    /// member before, and was restarted with the same identity, rejoins in the same way.
    ///
    /// The request is repeated while the node at the address is out of reach, does not know the group yet, or has not
    /// created it, or gives it up: nodes can start in any order.
    ///
    /// Cancel safe: dropped, it withdraws.
    ///
    /// # Errors
    /// The group refuses this node, with its reason; or the timeout passed
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]): [`JoinError::TimedOut`]
    /// has the last answer.
    pub fn join_group_at(&self, name: &str, member: SocketAddr) -> Wait<'_, Result<Group, JoinError>> {
        self.join_at(name.to_owned(), member, Aim::Member)
    }

    /// Observes a running group, from an index of its result on. Any node of the group can be the contact. An observer
    /// takes no place on the ring, delays no node, and broadcasts nothing. Its [`Group::end`] closes the group like a
    /// member's. If the result never reaches the index, nothing is read, and [`Event::Final`](crate::Event::Final) has
    /// its length.
    ///
    /// The request is repeated as by [`Node::join_group_at`]. Cancel safe: dropped, it withdraws.
    ///
    /// # Errors
    /// The errors of [`Node::join_group_at`]; or no result can have that index ([`JoinError::NoSuchIndex`]). If the
    /// result is not retained from that index on, readers return [`EndReason::Truncated`](crate::EndReason::Truncated)
    /// with the first index that is.
    pub fn observe_group(&self, name: &str, member: SocketAddr, from: Index) -> Wait<'_, Result<Group, JoinError>> {
        self.join_at(name.to_owned(), member, Aim::Observer(Some(from)))
    }

    fn join_at(&self, name: String, member: SocketAddr, aim: Aim) -> Wait<'_, Result<Group, JoinError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| self.join_until(name, member, aim, deadline))
    }

    async fn join_until(
        &self,
        name: String,
        member: SocketAddr,
        aim: Aim,
        deadline: Deadline,
    ) -> Result<Group, JoinError> {
        check(&name, aim)?;
        let (mut answers, mut backoff, stage) = (Answers::default(), Backoff::default(), Stage::default());
        let attempts = async {
            loop {
                match self.join_once(&name, member, (aim, &stage)).await {
                    Ok(group) => return Ok(group),
                    Err(Attempt::Failed(error)) => return Err(error),
                    Err(Attempt::NotYet(answer)) => {
                        if answers.note(answer.clone()) {
                            tracing::info!(group = name, "not joined yet, and requested again: {answer}");
                        }
                    }
                }
                backoff.pause().await;
            }
        };
        let joined = deadline.run(attempts).await;
        joined.unwrap_or_else(|| {
            if let Some(answer) = stage.reached() {
                // Answers to earlier attempts do not count.
                answers = Answers::default();
                answers.note(answer);
            } else if answers.is_empty() {
                let words = "it has not answered".to_owned();
                answers.note(Answer { from: Awaited::Address(member), words });
            }
            Err(deadline.passed(format!("group {name:?} was not joined"), answers).into())
        })
    }

    async fn join_once(&self, name: &str, member: SocketAddr, (aim, stage): (Aim, &Stage)) -> Result<Group, Attempt> {
        let contact = match self.connect_once(member).await {
            Ok(contact) => contact,
            Err(error) if error.is_final() => return Err(JoinError::from(error).into()),
            Err(error) => {
                let words = match error {
                    // The answer has the address already.
                    ConnectError::Link { failure, .. } => failure.to_string(),
                    error => error.to_string(),
                };
                return Err(Attempt::NotYet(Answer { from: Awaited::Address(member), words }));
            }
        };
        stage.reach(contact, "it received the request, and has not answered");
        let mut answer = self.ask_to_join(name, Some(contact), (aim, stage), &self.join_config).await?;
        let joined = self.answer_of(&mut answer).await;
        stage.clear();
        joined
    }

    /// Observes a group through a linked node, which knows it at this moment with its result or without; else the
    /// node's answer.
    pub(crate) async fn observe(&self, name: &str, contact: NodeId, from: Option<Index>) -> Result<Group, String> {
        let aim = (Aim::Observer(from), &Stage::default());
        let asked = self.ask_to_join(name, Some(contact), aim, &self.join_config).await;
        let answer = match asked {
            Ok(mut answer) => self.answer_of(&mut answer).await,
            Err(error) => Err(error.into()),
        };
        answer.map_err(|attempt| match attempt {
            Attempt::NotYet(answer) => answer.words,
            Attempt::Failed(JoinError::Refused { reason, .. } | JoinError::Gone { reason, .. }) => reason,
            Attempt::Failed(error) => error.to_string(),
        })
    }

    /// Asks a linked node for a group, or waits for anybody's invitation.
    pub(crate) async fn ask_to_join(
        &self,
        name: &str,
        contact: Option<NodeId>,
        (aim, stage): (Aim, &Stage),
        config: &GroupConfig,
    ) -> Result<Answered, JoinError> {
        check(name, aim)?;
        let (reply, answer) = oneshot::channel();
        let (name, config, stage) = (name.to_owned(), Box::new(config.clone()), stage.clone());
        self.mailbox.send(Command::Join { name, contact, aim, config, stage, reply }).await;
        Ok(answer)
    }

    /// Waits for the answer to [`ask_to_join`](Self::ask_to_join).
    pub(crate) async fn answer_of(&self, answer: &mut Answered) -> Result<Group, Attempt> {
        match answer.await {
            Ok(answer) => answer.map(|group| self.handle(group)),
            // The driver drops a reply only when it stops.
            Err(_) => Err(JoinError::from(self.closed().await).into()),
        }
    }
}

/// Rejects an aim that every peer's decoder would reject. Sending it would cost the link, which other groups share.
fn check(name: &str, aim: Aim) -> Result<(), JoinError> {
    match aim {
        _ if name.len() > GROUP_NAME_BYTES_MAX => Err(JoinError::NameTooLong),
        Aim::Observer(Some(from)) if from.0 > COUNTER_MAX => Err(JoinError::NoSuchIndex { from }),
        _ => Ok(()),
    }
}

/// A node that waits for an invitation. Dropping it withdraws.
#[derive(Debug)]
#[must_use = "nothing is joined until joined() is awaited"]
pub struct Joining {
    node: Node,
    name: String,
    answer: Answered,
    stage: Stage,
}

impl Joining {
    /// Returns once this node is on the ring. An invitation does not count if its creator is lost or gives up before
    /// the group exists, or creates the group without this node. A node that serves any creator uses
    /// [`Wait::without_timeout`].
    ///
    /// Cancel safe: dropped, it withdraws.
    ///
    /// # Errors
    /// The group was not joined, with the reason; or no invitation led to a group before the timeout
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]).
    pub fn joined(self) -> Wait<'static, Result<Group, JoinError>> {
        Wait::new(Some(self.node.mailbox.wait_timeout), move |deadline| self.joined_until(deadline))
    }

    async fn joined_until(self, deadline: Deadline) -> Result<Group, JoinError> {
        let Self { node, name, mut answer, stage } = self;
        let mut answers = Answers::default();
        let invitations = async {
            loop {
                match node.answer_of(&mut answer).await {
                    Ok(group) => return Ok(group),
                    Err(Attempt::Failed(error)) => return Err(error),
                    Err(Attempt::NotYet(from)) => drop(answers.note(from)),
                }
                stage.clear();
                answer = node.ask_to_join(&name, None, (Aim::Member, &stage), &node.join_config).await?;
            }
        };
        let joined = deadline.run(invitations).await;
        let what = || format!("group {name:?} was not joined, no invitation led to it");
        joined.unwrap_or_else(|| {
            if let Some(answer) = stage.reached() {
                answers.forget(answer.from);
                answers.note(answer);
            }
            Err(deadline.passed(what(), answers).into())
        })
    }
}
