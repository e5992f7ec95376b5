//! What a peer may make this node hold grows with the groups that both are in.

use cloudy_proto::{RingKind, View};

use crate::driver::Driver;

/// Streams for each group here that any peer may open: one each for the control frames and the results of a node that is not
/// on the ring, and one for the refusal before it.
const STREAMS_OUTSIDE: usize = 3;

/// What a member opens towards another in one view: a tally, and the lanes that it carries.
fn streams_of(view: &View) -> usize {
    let lanes = if view.parameters.ring == RingKind::Relay { view.members() } else { 1 };
    1 + lanes
}

impl Driver {
    /// Lets each peer open the streams that the groups which it shares with this node need: those of two views.
    pub(super) fn set_allowances(&mut self) {
        if !std::mem::take(&mut self.allowances_stale) {
            return;
        }
        let outside = STREAMS_OUTSIDE * self.groups.len();
        let send_window = self.links.limits.send_window_bytes();
        for (&peer, link) in &mut self.peers {
            let views = self.groups.values().filter_map(|group| group.view.as_ref());
            let shared: usize =
                views.filter(|view| view.rank_of(peer).is_some()).map(|view| 2 * streams_of(view)).sum();
            link.allow(outside + shared, shared > 0, send_window);
        }
    }
}
