//! A command, from its submission to its response.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloudy_proto::MessageId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::envelope;
use super::error::ReplicaError;
use super::{Inner, Replica, StateMachine};
use crate::group::expiring::Turn;
use crate::group::shared::wait_until;
use crate::group::{EndReason, Receipt, ReceiptError};
use crate::handle::BroadcastError;
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// A command without a response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The command has no encoding: see what its `Serialize` does. Nothing was sent.
    #[error("the command cannot be encoded: {0}")]
    Encode(postcard::Error),
    /// The group did not accept the command. Nothing was sent.
    #[error(transparent)]
    NotAccepted(#[from] BroadcastError),
    /// The group did not accept the command in time. Nothing was sent, and it is applied nowhere.
    #[error(transparent)]
    NotSent(TimedOut),
    /// The replica is closed. Nothing was sent.
    #[error(transparent)]
    Closed(ReplicaError),
    /// The command is applied nowhere and never will be.
    #[error("command {} is rejected: the group ended before all members confirmed it; it is applied nowhere", .0.seq)]
    Rejected(MessageId),
    /// The command is applied, or will be; its response is not known, since this member continued from a snapshot that has
    /// its effect.
    #[error("command {} is applied; its response is not known here, since this member continued from a snapshot", .0.seq)]
    ResponseLost(MessageId),
    /// Whether the command is applied is not known here: it may be, now or later. Ask [`Replica::outcome`] for its id, here
    /// or at another member, before you submit it again.
    #[error("the outcome of command {} is unknown: {reason}; ask Replica::outcome for it before you submit it again", .id.seq)]
    Unknown {
        /// Its id.
        id: MessageId,
        /// Why the outcome is not known.
        reason: UnknownOutcome,
    },
}

/// Why the outcome of a command is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownOutcome {
    /// The wait for it ended.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The group ended at this node.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The replica was closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
}

/// Commands of this process that are not applied yet.
#[derive(Debug)]
pub(super) struct Submitted<R>(Mutex<HashMap<MessageId, oneshot::Sender<R>>>);

impl<R> Default for Submitted<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Submitted<R> {
    fn lock(&self) -> MutexGuard<'_, HashMap<MessageId, oneshot::Sender<R>>> {
        // A panic under the lock leaves the map readable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command of this process was applied.
    pub(super) fn respond(&self, id: MessageId, response: R) {
        if let Some(sender) = self.lock().remove(&id) {
            // Its submission may have been dropped.
            let _ = sender.send(response);
        }
    }
}

/// A command that was sent, until its submission returns.
struct Sent<'a, S: StateMachine> {
    inner: &'a Inner<S>,
    receipt: Receipt,
    response: oneshot::Receiver<S::Response>,
}

impl<S: StateMachine> Drop for Sent<'_, S> {
    fn drop(&mut self) {
        self.inner.submitted.lock().remove(&self.receipt.id());
    }
}

impl<S: StateMachine> Replica<S> {
    /// Submits a command and waits for its response: what this member's `apply` returned for it. It returns exactly once:
    /// the response, or an error that says whether the command may be applied ([`SubmitError`]).
    ///
    /// Commands that one task submits one after the other are applied in that order. Dropping it withdraws nothing that was
    /// sent: the command may still be applied.
    ///
    /// # Errors
    /// See [`SubmitError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn submit(&self, command: S::Command) -> Wait<'_, Result<S::Response, SubmitError>> {
        let payload = envelope::command(&command).map_err(SubmitError::Encode);
        let inner = &*self.inner;
        Wait::new(Some(inner.group.mailbox.wait_timeout), move |deadline| async move {
            let payload = payload?;
            let sent = deadline.run(inner.send(&payload)).await.unwrap_or_else(|| {
                let what = format!("group {:?} did not accept a command", inner.group.name());
                Err(SubmitError::NotSent(deadline.passed(what, Answers::default())))
            })?;
            inner.response(sent, deadline).await
        })
    }

    /// Submits a command that expires: if the group does not accept it within `expires_after`, it is withdrawn, and is and
    /// will be applied nowhere. That is certain, unlike after a time limit of [`submit`](Self::submit). A command that was
    /// sent in time is as any other: its outcome may be unknown. See
    /// [`Group::broadcast_within`](crate::Group::broadcast_within).
    ///
    /// Dropping it withdraws a command that was not sent; one that was sent may still be applied.
    ///
    /// ```no_run
    /// # async fn example<S: cloudy_node::StateMachine>(replica: cloudy_node::Replica<S>, pay: S::Command) {
    /// use std::time::Duration;
    ///
    /// use cloudy_node::{BroadcastError, SubmitError};
    ///
    /// match replica.submit_within(pay, Duration::from_secs(2)).await {
    ///     Ok(_) => println!("paid"),
    ///     Err(SubmitError::NotAccepted(BroadcastError::Expired { .. })) => println!("not paid, for certain"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`BroadcastError::Expired`] in [`SubmitError::NotAccepted`].
    pub fn submit_within(
        &self,
        command: S::Command,
        expires_after: Duration,
    ) -> Wait<'_, Result<S::Response, SubmitError>> {
        let payload = envelope::command(&command).map_err(SubmitError::Encode);
        let inner = &self.inner;
        Wait::new(Some(inner.group.mailbox.wait_timeout), move |deadline| async move {
            let payload = payload?;
            let sent = deadline.run(send_within(inner, &payload, expires_after)).await.unwrap_or_else(|| {
                let what = format!("group {:?} did not accept a command", inner.group.name());
                Err(SubmitError::NotSent(deadline.passed(what, Answers::default())))
            })?;
            inner.response(sent, deadline).await
        })
    }
}

