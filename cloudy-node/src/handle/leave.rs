//! A member leaves its group by itself (`protocol.md` §6.8).

use std::time::Duration;

use cloudy_proto::LeaveWait;

use super::Group;
use crate::group::EndReason;
use crate::group::shared::wait_until;

/// How long [`Group::leave`] waits at most.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// A group that this node has not left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The group ended at this node in another way.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// It took too long. The node still leaves as soon as it can, and broadcasts nothing more.
    #[error("this node has not left the group within {waited:?}: {}", words(*unapproved, waits_for.as_ref()))]
    Late {
        /// How long was waited.
        waited: Duration,
        /// Own broadcasts that are not approved; the node leaves after them.
        unapproved: u64,
        /// What the node waits for once they are.
        waits_for: Option<LeaveWait>,
    },
}

fn words(unapproved: u64, waits_for: Option<&LeaveWait>) -> String {
    let wait = match (unapproved, waits_for) {
        (1.., _) => {
            format!("{unapproved} of its own broadcasts are not approved; Group::status says whom they wait for")
        }
        (0, Some(wait)) => wait.to_string(),
        (0, None) => "the node is busy".to_owned(),
    };
    format!("{wait}; call leave() again to wait longer, or shut the node down to go without handing over")
}

impl Group {
    /// Leaves the group for good, within [`LEAVE_TIMEOUT`]. See [`Group::leave_within`]. Cancel safe as that is.
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
    /// As [`Group::leave_within`].
    pub async fn leave(&self) -> Result<(), LeaveError> {
        self.leave_within(LEAVE_TIMEOUT).await
    }

    /// Leaves the group for good. From the call on this node broadcasts nothing more; it leaves once all that it broadcast
    /// is approved. Returns once a view without this node is in force, the control log says that it left, and others have
    /// taken over its vote and the coordination. All that was approved here is then at a member that stays. An evicted
    /// node, and one that is still joining, leaves as well; an observer leaves at once.
    ///
    /// The last member on the ring hands over to members that were evicted and follow the result again; while there are
    /// none, it waits. Leaving never ends a group for others: only the last of all members, once every other has left,
    /// ends it.
    ///
    /// Cancel safe: dropping the future withdraws nothing, and the node leaves as soon as it can.
    ///
    /// # Errors
    /// [`LeaveError::Late`] after `limit`, with what the node waits for: it stays a member until it can leave.
    /// [`Group::end`] ends the group for all instead. [`LeaveError::Ended`] if the group ended here otherwise.
    pub async fn leave_within(&self, limit: Duration) -> Result<(), LeaveError> {
        self.begin_leaving();
        let ended = wait_until(&self.shared.happened, || {
            let state = self.shared.lock();
            state.ended.clone().or(state.final_index.map(|_| EndReason::Final))
        });
        match tokio::time::timeout(limit, ended).await {
            Ok(EndReason::Left | EndReason::Final | EndReason::Closed) => Ok(()),
            Ok(reason) => Err(reason.into()),
            Err(_) => Err(self.late(limit).await),
        }
    }

    /// Nothing is broadcast, and the node leaves once all that was is approved.
    fn begin_leaving(&self) {
        self.shared.begin_leaving();
        self.mailbox.wake();
    }

    async fn late(&self, waited: Duration) -> LeaveError {
        let unapproved = {
            let state = self.shared.lock();
            state.outbox.last().0.saturating_sub(state.approved.0)
        };
        let waits_for = self.status().await.and_then(|status| status.leaving);
        LeaveError::Late { waited, unapproved, waits_for }
    }
}
