//! A master: it finds its slaves, founds their group, watches the session, and compares the results.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::limits::LINGER;
use cloudy_proto::{
    Checkpoint, Event, GroupId, Index, NobodyComplete, NodeId, OnFailure, Phase, Rank, RingKind, SessionPlan, Status,
    View, ViewId,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval_at};

mod config;
mod reach;

pub(super) use config::DISCOVERY_TIMEOUT;
pub use config::MasterConfig;

use super::awake::AwakeClock;
use super::finding::{Crew, FindError, Found, Refusal, Search, find, lookup};
use super::sum::{ReportError, Summary};
use crate::error::FoundError;
use crate::group::EventsError;
use crate::handle::Group;
use crate::health::CloseReason;
use crate::node::Node;
use config::group_config;
use reach::{Reach, SILENCE_MAX, apart};

/// What a master sees, for observers, in another process too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MasterEvent {
    /// A slave takes part.
    Found(Found),
    /// Somebody does not.
    Refused(Refusal),
    /// All who take part are on the ring.
    Founded {
        /// The session's group: what a data directory holds of it is not needed once the result was shown
        /// ([`Node::forget_group`]).
        group: GroupId,
        /// How many.
        members: usize,
    },
    /// The next phase has begun.
    Phase(#[serde(with = "PhaseData")] Phase),
    /// Messages approved so far at each slave.
    Approved(Vec<(NodeId, Index)>),
    /// A slave gives no answer: the session goes on without it.
    Silent(NodeId),
    /// A slave answers, but others are out of its reach or held up by it: the session goes on until it is back.
    Blamed(NodeId),
    /// The session has stopped: nobody who answers has its whole result. Over with the next view.
    NobodyComplete(NobodyComplete),
    /// A slave leaves the session by its own wish: the others go on without it.
    Left(NodeId),
    /// Another view is in force.
    View {
        /// Which.
        id: ViewId,
        /// The members of its ring, in order.
        members: Vec<NodeId>,
    },
    /// A slave's result is there.
    Reported(NodeId),
}

/// [`Phase`] as data.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Phase")]
enum PhaseData {
    Start,
    Send,
    Grace,
    Stop,
    Done,
}

/// What a slave ended with, as its master knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SlaveResult {
    /// It reported its result.
    Reported(Summary),
    /// It reported something else.
    Unreadable(ReportError),
    /// What it added up is not what its node holds: a defect, or corrupt memory.
    Contradictory(Summary),
    /// It gave no answer: the session went on, and ended, without it.
    Silent,
    /// It left before the end, by its own wish.
    Left,
    /// It was there at STOP, and its report did not come in time.
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

/// A slave of a session that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterRow {
    /// Which.
    pub slave: Found,
    /// Its position on the ring.
    pub rank: Rank,
    /// What it ended with.
    pub result: SlaveResult,
}

/// A session's end, as its master sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MasterOutcome {
    /// A row for each slave, by rank.
    pub rows: Vec<MasterRow>,
    /// The slaves that were asked and did not take part.
    pub refusals: Vec<Refusal>,
}

impl MasterOutcome {
    /// Every slave reported, and all the same to the last bit.
    #[must_use]
    pub fn all_equal(&self) -> bool {
        let mut results = self.rows.iter().map(|row| row.result.summary());
        let Some(Some(first)) = results.next() else { return false };
        results.all(|result| result.is_some_and(|result| result.same_result(first)))
    }
}

