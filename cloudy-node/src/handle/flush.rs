//! Waits for all own broadcasts.

use super::Group;
use crate::group::EndReason;
use crate::group::shared::wait_until;
use crate::wait::{Answers, Deadline, TimedOut, Wait};

/// The reason for which not all own broadcasts are known to be approved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The group closed first.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The timeout passed. The broadcasts may still be approved: call [`Group::flush`] again to wait longer.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl Group {
    /// Waits until every broadcast of this node up to the first poll is approved.
    ///
    /// Cancel safe: a dropped call withdraws no broadcast.
    ///
    /// # Errors
    /// The group closed first; or the timeout passed ([`NodeBuilder::wait_timeout`](crate::NodeBuilder::wait_timeout)
    /// or [`Wait::timeout`]), and broadcasts may still be approved. A [`Receipt`](crate::Receipt) reports the outcome
    /// of its broadcast.
    pub fn flush(&self) -> Wait<'_, Result<(), FlushError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| self.flush_until(deadline))
    }

    async fn flush_until(&self, deadline: Deadline) -> Result<(), FlushError> {
        let last = self.shared.lock().outbox.last();
        let flushed = wait_until(&self.shared.moved, || {
            let state = self.shared.lock();
            if state.approved >= last {
                return Some(Ok(()));
            }
            let ended = state.ended.clone().or(state.final_index.map(|_| EndReason::Final));
            ended.map(|reason| Err(reason.into()))
        });
        deadline.run(flushed).await.unwrap_or_else(|| {
            let unapproved = last.0.saturating_sub(self.shared.lock().approved.0);
            let what = format!(
                "{unapproved} broadcasts of this node in group {:?} were not approved (Group::status names the nodes that they wait for)",
                self.shared.name
            );
            Err(deadline.passed(what, Answers::default()).into())
        })
    }
}
