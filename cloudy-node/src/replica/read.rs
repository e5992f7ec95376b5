//! Reads of the state, and the barriers of linearizable reads.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloudy_proto::Index;
use tokio::sync::{Notify, oneshot};

use super::envelope;
use super::error::ReplicaError;
use super::{Inner, Replica, StateMachine};
use crate::group::{EndReason, ReceiptError};
use crate::handle::BroadcastError;
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// A linearizable read that returned nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The group did not confirm in time that the state is the newest: this node is evicted or cut off, or a member does
    /// not answer.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// This node cannot broadcast in the group, so it cannot find out whether its state is the newest.
    #[error(transparent)]
    CannotBroadcast(#[from] BroadcastError),
    /// The replica is closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
}

/// The index of a barrier, or why there is none.
type Barrier = Result<Index, ReadError>;

/// Readers that wait for a barrier that is not broadcast yet.
#[derive(Debug, Default)]
pub(super) struct Readers {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    readers: Vec<oneshot::Sender<Barrier>>,
    closed: bool,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic under the lock leaves the list readable.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader that the next barrier serves. A closed receiver says that the replica is closed.
    fn enter(&self) -> oneshot::Receiver<Barrier> {
        let (sender, barrier) = oneshot::channel();
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.readers.push(sender);
            self.arrived.notify_one();
        }
        barrier
    }

    /// All that wait, at least one. A reader that comes later waits for the next barrier.
    async fn take(&self) -> Vec<oneshot::Sender<Barrier>> {
        loop {
            let mut readers = std::mem::take(&mut self.lock().readers);
            readers.retain(|reader| !reader.is_closed());
            if !readers.is_empty() {
                return readers;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.readers.clear();
    }
}

/// Broadcasts a barrier for the readers that wait, one barrier after the other.
pub(super) async fn run<S: StateMachine>(inner: &Inner<S>) -> Infallible {
    loop {
        let readers = inner.readers.take().await;
        let barrier = inner.barrier().await;
        for reader in readers {
            // The reader may have given up.
            let _ = reader.send(barrier.clone());
        }
    }
}

impl<S: StateMachine> Replica<S> {
    /// Reads the state of this member: it has a prefix of the commands, possibly not the newest, and always those that this
    /// member answered. Waits only for the batch of commands that is applied at the moment. The closure must not block.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The state is unusable: its `apply` panicked, or it differs from the states of the other members.
    pub async fn read<R>(&self, read: impl FnOnce(&S) -> R) -> Result<R, ReplicaError> {
        self.inner.read(read).await
    }

    /// Reads a state that has every command that any member answered before this call, and every command that another
    /// linearizable read returned before it. The closure must not block.
    ///
    /// It costs a broadcast of one byte and its approval; reads that wait at the same time share one. A member that is
    /// evicted or cut off waits: it never returns old state. Dropping it changes nothing.
    ///
    /// # Errors
    /// See [`ReadError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn read_linearizable<'a, R, F>(&'a self, read: F) -> Wait<'a, Result<R, ReadError>>
    where
        R: Send + 'a,
        F: FnOnce(&S) -> R + Send + 'a,
    {
        let inner = &*self.inner;
        Wait::new(Some(inner.group.mailbox.wait_timeout), move |deadline: Deadline| async move {
            let newest = deadline.run(inner.newest()).await.unwrap_or_else(|| {
                let what = format!(
                    "group {:?} did not approve a barrier, so the state here may be old (Group::status says which node the group waits for)",
                    inner.group.name()
                );
                Err(deadline.passed(what, Answers::default()).into())
            });
            newest?;
            Ok(inner.read(read).await?)
        })
    }
}

impl<S: StateMachine> Inner<S> {
    async fn read<R>(&self, read: impl FnOnce(&S) -> R) -> Result<R, ReplicaError> {
        let core = self.core.read().await;
        match self.close_reason().filter(ReplicaError::spoils_state) {
            Some(reason) => Err(reason),
            None => Ok(read(&core.state)),
        }
    }

    /// Returns once the state has all that was answered anywhere before the call.
    async fn newest(&self) -> Result<(), ReadError> {
        let barrier = self.readers.enter();
        match barrier.await {
            Ok(barrier) => self.reached(barrier?).await.map_err(Into::into),
            // The final result is all that was ever answered.
            Err(_) => match self.closed().await {
                ReplicaError::Ended(EndReason::Final) => Ok(()),
                reason => Err(reason.into()),
            },
        }
    }

    /// The index of a barrier that is broadcast after the call.
    pub(super) async fn barrier(&self) -> Barrier {
        loop {
            let receipt = match self.group.broadcast(envelope::barrier()).await {
                Ok(receipt) => receipt,
                // The apply task closes the replica with it.
                Err(BroadcastError::Ended(_)) => return Err(self.closed().await.into()),
                Err(error) => return Err(error.into()),
            };
            match receipt.await {
                Ok(approval) => return Ok(approval.index),
                // It was approved, at an index that is not known here.
                Err(ReceiptError::ApprovedLongAgo(_)) => {}
                Err(_) => return Err(self.closed().await.into()),
            }
        }
    }
}
