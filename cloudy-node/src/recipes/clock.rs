//! Agreed time: each command carries the clock of the node that submits it, and the latest of these counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::AbortHandle;

use crate::replica::{Replica, StateMachine, SubmitError};

/// Between two looks at what expires next.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Stopped(AbortHandle);

impl Stopped {
    pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The wall clock of this node.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// A duration in the unit of agreed time, one at least.
pub(super) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Submits a command that carries the time, whenever something has expired by the clock here.
pub(super) async fn tick<S: StateMachine>(
    replica: Replica<S>,
    next_expiry_ms: fn(&S) -> Option<u64>,
    command: fn(u64) -> S::Command,
) {
    loop {
        // sleep: leases end by time.
        tokio::time::sleep(TICK_EVERY).await;
        match replica.read(next_expiry_ms).await {
            Ok(Some(at)) if now_ms() >= at => match replica.submit(command(now_ms())).await {
                Ok(_) | Err(SubmitError::Unknown { .. } | SubmitError::NotSent(_)) => {}
                Err(_) => return,
            },
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
