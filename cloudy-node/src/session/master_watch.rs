//! What a master sees of a session: phases, progress, and the results as they are reported.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::limits::LINGER;
use cloudy_proto::{Checkpoint, Event, NodeId, Phase, Rank, RingKind, SessionPlan, View};
use tokio::time::{Instant, interval_at};

use super::awake::AwakeClock;
use super::finding::Found;
use super::master::{MasterError, MasterEvent, MasterRow, SlaveResult};
use super::sum::Summary;
use crate::group::Group;

/// Between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// What STOP may take beyond the plan's third period and the linger: the machine's own timers come first.
const STOP_EXTRA: Duration = Duration::from_secs(8);

/// What a master that begins a session knows of its times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    /// None before the session says it.
    pub(super) plan: Option<SessionPlan>,
    /// How long the slaves may take to reach each other; none if that is another master's to judge.
    pub(super) ready: Option<Duration>,
}

/// A session that was watched to its end.
#[derive(Debug)]
pub(super) struct Watched {
    /// A row for each slave, by rank.
    pub(super) rows: Vec<MasterRow>,
    pub(super) plan: Option<SessionPlan>,
    pub(super) ring: RingKind,
}

/// Watches the session to its end. Slaves that the master does not know are those of the session's views.
pub(super) async fn watch(
    group: &Group,
    slaves: Vec<Found>,
    timing: Timing,
    stop: impl Future<Output = ()>,
    observe: &impl Fn(MasterEvent),
) -> Result<Watched, MasterError> {
    let mut stop = std::pin::pin!(stop);
    let mut progress = interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    let mut events = group.events();
    let mut watch = Watch {
        timing,
        ring: RingKind::default(),
        rows: slaves.into_iter().map(|slave| (slave, Rank::default(), SlaveResult::Missing)).collect(),
        phase: Phase::Start,
        clock: AwakeClock::start(),
        due_at: timing.ready,
        stopped: false,
        begun: false,
        failed: None,
    };
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Closed)) => return watch.end(),
                Some(Ok(event)) => watch.take(event, observe),
                Some(Err(error)) => return Err(watch.failure(error.into())),
                None => return Err(watch.failure(MasterError::Ended)),
            },
            () = watch.clock.until(watch.due_at) => {
                if watch.phase != Phase::Start || watch.failed.is_some() || watch.stopped {
                    let overdue = watch.overdue();
                    return Err(watch.failure(overdue));
                }
                watch.failed = watch.not_ready(group).await;
                watch.is_due_in(watch.stop_bound());
            }
            () = &mut stop, if !watch.stopped => {
                watch.stopped = true;
                // Without SEND there is no result to wait for.
                watch.is_due_in(if watch.begun { watch.stop_bound() } else { LINGER });
                group.end();
            }
            _ = progress.tick(), if watch.phase != Phase::Start => {
                observe(MasterEvent::Approved(group.progress().into_iter().collect()));
            }
        }
    }
}

struct Watch {
    timing: Timing,
    ring: RingKind,
    rows: Vec<(Found, Rank, SlaveResult)>,
    phase: Phase,
    /// Of the deadline.
    clock: AwakeClock,
    /// When the phase must be over, if it has a bound that the machine does not keep.
    due_at: Option<Duration>,
    /// The master was told to stop.
    stopped: bool,
    /// SEND has begun.
    begun: bool,
    /// Why the session cannot be a success, however it ends.
    failed: Option<MasterError>,
}

impl Watch {
    fn take(&mut self, event: Event, observe: &impl Fn(MasterEvent)) {
        match event {
            Event::ViewInstalled { view, .. } => self.installed(&view, observe),
            Event::Blamed { node } => observe(MasterEvent::Blamed(node)),
            Event::NobodyComplete(stopped) => observe(MasterEvent::NobodyComplete(stopped)),
            Event::Send { plan, .. } => {
                self.timing.plan = Some(plan);
                self.begun = true;
                self.enter(Phase::Send, observe);
            }
            Event::Grace => self.enter(Phase::Grace, observe),
            Event::Stop => self.enter(Phase::Stop, observe),
            Event::Silent { node } => {
                self.set(node, SlaveResult::Silent);
                observe(MasterEvent::Silent(node));
            }
            Event::Left { node } => {
                self.set(node, SlaveResult::Left);
                observe(MasterEvent::Left(node));
            }
            Event::Reported { node, result, report } => {
                self.set(node, result_of(result, &report));
                observe(MasterEvent::Reported(node));
            }
            Event::Diverged { node, theirs, .. } => {
                self.failed = Some(MasterError::Diverged { node: self.name(node), index: theirs.index });
            }
            _ => {}
        }
    }