/// A session that did not take place, or that the master cannot speak for. Slaves that were invited go on waiting, or
/// notice within two seconds, before the session has begun, that the master is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// Slaves cannot be looked for.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The group cannot be founded.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// Nobody takes part.
    #[error("no slave {}{}", if .refusals.is_empty() { "was found" } else { "takes part" }, listed(.refusals))]
    NoSlaves {
        /// The node that was asked.
        refusals: Vec<Refusal>,
    },
    /// Fewer slaves than were expected.
    #[error("{found} of {expected} slaves were found{}", listed(.refusals))]
    TooFew {
        /// How many take part.
        found: usize,
        /// How many should.
        expected: usize,
        /// The slaves that were asked and do not.
        refusals: Vec<Refusal>,
    },
    /// The slaves do not all reach each other.
    #[error(
        "not all slaves reached each other within {timeout:?}: {}", unready(.waited_for, .apart)
    )]
    NotReady {
        /// The time for it.
        timeout: Duration,
        /// The slaves that did not report it; none if the last report came while the time ran out.
        waited_for: Vec<String>,
        /// Pairs of slaves without an address of one family, IPv4 or IPv6, in common.
        apart: Vec<(String, String)>,
    },
    /// Before SEND, a slave stopped answering, and the session waits for failed slaves.
    #[error(
        "{} gave no sign of life for {silence:?} before SEND, so the session does not begin; start it again, or let it continue \
         without slaves that fail", .silent.join(", ")
    )]
    Gone {
        /// The slaves.
        silent: Vec<String>,
        /// For how long at least.
        silence: Duration,
    },
    /// The session is over, and no slave is in reach that could report a result.
    #[error(
        "no slave is in reach at the end of the session: {}; a session in memory is lost with its slaves, and one on disk \
         continues once slaves and master are started again with their data directories", .silent.join(", ")
    )]
    NobodyReports {
        /// The slaves.
        silent: Vec<String>,
    },
    /// There is no session to attach to.
    #[error("no queried slave has a running session{}", listed(.refusals))]
    NoSession {
        /// The node that was asked, and its answer.
        refusals: Vec<Refusal>,
    },
    /// It was told to stop before SEND: the slaves wait for the next master.
    #[error("stopped before a session began")]
    Stopped,
    /// A slave's digest differs from another's.
    #[error(
        "the results of two slaves differ, one of them {node}'s up to message {index}: memory or transport is corrupt"
    )]
    Diverged {
        /// One of the two.
        node: String,
        /// Where they were compared.
        index: Index,
    },
    /// The group ended in a way that a session does not.
    #[error("the session ended without results")]
    Ended,
    /// The master's node stopped taking part, or the master was too slow to follow what happened.
    #[error("the session cannot be followed to its end: {0}")]
    Events(#[from] EventsError),
    /// The master's node was closed while it looked for slaves.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The planned end of the session is over, and results are missing. The session may have ended without this master.
    #[error(
        "no result came from {} within {after:?} after the planned end of the session; the session may have ended without this master: read the output of its slaves", .missing.join(", ")
    )]
    Overdue {
        /// The time for it.
        after: Duration,
        /// The slaves that have not reported a result.
        missing: Vec<String>,
    },
}

fn unready(waited_for: &[String], apart: &[(String, String)]) -> String {
    if !apart.is_empty() {
        let pairs: Vec<String> = apart.iter().map(|(one, other)| format!("{one} and {other}")).collect();
        return format!(
            "these have no address of one family (IPv4 or IPv6) in common: {}; let all listen on `::`, or all on addresses \
             of one family",
            pairs.join("; ")
        );
    }
    match waited_for {
        [] => "by now all report it, too late for the session; start it again, with more time".to_owned(),
        names => format!("waited for {}; check that each can send UDP to each other", names.join(", ")),
    }
}

fn listed(refusals: &[Refusal]) -> String {
    let list: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    if list.is_empty() { String::new() } else { format!(" ({})", list.join("; ")) }
}

/// Runs one session, from finding the slaves to comparing their results.
///
/// When `stop` is ready, the session is ended early, with its results; before it began, [`MasterError::Stopped`] comes
/// at once, and within two seconds if the slaves have accepted. `observe` must return at once: the master waits for it.
///
/// Not cancel safe: dropped before SEND, it abandons the session; later, the session goes on without a comparison. `stop`
/// ends it in order.
///
/// # Errors
/// There was no session, or nothing to compare: see [`MasterError`]. Results that differ or are missing are no error
/// but in the [`MasterOutcome`].
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
        founded = found(node, config, &observe) => founded?,
    };
    observe(MasterEvent::Founded { group: group.id(), members: crew.found.len() });
    let Crew { found, refusals } = crew;
    let timing = Timing { plan: Some(config.plan), ready: Some(config.ready_timeout) };
    let rows = watch(&group, found, timing, stop, &observe).await?.rows;
    Ok(MasterOutcome { rows, refusals })
}

async fn found(
    node: &Node,
    config: &MasterConfig,
    observe: &impl Fn(MasterEvent),
) -> Result<(Group, Crew), MasterError> {
    config.plan.validate().map_err(FoundError::from)?;
    let mut founding = node.found_group(&config.session.group_name(), group_config(config)).await?;
    let search = Search {
        session: &config.session,
        slaves: &config.slaves,
        multicast: config.multicast,
        expect: config.expect,
        timeout: config.discovery_timeout,
    };
    let crew = find(node, &mut founding, search, &|news| {
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
    let group = founding.found(Some(config.plan)).await?;
    // A slave may come back at another address.
    node.look_up(lookup(&config.slaves, config.multicast)).map_err(FindError::from)?;
    Ok((group, crew))
}

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
        reach: Reach::default(),
        ends_at: None,
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
    reach: Reach,
    /// When GRACE is to be over.
    ends_at: Option<Duration>,
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
            let error = MasterError::NobodyReports { silent: names(self) };
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
        // The coordinator times SEND and GRACE; the bound holds if there is none.
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

    /// Why there is no outcome, if nothing else is known than that error.
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
