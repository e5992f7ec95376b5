//! Ring models: when a member may use its next round, and which lane streams run on which link (`protocol.md` §5). They
//! differ in speed and never in what may happen to a result.

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

/// What a model may look at.
#[derive(Clone, Copy)]
pub(crate) struct RingState<'a> {
    pub(crate) view: &'a View,
    pub(crate) me: Rank,
    pub(crate) lanes: &'a [Lane],
    pub(crate) pending: &'a PendingTable,
    pub(crate) window: &'a Window,
    /// The highest round of a message slot taken from another lane.
    pub(crate) taken_max: Option<Round>,
}

impl RingState<'_> {
    fn parameters(&self) -> &Parameters {
        &self.view.parameters
    }

    fn own(&self) -> &Lane {
        &self.lanes[self.me.at()]
    }

    /// Fewer own slots than the window are outside the own result.
    fn window_has_slot(&self) -> bool {
        self.pending.slots() < self.parameters().window_slots as usize
    }
}

/// When a member may use its next round, which one that is, and which lane streams run on which link.
pub(crate) trait RingModel: Debug + Send + Sync {
    /// The round that a message slot which costs so much may take; none while it has to wait.
    fn round_for(&self, state: RingState<'_>, cost_bytes: u64) -> Option<Round>;

    /// Where an empty-handed member's lane skips to; none if it has no reason to skip.
    fn skip_to(&self, state: RingState<'_>) -> Option<Round>;

    /// The member has the turn, nothing to say, and should skip if others wait for it.
    fn holds_turn(&self, state: RingState<'_>) -> bool;

    /// A skip is told at once to those whose messages wait for it, and they tell the others with their approvals.
    fn passes_skips_on(&self) -> bool {
        false
    }

    /// Members that wait for the turn report that to the member that holds it.
    fn reports_waiting(&self) -> bool {
        false
    }

    /// The bytes of own slots outside the result are bounded by the window, and members refuse more.
    fn bounds_window_bytes(&self) -> bool {
        true
    }

    /// A stall counts against the member that causes it. False where no member can tell which one that is.
    fn blames_stalls(&self) -> bool {
        true
    }

    /// The model of the next view after a stall that counts against no member; none to keep this one.
    fn after_stall(&self) -> Option<RingKind> {
        None
    }

    /// The stream of a lane runs from one member to another. Every member gets every lane but its own from exactly one
    /// other.
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
