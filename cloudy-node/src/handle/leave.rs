//! A member leaves its group by itself (`protocol.md` §6.8).

use std::time::Duration;

use cloudy_proto::{LeaveWait, NodeId};

use super::Group;
use crate::group::EndReason;
use crate::group::shared::{Departs, wait_until};

/// The timeout of [`Group::leave`].
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The minimum time between two checks of the condition that a leaving node waits for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a node tries to leave ([`Group::leave_with`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaveLimits {
    /// The timeout of the call. Default [`LEAVE_TIMEOUT`].
    pub timeout: Duration,
    /// The time for which the last member waits while no other node that could take over gives a sign of life. Default
    /// 5 s.
    pub heir_timeout: Duration,
}

impl Default for LeaveLimits {
    fn default() -> Self {
        Self { timeout: LEAVE_TIMEOUT, heir_timeout: Duration::from_secs(5) }
    }
}

impl LeaveLimits {
    cloudy_proto::setters! {
        timeout: Duration,
        heir_timeout: Duration,
    }
}

/// The reason for which this node has not left a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The group closed at this node in another way.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The timeout passed. The node broadcasts nothing else, and leaves as soon as it can.
    #[error("this node has not left the group within {waited:?}: {}", words(*unapproved, waits_for.as_ref()))]
    Late {
        /// The timeout.
        waited: Duration,
        /// Number of own broadcasts that are not approved; the node leaves after them.
        unapproved: u64,
        /// The condition that the node waits for after these.
        waits_for: Option<LeaveWait>,
    },
    /// This node is the last member, and the evicted members gave no sign of life: none of them can take over. They are
    /// dead or cut off, which looks the same from here. The node broadcasts nothing else, and leaves as soon as it can. It
    /// may be shut down: it loses nothing that a node in reach has.
    #[error(
        "this node is the last member of the group, and none of the evicted members has given a sign of life for {waited:?}: {}; start one of them again to hand over to it, or shut the node down: a group in memory is lost then, and a group on disk continues when this node starts again",
        names(evicted)
    )]
    NoHeir {
        /// The members that could take over.
        evicted: Vec<NodeId>,
        /// How long this node has waited for a sign of life.
        waited: Duration,
    },
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::short).collect::<Vec<_>>().join(", ")
}

fn words(unapproved: u64, waits_for: Option<&LeaveWait>) -> String {
    let wait = match (unapproved, waits_for) {
        (1.., _) => {
            format!(
                "{unapproved} of its own broadcasts are not approved; Group::status names the nodes that they wait for"
            )
        }
        (0, Some(wait)) => wait.to_string(),
        (0, None) => "the node is busy".to_owned(),
    };
    format!("{wait}; call leave() again to wait longer, or shut the node down to leave without handing over")
}

impl Group {
    /// Leaves the group for good, with a timeout of [`LEAVE_TIMEOUT`]; see [`Group::leave_within`]. Cancel safe in the
    /// same way.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
    /// group.flush().await?;
    /// group.leave().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`Group::leave_within`].
    pub async fn leave(&self) -> Result<(), LeaveError> {
        self.leave_within(LEAVE_TIMEOUT).await
    }

    /// Leaves the group for good, with a timeout. From this call on the node broadcasts nothing, and it leaves once all
    /// its broadcasts are approved.
    ///
    /// Returns once a view without this node is in force, the control log records that it left, and other nodes have
    /// its vote and the coordination. A remaining member then has everything that was approved here. An evicted or
    /// joining node can leave as well; an observer leaves at once.
    ///
    /// The last member on the ring hands over to evicted members that follow the result again, and waits while there
    /// are none. A node that leaves does not close the group, unless all other members have left already.
    ///
    /// Cancel safe: if the future is dropped, the node still leaves as soon as it can.
    ///
    /// # Errors
    /// [`LeaveError::Late`] after `limit`, with the condition that the node waits for: it remains a member until it can
    /// leave. [`LeaveError::NoHeir`] at the last member, if no evicted one gives a sign of life. [`LeaveError::Ended`] if
    /// the group closed here in another way. [`Group::end`] closes the group for all members instead.
    pub async fn leave_within(&self, limit: Duration) -> Result<(), LeaveError> {
        self.leave_with(LeaveLimits::default().timeout(limit)).await
    }

    /// Leaves the group for good, like [`Group::leave_within`], with both of its timeouts. Cancel safe in the same way.
    ///
    /// # Errors
    /// The errors of [`Group::leave_within`].
    pub async fn leave_with(&self, limits: LeaveLimits) -> Result<(), LeaveError> {
        self.begin_leaving();
        let ended = wait_until(&self.shared.happened, || {
            let state = self.shared.lock();
            state.ended.clone().or(state.final_index.map(|_| EndReason::Final))
        });
        tokio::select! {
            biased;
            ended = tokio::time::timeout(limits.timeout, ended) => match ended {
                Ok(EndReason::Left | EndReason::Final | EndReason::Closed) => Ok(()),
                Ok(reason) => Err(reason.into()),
                Err(_) => Err(self.late(limits.timeout).await),
            },
            lone = self.without_heir(limits.heir_timeout) => Err(lone),
        }
    }

    /// Returns once no node that could take over from the last member has given a sign of life for so long. Cancel safe.
    async fn without_heir(&self, limit: Duration) -> LeaveError {
        let mut pause = limit;
        loop {
            // sleep: silence is no event.
            tokio::time::sleep(pause).await;
            let waits_for = self.status().await.and_then(|status| status.leaving);
            let Some(LeaveWait::Heir { evicted, silent_for }) = waits_for else {
                pause = LOOK_EVERY;
                continue;
            };
            if silent_for >= limit {
                return LeaveError::NoHeir { evicted, waited: silent_for };
            }
            pause = (limit - silent_for).max(LOOK_EVERY);
        }
    }

    /// Stops broadcasts: the node leaves once its broadcasts are approved.
    fn begin_leaving(&self) {
        self.shared.depart(Departs::Leaves);
        self.mailbox.wake();
    }

    async fn late(&self, waited: Duration) -> LeaveError {
        let (unapproved, waits_for) = self.departure().await;
        LeaveError::Late { waited, unapproved, waits_for }
    }

    /// The number of own broadcasts that are not approved, and the condition that a departing node waits for after them.
    pub(super) async fn departure(&self) -> (u64, Option<LeaveWait>) {
        let unapproved = {
            let state = self.shared.lock();
            state.outbox.last().0.saturating_sub(state.approved.0)
        };
        (unapproved, self.status().await.and_then(|status| status.leaving))
    }
}
