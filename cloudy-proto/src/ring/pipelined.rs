//! All members send while their windows are open.

use crate::id::Round;
use crate::ring::{RingModel, RingState};

#[derive(Debug)]
pub(crate) struct Pipelined;

impl RingModel for Pipelined {
    /// No message slot below the highest received one: a slow sender does not slow down a fast one.
    fn round_for(&self, state: RingState<'_>, cost_bytes: u64) -> Option<Round> {
        let has_capacity = state.window.has_capacity(state.pending.bytes(), cost_bytes);
        (has_capacity && state.window_has_slot())
            .then(|| state.own().frontier().max(state.taken_max.unwrap_or_default()))
    }

    /// Some rounds further than needed, so that one busy sender does not cost every idle member a frame for each slot.
    fn skip_to(&self, state: RingState<'_>) -> Option<Round> {
        let taken = state.taken_max?;
        (state.own().frontier() <= taken).then(|| Round(taken.0 + 1 + u64::from(state.parameters().skip_ahead)))
    }

    fn passes_skips_on(&self) -> bool {
        true
    }

    fn holds_turn(&self, _state: RingState<'_>) -> bool {
        false
    }
}
