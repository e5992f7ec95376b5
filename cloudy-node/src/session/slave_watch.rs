//! What a slave learns while a session runs: the phases, and what was approved.

use std::future::pending;
use std::time::Duration;

use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Checkpoint, Entry, Event, GroupId, Index, Phase, Rank, RingKind, SessionPlan};
use tokio::sync::{oneshot, watch};
use tokio::task::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::numbers::{NotANumber, decode};
use super::producer::Stage;
use super::result_file::{ResultFile, ResultFileError};
use super::slave::{SlaveError, SlaveEvent, Timings};
use super::sum::{Sum, Summary};
use crate::group::{Approved, ApprovedError, ApprovedItem, EndReason, Events, EventsError, Group};

/// What the result may take beyond the plan's third period, once STOP has begun: a slow network is no reason to have
/// none.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// What was approved so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Approvals {
    pub(super) sum: Sum,
    /// Those of this slave.
    pub(super) own: u64,
}

/// What the phases ended with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) result: Checkpoint,
    pub(super) rank: Rank,
    pub(super) timings: Timings,
}

/// Follows the phases until the result is final, and tells the producer of them.
pub(super) async fn watch_phases(
    group: &Group,
    events: &mut Events,
    stage: &watch::Sender<Stage>,
    observe: &impl Fn(SlaveEvent),
) -> Result<Ended, SlaveError> {
    let mut phases = Phases::default();
    loop {
        let event = match phases.due() {
            None => events.next().await,
            Some((by, late)) => timeout_at(by, events.next()).await.map_err(|_| late)?,
        };
        let event = match event {
            Some(Ok(event)) => event,
            // The readers of the result say why the group ended.
            Some(Err(EventsError::Ended(_))) | None => return pending().await,
            Some(Err(missed)) => return Err(SlaveError::Events(missed)),
        };
        match event {
            Event::ViewInstalled { view, active, .. } => {
                phases.ring = view.parameters.ring;
                if let Some(rank) = view.rank_of(group.me()).filter(|_| active && phases.rank.is_none()) {
                    phases.rank = Some(rank);
                    let (master, members) = (group.founder(), view.members());
                    let durability = view.parameters.durability;
                    observe(SlaveEvent::Joined { master, rank, members, durability });
                } else if !view.last {
                    let members = view.ring.iter().map(|member| member.node).collect();
                    observe(SlaveEvent::View { id: view.id, members });
                }
            }
            Event::Send { plan, stream } => {
                phases.plan = Some(plan);
                stage.send_replace(Stage::Send { plan, stream, ring: phases.ring });
                // A slave that comes later is told again once it is on the ring.
                if phases.current.is_none() {
                    phases.enter(Phase::Send, observe);
                }
            }
            Event::Grace => {
                stage.send_replace(Stage::Over);
                phases.enter(Phase::Grace, observe);
            }
            Event::Stop => {
                stage.send_replace(Stage::Over);
                phases.enter(Phase::Stop, observe);
            }
            Event::CoordinatorLost { node } if phases.plan.is_none() => {
                return Err(SlaveError::MasterLost { master: node, approved: 0 });
            }
            Event::CoordinatorLost { .. } => phases.lost = true,
            Event::Coordinator { .. } => phases.lost = false,
            Event::NobodyComplete(stopped) => observe(SlaveEvent::NobodyComplete(stopped)),
            Event::Final { result } => {
                stage.send_replace(Stage::Over);
                phases.enter(Phase::Done, observe);
                let rank = phases.rank.unwrap_or_default();
                return Ok(Ended { result, rank, timings: phases.timings });
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Phases {
    ring: RingKind,
    rank: Option<Rank>,
    plan: Option<SessionPlan>,
    /// The phase, and when it began.
    current: Option<(Phase, Instant)>,
    timings: Timings,
    /// When the result must be final, and how long after the start of STOP that is.
    stop_by: Option<(Instant, Duration)>,
    /// When STOP must have begun, even if nobody coordinates it in between.
    ends_by: Option<Instant>,
    /// Nobody who coordinates the session is in reach.
    lost: bool,
}

impl Phases {
    /// How long the next event may take, and what it means if it takes longer.
    fn due(&self) -> Option<(Instant, SlaveError)> {
        let stop = self.stop_by.map(|(by, after)| (by, SlaveError::Overdue { after }));
        let lost = self.ends_by.filter(|_| self.lost).map(|by| (by, SlaveError::NobodyCoordinates));
        stop.or(lost)
    }

    fn enter(&mut self, phase: Phase, observe: &impl Fn(SlaveEvent)) {
        let now = Instant::now();
        if let Some((before, began_at)) = self.current {
            let took = now - began_at;
            match before {
                Phase::Send => self.timings.send = took,
                Phase::Grace => self.timings.grace = took,
                Phase::Stop => self.timings.stop = took,
                Phase::Start | Phase::Done => {}
            }
        }
        self.current = Some((phase, now));
        if let Some(plan) = self.plan.filter(|_| phase == Phase::Send) {
            self.ends_by = Some(now + plan.send + plan.grace + plan.stop + STOP_EXTRA);
        }
        if phase == Phase::Stop {
            let after = self.plan.map_or(Duration::ZERO, |plan| plan.stop) + STOP_EXTRA;
            self.stop_by = Some((now + after, after));
        }
        observe(SlaveEvent::Phase(phase));
    }
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
        if entry.origin == group.me() {
            self.own += u64::from(entry.batch.count);
        }
        for payload in payload_slices(&entry.batch.body) {
            let number = decode(payload).map_err(|source| {
                let index = self.sum.count() + 1;
                NotANumber { index, origin: entry.origin, source }
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
        ApprovedError::Ended(EndReason::CoordinatorLost(master)) => SlaveError::MasterLost { master, approved },
        ApprovedError::Ended(EndReason::Left) => SlaveError::Left { group, approved },
        ApprovedError::Ended(EndReason::Truncated { first }) => SlaveError::NotRetained { first },
        ApprovedError::Ended(reason) => SlaveError::Ended { reason },
    }
}

/// Writes the result into the file as it grows, and its last line once there is a summary. By a reader of its own, so
/// that a slow disk does not hold up the sum. Says how far it is in `written`,
/// which it drops when it ends.
pub(super) async fn write_down(
    group: &Group,
    file: Option<&mut ResultFile>,
    written: watch::Sender<u64>,
    summary: oneshot::Receiver<Summary>,
) -> Result<(), ResultFileError> {
    let Some(file) = file else { return Ok(()) };
    file.begin().await?;
    follow(group.approved_from(Index(1)), file, &written).await?;
    match summary.await {
        Ok(summary) => file.finish(&summary).await,
        // Whoever would have sent it tells why there is none.
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
            // The reader that adds up meets the same end, and tells.
            Some(Err(ApprovedError::Unreadable { .. } | ApprovedError::Ended(_))) => return pending().await,
            None => return Ok(()),
        }
        consume_budget().await;
    }
}