/// Sends a command that expires.
async fn send_within<'a, S: StateMachine>(
    inner: &'a Arc<Inner<S>>,
    payload: &[u8],
    expires_after: Duration,
) -> Result<Sent<'a, S>, SubmitError> {
    let expired = || SubmitError::NotAccepted(BroadcastError::Expired { waited: expires_after });
    let started = Instant::now();
    tokio::time::timeout(expires_after, inner.takes_commands()).await.map_err(|_| expired())??;
    let (sender, response) = oneshot::channel();
    let noting = Arc::clone(inner);
    let note = move |id| drop(noting.submitted.lock().insert(id, sender));
    let left = expires_after.saturating_sub(started.elapsed());
    let receipt = tokio::select! {
        receipt = inner.group.broadcast_within_noting(payload, left, note) => match receipt {
            Err(BroadcastError::Expired { .. }) => return Err(expired()),
            receipt => receipt?,
        },
        reason = inner.closed() => return Err(SubmitError::Closed(reason)),
    };
    Ok(Sent { inner, receipt, response })
}

impl<S: StateMachine> Inner<S> {
    /// Sends a command as soon as the group accepts one and the state is near the result.
    async fn send(&self, payload: &[u8]) -> Result<Sent<'_, S>, SubmitError> {
        let mut turn = Turn::default();
        loop {
            self.takes_commands().await?;
            match self.try_send(payload, &mut turn) {
                Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => {
                    tokio::select! {
                        () = self.group.room_in(turn) => {}
                        reason = self.closed() => return Err(SubmitError::Closed(reason)),
                    }
                }
                answer => return Ok(answer?),
            }
        }
    }

    /// Returns once the state is near the result.
    async fn takes_commands(&self) -> Result<(), SubmitError> {
        wait_until(&self.caught_up, || (!self.is_behind() || self.close_reason().is_some()).then_some(())).await;
        self.close_reason().map_or(Ok(()), |reason| Err(SubmitError::Closed(reason)))
    }

    pub(super) fn is_behind(&self) -> bool {
        self.approved().0 - self.applied.borrow().0.min(self.approved().0) > self.config.behind_max
    }

    fn try_send(&self, payload: &[u8], turn: &mut Turn) -> Result<Sent<'_, S>, BroadcastError> {
        let (sender, response) = oneshot::channel();
        // Held over both, so that the command is not applied before it is listed.
        let mut submitted = self.submitted.lock();
        let receipt = self.group.try_broadcast_in(payload, turn)?;
        submitted.insert(receipt.id(), sender);
        Ok(Sent { inner: self, receipt, response })
    }

    async fn response(&self, mut sent: Sent<'_, S>, deadline: Deadline) -> Result<S::Response, SubmitError> {
        let id = sent.receipt.id();
        let answer = async {
            tokio::select! {
                biased;
                Ok(response) = &mut sent.response => return Ok(response),
                receipt = &mut sent.receipt => match receipt {
                    Ok(approval) => self.reached(approval.index).await.map_err(Into::into),
                    Err(ReceiptError::ApprovedLongAgo(_)) => Ok(()),
                    Err(ReceiptError::Rejected(_)) => return Err(SubmitError::Rejected(id)),
                    Err(ReceiptError::Unknown { reason, .. }) => Err(reason.into()),
                    Err(ReceiptError::Late { .. }) => unreachable!("the receipt has no limit"),
                },
                reason = self.closed() => Err(reason.into()),
            }
            .map_err(|reason| SubmitError::Unknown { id, reason })?;
            // Applied one by one, it was answered before the index was reached.
            sent.response.try_recv().map_err(|_| SubmitError::ResponseLost(id))
        };
        deadline.run(answer).await.unwrap_or_else(|| {
            let what =
                format!("command {} was not applied (Group::status says which node the group waits for)", id.seq);
            let reason = deadline.passed(what, Answers::default()).into();
            Err(SubmitError::Unknown { id, reason })
        })
    }
}
