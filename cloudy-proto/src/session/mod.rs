//! A session: a group that runs by a plan, in the phases START, SEND, GRACE and STOP (`protocol.md` §9).

use core::time::Duration;

use crate::command::SessionPlan;
use crate::io::{Event, Phase};

/// The session of a group at this node.
#[derive(Debug)]
pub(crate) struct Session {
    phase: Phase,
    /// Known from the kickstart on.
    plan: Option<SessionPlan>,
    /// The application knows which of the seed's streams is this node's.
    stream_reported: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self { phase: Phase::Start, plan: None, stream_reported: false }
    }
}

/// A phase begins: the event for the application, and how long the phase lasts; none for one that is over already.
pub(crate) type Begins = (Event, Option<Duration>);

/// The period of a phase is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeriodEnd {
    /// GRACE follows SEND.
    Send,
    /// STOP follows GRACE.
    Grace,
}

impl Session {
    /// The session is to be kicked off.
    pub(crate) fn awaits_kickstart(&self) -> bool {
        self.phase == Phase::Start
    }

    /// Members may broadcast, or could before.
    pub(crate) fn is_kicked_off(&self) -> bool {
        self.plan.is_some()
    }

    pub(crate) fn is_in_grace(&self) -> bool {
        self.phase == Phase::Grace
    }

    /// The log kicks the session off: SEND begins, unless the session is past START. A node may learn of STOP before the
    /// kickstart that precedes it in the log: the application learns that the session has begun, and the phase stays STOP.
    /// `stream` is this node's, if it is on the ring.
    pub(crate) fn on_kickstart(&mut self, plan: SessionPlan, stream: Option<u64>) -> Option<Begins> {
        let lasts = match (self.phase, self.plan) {
            (Phase::Start, _) => Some(plan.send),
            (Phase::Stop, None) => None,
            _ => return None,
        };
        if self.phase == Phase::Start {
            self.phase = Phase::Send;
        }
        self.plan = Some(plan);
        self.stream_reported = stream.is_some();
        Some((Event::Send { plan, stream }, lasts))
    }

    /// This node is on the ring. In SEND the application learns its stream, if it does not know one.
    pub(crate) fn on_ring(&mut self, stream: Option<u64>) -> Option<Event> {
        let plan = self.plan.filter(|_| self.phase == Phase::Send && !self.stream_reported)?;
        self.stream_reported = stream.is_some();
        Some(Event::Send { plan, stream })
    }

    /// GRACE begins, if this is SEND: by the node's own timer, or by the log.
    pub(crate) fn on_grace(&mut self) -> Option<Begins> {
        let plan = self.plan.filter(|_| self.phase == Phase::Send)?;
        self.phase = Phase::Grace;
        Some((Event::Grace, Some(plan.grace)))
    }

    /// The timer of a phase is due.
    pub(crate) fn on_period_over(&self) -> Option<PeriodEnd> {
        match self.phase {
            Phase::Send => Some(PeriodEnd::Send),
            Phase::Grace => Some(PeriodEnd::Grace),
            Phase::Start | Phase::Stop | Phase::Done => None,
        }
    }

    /// STOP begins, in any phase.
    pub(crate) fn on_stop(&mut self) {
        self.phase = Phase::Stop;
    }
}

/// The phase of a group, with a session or without: a group without one broadcasts from its first view on.
pub(crate) fn phase_of(session: Option<&Session>, has_view: bool, is_stopping: bool, is_final: bool) -> Phase {
    match session {
        _ if is_final => Phase::Done,
        _ if is_stopping => Phase::Stop,
        Some(session) => session.phase,
        None if has_view => Phase::Send,
        None => Phase::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SessionPlan = SessionPlan {
        send: Duration::from_secs(3),
        grace: Duration::from_secs(2),
        stop: Duration::from_secs(1),
        seed: 7,
    };

    #[test]
    fn each_phase_follows_the_one_before_and_lasts_as_planned() {
        let mut session = Session::default();
        assert_eq!((session.on_grace(), session.on_period_over()), (None, None), "nothing before the kickstart");
        let send = Event::Send { plan: PLAN, stream: Some(4) };
        assert_eq!(session.on_kickstart(PLAN, Some(4)), Some((send, Some(PLAN.send))));
        assert_eq!(session.on_kickstart(PLAN, Some(4)), None, "a session starts once");
        assert_eq!(session.on_period_over(), Some(PeriodEnd::Send));
        assert_eq!(session.on_grace(), Some((Event::Grace, Some(PLAN.grace))));
        assert_eq!(session.on_grace(), None, "the log repeats what a timer did");
        assert_eq!(session.on_period_over(), Some(PeriodEnd::Grace));
        session.on_stop();
        assert_eq!(session.on_period_over(), None);
    }

    #[test]
    fn a_session_that_stops_before_its_kickstart_stays_stopped_and_has_begun() {
        let mut session = Session::default();
        session.on_stop();
        assert!(!session.is_kicked_off());
        assert_eq!(session.on_kickstart(PLAN, None), Some((Event::Send { plan: PLAN, stream: None }, None)));
        assert_eq!((session.on_kickstart(PLAN, None), session.on_period_over()), (None, None));
        assert!(session.is_kicked_off());
    }

    #[test]
    fn a_node_that_comes_onto_the_ring_in_send_learns_its_stream_once() {
        let mut session = Session::default();
        assert_eq!(session.on_ring(Some(4)), None, "not before the kickstart");
        session.on_kickstart(PLAN, None);
        assert_eq!(session.on_ring(Some(4)), Some(Event::Send { plan: PLAN, stream: Some(4) }));
        assert_eq!(session.on_ring(Some(4)), None);
        let mut late = Session::default();
        late.on_kickstart(PLAN, None);
        late.on_grace();
        assert_eq!(late.on_ring(Some(4)), None, "SEND is over");
    }

    #[test]
    fn a_group_without_a_session_broadcasts_from_its_first_view_until_it_stops() {
        assert_eq!(phase_of(None, false, false, false), Phase::Start);
        assert_eq!(phase_of(None, true, false, false), Phase::Send);
        assert_eq!(phase_of(None, true, true, false), Phase::Stop);
        assert_eq!(phase_of(Some(&Session::default()), true, false, false), Phase::Start);
        assert_eq!(phase_of(Some(&Session::default()), true, true, true), Phase::Done);
    }
}
