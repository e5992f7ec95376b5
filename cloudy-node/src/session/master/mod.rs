//! A master: it finds its slaves, creates their group, observes the session, and compares the results.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::limits::LINGER;
use cloudy_proto::{
    Checkpoint, Event, GroupId, Index, NoCompleteMember, NodeId, OnFailure, Phase, Rank, RingKind, SessionPlan, Status,
    View, ViewId,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval_at};

mod config;
mod error;
mod reach;

pub(super) use config::DISCOVERY_TIMEOUT;
pub use config::MasterConfig;
pub use error::MasterError;

use super::awake::AwakeClock;
use super::finding::{Crew, FindError, Found, Refusal, Search, find, lookup};
use super::sum::{ReportError, Summary};
use crate::error::CreateGroupError;
use crate::handle::Group;
use crate::node::Node;
use config::group_config;
use reach::{Reach, SILENCE_MAX, apart};

/// An event of a master, for observers, also in another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MasterEvent {
    /// A slave takes part.
    Found(Found),
    /// A node takes no part.
    Refused(Refusal),
    /// All slaves that take part are on the ring.
    Created {
        /// The session's group. Its data in a data directory is not needed once the result was printed
        /// ([`Node::forget_group`]).
        group: GroupId,
        /// Number of slaves.
        members: usize,
    },
    /// The next phase has begun.
    Phase(#[serde(with = "PhaseData")] Phase),
    /// Messages approved so far at each slave.
    Approved(Vec<(NodeId, Index)>),
    /// A slave does not answer: the session continues without it.
    Silent(NodeId),
    /// A slave answers, but is out of reach of others or delays them: the session continues without it until it
    /// returns.
    Blamed(NodeId),
    /// The session has stopped, because no node in reach has the whole result. Over with the next view.
    NoCompleteMember(NoCompleteMember),
    /// A slave leaves the session by itself: the others continue without it.
    Left(NodeId),
    /// Another view is in force.
    View {
        /// The id of the view.
        id: ViewId,
        /// The members of its ring, in order.
        members: Vec<NodeId>,
    },
    /// A slave has reported its result.
    Reported(NodeId),
}

/// The serialized form of [`Phase`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Phase")]
enum PhaseData {
    Start,
    Send,
    Grace,
    Stop,
    Done,
}

/// The result of a slave, as its master knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlaveResult {
    /// It reported its result.
    Reported(Summary),
    /// Its report is not a summary.
    Unreadable(ReportError),
    /// Its sum differs from its node's result: a defect, or corrupt memory.
    Contradictory(Summary),
    /// It did not answer: the session continued, and ended, without it.
    Silent,
    /// It left before the end, by itself.
    Left,
    /// It took part in STOP, and its report did not arrive before the timeout.
    Missing,
}

impl SlaveResult {
    /// The result, if there is one to compare.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        match self {
            Self::Reported(summary) => Some(summary),
            _ => None,
        }
    }
}

/// A slave of an ended session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterRow {
    /// The slave.
    pub slave: Found,
    /// Its rank.
    pub rank: Rank,
    /// Its result.
    pub result: SlaveResult,
}

/// The outcome of a session at its master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterOutcome {
    /// A row for each slave, by rank.
    pub rows: Vec<MasterRow>,
    /// The invited slaves that took no part.
    pub refusals: Vec<Refusal>,
}

impl MasterOutcome {
    /// Whether every slave reported, and all results are equal to the last bit.
    #[must_use]
    pub fn all_equal(&self) -> bool {
        let mut results = self.rows.iter().map(|row| row.result.summary());
        let Some(Some(first)) = results.next() else { return false };
        results.all(|result| result.is_some_and(|result| result.same_result(first)))
    }
}

