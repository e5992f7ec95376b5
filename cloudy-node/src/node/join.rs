//! Coming to others: links, and groups that they create or run.

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

type Answered = oneshot::Receiver<Result<Arc<Shared>, Attempt>>;

impl Node {
    /// Dials an address until the link is up: who is there. A node that does not listen yet, or is out of reach, is dialled
    /// again.
    ///
    /// Dropped, it dials no further; a link that comes up all the same stays.
    ///
    /// # Errors
    /// The other side refuses, in words; or the link is not up in time ([`NodeBuilder::wait_timeout`] or
    /// [`Wait::timeout`]): the last failure.
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

    /// One attempt to dial an address, alone or beside others of the same name.
    pub(crate) async fn connect_beside(&self, address: SocketAddr, beside: bool) -> Result<NodeId, ConnectError> {
        self.mailbox.ask(|reply| Command::Connect { address, beside, reply }).await?
    }

    /// Waits for an invitation to a group of that name. While nobody waits, invitations are refused in words. A node that
    /// was a member of a running group of that name, and was started again with the same identity, comes back to it as
    /// soon as a member links to it.
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
        let answer = self.ask_to_join(name, None, (Aim::Member, &stage)).await?;
        Ok(Joining { node: self.clone(), name: name.to_owned(), answer, stage })
    }

    /// Asks the node at an address to take this node into a group: its founder, while it gathers members, or any node of
    /// a group that runs. Returns once this node is on the ring. It has the whole result, from index 1 on. A node that
    /// was a member before, and was started again with the same identity, comes back this way too.
    ///
    /// It asks again while the node at the address is not started or out of reach, does not know the group yet, or has not
    /// created it, or gives it up before it is created: neither start has to be the first. Dropped, it withdraws.
    ///
    /// # Errors
    /// The group does not take this one, in words; or it did not in time
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]):
    /// [`JoinError::TimedOut`] says what was answered last.
    pub fn join_group_at(&self, name: &str, member: SocketAddr) -> Wait<'_, Result<Group, JoinError>> {
        self.join_at(name.to_owned(), member, Aim::Member)
    }

    /// Reads along in a group that runs, from an index of its result on. If the result never grows as far, nothing is read,
    /// and [`Event::Final`](crate::Event::Final) names its length. Any node of the group can be asked. An observer takes no place on the ring, holds nobody up, and broadcasts nothing. Its
    /// [`Group::end`] ends the group like a member's.
    ///
    /// It asks again as [`Node::join_group_at`] does. Dropped, it withdraws.
    ///
    /// # Errors
    /// As [`Node::join_group_at`], or no result can have that index ([`JoinError::NoSuchIndex`]). Where the result is no longer retained from that index on, its readers are told by
    /// [`EndReason::Truncated`](crate::EndReason::Truncated) from where it is.
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
                            tracing::info!(group = name, "not joined yet, and asked again: {answer}");
                        }
                    }
                }
                backoff.pause().await;
            }
        };
        let joined = deadline.run(attempts).await;
        joined.unwrap_or_else(|| {
            if let Some(answer) = stage.reached() {
                // What earlier attempts were answered is over.
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
                    // The answer says where.
                    ConnectError::Link { failure, .. } => failure.to_string(),
                    error => error.to_string(),
                };
                return Err(Attempt::NotYet(Answer { from: Awaited::Address(member), words }));
            }
        };
        stage.reach(contact, "it was asked for the group, and has not answered");
        let answer = self.ask_to_join(name, Some(contact), (aim, stage)).await?;
        let joined = self.answer_of(answer).await;
        stage.clear();
        joined
    }

    /// Observes a group by a linked node of it, with its result or without, if that node knows it at this moment. Else its
    /// answer in words.
    pub(crate) async fn observe(&self, name: &str, contact: NodeId, from: Option<Index>) -> Result<Group, String> {
        let asked = self.ask_to_join(name, Some(contact), (Aim::Observer(from), &Stage::default())).await;
        let answer = match asked {
            Ok(answer) => self.answer_of(answer).await,
            Err(error) => Err(error.into()),
        };
        answer.map_err(|attempt| match attempt {
            Attempt::NotYet(answer) => answer.words,
            Attempt::Failed(JoinError::Refused { reason, .. } | JoinError::Gone { reason, .. }) => reason,
            Attempt::Failed(error) => error.to_string(),
        })
    }

    async fn ask_to_join(
        &self,
        name: &str,
        contact: Option<NodeId>,
        (aim, stage): (Aim, &Stage),
    ) -> Result<Answered, JoinError> {
        check(name, aim)?;
        let (reply, answer) = oneshot::channel();
        let (name, config, stage) = (name.to_owned(), Box::new(GroupConfig::clone(&self.join_config)), stage.clone());
        self.mailbox.send(Command::Join { name, contact, aim, config, stage, reply }).await;
        Ok(answer)
    }

    async fn answer_of(&self, answer: Answered) -> Result<Group, Attempt> {
        match answer.await {
            Ok(answer) => answer.map(|group| self.handle(group)),
            // The driver drops a reply only on its way to the end.
            Err(_) => Err(JoinError::from(self.closed().await).into()),
        }
    }
}

/// What every peer's decoder would refuse is refused here, before anything is sent: it would cost the link, which the
/// peers' other groups share.
fn check(name: &str, aim: Aim) -> Result<(), JoinError> {
    match aim {
        _ if name.len() > GROUP_NAME_BYTES_MAX => Err(JoinError::NameTooLong),
        Aim::Observer(Some(from)) if from.0 > COUNTER_MAX => Err(JoinError::NoSuchIndex { from }),
        _ => Ok(()),
    }
}

/// Somebody who waits to be invited. Dropping it withdraws.
#[derive(Debug)]
#[must_use = "nothing is joined until joined() is awaited"]
pub struct Joining {
    node: Node,
    name: String,
    answer: Answered,
    stage: Stage,
}

impl Joining {
    /// Returns once this node is on the ring. A creator that is lost or gives up before the group is created, or creates it
    /// without this node, has not invited it. A node that serves any creator waits [`Wait::without_timeout`].
    /// Dropped, it withdraws.
    ///
    /// # Errors
    /// The group was not joined, in words; or no invitation led to it in time
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]).
    pub fn joined(self) -> Wait<'static, Result<Group, JoinError>> {
        Wait::new(Some(self.node.mailbox.wait_timeout), move |deadline| self.joined_until(deadline))
    }

    async fn joined_until(self, deadline: Deadline) -> Result<Group, JoinError> {
        let Self { node, name, mut answer, stage } = self;
        let mut answers = Answers::default();
        let invitations = async {
            loop {
                match node.answer_of(answer).await {
                    Ok(group) => return Ok(group),
                    Err(Attempt::Failed(error)) => return Err(error),
                    Err(Attempt::NotYet(from)) => drop(answers.note(from)),
                }
                stage.clear();
                answer = node.ask_to_join(&name, None, (Aim::Member, &stage)).await?;
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
