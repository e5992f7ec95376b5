//! Elections: a leader for each name.

use std::time::Duration;

use cloudy_proto::{Index, NodeId};

use super::locks::{LockError, LockGuard, Locks};
use crate::replica::{ReadError, ReplicaError, SubmitError};
use crate::wait::Wait;

/// The leader of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// Its node.
    pub node: NodeId,
    /// Its term: higher than that of each earlier leader.
    pub term: Index,
}

/// An election of one leader among the members that campaign: [`Locks::election`]. Clones are handles to the same one.
///
/// # Failure mode
///
/// At each index of the sequence there is one leader at most. A leader that is paused or cut off does not know that another
/// was elected, and may still act. So send [`Leadership::term`] with each action, and let the receiver refuse a term that is
/// lower than one it has seen.
///
/// ```no_run
/// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use cloudy_node::recipes::Locks;
///
/// let election = Locks::start(group).await?.election("scheduler", Duration::from_secs(5));
/// loop {
///     let leadership = election.campaign().without_timeout().await?;
///     println!("this node leads in term {}", leadership.term());
///     leadership.lost().await;
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Election {
    locks: Locks,
    name: String,
    lease: Duration,
}

impl Locks {
    /// The election of a name: its leader is the holder of the lock of that name. The lease is the time after which another
    /// is elected if the leader's process stops; a few seconds are a good choice. A leader whose member is evicted is
    /// replaced at once.
    #[must_use]
    pub fn election(&self, name: impl Into<String>, lease: Duration) -> Election {
        Election { locks: self.clone(), name: name.into(), lease }
    }
}

impl Election {
    /// Campaigns until this process leads, after all that campaigned before. Dropping it withdraws.
    ///
    /// # Errors
    /// As [`Locks::acquire`].
    pub fn campaign(&self) -> Wait<'_, Result<Leadership, LockError>> {
        self.locks.acquire(&self.name, self.lease).map(|acquired| acquired.map(Leadership))
    }

    /// The leader, as all members know it: a linearizable read.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read_linearizable`](crate::Replica::read_linearizable).
    pub async fn leader(&self) -> Result<Option<Leader>, ReadError> {
        let holder = self.locks.holder(&self.name).await?;
        Ok(holder.map(|(node, term)| Leader { node, term }))
    }

    /// Returns once this member knows another leader than the given one; none stands for no leader. Leaders that follow each
    /// other quickly may come as one.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The replica is closed.
    pub async fn changed(&self, from: Option<Leader>) -> Result<Option<Leader>, ReplicaError> {
        let from = from.map(|leader| (leader.node, leader.term));
        let holder = self.locks.holder_changed(&self.name, from).await?;
        Ok(holder.map(|(node, term)| Leader { node, term }))
    }
}

/// This process leads. Dropping it resigns in the background.
#[derive(Debug)]
pub struct Leadership(LockGuard);

impl Leadership {
    /// The term: higher than that of each earlier leader. Send it with each action.
    #[must_use]
    pub fn term(&self) -> Index {
        self.0.token()
    }

    /// Whether this member knows this process as the leader: see [`LockGuard::is_held`]. Cancel safe.
    ///
    /// # Errors
    /// As [`Replica::read`](crate::Replica::read).
    pub async fn is_held(&self) -> Result<bool, ReplicaError> {
        self.0.is_held().await
    }

    /// Returns once this member learns that this process no longer leads, or its replica is closed. Cancel safe.
    pub async fn lost(&self) {
        self.0.lost().await;
    }

    /// Resigns, and returns once another can lead. Dropped before, it resigns in the background.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The resignation was not answered; the lease ends by itself.
    pub async fn resign(self) -> Result<(), SubmitError> {
        self.0.release().await
    }
}
