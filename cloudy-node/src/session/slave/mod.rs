//! A slave: it waits for a master, broadcasts during SEND, and adds up what was approved.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::time::Duration;

use cloudy_proto::limits::LINGER;
use cloudy_proto::{Event, Phase};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

mod outcome;
mod phases;
mod producer;
mod reading;

pub use outcome::{NotBegun, SlaveConfig, SlaveError, SlaveEvent, SlaveOutcome, SlaveStop, Timings};

use super::name::SessionName;
use super::result_file::{ResultFile, ResultFileError};
use super::sum::Summary;
use crate::error::JoinError;
use crate::group::{EndReason, Events};
use crate::handle::{Group, LeaveError};
use crate::node::Node;
use outcome::ENDING_MAX;
use phases::{Ended, watch_phases};
use producer::{Pace, Stage, produce};
use reading::{Approvals, add_up, write_down};

/// The timeout for leaving a session: for the approval of this slave's messages, and for a view without it.
const LEAVING_MAX: Duration = Duration::from_secs(5);
/// The timeout for the rest of the result file after a signal or an error.
const ABANDONED_FILE_MAX: Duration = Duration::from_secs(1);
/// The time for which a slave waits for the master to close the session: its own limit, and the delay of the network.
const CLOSING_MAX: Duration = LINGER.saturating_add(Duration::from_secs(1));
/// The time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Takes part in one session, of the next master that invites this node, and returns once it is over. A slave of a
/// running session that was restarted with the same identity and address rejoins it: it catches up, broadcasts in a new
/// random stream if SEND continues, and ends with the same result. So does one whose data directory has an unfinished
/// session, even if all other processes were gone too.
///
/// A session that is over before SEND does not count ([`SlaveEvent::NotBegun`]): the slave waits for the next master. A
/// session on disk that has lost its master before SEND continues once the master is restarted with its data directory.
///
/// When `stop` is ready, the slave leaves the session or ends it for all, as its value requests ([`SlaveStop`]).
/// `observe` must return at once: the slave waits for it.
///
/// Not cancel safe: dropped, it leaves the node in the session as a member that broadcasts nothing. `stop` ends it in
/// order.
///
/// # Errors
/// There was no session, or it has no result here: see [`SlaveError`].
pub async fn run_slave(
    node: &Node,
    mut config: SlaveConfig<'_>,
    stop: impl Future<Output = SlaveStop>,
    observe: impl Fn(SlaveEvent),
) -> Result<SlaveOutcome, SlaveError> {
    let mut stop = Stop { told: pin!(stop), how: None };
    loop {
        let group = next_session(node, &config.session, &mut stop, &observe).await?;
        let outcome = session(&group, &mut config, &mut stop, &observe).await;
        if let (Err(_), Some(file)) = (&outcome, config.result.as_deref_mut()) {
            // The session's own error has more information than the file's, and a file system that hangs does not delay
            // it.
            let _ = timeout(ABANDONED_FILE_MAX, file.abandon()).await;
        }
        match outcome {
            Err(SlaveError::NotBegun { master, cause }) => {
                put_away(node, &group).await;
                if stop.how.is_some() {
                    return Err(SlaveError::StoppedWaiting);
                }
                observe(SlaveEvent::NotBegun { master, cause });
            }
            outcome => return outcome,
        }
    }
}

/// The caller's request to stop `run_slave`, kept for each session that the slave waits for.
struct Stop<'a, F> {
    told: Pin<&'a mut F>,
    how: Option<SlaveStop>,
}

impl<F: Future<Output = SlaveStop>> Stop<'_, F> {
    /// Cancel safe.
    async fn told(&mut self) -> SlaveStop {
        match self.how {
            Some(how) => how,
            None => *self.how.insert(self.told.as_mut().await),
        }
    }
}

/// The next session of this node.
async fn next_session(
    node: &Node,
    session: &SessionName,
    stop: &mut Stop<'_, impl Future<Output = SlaveStop>>,
    observe: &impl Fn(SlaveEvent),
) -> Result<Group, SlaveError> {
    loop {
        // A session of an earlier process of this node comes first.
        if let Some(group) = resumed_session(node) {
            return Ok(group);
        }
        let joining = node.join_group(&session.group_name()).await?;
        observe(SlaveEvent::Waiting);
        let joined = tokio::select! {
            joined = joining.joined().without_timeout() => joined,
            _ = stop.told() => return Err(SlaveError::StoppedWaiting),
        };
        match joined {
            // A master that gave up before there was a session: the next one may succeed.
            Err(JoinError::Refused { .. } | JoinError::Gone { .. }) => {}
            Err(JoinError::Truncated { first, .. }) => return Err(SlaveError::NotRetained { first }),
            joined => return Ok(joined?),
        }
    }
}

