//! Locks with fencing tokens.

use std::sync::Arc;
use std::time::Duration;

use super::clock::{self, Stopped, in_ms, now_ms};
use super::table::{Action, Command, Place, Table};
use crate::handle::Group;
use crate::replica::{ReadError, Replica, ReplicaError, SubmitError};
use crate::wait::{Answers, Deadline, TimedOut, Wait};
use cloudy_proto::{Index, NodeId};

/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;

/// A lock that was not acquired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The request was not answered. If its outcome is unknown and it is granted later, the lease ends by itself.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The replica is closed.
    #[error(transparent)]
    Closed(#[from] ReplicaError),
    /// Another request had the lock for the whole time. This one is withdrawn.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// Named locks of a group, granted in the order of requests. Clones are handles to the same ones. [`Locks::election`] makes an
/// election of it.
///
/// A lock is released by its guard, at the end of its lease unless the guard renews it, and when its member is evicted or
/// leaves. The guard renews it by itself.
///
/// # What a lock promises
///
/// At each index of the sequence a lock has one holder at most. A holder that is paused or cut off does not know that its
/// lock was granted to another: no lock service can prevent that. So give [`LockGuard::token`] to each resource that the
/// lock protects, and let the resource refuse a token that is smaller than one it has seen: tokens rise with each grant.
///
/// Leases end by agreed time: see the [module](super).
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use cloudy_node::recipes::Locks;
///
/// let locks = Locks::start(group).await?;
/// let guard = locks.acquire("backup", Duration::from_secs(10)).await?;
/// println!("write with token {}", guard.token());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Locks {
    replica: Replica<Table>,
    /// Stopped with the last handle.
    _ticks: Arc<Stopped>,
}

impl Locks {
    /// Starts the locks of a group, which must hold nothing else.
    ///
    /// Cancel safe: dropped, it has started nothing.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start(group: Group) -> Result<Self, ReplicaError> {
        let replica = Replica::start(group, Table::default()).await?;
        let tick = |now_ms| Command { now_ms, action: Action::Tick };
        let ticks = clock::tick(replica.clone(), Table::next_expiry_ms, tick);
        Ok(Self { replica, _ticks: Arc::new(Stopped::spawn(ticks)) })
    }

    /// Acquires a lock, after all requests that came before. The lease is the time after which the lock is released if its
    /// guard does not renew it; a few seconds are a good choice. Dropping it withdraws the request; one that was sent and has
    /// no index here yet may be granted, and its lease ends by itself.
    ///
    /// # Errors
    /// See [`LockError`]. The time limit is that of the node's other waits
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)) or [`Wait::timeout`].
    pub fn acquire(&self, name: impl Into<String>, lease: Duration) -> Wait<'_, Result<LockGuard, LockError>> {
        let name = name.into();
        Wait::new(Some(self.replica.group().mailbox.wait_timeout), move |deadline: Deadline| async move {
            let what = format!("another request had the lock {name:?}");
            let acquired = deadline.run(self.acquired(name, lease)).await;
            acquired.unwrap_or_else(|| Err(deadline.passed(what, Answers::default()).into()))
        })
    }

    /// The node that has a lock, and its fencing token, as all members know them: a linearizable read.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read_linearizable`].
    pub async fn holder(&self, name: &str) -> Result<Option<(NodeId, Index)>, ReadError> {
        self.replica.read_linearizable(|table| table.holder(name)).await
    }

    /// Returns once this member knows another holder of a lock than the given one, which is none for a free lock. Holders that
    /// follow each other quickly may come as one.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The replica is closed.
    pub async fn holder_changed(
        &self,
        name: &str,
        from: Option<(NodeId, Index)>,
    ) -> Result<Option<(NodeId, Index)>, ReplicaError> {
        let mut applied = self.replica.watch();
        loop {
            let holder = self.replica.read(|table| table.holder(name)).await?;
            if holder != from {
                return Ok(holder);
            }
            tokio::select! {
                _ = applied.changed() => {}
                reason = self.replica.closed() => return Err(reason),
            }
        }
    }

    async fn acquired(&self, name: String, lease: Duration) -> Result<LockGuard, LockError> {
        let lease_ms = in_ms(lease);
        loop {
            let mut applied = self.replica.watch();
            let action = Action::Acquire { name: name.clone(), lease_ms };
            let (ticket, _) = self.replica.submit(command(action)).without_timeout().await?;
            let (replica, is_released) = (self.replica.clone(), false);
            let request = Request { replica, name: name.clone(), ticket, is_released };
            loop {
                match self.replica.read(|table| table.place(&name, ticket)).await? {
                    Place::Granted(token) => return Ok(LockGuard::new(request, token, lease)),
                    Place::Waiting => {}
                    // This member was evicted meanwhile.
                    Place::Gone => break,
                }
                tokio::select! {
                    _ = applied.changed() => {}
                    reason = self.replica.closed() => return Err(reason.into()),
                }
            }
        }
    }
}

