//! The resources that a peer may use at this node grow with the groups that both are in.

use cloudy_proto::{RingKind, View};

use crate::driver::Driver;

/// Number of streams that any peer may open for each group here: one for control frames and one for results of a node
/// that is not on the ring, and one for the refusal before them.
const STREAMS_OUTSIDE: usize = 3;

/// Number of streams that a member opens towards another in one view: a tally, and the lanes that it carries.
fn streams_of(view: &View) -> usize {
    let lanes = if view.parameters.ring == RingKind::Relay { view.members() } else { 1 };
    1 + lanes
}

impl Driver {
    /// Allows each peer the streams for the groups that it shares with this node: those of two views.
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
