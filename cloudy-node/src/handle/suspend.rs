//! A member stops and returns later (`protocol.md` §6.8).

use std::time::Duration;

use cloudy_proto::LeaveWait;

use super::Group;
use crate::group::EndReason;
use crate::group::shared::{Departs, SUSPEND_TIMEOUT, wait_until};

/// The reason for which the other members do not know that this node stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// The group closed at this node in another way.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The timeout passed. The node broadcasts nothing else, and is suspended as soon as the group allows it.
    #[error(
        "the group does not continue without this node within {waited:?} ({}): shut the node down all the same; the others then wait for the failure timeout, or until it is back",
        words(*unapproved, waits_for.as_ref())
    )]
    Late {
        /// The timeout.
        waited: Duration,
        /// Number of own broadcasts that are not approved.
        unapproved: u64,
        /// The condition that the node waits for after these.
        waits_for: Option<LeaveWait>,
    },
}

fn words(unapproved: u64, waits_for: Option<&LeaveWait>) -> String {
    match (unapproved, waits_for) {
        (1.., _) => format!("{unapproved} of its own broadcasts are not approved"),
        (0, Some(wait)) => wait.to_string(),
        (0, None) => "the node is busy".to_owned(),
    }
}

impl Group {
    /// Stops the group at this node, which will return: the other members continue at once, without a timeout. The
    /// group continues here when the node is started again: from its data directory with `Disk`, as a newcomer with
    /// `Memory`. [`Node::shutdown`](crate::Node::shutdown) does the same for all groups; [`Group::leave`] is for good.
    ///
    /// Returns once all broadcasts of this node are approved and a view without it is in force: within
    /// [`SUSPEND_TIMEOUT`], in which the handle broadcasts nothing else. The group remembers the node as a former member
    /// that has not left, and nothing delays its return. Another node has its vote and the coordination meanwhile. A
    /// member that is alone is suspended at once. The node keeps its place where the ring would be smaller than
    /// [`ring_min`](crate::Parameters::ring_min) without it.
    ///
    /// Cancel safe: if the future is dropped, the node is still suspended as soon as it can be.
    ///
    /// ```no_run
    /// # async fn example(node: cloudy_node::Node, group: cloudy_node::Group) {
    /// if let Err(error) = group.suspend().await {
    ///     eprintln!("{error}");
    /// }
    /// node.shutdown().await;
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SuspendError::Late`] after [`SUSPEND_TIMEOUT`], with the condition that the node waits for.
    /// [`SuspendError::Ended`] if the group closed here in another way. Both leave nothing to undo: shut the node down.
    pub async fn suspend(&self) -> Result<(), SuspendError> {
        self.shared.depart(Departs::Suspends);
        self.mailbox.wake();
        let ended = wait_until(&self.shared.happened, || {
            let state = self.shared.lock();
            state.ended.clone().or(state.final_index.map(|_| EndReason::Final))
        });
        match tokio::time::timeout(SUSPEND_TIMEOUT, ended).await {
            Ok(EndReason::Suspended | EndReason::Final | EndReason::Closed) => Ok(()),
            Ok(reason) => Err(reason.into()),
            Err(_) => {
                let (unapproved, waits_for) = self.departure().await;
                Err(SuspendError::Late { waited: SUSPEND_TIMEOUT, unapproved, waits_for })
            }
        }
    }
}
