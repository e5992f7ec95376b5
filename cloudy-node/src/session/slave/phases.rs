//! The phases of a session at a slave, and their maximum lengths.

use std::future::{Future, pending};
use std::time::Duration;

use cloudy_proto::{Checkpoint, Durability, Event, NodeId, Phase, Rank, RingKind, SessionPlan};
use tokio::sync::watch;
use tokio::time::Instant;

use super::outcome::{NotBegun, SlaveError, SlaveEvent, Timings};
use super::producer::Stage;
use crate::group::{Events, EventsError};
use crate::handle::Group;
use crate::session::awake::AwakeClock;

/// Additional time for the result beyond the plan's third period, once STOP has begun: a slow network is no reason for
/// a missing result.
const STOP_EXTRA: Duration = Duration::from_secs(10);

/// The outcome of the phases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) result: Checkpoint,
    pub(super) rank: Rank,
    pub(super) timings: Timings,
    /// This slave is a member of the last view.
    pub(super) is_member: bool,
}

/// Follows the phases until the result is final, and reports them to the producer and in `begun`, which stays at START
/// until SEND begins.
pub(super) async fn watch_phases(
    group: &Group,
    events: &mut Events,
    (stage, begun): (&watch::Sender<Stage>, &watch::Sender<Phase>),
    observe: &impl Fn(SlaveEvent),
) -> Result<Ended, SlaveError> {
    let mut phases = Phases::new(group.creator(), begun);
    loop {
        let event = phases.while_in_time(events.next()).await?;
        let event = match event {
            Some(Ok(event)) => event,
            // The readers of the result report the reason of the close.
            Some(Err(EventsError::Ended(_))) | None => return pending().await,
            Some(Err(missed)) => return Err(SlaveError::Events(missed)),
        };
        match event {
            Event::ViewInstalled { view, active, .. } => {
                phases.ring = view.parameters.ring;
                phases.durability = view.parameters.durability;
                phases.is_member = view.rank_of(group.node_id()).is_some();
                if let Some(rank) = view.rank_of(group.node_id()).filter(|_| active && phases.rank.is_none()) {
                    phases.rank = Some(rank);
                    let (master, members) = (group.creator(), view.members());
                    let durability = view.parameters.durability;
                    observe(SlaveEvent::Joined { master, rank, members, durability });
                } else if !view.last {
                    let members = view.ring.iter().map(|member| member.node).collect();
                    observe(SlaveEvent::View { id: view.id, members });
                }
            }
            Event::Send { plan, stream } => {
                phases.plan = Some(plan);
                match phases.current {
                    // The session was stopped as it began.
                    Some((Phase::Stop, _)) => drop(begun.send_replace(Phase::Stop)),
                    current => {
                        stage.send_replace(Stage::Send { plan, stream, ring: phases.ring });
                        // A slave that joins later receives another event once it is on the ring.
                        if current.is_none() {
                            phases.enter(Phase::Send, observe);
                        }
                    }
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
            Event::NoCompleteMember(stopped) => observe(SlaveEvent::NoCompleteMember(stopped)),
            Event::Final { result } => {
                stage.send_replace(Stage::Over);
                phases.enter(Phase::Done, observe);
                let rank = phases.rank.unwrap_or_default();
                return Ok(Ended { result, rank, timings: phases.timings, is_member: phases.is_member });
            }
            _ => {}
        }
    }
}

struct Phases<'a> {
    master: NodeId,
    begun: &'a watch::Sender<Phase>,
    /// The clock of the deadlines.
    clock: AwakeClock,
    ring: RingKind,
    durability: Durability,
    rank: Option<Rank>,
    /// This slave is a member of the latest view.
    is_member: bool,
    plan: Option<SessionPlan>,
    /// The phase, with its start.
    current: Option<(Phase, Instant)>,
    timings: Timings,
    /// The deadline of the final result, with its distance from the start of STOP.
    stop_by: Option<(Duration, Duration)>,
    /// The deadline for the start of SEND, and then of STOP, if no coordinator is in reach in between.
    ends_by: Option<Duration>,
    /// Whether no coordinator of the session is in reach.
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
            is_member: false,
            plan: None,
            current: None,
            timings,
            stop_by: None,
            ends_by: None,
            lost: false,
        }
    }

    /// Returns the next value, or an error if it takes too long.
    async fn while_in_time<T>(&mut self, next: impl Future<Output = T>) -> Result<T, SlaveError> {
        let stop_by = self.stop_by.map(|(by, _)| by);
        let by = stop_by.or(self.ends_by.filter(|_| self.lost));
        tokio::select! {
            biased;
            next = next => Ok(next),
            () = self.clock.until(by) => Err(match (self.stop_by, self.plan) {
                (Some((_, after)), _) => SlaveError::Overdue { after },
                (None, Some(_)) => SlaveError::NoCoordinator,
                (None, None) => SlaveError::NotBegun { master: self.master, cause: NotBegun::MasterLost },
            }),
        }
    }

    /// Notes that no coordinator of the session is in reach. Before SEND that ends a session in memory, unless this
    /// process itself was stopped: the others may continue after it. One on disk continues with its master.
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