/// Runs one session, from the search for slaves to the comparison of their results.
///
/// When `stop` is ready, the session is ended early, with its results. Before it has begun, [`MasterError::Stopped`] is
/// returned at once, or within two seconds if the slaves have accepted. `observe` must return at once: the master waits
/// for it.
///
/// Not cancel safe: dropped before SEND, it abandons the session; later, the session continues without a comparison.
/// `stop` ends it in order.
///
/// # Errors
/// There was no session, or nothing to compare: see [`MasterError`]. Different or missing results are not an error, but
/// part of the [`MasterOutcome`].
pub async fn run_master(
    node: &Node,
    config: &MasterConfig,
    stop: impl Future<Output = ()>,
    observe: impl Fn(MasterEvent),
) -> Result<MasterOutcome, MasterError> {
    let mut stop = std::pin::pin!(stop);
    let (group, crew) = tokio::select! {
        biased;
        () = &mut stop => return Err(MasterError::Stopped),
        created = create(node, config, &observe) => created?,
    };
    observe(MasterEvent::Created { group: group.id(), members: crew.found.len() });
    let Crew { found, refusals } = crew;
    let timing = Timing { plan: Some(config.plan), ready: Some(config.ready_timeout) };
    let rows = watch(&group, found, timing, stop, &observe).await?.rows;
    Ok(MasterOutcome { rows, refusals })
}

async fn create(
    node: &Node,
    config: &MasterConfig,
    observe: &impl Fn(MasterEvent),
) -> Result<(Group, Crew), MasterError> {
    config.plan.validate().map_err(CreateGroupError::from)?;
    let mut creation = node.prepare_group(&config.session.group_name(), group_config(config)).await?;
    let search = Search {
        session: &config.session,
        slaves: &config.slaves,
        multicast: config.multicast,
        expect: config.expect,
        timeout: config.discovery_timeout,
    };
    let crew = find(node, &mut creation, search, &|news| {
        observe(match news {
            Ok(found) => MasterEvent::Found(found.clone()),
            Err(refusal) => MasterEvent::Refused(refusal.clone()),
        });
    })
    .await?;
    if let Some(reason) = node.close_reason() {
        return Err(reason.into());
    }
    let found = crew.found.len();
    match config.expect {
        Some(expected) if found < expected => {
            return Err(MasterError::TooFew { found, expected, refusals: crew.refusals });
        }
        _ if found == 0 => return Err(MasterError::NoSlaves { refusals: crew.refusals }),
        _ => {}
    }
    let group = creation.create(Some(config.plan)).await?;
    // A slave may return with another address.
    node.look_up(lookup(&config.slaves, config.multicast)).map_err(FindError::from)?;
    Ok((group, crew))
}

/// The time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Additional time for STOP beyond the plan's third period and the linger: the machine's own timers come first.
const STOP_EXTRA: Duration = Duration::from_secs(8);

/// The times of a session that this master began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    /// None before the session reports it.
    pub(super) plan: Option<SessionPlan>,
    /// The time for slaves to reach each other; none if another master checks that.
    pub(super) ready: Option<Duration>,
}

/// The outcome of an observed session.
#[derive(Debug)]
pub(super) struct Watched {
    /// A row for each slave, by rank.
    pub(super) rows: Vec<MasterRow>,
    pub(super) plan: Option<SessionPlan>,
    pub(super) ring: RingKind,
}

/// Observes the session to its end. Slaves that the master does not know are those of the session's views.
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
        reach: Reach::default(),
        ends_at: None,
    };
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Closed)) => return watch.end(),
                Some(Ok(event)) => watch.take(event, observe),
                Some(Err(error)) => return Err(watch.failure(MasterError::Events(error))),
                None => return Err(watch.failure(MasterError::Ended)),
            },
            () = watch.clock.until(watch.due_at) => {
                if watch.phase != Phase::Start || watch.failed.is_some() || watch.stopped {
                    let overdue = watch.overdue();
                    return Err(watch.failure(overdue));
                }
                watch.failed = watch.not_ready(group).await;
                // Its slaves are free for the next master once the group is closed.
                group.end();
                watch.is_due_in(watch.stop_bound());
            }
            () = &mut stop, if !watch.stopped => {
                watch.stopped = true;
                // Without SEND there is no result to wait for.
                watch.is_due_in(if watch.begun { watch.stop_bound() } else { LINGER });
                group.end();
            }
            _ = progress.tick() => {
                if watch.phase != Phase::Start {
                    observe(MasterEvent::Approved(group.progress().into_iter().collect()));
                }
                if let Some(status) = group.status().await {
                    watch.reach.look(&status, watch.clock.now());
                    watch.end_without(&status, group)?;
                }
            }
        }
    }
}

