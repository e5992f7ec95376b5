//! How this node leaves the group.

use core::time::Duration;

use crate::id::NodeId;
use crate::machine::control_log::ControlLog;
use crate::time::Time;

/// This node leaves the group for good, or stops and will return.
#[derive(Debug, Default)]
pub(super) struct Departure {
    wanted_at: Option<Time>,
    /// Whether it will return.
    returns: bool,
    /// The last time at which a node that could take over, or that needs this one, gave a sign of life.
    heir_seen_at: Option<Time>,
    is_finished: bool,
}

impl Departure {
    /// Notes the request to leave for good, also after a request to stop.
    pub(super) fn want(&mut self, now: Time) {
        self.wanted_at.get_or_insert(now);
        self.returns = false;
    }

    /// Notes the request to stop and to return later.
    pub(super) fn suspend(&mut self, now: Time) {
        self.returns |= self.wanted_at.is_none();
        self.wanted_at.get_or_insert(now);
    }

    /// Whether the application has requested to leave or to stop.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted_at.is_some()
    }

    /// Whether the application has requested to stop, and the node will return.
    pub(super) fn returns(&self) -> bool {
        self.returns
    }

    /// Notes a sign of life of a node that could take over, or that needs this one.
    pub(super) fn on_heir(&mut self, now: Time) {
        self.heir_seen_at = Some(now);
    }

    /// The time since the request in which no node that could take over or needs this one gave a sign of life.
    pub(super) fn without_heir_for(&self, now: Time) -> Duration {
        self.heir_seen_at.max(self.wanted_at).map_or(Duration::ZERO, |at| now.since(at))
    }

    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Whether this node has left.
    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// This node leaves and is on no ring: what ends the group is for the next coordinator, which stays to notify others.
    pub(super) fn hands_over(&self, me: NodeId, log: &ControlLog) -> bool {
        self.is_wanted() && log.state().view().is_some_and(|view| view.rank_of(me).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stops_returns_unless_it_leaves() {
        let mut departure = Departure::default();
        departure.suspend(Time(5));
        assert!(departure.is_wanted() && departure.returns());
        departure.want(Time(6));
        assert!(!departure.returns(), "leaving is for good");
        departure.suspend(Time(7));
        assert!(!departure.returns());
    }

    #[test]
    fn silence_of_nodes_that_could_take_over_counts_from_the_request_and_ends_with_a_sign_of_life() {
        let mut departure = Departure::default();
        assert_eq!(departure.without_heir_for(Time(9)), Duration::ZERO);
        departure.want(Time(10));
        departure.want(Time(20));
        assert_eq!(departure.without_heir_for(Time(25)), Duration::from_micros(15));
        departure.on_heir(Time(24));
        assert_eq!(departure.without_heir_for(Time(25)), Duration::from_micros(1));
    }
}
