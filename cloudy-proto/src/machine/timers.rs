//! The timers of the machine.

use std::collections::BTreeMap;

use crate::time::Time;

/// A reason for which the machine has to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// To send heartbeats.
    Heartbeat,
    /// To end the period of a session's phase.
    Period,
    /// To exclude members that did not answer `Wedge`.
    Wedge,
    /// To stop waiting for reports.
    Linger,
    /// To request the missing part of the result from another member.
    Fetch,
    /// To report that this evicted node is ready to return.
    Rejoin,
    /// To request admission to a running group.
    Join,
    /// To look for a coordinator.
    Seek,
    /// To let the consensus library count time.
    Consensus,
    /// To request to leave.
    Leave,
}

/// At most one time for each timer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Time>,
    /// The earliest of them: a driver reads it far more often than one changes.
    next: Option<Time>,
    /// The time of the latest input.
    now: Time,
}

impl Timers {
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Sets the time of an input.
    #[inline]
    pub(crate) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.at.insert(timer, at);
        self.changed();
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.at.remove(&timer);
        self.changed();
    }

    fn changed(&mut self) {
        self.next = self.at.values().min().copied();
    }

    pub(crate) fn stop_all_but_fetch(&mut self) {
        self.at.retain(|timer, _| *timer == Timer::Fetch);
        self.changed();
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    /// The time until it is due.
    pub(crate) fn left(&self, timer: Timer, now: Time) -> Option<core::time::Duration> {
        self.at.get(&timer).map(|at| at.since(now))
    }

    /// The timer that is due first, which stops with that.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Timer> {
        let due = self.at.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at).map(|(timer, _)| *timer)?;
        self.at.remove(&due);
        self.changed();
        Some(due)
    }
}
