//! The control log's commands: plain data, opaque to the consensus library (`protocol.md` §6, §9).

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Parameters;
use crate::id::{NodeId, Round, ViewId};
use crate::view::RingMember;

/// One entry of the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A run of a node's process begins; the entry's own position is its incarnation.
    Incarnate {
        /// Whose.
        node: NodeId,
    },
    /// The view after `from`. Takes effect only if `from` is the latest view and every joiner's incarnation is its
    /// node's latest.
    InstallView(InstallView),
    /// SEND begins (`protocol.md` §9).
    Kickstart(SessionPlan),
    /// SEND is over: GRACE.
    Grace,
    /// Every member has reported its final result, or the time for it is over.
    Close,
}

/// What [`Command::InstallView`] carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallView {
    /// The view that it follows.
    pub from: ViewId,
    /// The members.
    pub ring: Vec<RingMember>,
    /// What they share.
    pub parameters: Parameters,
    /// For each lane of `from`, by rank: slots below are approved, the rest are skips.
    pub cut: Vec<Round>,
    /// No view follows.
    pub last: bool,
}

/// What a session does, and for how long. Durations, so that no two clocks need agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionPlan {
    /// How long members broadcast.
    pub send: Duration,
    /// How long they only finish.
    pub grace: Duration,
    /// What STOP may take: a budget, not a sleep.
    pub stop: Duration,
    /// Of the random numbers.
    pub seed: u64,
}
