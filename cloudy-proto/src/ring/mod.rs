//! Ring models: when a member may use its next round, and which lane streams run on which link (`protocol.md` §5). They
//! differ in speed, and never in the possible results.

mod pipelined;
mod relay;
mod token;
mod window;

use core::fmt::Debug;

use crate::config::{Parameters, RingKind};
use crate::id::{Rank, Round};
use crate::lane::Lane;
use crate::pending::PendingTable;
use crate::view::View;

pub(crate) use window::Window;

/// The state that a model may read.
#[derive(Clone, Copy)]
pub(crate) struct RingState<'a> {
    pub(crate) view: &'a View,
    pub(crate) me: Rank,
    pub(crate) lanes: &'a [Lane],
    pub(crate) pending: &'a PendingTable,
    pub(crate) window: &'a Window,
    /// The highest round of a message slot received from another lane.
    pub(crate) taken_max: Option<Round>,
}

impl RingState<'_> {
    fn parameters(&self) -> &Parameters {
        &self.view.parameters
    }

    fn own(&self) -> &Lane {
        &self.lanes[self.me.at()]
    }

    /// Whether fewer own slots than the window are outside the own result.
    fn window_has_slot(&self) -> bool {
        self.pending.slots() < self.parameters().window_slots as usize
    }
}

/// When a member may use its next round, which one that is, and which lane streams run on which link.
pub(crate) trait RingModel: Debug + Send + Sync {
    /// The round for a message slot of this cost; none while it has to wait.
    fn round_for(&self, state: RingState<'_>, cost_bytes: u64) -> Option<Round>;

    /// The round to which the lane of a member without messages skips; none if it has no reason to skip.
    fn skip_to(&self, state: RingState<'_>) -> Option<Round>;

    /// Whether the member has the turn and no messages, and should skip if others wait for it.
    fn holds_turn(&self, state: RingState<'_>) -> bool;

    /// Whether a skip is sent at once to the members whose messages wait for it, which send it to the others with their
    /// approvals.
    fn passes_skips_on(&self) -> bool {
        false
    }

    /// Whether members that wait for the turn report that to the member that holds it.
    fn reports_waiting(&self) -> bool {
        false
    }

    /// Whether the window bounds the bytes of own slots outside the result, and members refuse more.
    fn bounds_window_bytes(&self) -> bool {
        true
    }

    /// Whether a stall counts against the member that causes it. False if no member can determine which one that is.
    fn blames_stalls(&self) -> bool {
        true
    }

    /// The model of the next view after a stall that counts against no member; none to keep this one.
    fn after_stall(&self) -> Option<RingKind> {
        None
    }

    /// Whether the stream of a lane runs from one member to another. Every member receives every lane but its own from
    /// exactly one other.
    fn carries(&self, _view: &View, from: Rank, _to: Rank, lane: Rank) -> bool {
        lane == from
    }
}

/// The model of a kind.
pub(crate) fn model_of(kind: RingKind) -> &'static dyn RingModel {
    match kind {
        RingKind::Token => &token::Token,
        RingKind::Pipelined => &pipelined::Pipelined,
        RingKind::Relay => &relay::Relay,
    }
}
