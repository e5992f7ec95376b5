//! Slots are forwarded along the ring, so that no link carries a payload twice.

use crate::config::RingKind;
use crate::id::{Rank, Round};
use crate::ring::pipelined::Pipelined;
use crate::ring::{RingModel, RingState};
use crate::view::View;

#[derive(Debug)]
pub(crate) struct Relay;

/// A member may use the same rounds as in `Pipelined`.
impl RingModel for Relay {
    fn round_for(&self, state: RingState<'_>, cost_bytes: u64) -> Option<Round> {
        Pipelined.round_for(state, cost_bytes)
    }

    fn skip_to(&self, state: RingState<'_>) -> Option<Round> {
        Pipelined.skip_to(state)
    }

    fn holds_turn(&self, state: RingState<'_>) -> bool {
        Pipelined.holds_turn(state)
    }

    /// A stalled slot may wait for any member between its owner and the one that reports the stall.
    fn blames_stalls(&self) -> bool {
        false
    }

    fn after_stall(&self) -> Option<RingKind> {
        Some(RingKind::Pipelined)
    }

    /// The successor receives all lanes, the own one and those of others, except the successor's own.
    fn carries(&self, view: &View, from: Rank, to: Rank, lane: Rank) -> bool {
        view.parent(to) == from && lane != to
    }
}