/// Leaves a session without a result at once: no node depends on its data here.
async fn put_away(node: &Node, group: &Group) {
    // The request to leave is enough.
    let _ = group.leave_within(Duration::ZERO).await;
    if let Err(error) = node.forget_group(group.id()).await {
        tracing::warn!(%error, "a session that has not begun is still at this node");
    }
}

/// The session in a node's data directory at its start, under any name, unless it has ended or was continued already.
#[must_use]
pub fn resumed_session(node: &Node) -> Option<Group> {
    let session = |group: &&Group| SessionName::of_group(group.name()).is_some() && !group.has_ended();
    node.resumed_groups().iter().find(session).cloned()
}

/// The ended sessions in a node's data directory at its start. Their results were not deleted, so they may not have
/// been printed.
pub fn ended_sessions(node: &Node) -> impl Iterator<Item = &Group> {
    let session = |group: &&Group| SessionName::of_group(group.name()).is_some() && group.has_ended();
    node.resumed_groups().iter().filter(session)
}

/// Reads the result of an ended session from the data directory, for [`ended_sessions`], and writes it to the file, if
/// there is one.
///
/// Cancel safe without a file; with one, the file is incomplete if the future is dropped.
///
/// # Errors
/// The session ended without a result here: see [`SlaveError`].
pub async fn stored_result(group: &Group, result: Option<&mut ResultFile>) -> Result<SlaveOutcome, SlaveError> {
    let mut config = SlaveConfig { result, ..SlaveConfig::default() };
    let mut stop = Stop { told: pin!(pending()), how: None };
    session(group, &mut config, &mut stop, &|_| {}).await
}

/// Runs from START until the master has closed the session and the file is written.
async fn session(
    group: &Group,
    config: &mut SlaveConfig<'_>,
    stop: &mut Stop<'_, impl Future<Output = SlaveStop>>,
    observe: &impl Fn(SlaveEvent),
) -> Result<SlaveOutcome, SlaveError> {
    let (stage, produced) = watch::channel(Stage::Start);
    let (phases, phase) = watch::channel(Phase::Start);
    let (endings, ending) = watch::channel(Ending::default());
    let (approvals, approved) = watch::channel(Approvals::default());
    let (written, behind) = watch::channel(0);
    let (summed, summary) = oneshot::channel();
    let file = config.result.as_deref_mut();
    let pace = Pace::new(approved.clone(), file.is_some().then_some(behind), config.numbers_per_second_max);
    let result = async {
        let mut events = group.events();
        let watched = watch_phases(group, &mut events, (&stage, &phases), observe);
        let (ended, ()) = tokio::try_join!(watched, add_up(group, &approvals))?;
        endings.send_modify(|ending| ending.is_final = true);
        let approvals = *approvals.borrow();
        let left = ending.borrow().left;
        if left && !ended.is_member {
            // The others ended the session after this slave had left it. They may need its vote for that.
            wait_for_close(group, &mut events).await;
            return Err(SlaveError::Left { group: group.id(), approved: approvals.sum.count() });
        }
        let left = left.then_some(ended.timings.send);
        let summary = report(group, &ended, approvals, left).await?;
        // A file that has failed does not wait for it.
        let _ = summed.send(summary);
        wait_for_close(group, &mut events).await;
        // Reported in any case: the master waits for it.
        if *phase.borrow() == Phase::Start {
            Err(SlaveError::NotBegun { master: group.creator(), cause: NotBegun::Ended })
        } else {
            Ok((ended, summary))
        }
    };
    let writing = async {
        let path = file.as_ref().map(|file| file.path().to_owned()).unwrap_or_default();
        tokio::select! {
            done = write_down(group, file, (phase.clone(), written), summary) => Ok::<_, SlaveError>(done.err()),
            () = given_up(ending.clone()) => Ok(Some(ResultFileError::Interrupted { path })),
        }
    };
    let aside = async {
        tokio::join!(produce(group, produced, pace), report_progress(approved, observe));
        pending::<Infallible>().await
    };
    let ended = tokio::select! {
        done = async { tokio::try_join!(result, writing) } => done,
        error = told_to_stop(group, stop, (&stage, &phase), &endings) => Err(error),
        never = aside => match never {},
    };
    let ((ended, summary), file_error) = ended.map_err(|error| match error {
        SlaveError::Ended { reason: EndReason::Closed } if *phase.borrow() == Phase::Start => {
            SlaveError::NotBegun { master: group.creator(), cause: NotBegun::Ended }
        }
        error => error,
    })?;
    let Ended { rank, timings, .. } = ended;
    Ok(SlaveOutcome { summary, rank, master: group.creator(), timings, group: group.id(), file_error })
}

