//! The health of a node: a task or thread that fails stops the node, and every wait ends with its name.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A task or thread of a node that failed because of a defect, and stopped the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node stopped because its {part} failed: {cause}; this is a defect: restart the process and report it")]
pub struct NodeFailure {
    part: &'static str,
    cause: String,
}

impl NodeFailure {
    /// The name of the task or thread.
    #[must_use]
    pub fn part(&self) -> &'static str {
        self.part
    }

    /// The cause, with the message of a panic.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

/// The reason for which a node is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The node was shut down, or its runtime was.
    #[error("this node was shut down")]
    ShutDown,
    /// A task or thread of the node failed.
    #[error(transparent)]
    Failed(#[from] NodeFailure),
}

#[derive(Debug, Default)]
struct State {
    failure: Option<NodeFailure>,
    closed: Option<CloseReason>,
    #[cfg(feature = "fault")]
    panics_in: Option<&'static str>,
}

/// The health of a node, shared by its handles, tasks and threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<watch::Sender<State>>);

impl Health {
    /// Notes that a part of the node cannot continue. The first failure counts.
    pub(crate) fn fail(&self, part: &'static str, cause: String) {
        tracing::error!(part, cause, "a part of this node failed, and the node stops");
        self.0.send_modify(|state| {
            state.failure.get_or_insert(NodeFailure { part, cause });
        });
    }

    /// Notes that the node is closed, and returns the reason that all handles report. The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) -> CloseReason {
        self.0.send_modify(|state| {
            state.closed.get_or_insert(reason);
        });
        self.close_reason().unwrap_or(CloseReason::ShutDown)
    }

    pub(crate) fn failure(&self) -> Option<NodeFailure> {
        self.0.borrow().failure.clone()
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.0.borrow().closed.clone()
    }

    /// Returns the reason once the node is closed.
    pub(crate) async fn closed(&self) -> CloseReason {
        let mut states = self.0.subscribe();
        let closed = states.wait_for(|state| state.closed.is_some()).await;
        // The sender lives as long as this handle to it.
        closed.ok().and_then(|state| state.closed.clone()).unwrap_or(CloseReason::ShutDown)
    }

    /// A receiver of failures; see [`Failures::happened`].
    pub(crate) fn failures(&self) -> Failures {
        Failures(self.0.subscribe())
    }

    /// Runs a part of the node. A panic is a failure of the node, and the result is none.
    pub(crate) async fn run<T>(&self, part: &'static str, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let caught = poll_fn(|context| {
            let poll = || {
                self.trip(part);
                work.as_mut().poll(context)
            };
            match catch_unwind(AssertUnwindSafe(poll)) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        caught.await.map_err(|panic| self.panicked(part, panic.as_ref())).ok()
    }

    /// Runs a part of the node in a separate task.
    pub(crate) fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let health = self.clone();
        tokio::spawn(async move {
            // A failure was noted.
            let _ = health.run(part, work).await;
        })
    }

    /// Runs a part of the node on the calling thread.
    pub(crate) fn run_blocking(&self, part: &'static str, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.panicked(part, panic.as_ref());
        }
    }

    fn panicked(&self, part: &'static str, panic: &(dyn Any + Send)) {
        self.fail(part, format!("it panicked: {}", panic_message(panic)));
    }

    /// Panics if a test requested it.
    #[cfg(feature = "fault")]
    pub(crate) fn trip(&self, part: &'static str) {
        let wanted = self.0.borrow().panics_in == Some(part);
        if wanted {
            self.0.send_modify(|state| state.panics_in = None);
            panic!("injected into the {part}");
        }
    }

    #[cfg(not(feature = "fault"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn trip(&self, _part: &'static str) {}

    /// Makes the next run of the part with this name panic.
    #[cfg(feature = "fault")]
    pub(crate) fn inject_panic(&self, part: &'static str) {
        self.0.send_modify(|state| state.panics_in = Some(part));
    }
}

/// Closes the node when its driver is dropped because the runtime ended first.
pub(crate) struct ClosesWithDriver(pub(crate) Health);

impl Drop for ClosesWithDriver {
    fn drop(&mut self) {
        self.0.close(CloseReason::ShutDown);
    }
}

/// Notifies a task of failures of any part of its node.
pub(crate) struct Failures(watch::Receiver<State>);

impl Failures {
    /// Returns once a part of the node has failed. Cancel safe.
    pub(crate) async fn happened(&mut self) {
        // The sender lives as long as the node's health.
        let _ = self.0.wait_for(|state| state.failure.is_some()).await;
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_fails_the_node_with_its_message_and_the_first_failure_counts() {
        let health = Health::default();
        let mut failures = health.failures();
        assert_eq!(health.run("reader", async { 7 }).await, Some(7));
        assert_eq!(health.failure(), None);
        health.spawn("reader", async { panic!("number {}", 3) }).await.expect("the panic is caught");
        failures.happened().await;
        health.run_blocking("thread", || panic!("later"));
        let failure = health.failure().expect("it failed");
        assert_eq!((failure.part(), failure.cause()), ("reader", "it panicked: number 3"));
        assert_eq!(health.close(failure.clone().into()), CloseReason::Failed(failure.clone()));
        assert_eq!(health.close(CloseReason::ShutDown), CloseReason::Failed(failure.clone()));
        assert_eq!(health.closed().await, CloseReason::Failed(failure));
    }
}