/// A lock that this process acquired. Dropping it releases the lock in the background.
#[derive(Debug)]
pub struct LockGuard {
    request: Request,
    token: Index,
    /// Stopped with the guard.
    _renewals: Stopped,
}

/// A request for a lock: withdrawn when dropped.
#[derive(Debug)]
struct Request {
    replica: Replica<Table>,
    name: String,
    ticket: Index,
    is_released: bool,
}

impl LockGuard {
    fn new(request: Request, token: Index, lease: Duration) -> Self {
        let renewals = renew(request.replica.clone(), request.name.clone(), request.ticket, lease);
        Self { request, token, _renewals: Stopped::spawn(renewals) }
    }

    /// The fencing token: it is higher than that of each earlier holder of this lock. Give it to each resource that the lock
    /// protects.
    #[must_use]
    pub fn token(&self) -> Index {
        self.token
    }

    /// Whether this member knows the lock as held by this guard. A member that is cut off does not know of its eviction:
    /// the token protects, this method saves work. Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub async fn is_held(&self) -> Result<bool, ReplicaError> {
        let Request { replica, name, ticket, .. } = &self.request;
        replica.read(|table| matches!(table.place(name, *ticket), Place::Granted(_))).await
    }

    /// Returns once this member learns that the lock is no longer held by this guard, or its replica is closed. Cancel safe.
    pub async fn lost(&self) {
        let mut applied = self.request.replica.watch();
        while self.is_held().await.unwrap_or(false) {
            tokio::select! {
                _ = applied.changed() => {}
                _ = self.request.replica.closed() => return,
            }
        }
    }

    /// Releases the lock, and returns once it is released. Dropped before, it is released in the background.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The release was not answered; the lease ends by itself.
    pub async fn release(mut self) -> Result<(), SubmitError> {
        let Request { replica, name, ticket, .. } = &self.request;
        let release = command(Action::Release { name: name.clone(), ticket: *ticket });
        replica.submit(release).await?;
        self.request.is_released = true;
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        let release = command(Action::Release { name: std::mem::take(&mut self.name), ticket: self.ticket });
        let replica = self.replica.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // If it is not answered, the lease ends by itself.
            runtime.spawn(async move { replica.submit(release).await.map(drop) });
        }
    }
}

/// Renews a lease until the lock is lost.
async fn renew(replica: Replica<Table>, name: String, ticket: Index, lease: Duration) {
    loop {
        // sleep: a part of the lease.
        tokio::time::sleep(lease / RENEWALS).await;
        let renewal = command(Action::Renew { name: name.clone(), ticket });
        match replica.submit(renewal).timeout(lease).await {
            Ok((_, Place::Granted(_))) | Err(SubmitError::Unknown { .. } | SubmitError::NotSent(_)) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn command(action: Action) -> Command {
    Command { now_ms: now_ms(), action }
}
