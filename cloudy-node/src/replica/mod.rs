//! A replicated state machine: commands with responses, linearizable reads, snapshots (`protocol.md` §7).

mod apply;
mod config;
mod envelope;
mod error;
mod machine;
mod read;
mod snapshot;
mod submit;
#[cfg(test)]
mod tests;
mod votes;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cloudy_proto::{Index, MessageId, Outcome};
use tokio::sync::{Notify, RwLock, mpsc, watch};

pub use config::{ReplicaConfig, SNAPSHOT_EVERY_BYTES};
pub use error::{ReplicaError, StateDivergence};
pub use machine::{Applied, MembersChanged, StateMachine};
pub use read::ReadError;
pub use submit::{SubmitError, UnknownOutcome};

use crate::group::EndReason;
use crate::handle::Group;

/// A state machine at one member of a group. Clones are handles to the same one; it is applied until the last is dropped.
///
/// - [`submit`](Self::submit) orders a command among those of all members, and returns its response.
/// - [`read`](Self::read) reads the state of this member: a prefix of the commands, possibly not the newest.
/// - [`read_linearizable`](Self::read_linearizable) also sees each command that was answered anywhere before the call.
///
/// All payloads of the group must come from replicas of the same state machine; use a group of its own for it.
///
/// # A slow state machine
///
/// `apply`, `snapshot` and `restore` run on tokio's threads for blocking work, so the node approves messages meanwhile.
/// A member whose `apply` is slower than the group delays no other member:
///
/// - its `submit` waits while the state is more than [`ReplicaConfig::behind_max`] messages behind the result here;
/// - its reader falls back to the disk (`Disk`) or to a newer snapshot; without either, once
///   [`retain_bytes`](crate::GroupConfig::retain_bytes) of the result are ahead of the state, the replica stops with
///   [`ReplicaError::Lagged`].
///
/// # Example
///
/// ```
/// use std::io::{self, Read, Write};
///
/// use cloudy_node::{Applied, ClusterKey, GroupConfig, Node, Replica, StateMachine};
///
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     type Command = u64;
///     type Response = u64;
///
///     fn apply(&mut self, _at: Applied, add: u64) -> u64 {
///         self.0 = self.0.wrapping_add(add);
///         self.0
///     }
///
///     fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
///         to.write_all(&self.0.to_le_bytes())
///     }
///
///     fn restore(from: &mut dyn Read) -> io::Result<Self> {
///         let mut bytes = [0; 8];
///         from.read_exact(&mut bytes)?;
///         Ok(Self(u64::from_le_bytes(bytes)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().cluster_key(&ClusterKey::generate()?).start().await?;
/// let group = node.create_group("counter", 1, GroupConfig::default()).await?;
/// let counter = Replica::start(group, Counter::default()).await?;
/// assert_eq!(counter.submit(3).await?, 3);
/// assert_eq!(counter.submit(4).await?, 7);
/// assert_eq!(counter.read_linearizable(|counter| counter.0).await?, 7);
/// # Ok(())
/// # }
/// ```
pub struct Replica<S: StateMachine> {
    inner: Arc<Inner<S>>,
    /// Closed with the last handle.
    alive: mpsc::Sender<()>,
}

/// The state and what the replica keeps with it, after an index.
#[derive(Debug)]
struct Core<S> {
    state: S,
    header: snapshot::Header,
    index: Index,
}

/// The data that the handles share with the tasks.
struct Inner<S: StateMachine> {
    group: Group,
    config: ReplicaConfig,
    core: RwLock<Core<S>>,
    /// Rises when a batch was applied.
    applied: watch::Sender<Index>,
    /// Set once.
    closed: watch::Sender<Option<ReplicaError>>,
    submitted: submit::Submitted<S::Response>,
    readers: read::Readers,
    /// The state is near the result again.
    caught_up: Notify,
    reports: Mutex<Reports>,
}

/// Problems that did not stop the replica.
#[derive(Clone, Debug, Default)]
struct Reports {
    snapshot: Option<Index>,
    snapshot_error: Option<String>,
    divergence: Option<StateDivergence>,
}

/// The state of a replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The index of the last message that the state has.
    pub applied: Index,
    /// The index of the last message that is approved at this node.
    pub approved: Index,
    /// Payloads that were no commands of the application; all members skip the same. More than zero says that members run
    /// different versions, or that the group is used for something else as well.
    pub skipped: u64,
    /// The index of the newest snapshot that was taken here.
    pub snapshot: Option<Index>,
    /// Why the newest attempt to take a snapshot failed. The replica continues; more of the result is retained meanwhile.
    pub snapshot_error: Option<String>,
    /// Members whose state differs from this node's, though a majority agrees with this node.
    pub divergence: Option<StateDivergence>,
}

