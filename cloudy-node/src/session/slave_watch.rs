//! What a slave learns while a session runs: the phases, and what was approved.

use std::future::{Future, pending};
use std::time::Duration;

use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Checkpoint, Durability, Entry, Event, GroupId, Index, NodeId, Phase, Rank, RingKind, SessionPlan};
use tokio::sync::{oneshot, watch};
use tokio::task::consume_budget;
use tokio::time::Instant;

use super::awake::AwakeClock;
use super::numbers::{NotANumber, decode};
use super::producer::Stage;
use super::result_file::{ResultFile, ResultFileError};
use super::slave::{NotBegun, SlaveError, SlaveEvent, Timings};
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

/// Follows the phases until the result is final, and reports them to the producer and in `begun`, which stays at START until
/// SEND begins.
pub(super) async fn watch_phases(
    group: &Group,
    events: &mut Events,
    (stage, begun): (&watch::Sender<Stage>, &watch::Sender<Phase>),
    observe: &impl Fn(SlaveEvent),
) -> Result<Ended, SlaveError> {
    let mut phases = Phases::new(group.founder(), begun);
    loop {
        let event = phases.while_in_time(events.next()).await?;
        let event = match event {
            Some(Ok(event)) => event,
            // The readers of the result say why the group ended.
            Some(Err(EventsError::Ended(_))) | None => return pending().await,
            Some(Err(missed)) => return Err(SlaveError::Events(missed)),
        };
        match event {
            Event::ViewInstalled { view, active, .. } => {
                phases.ring = view.parameters.ring;
                phases.durability = view.parameters.durability;
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
            Event::CoordinatorLost { .. } => phases.lost(),
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

struct Phases<'a> {
    master: NodeId,
    begun: &'a watch::Sender<Phase>,
    /// Of the deadlines.
    clock: AwakeClock,
    ring: RingKind,
    durability: Durability,
    rank: Option<Rank>,
    plan: Option<SessionPlan>,
    /// The phase, and when it began.
    current: Option<(Phase, Instant)>,
    timings: Timings,
    /// When the result must be final, and how long after the start of STOP that is.
    stop_by: Option<(Duration, Duration)>,
    /// When SEND, and then STOP, must have begun, if nobody coordinates it in between.
    ends_by: Option<Duration>,
    /// Nobody who coordinates the session is in reach.
    lost: bool,
}

impl<'a> Phases<'a> {
    fn new(master: NodeId, begun: &'a watch::Sender<Phase>) -> Self {
        let (ring, durability, timings) = Default::default();
        Self {
            master,
            begun,
            clock: AwakeClock::start(),
            ring,
            durability,
            rank: None,
            plan: None,
            current: None,
            timings,
            stop_by: None,
            ends_by: None,
            lost: false,
        }
    }

    /// What comes next, unless that takes too long.
    async fn while_in_time<T>(&mut self, next: impl Future<Output = T>) -> Result<T, SlaveError> {
        let stop_by = self.stop_by.map(|(by, _)| by);
        let by = stop_by.or(self.ends_by.filter(|_| self.lost));
        tokio::select! {
            biased;
            next = next => Ok(next),
            () = self.clock.until(by) => Err(match (self.stop_by, self.plan) {
                (Some((_, after)), _) => SlaveError::Overdue { after },
                (None, Some(_)) => SlaveError::NobodyCoordinates,
                (None, None) => SlaveError::NotBegun { master: self.master, cause: NotBegun::MasterLost },
            }),
        }
    }

    /// Nobody who coordinates the session is in reach. Before SEND that ends a session in memory, but not for time in which
    /// this process was stopped itself: the others may continue after it. One on disk continues with its master.
    fn lost(&mut self) {
        self.lost = true;
        if self.plan.is_none() && self.durability == Durability::Memory {
            self.clock.now();
            let resumed_at = self.clock.resumed_at();
            self.ends_by = Some(resumed_at.map_or(Duration::ZERO, |at| at + STOP_EXTRA));
        }
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
        let now = self.clock.now();
        if let Some(plan) = self.plan {
            self.begun.send_replace(phase);
            if phase == Phase::Send {
                self.ends_by = Some(now + plan.send + plan.grace + plan.stop + STOP_EXTRA);
            }
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
        ApprovedError::Ended(EndReason::Left) => SlaveError::Left { group, approved },
        ApprovedError::Ended(EndReason::Truncated { first }) => SlaveError::NotRetained { first },
        ApprovedError::Ended(reason) => SlaveError::Ended { reason },
    }
}

/// From SEND on, writes the result into the file as it grows, and its last line once there is a summary. By a reader of its
/// own, so that a slow disk does not hold up the sum. Says how far it is in `written`,
/// which it drops when it ends.
pub(super) async fn write_down(
    group: &Group,
    file: Option<&mut ResultFile>,
    (mut phase, written): (watch::Receiver<Phase>, watch::Sender<u64>),
    summary: oneshot::Receiver<Summary>,
) -> Result<(), ResultFileError> {
    let Some(file) = file else { return Ok(()) };
    if phase.wait_for(|phase| *phase != Phase::Start).await.is_err() {
        // No task reads this any more.
        return Ok(());
    }
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
