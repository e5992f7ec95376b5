//! How this node leaves the group.

use crate::id::NodeId;
use crate::machine::control_log::ControlLog;

/// This node leaves the group for good.
#[derive(Debug, Default)]
pub(super) struct Departure {
    is_wanted: bool,
    is_finished: bool,
}

impl Departure {
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether the application has requested to leave.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
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
        self.is_wanted && log.state().view().is_some_and(|view| view.rank_of(me).is_none())
    }
}
