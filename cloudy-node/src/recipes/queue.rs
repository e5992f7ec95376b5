//! A queue of tasks for workers at all members.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use bytes::Bytes;
use cloudy_proto::{Index, MessageId};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::snapshot;
use crate::handle::Group;
use crate::replica::{Applied, MembersChanged, Replica, ReplicaError, StateMachine, SubmitError};
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// A task that was not claimed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A command was not answered.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The replica is closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
    /// There was no task for the whole time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// A queue of tasks, the same at all members of a group. Clones are handles to the same one.
///
/// A worker [claims](Self::claim) the oldest task that no other worker has, works on it, and [finishes](Claim::finish) it.
/// The task returns to its place if the claim is dropped, and if the member of the worker is evicted or leaves. So each task
/// is worked on at least once, and two workers may have it at the same time: a worker that is paused or cut off does not
/// know that its task was given to another. [`Claim::token`] is a fencing token against this: see
/// [`LockGuard::token`](super::LockGuard::token).
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use cloudy_node::recipes::Queue;
///
/// let queue = Queue::start(group).await?;
/// queue.push("resize image 7").await?;
/// let claim = queue.claim().await?;
/// println!("work on {:?}", claim.task());
/// claim.finish().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Queue(Replica<Tasks>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tasks {
    /// By the index that pushed them.
    tasks: BTreeMap<Index, Bytes>,
    /// The tasks that no worker has claimed.
    free: BTreeSet<Index>,
    /// By the command that claimed them.
    claimed: BTreeMap<MessageId, Index>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Push(Bytes),
    Claim,
    Finish(MessageId),
    Return(MessageId),
}

/// The index of a command, and what it did.
#[derive(Debug)]
struct Answer {
    at: Applied,
    /// The task that was claimed.
    task: Option<Bytes>,
    /// The claim was held.
    held: bool,
}

impl Tasks {
    /// Takes a claim back.
    fn give_back(&mut self, claim: MessageId) -> bool {
        let task = self.claimed.remove(&claim);
        self.free.extend(task);
        task.is_some()
    }
}

impl StateMachine for Tasks {
    type Command = Command;
    type Response = Answer;

    fn apply(&mut self, at: Applied, command: Command) -> Answer {
        let mut answer = Answer { at, task: None, held: false };
        match command {
            Command::Push(task) => {
                self.tasks.insert(at.index, task);
                self.free.insert(at.index);
            }
            Command::Claim => {
                if let Some(task) = self.free.pop_first() {
                    self.claimed.insert(at.id, task);
                    answer.task = self.tasks.get(&task).cloned();
                }
            }
            Command::Finish(claim) => {
                let task = self.claimed.remove(&claim);
                answer.held = task.is_some_and(|task| self.tasks.remove(&task).is_some());
            }
            Command::Return(claim) => answer.held = self.give_back(claim),
        }
        answer
    }

    fn members_changed(&mut self, change: &MembersChanged) {
        let gone: Vec<_> = self.claimed.keys().filter(|claim| change.left.contains(&claim.origin)).copied().collect();
        gone.into_iter().for_each(|claim| {
            self.give_back(claim);
        });
    }

    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
        snapshot::write(self, to)
    }

    fn restore(from: &mut dyn Read) -> io::Result<Self> {
        snapshot::read(from)
    }
}

impl Queue {
    /// Starts the queue of a group, which must hold nothing else.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        Replica::start(group, Tasks::default()).await.map(Self)
    }

    /// Appends a task, and returns its index. Dropping it withdraws nothing that was sent.
    ///
    /// # Errors
    /// As [`Replica::submit`].
    pub fn push(&self, task: impl Into<Bytes>) -> Wait<'_, Result<Index, SubmitError>> {
        self.0.submit(Command::Push(task.into())).map(|answer| answer.map(|answer| answer.at.index))
    }

    /// Claims the oldest task that no worker has, as soon as there is one. Dropping it returns a task that was claimed.
    ///
    /// # Errors
    /// See [`ClaimError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn claim(&self) -> Wait<'_, Result<Claim, ClaimError>> {
        Wait::new(Some(self.0.group().mailbox.wait_timeout), move |deadline: Deadline| async move {
            deadline.run(self.claimed()).await.unwrap_or_else(|| {
                let what = format!("there was no free task in the queue {:?}", self.0.group().name());
                Err(deadline.passed(what, Answers::default()).into())
            })
        })
    }

    /// How many tasks this member knows: those that no worker has, and all.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn counts(&self) -> Result<(usize, usize), ReplicaError> {
        self.0.read(|tasks| (tasks.free.len(), tasks.tasks.len())).await
    }

    async fn claimed(&self) -> Result<Claim, ClaimError> {
        loop {
            let mut applied = self.0.watch();
            if self.0.read(|tasks| !tasks.free.is_empty()).await? {
                let (sender, claim) = oneshot::channel();
                // In a task: a claim whose caller is gone has to be returned.
                tokio::spawn(submit_claim(self.0.clone(), sender));
                match claim.await {
                    Ok(claim) => match claim? {
                        Some(claim) => return Ok(claim),
                        // Another worker was first.
                        None => continue,
                    },
                    Err(_) => return Err(self.0.closed().await.into()),
                }
            }
            tokio::select! {
                _ = applied.changed() => {}
                reason = self.0.closed() => return Err(reason.into()),
            }
        }
    }
}

/// Claims a task; the claim is returned if its caller is gone.
async fn submit_claim(replica: Replica<Tasks>, answer: oneshot::Sender<Result<Option<Claim>, SubmitError>>) {
    let claimed = replica.submit(Command::Claim).without_timeout().await;
    let claimed = match claimed {
        Ok(Answer { at, task, .. }) => Ok(task.map(|task| Claim { replica, at, task, is_over: false })),
        Err(SubmitError::ResponseLost(id)) => {
            give_back(replica, id);
            Err(SubmitError::ResponseLost(id))
        }
        Err(error) => Err(error),
    };
    // Dropped with what it holds.
    let _ = answer.send(claimed);
}

fn give_back(replica: Replica<Tasks>, claim: MessageId) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // If it is not answered, this member is gone, and the task returns with its eviction.
        runtime.spawn(async move { replica.submit(Command::Return(claim)).without_timeout().await.map(drop) });
    }
}

/// A task that a worker of this process has. Dropped, it returns to the queue.
#[derive(Debug)]
pub struct Claim {
    replica: Replica<Tasks>,
    at: Applied,
    task: Bytes,
    is_over: bool,
}

impl Claim {
    /// The task, as it was pushed.
    #[must_use]
    pub fn task(&self) -> &Bytes {
        &self.task
    }

    /// The fencing token: the index of the claim. A later claim of the same task has a higher one.
    #[must_use]
    pub fn token(&self) -> Index {
        self.at.index
    }

    /// Removes the task from the queue. False if the task was taken from this worker before, because its member was evicted:
    /// another worker has it, or will have it. Dropped before it is ready, it removes the task or returns it.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The command was not answered; the task may be removed, or returns to the queue.
    pub async fn finish(mut self) -> Result<bool, SubmitError> {
        let finished = self.replica.submit(Command::Finish(self.at.id)).await?;
        self.is_over = true;
        Ok(finished.held)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_over {
            give_back(self.replica.clone(), self.at.id);
        }
    }
}
