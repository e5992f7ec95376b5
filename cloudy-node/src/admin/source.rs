//! Where requests get the status from: one question at a time to the driver, shared by all that ask.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::convert::{About, node_status};
use super::status::NodeStatus;
use crate::driver::snapshot::Snapshot;
use crate::driver::{Command, WeakMailbox};

/// A status of this age is returned again: so the driver is asked at most four times a second, for any number of
/// requests.
const FRESH_FOR: Duration = Duration::from_millis(250);
/// The driver answers within this time, or it does not turn.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The reason for which there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoStatus {
    #[error(
        "the driver of this node has not answered within {} s: the process is stopped, overloaded, or its runtime is blocked",
        ANSWER_WITHIN.as_secs()
    )]
    Late,
    #[error("this node is closed")]
    Closed,
}

type Answer = Result<Arc<NodeStatus>, NoStatus>;

/// The status of a node, from its driver.
pub(super) struct Source {
    about: About,
    mailbox: WeakMailbox,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    latest: Option<(Instant, Answer)>,
    /// A question without an answer: it is not asked again.
    open: Option<oneshot::Receiver<Snapshot>>,
}

impl Source {
    pub(super) fn new(about: About, mailbox: WeakMailbox) -> Self {
        Self { about, mailbox, asked: Mutex::default() }
    }

    /// The status. Requests at the same time get the same one.
    pub(super) async fn status(&self) -> Answer {
        let begun = Instant::now();
        let mut asked = self.asked.lock().await;
        if let Some((at, answer)) = &asked.latest
            && *at + FRESH_FOR > begun
        {
            return answer.clone();
        }
        let answer = match timeout(ANSWER_WITHIN, self.ask(&mut asked.open)).await {
            Ok(Some(snapshot)) => Ok(Arc::new(node_status(&self.about, snapshot))),
            Ok(None) => Err(NoStatus::Closed),
            Err(_) => Err(NoStatus::Late),
        };
        asked.latest = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Asks the driver, or waits for the answer to an earlier question; none if the node is closed.
    async fn ask(&self, open: &mut Option<oneshot::Receiver<Snapshot>>) -> Option<Snapshot> {
        if open.is_none() {
            let (reply, answer) = oneshot::channel();
            self.mailbox.upgrade()?.send(Command::Snapshot { reply }).await;
            *open = Some(answer);
        }
        let snapshot = open.as_mut()?.await.ok();
        *open = None;
        snapshot
    }
}
