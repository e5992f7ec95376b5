//! How this node comes into the group: it creates it, is invited to it, or joins it while it runs.

use crate::machine::founding::Founding;
use crate::machine::join::Joining;

/// How this node comes into the group. What is over is none.
#[derive(Debug)]
pub(super) struct Arrival {
    /// This node creates the group.
    pub(super) founding: Option<Founding>,
    /// This node comes into a running group, or observes it.
    pub(super) joining: Option<Joining>,
    /// This node accepted an invitation.
    pub(super) has_accepted: bool,
}
