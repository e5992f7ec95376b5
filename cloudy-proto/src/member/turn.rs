//! `Token`: a turn that comes to an empty hand.

use crate::member::Member;
use crate::outbox::Outbox;
use crate::time::Time;

impl Member {
    /// `Token`: notes since when an empty hand holds the turn while somebody waits for it.
    pub(super) fn watch_turn(&mut self, now: Time, outbox: &Outbox) {
        let holds = self.open
            && !self.wedged
            && outbox.is_empty()
            && self.model.holds_turn(self.ring_state())
            && (self.peers.iter().any(|peer| peer.waiting) || self.result_lags());
        self.turn_since = if holds { self.turn_since.or(Some(now)) } else { None };
    }

    /// When the turn that an empty hand holds is to be passed on.
    pub(crate) fn turn_ends_at(&self) -> Option<Time> {
        self.turn_since.map(|since| since + self.view.parameters.token_tick)
    }

    /// The tick is over: passes the turn on.
    pub(crate) fn pass_turn(&mut self) {
        if self.turn_since.take().is_some() {
            let frontier = self.lanes[self.rank.at()].frontier().next();
            self.skip_own_to(frontier);
        }
    }
}
