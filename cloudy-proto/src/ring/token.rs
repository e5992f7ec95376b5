//! The naive ring: one slot at a time, in the order of the ring.

use crate::id::Round;
use crate::ring::{RingModel, RingState};
use crate::view::Place;

#[derive(Debug)]
pub(crate) struct Token;

impl Token {
    /// Whether the slot just before the own next one has been received or is a skip.
    fn has_turn(state: RingState<'_>) -> bool {
        let next = Place { round: state.own().frontier(), rank: state.me };
        let before = state.view.place_before(next);
        before.is_none_or(|before| state.lanes[before.rank.at()].frontier() > before.round)
    }
}

impl RingModel for Token {
    fn round_for(&self, state: RingState<'_>, _cost_bytes: u64) -> Option<Round> {
        (Self::has_turn(state) && state.window_has_slot()).then(|| state.own().frontier())
    }

    /// Only by the tick of the member that holds the turn.
    fn skip_to(&self, _state: RingState<'_>) -> Option<Round> {
        None
    }

    /// In a session a turn is never passed on without a message: the order of origins is that of the ring
    /// (`protocol.md` §9), and once a member has nothing more to send, no member has.
    fn holds_turn(&self, state: RingState<'_>) -> bool {
        !state.parameters().session && Self::has_turn(state)
    }

    fn reports_waiting(&self) -> bool {
        true
    }

    /// One slot at a time is in flight, of any size.
    fn bounds_window_bytes(&self) -> bool {
        false
    }
}
