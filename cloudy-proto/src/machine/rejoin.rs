//! The return of an evicted node to the ring (`protocol.md` §6.5).

use core::time::Duration;

use crate::id::{Incarnation, NodeId};
use crate::io::Event;
use crate::machine::Machine;
use crate::machine::timers::Timer;
use crate::wire::ControlFrame;

/// The time between two reports of an evicted node.
const REJOIN_EVERY: Duration = Duration::from_millis(100);

impl Machine {
    /// Reports that this evicted node lives, and whether it is ready to return.
    pub(super) fn send_rejoin(&mut self) {
        let Some(view) = self.log.state().view().filter(|_| self.is_evicted()).cloned() else { return };
        let reaches = |node: NodeId| node == self.identity.me || self.peers.is_linked(node);
        let linked = self.has_coordinator() && view.ring.iter().all(|member| reaches(member.node));
        let ready = linked && self.catch_up.fetches.is_near();
        self.set_timer(Timer::Rejoin, REJOIN_EVERY);
        if self.is_coordinator() {
            let me = self.identity.me;
            self.view_change().on_rejoin(me, view.id, ready);
            self.on_slow_learner(me, self.catch_up.fetches.slower());
        } else if self.has_coordinator() {
            self.send_control(
                self.tracking.node(),
                ControlFrame::Rejoin { view: view.id, ready, slower: self.catch_up.fetches.slower() },
            );
        }
    }

    /// Notes that the log does not remember this node's incarnation: the coordinator would not accept it as a joiner.
    pub(super) fn notice_forgotten(&mut self) {
        let was_listed =
            self.identity.incarnation > Incarnation(0) && self.log.state().incarnation(self.identity.me).is_none();
        if was_listed && self.closing.final_result().is_none() && self.peers.evictions.on_forgotten() {
            self.event(Event::Forgotten);
        }
    }

    fn is_evicted(&self) -> bool {
        let listed = self.identity.incarnation > Incarnation(0) && !self.arrival.observes();
        let ended = self.closing.final_result().is_some() || self.log.state().is_closed();
        let follows = self.catch_up.fetches.is_fetching() && !self.plane.is_member() && !ended;
        listed && follows && !self.closing.departure().is_wanted()
    }
}