    fn installed(&mut self, view: &View, observe: &impl Fn(MasterEvent)) {
        self.ring = view.parameters.ring;
        for member in &view.ring {
            let Some(&address) = member.addresses.first() else { continue };
            if self.rows.iter().all(|(slave, ..)| slave.node != member.node) {
                let found = Found { node: member.node, address, name: address.to_string() };
                observe(MasterEvent::Found(found.clone()));
                let rank = view.rank_of(member.node).unwrap_or_default();
                self.rows.push((found, rank, SlaveResult::Missing));
            }
        }
        if self.phase == Phase::Start {
            for (slave, rank, _) in &mut self.rows {
                *rank = view.rank_of(slave.node).unwrap_or_default();
            }
        } else if !view.last {
            let members = view.ring.iter().map(|member| member.node).collect();
            observe(MasterEvent::View { id: view.id, members });
        }
    }

    fn enter(&mut self, phase: Phase, observe: &impl Fn(MasterEvent)) {
        self.phase = phase;
        // Whoever coordinates the session times SEND and GRACE; the bound holds if nobody does.
        let before_stop = match (phase, self.timing.plan) {
            (Phase::Send, Some(plan)) => plan.send + plan.grace,
            (Phase::Grace, Some(plan)) => plan.grace,
            _ => Duration::ZERO,
        };
        if self.begun || !self.stopped {
            self.is_due_in(before_stop + self.stop_bound());
        }
        observe(MasterEvent::Phase(phase));
    }

    fn is_due_in(&mut self, time: Duration) {
        self.due_at = Some(self.clock.now() + time);
    }

    fn stop_bound(&self) -> Duration {
        self.timing.plan.map_or(Duration::ZERO, |plan| plan.stop) + LINGER + STOP_EXTRA
    }

    fn set(&mut self, node: NodeId, result: SlaveResult) {
        if let Some(row) = self.rows.iter_mut().find(|(slave, ..)| slave.node == node) {
            row.2 = result;
        }
    }

    fn name(&self, node: NodeId) -> String {
        let known = self.rows.iter().find(|(slave, ..)| slave.node == node);
        known.map_or_else(|| node.short(), |(slave, ..)| slave.name.clone())
    }

    /// Names the slaves that have not said that they reach all others; none if the group has ended here, which has a reason
    /// of its own.
    async fn not_ready(&self, group: &Group) -> Option<MasterError> {
        let members = group.status().await?.members;
        let waited_for = members.iter().filter(|member| !member.ready).map(|member| self.name(member.node)).collect();
        Some(MasterError::NotReady { timeout: self.timing.ready.unwrap_or_default(), waited_for })
    }

    fn overdue(&self) -> MasterError {
        let is_missing = |row: &&(Found, Rank, SlaveResult)| row.2 == SlaveResult::Missing;
        let missing = self.rows.iter().filter(is_missing).map(|(slave, ..)| slave.name.clone()).collect();
        MasterError::Overdue { after: self.stop_bound(), missing }
    }

    /// Why there is no outcome, if nothing else is known than that error.
    fn failure(self, error: MasterError) -> MasterError {
        let stopped = (self.stopped && !self.begun).then_some(MasterError::Stopped);
        stopped.or(self.failed).unwrap_or(error)
    }

    fn end(self) -> Result<Watched, MasterError> {
        if self.failed.is_some() || (self.stopped && !self.begun) {
            return Err(self.failure(MasterError::Ended));
        }
        let mut rows: Vec<MasterRow> =
            self.rows.into_iter().map(|(slave, rank, result)| MasterRow { slave, rank, result }).collect();
        rows.sort_by_key(|row| row.rank);
        Ok(Watched { rows, plan: self.timing.plan, ring: self.ring })
    }
}

/// Compares what the slave's application added up with what its node says of the result.
fn result_of(result: Checkpoint, report: &Bytes) -> SlaveResult {
    match Summary::from_report(report) {
        Ok(summary) if summary.count == result.index.0 && summary.digest == result.digest => {
            SlaveResult::Reported(summary)
        }
        Ok(summary) => SlaveResult::Contradictory(summary),
        Err(error) => SlaveResult::Unreadable(error),
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::{Digest, Index};

    use super::*;

    #[test]
    fn a_report_is_held_against_the_node_s_own_result() {
        let digest = Digest(7);
        let summary = Summary { count: 2, sum: 1.5, digest, own: 1, confirmations: 1, left: None };
        let report = summary.to_report();
        let at = |index, digest| result_of(Checkpoint { index: Index(index), digest }, &report);
        assert_eq!(at(2, digest), SlaveResult::Reported(summary));
        assert_eq!(at(3, digest), SlaveResult::Contradictory(summary));
        assert_eq!(at(2, Digest(8)), SlaveResult::Contradictory(summary));
        let cut = result_of(Checkpoint { index: Index(2), digest }, &report.slice(..5));
        assert!(matches!(cut, SlaveResult::Unreadable(_)));
    }
}
