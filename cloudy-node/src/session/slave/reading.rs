//! Reads the result, adds it up, and writes it to a file.

use std::future::pending;

use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Entry, GroupId, Index, Phase};
use tokio::sync::{oneshot, watch};
use tokio::task::consume_budget;

use super::outcome::SlaveError;
use crate::group::{Approved, ApprovedError, ApprovedItem, EndReason};
use crate::handle::Group;
use crate::session::numbers::{NotANumber, decode};
use crate::session::result_file::{ResultFile, ResultFileError};
use crate::session::sum::{Sum, Summary};

/// Counts of approved messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Approvals {
    pub(super) sum: Sum,
    /// Messages of this slave.
    pub(super) own: u64,
}

/// Reads the result to its end, and adds it up.
pub(super) async fn add_up(group: &Group, approvals: &watch::Sender<Approvals>) -> Result<(), SlaveError> {
    let mut approved = group.approved_from(Index(1));
    while let Some(item) = approved.next_batch().await {
        match item {
            Ok(ApprovedItem::Batch(entry)) => {
                let mut outcome = Ok(());
                approvals.send_modify(|approvals| outcome = approvals.take(group, entry));
                outcome?;
            }
            Ok(_) => {}
            Err(error) => return Err(no_result(group.id(), approvals.borrow().sum.count(), error)),
        }
        consume_budget().await;
    }
    Ok(())
}

impl Approvals {
    fn take(&mut self, group: &Group, entry: Entry) -> Result<(), SlaveError> {
        let next = self.sum.count() + 1;
        if entry.first_index.0 != next {
            return Err(SlaveError::Incomplete { read: next - 1, length: entry.first_index });
        }
        if entry.origin == group.node_id() {
            self.own += u64::from(entry.batch.count);
        }
        for payload in payload_slices(&entry.batch.body) {
            let number = decode(payload).map_err(|cause| {
                let index = self.sum.count() + 1;
                NotANumber { index, origin: entry.origin, cause }
            })?;
            self.sum.add(number);
        }
        Ok(())
    }
}

fn no_result(group: GroupId, approved: u64, error: ApprovedError) -> SlaveError {
    match error {
        ApprovedError::Lagged { resume_from } => SlaveError::Lagged { resume_from },
        ApprovedError::Unreadable { cause, .. } => cause.into(),
        ApprovedError::Ended(EndReason::Left) => SlaveError::Left { group, approved },
        ApprovedError::Ended(EndReason::Truncated { first }) => SlaveError::NotRetained { first },
        ApprovedError::Ended(reason) => SlaveError::Ended { reason },
    }
}

/// From SEND on, writes the result to the file as it grows, and its last line once there is a summary. It has a
/// separate reader, so that a slow disk does not delay the sum. `written` has its progress, and is dropped at its end.
pub(super) async fn write_down(
    group: &Group,
    file: Option<&mut ResultFile>,
    (mut phase, written): (watch::Receiver<Phase>, watch::Sender<u64>),
    summary: oneshot::Receiver<Summary>,
) -> Result<(), ResultFileError> {
    let Some(file) = file else { return Ok(()) };
    if phase.wait_for(|phase| *phase != Phase::Start).await.is_err() {
        // No task reads this.
        return Ok(());
    }
    file.begin().await?;
    follow(group.approved_from(Index(1)), file, &written).await?;
    match summary.await {
        Ok(summary) => file.finish(&summary).await,
        // The task without a summary reports the reason.
        Err(_) => pending().await,
    }
}

async fn follow(
    mut approved: Approved,
    file: &mut ResultFile,
    written: &watch::Sender<u64>,
) -> Result<(), ResultFileError> {
    loop {
        let item = tokio::select! {
            item = approved.next_batch() => item,
            error = file.keep_writing() => return Err(error),
        };
        match item {
            Some(Ok(ApprovedItem::Batch(entry))) => {
                let last_index = entry.last_index();
                file.append(entry).await?;
                written.send_replace(last_index.0);
            }
            Some(Ok(_)) => {}
            Some(Err(ApprovedError::Lagged { resume_from })) => {
                file.abandon().await?;
                return Err(ResultFileError::Lagged { path: file.path().to_owned(), resume_from });
            }
            // The reader that adds up finds the same, and reports it.
            Some(Err(ApprovedError::Unreadable { .. } | ApprovedError::Ended(_))) => return pending().await,
            None => return Ok(()),
        }
        consume_budget().await;
    }
}