/// The conditions that bound the wait for a result file.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// Whether the result is final.
    is_final: bool,
    /// Whether the slave was requested to stop.
    stopping: bool,
    /// Whether it was requested to leave, in SEND or GRACE.
    left: bool,
}

/// Stops as requested; returns if that takes too long.
async fn told_to_stop(
    group: &Group,
    stop: &mut Stop<'_, impl Future<Output = SlaveStop>>,
    (stage, phase): (&watch::Sender<Stage>, &watch::Receiver<Phase>),
    endings: &watch::Sender<Ending>,
) -> SlaveError {
    let how = stop.told().await;
    stage.send_replace(Stage::Over);
    let left = how == SlaveStop::Leave && matches!(*phase.borrow(), Phase::Send | Phase::Grace);
    endings.send_modify(|ending| {
        ending.stopping = true;
        ending.left = left;
    });
    let too_late = async {
        match how {
            SlaveStop::Leave => {
                match group.leave_within(LEAVING_MAX).await {
                    // The readers of the result report how the session ended here.
                    Ok(()) | Err(LeaveError::Ended(_)) => pending().await,
                    Err(not_left) => SlaveError::NotLeaving(not_left),
                }
            }
            SlaveStop::End => {
                group.end();
                // sleep: a bound on an answer of another node.
                sleep(ENDING_MAX).await;
                SlaveError::NotEnding { master: group.creator() }
            }
        }
    };
    let is_final = async {
        // The sender lives as long as this.
        let _ = endings.subscribe().wait_for(|ending| ending.is_final).await;
    };
    tokio::select! {
        biased;
        () = is_final => pending().await,
        error = too_late => error,
    }
}

/// Returns once a file without progress is given up.
async fn given_up(mut ending: watch::Receiver<Ending>) {
    if ending.wait_for(|ending| ending.stopping && ending.is_final).await.is_err() {
        pending::<()>().await;
    }
    // sleep: a disk that is only slow accepts the rest meanwhile.
    sleep(ABANDONED_FILE_MAX).await;
}

async fn report_progress(mut approved: watch::Receiver<Approvals>, observe: &impl Fn(SlaveEvent)) {
    while approved.changed().await.is_ok() {
        let count = approved.borrow_and_update().sum.count();
        observe(SlaveEvent::Approved(count));
        // sleep: progress is for people.
        sleep(PROGRESS_EVERY).await;
    }
}

/// Reports the result to the master: everything was added up.
async fn report(
    group: &Group,
    ended: &Ended,
    approvals: Approvals,
    left: Option<Duration>,
) -> Result<Summary, SlaveError> {
    let Approvals { sum, own } = approvals;
    let (read, length) = (sum.count(), ended.result.index);
    if read != length.0 {
        return Err(SlaveError::Incomplete { read, length });
    }
    let confirmations = group.status().await.map_or(0, |status| status.confirmations_given);
    let summary = Summary { count: read, sum: sum.sum(), digest: ended.result.digest, own, confirmations, left };
    group.report(summary.to_report());
    Ok(summary)
}

/// Waits a bounded time until the master has closed the session, and longer while a coordinator is in reach: it serves
/// slaves on long paths. The result is final whether the master receives the report or not.
async fn wait_for_close(group: &Group, events: &mut Events) {
    let closed = async { while matches!(events.next().await, Some(Ok(event)) if event != Event::Closed) {} };
    let given_up = async {
        let mut waited = Duration::ZERO;
        loop {
            // sleep: a bound on an answer of other nodes.
            sleep(CLOSING_MAX).await;
            waited += CLOSING_MAX;
            let status = group.status().await;
            let view = status.as_ref().and_then(|status| status.view.as_ref());
            let longest = view.map_or(Duration::ZERO, |view| view.parameters.timeout_max);
            let coordinated = status.as_ref().is_some_and(|status| status.coordinator.is_some());
            if !coordinated || waited > longest {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = closed => {}
        () = given_up => {
            tracing::warn!("the master has not closed the session; it may not know this slave's result");
        }
    }
}
