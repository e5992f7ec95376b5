//! Whether this node is an active member of its group.

use std::time::Duration;

use super::Group;
use crate::group::EndReason;
use crate::wait::{Answers, TimedOut, Wait};

/// Between two looks at the status: no event announces that a member is in reach again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A node that is no active member of its group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// This node observes the group, or created it without a place on the ring.
    #[error("this node has no place on the ring and is never an active member; join the group to become one")]
    Observes,
    /// The group ended at this node.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// It took too long. The node may still become an active member: call [`Group::ready`] again to wait longer.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl Group {
    /// Whether this node is an active member of the view in force, and has heard from every other member within the
    /// time that a living member may be silent ([`Status::is_current`](crate::Status::is_current)). False for a node
    /// that is evicted, cut off, joining or an observer.
    ///
    /// It is what this node knows at this moment, and no proof: a process that was paused, or was cut off a moment ago,
    /// may be evicted already and learn it after at most [`failure_timeout`](crate::Parameters::failure_timeout) of
    /// further silence. A read that must not return old state needs
    /// [`Replica::read_linearizable`](crate::Replica::read_linearizable).
    ///
    /// Cancel safe.
    pub async fn is_current(&self) -> bool {
        self.status().await.is_some_and(|status| status.is_current())
    }

    /// Waits until [`is_current`](Self::is_current) is true: after a restart or an eviction, for example, before the
    /// node is announced to a load balancer. It changes nothing, so it is cancel safe.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), cloudy_node::ReadyError> {
    /// use std::time::Duration;
    ///
    /// group.ready().timeout(Duration::from_secs(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The group ended here, this node is never a member, or it took too long
    /// ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout) or [`Wait::timeout`]).
    pub fn ready(&self) -> Wait<'_, Result<(), ReadyError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| async move {
            deadline.run(self.until_current()).await.unwrap_or_else(|| {
                let what = format!(
                    "this node is no active member of group {:?} (Group::status says which members it does not hear from)",
                    self.name()
                );
                Err(deadline.passed(what, Answers::default()).into())
            })
        })
    }

    async fn until_current(&self) -> Result<(), ReadyError> {
        loop {
            if let Some(reason) = self.shared.lock().ended.clone() {
                return Err(reason.into());
            }
            if self.shared.observes || self.shared.lock().only_watches {
                return Err(ReadyError::Observes);
            }
            if self.is_current().await {
                return Ok(());
            }
            // sleep: between two checks of a state that no event announces.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