struct Watch {
    timing: Timing,
    ring: RingKind,
    rows: Vec<(Found, Rank, SlaveResult)>,
    phase: Phase,
    /// The clock of the deadline.
    clock: AwakeClock,
    /// The deadline of the phase, if the machine has none for it.
    due_at: Option<Duration>,
    /// Whether the master was stopped.
    stopped: bool,
    /// Whether SEND has begun.
    begun: bool,
    /// The reason for which the session cannot succeed.
    failed: Option<MasterError>,
    reach: Reach,
    /// When GRACE is to be over.
    ends_at: Option<Duration>,
}

impl Watch {
    fn take(&mut self, event: Event, observe: &impl Fn(MasterEvent)) {
        match event {
            Event::ViewInstalled { view, .. } => self.installed(&view, observe),
            Event::Blamed { node } => observe(MasterEvent::Blamed(node)),
            Event::NoCompleteMember(stopped) => observe(MasterEvent::NoCompleteMember(stopped)),
            Event::Send { plan, .. } => {
                self.timing.plan = Some(plan);
                self.begun = true;
                self.ends_at = Some(self.clock.now() + plan.send + plan.grace);
                // The session may have been stopped as it began.
                if self.phase != Phase::Stop {
                    self.enter(Phase::Send, observe);
                }
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

    /// Ends the session if slaves are out of reach without which it cannot begin, or if none is left to report a result.
    ///
    /// # Errors
    /// No slave can report.
    fn end_without(&mut self, status: &Status, group: &Group) -> Result<(), MasterError> {
        let silent = self.reach.lost(self.clock.now());
        let waits = status.view.as_ref().is_some_and(|view| view.parameters.on_failure == OnFailure::Wait);
        let names = |watch: &Self| silent.iter().map(|node| watch.name(*node)).collect();
        let may_begin =
            self.phase == Phase::Start && !self.stopped && self.failed.is_none() && self.timing.ready.is_some();
        if may_begin && waits && !silent.is_empty() {
            self.failed = Some(MasterError::Gone { silent: names(self), silence: SILENCE_MAX });
            // Its other slaves are free for the next master once the group is closed.
            group.end();
            self.is_due_in(self.stop_bound());
        }
        let now = self.clock.now();
        let is_over = self.stopped || self.failed.is_some() || self.ends_at.is_some_and(|ends_at| now >= ends_at);
        if is_over && !silent.is_empty() && silent.len() == status.members.len() {
            let error = MasterError::NoReports { silent: names(self) };
            return Err(self.take_failure(error));
        }
        Ok(())
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
        // The coordinator times SEND and GRACE; this deadline holds if there is none.
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

    /// The error with the slaves that have not reported links to all others; none if the group has closed here, which
    /// has its own reason.
    async fn not_ready(&self, group: &Group) -> Option<MasterError> {
        let status = group.status().await?;
        let members = &status.members;
        let waited_for = members.iter().filter(|member| !member.ready).map(|member| self.name(member.node)).collect();
        let ring = status.view.iter().flat_map(|view| &view.ring);
        let apart = apart(&ring.map(|member| (member.node, member.addresses.as_slice())).collect::<Vec<_>>());
        let apart = apart.into_iter().map(|(one, other)| (self.name(one), self.name(other))).collect();
        Some(MasterError::NotReady { timeout: self.timing.ready.unwrap_or_default(), waited_for, apart })
    }

    fn overdue(&self) -> MasterError {
        let is_missing = |row: &&(Found, Rank, SlaveResult)| row.2 == SlaveResult::Missing;
        let missing = self.rows.iter().filter(is_missing).map(|(slave, ..)| slave.name.clone()).collect();
        MasterError::Overdue { after: self.stop_bound(), missing }
    }

    /// The error for a missing outcome, if only this error is known.
    fn failure(mut self, error: MasterError) -> MasterError {
        self.take_failure(error)
    }

    fn take_failure(&mut self, error: MasterError) -> MasterError {
        let stopped = (self.stopped && !self.begun).then_some(MasterError::Stopped);
        stopped.or(self.failed.take()).unwrap_or(error)
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

/// Compares the sum of a slave's application with its node's result.
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
    use cloudy_proto::Digest;

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