impl<S: StateMachine> Replica<S> {
    /// Starts to apply the group's commands: from the newest snapshot here, or from index 1 on and the given state, which
    /// must be the same at all members.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// The snapshot cannot be restored.
    pub async fn start(group: Group, state: S) -> Result<Self, ReplicaError> {
        Self::start_with(group, state, ReplicaConfig::default()).await
    }

    /// As [`Replica::start`], with a configuration.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// The snapshot cannot be restored.
    pub async fn start_with(group: Group, state: S, config: ReplicaConfig) -> Result<Self, ReplicaError> {
        let core = match apply::restored_after(&group, Index(0)).await? {
            Some(core) => core,
            None => Core { state, header: snapshot::Header::default(), index: Index(0) },
        };
        let inner = Arc::new(Inner {
            group,
            config,
            applied: watch::Sender::new(core.index),
            core: RwLock::new(core),
            closed: watch::Sender::new(None),
            submitted: submit::Submitted::default(),
            readers: read::Readers::default(),
            caught_up: Notify::new(),
            reports: Mutex::default(),
        });
        let (alive, handles) = mpsc::channel(1);
        tokio::spawn(run(Arc::clone(&inner), handles));
        Ok(Self { inner, alive })
    }

    /// The group beneath, for all that is not about commands.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// The index of the last message that the state has, and its changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Index> {
        self.inner.applied.subscribe()
    }

    /// Returns once no further command is applied here: why. Cancel safe.
    pub async fn closed(&self) -> ReplicaError {
        self.inner.closed().await
    }

    /// The outcome of a command whose submission ended with an unknown outcome: as [`Group::outcome`].
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The group ended at this node.
    pub async fn outcome(&self, id: MessageId) -> Result<Outcome, EndReason> {
        self.inner.group.outcome(id).await
    }

    /// The progress of the replica and its reports. Waits for the command that is applied at the moment. Cancel safe.
    pub async fn status(&self) -> ReplicaStatus {
        let (applied, skipped) = {
            let core = self.inner.core.read().await;
            (core.index, core.header.skipped)
        };
        let Reports { snapshot, snapshot_error, divergence } = self.inner.reports().clone();
        let approved = self.inner.approved();
        ReplicaStatus { applied, approved, skipped, snapshot, snapshot_error, divergence }
    }
}

impl<S: StateMachine> Inner<S> {
    fn reports(&self) -> std::sync::MutexGuard<'_, Reports> {
        // A panic under the lock leaves every field readable.
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last index that is approved at this node.
    fn approved(&self) -> Index {
        self.group.shared.lock().feed.last_index()
    }

    /// Why the replica is closed, if it is.
    fn close_reason(&self) -> Option<ReplicaError> {
        self.closed.borrow().clone()
    }

    /// Closes the replica. The first reason counts.
    fn close(&self, reason: ReplicaError) -> ReplicaError {
        self.closed.send_modify(|closed| {
            closed.get_or_insert_with(|| reason.clone());
        });
        reason
    }

    async fn closed(&self) -> ReplicaError {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        // The sender lives as long as this handle to it.
        reason.ok().and_then(|reason| reason.clone()).unwrap_or(ReplicaError::Dropped)
    }

    /// Returns once the state has a message.
    async fn reached(&self, index: Index) -> Result<(), ReplicaError> {
        let mut applied = self.applied.subscribe();
        tokio::select! {
            biased;
            // The sender lives as long as this handle to it.
            _ = applied.wait_for(|applied| *applied >= index) => Ok(()),
            reason = self.closed() => Err(reason),
        }
    }
}

/// Applies, and serves barriers, until the replica is closed or has no handle.
async fn run<S: StateMachine>(inner: Arc<Inner<S>>, mut handles: mpsc::Receiver<()>) {
    let reason = tokio::select! {
        reason = apply::run(&inner) => reason,
        never = read::run(&inner) => match never {},
        _ = handles.recv() => ReplicaError::Dropped,
    };
    if reason.spoils_state() || matches!(reason, ReplicaError::Lagged { .. } | ReplicaError::Restore { .. }) {
        tracing::error!(group = inner.group.name(), %reason, "a replica stopped");
    }
    inner.close(reason);
    inner.caught_up.notify_waiters();
    inner.readers.close();
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), alive: self.alive.clone() }
    }
}

impl<S: StateMachine> fmt::Debug for Replica<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("group", &self.inner.group.name())
            .field("applied", &*self.inner.applied.borrow())
            .field("closed", &self.inner.close_reason())
            .finish_non_exhaustive()
    }
}
