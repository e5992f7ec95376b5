//! Links of which nothing arrives: they are closed after the idle timeout, but not before the groups have given their
//! peers up (`protocol.md` §4, §6.1).

use std::time::Duration;

use cloudy_proto::{NodeId, Time};

use super::Driver;
use crate::link_error::{LinkFailure, code};

/// The number of checks of all links within an idle timeout, at least.
const CHECKS: u32 = 4;
/// The closing reason. It reaches the peer where only the other direction is lost.
const WORDS: &str = "nothing was received for the idle timeout";

impl Driver {
    /// The time of the next check of the links, if there are any.
    pub(super) fn looks_at(&self) -> Option<Time> {
        (!self.peers.is_empty()).then(|| self.looked_at + self.check_every())
    }

    fn check_every(&self) -> Duration {
        self.links.limits.idle_timeout / CHECKS
    }

    /// Checks all links for datagrams, and closes those that are silent for too long.
    pub(super) fn look(&mut self, now: Time) {
        let before = std::mem::replace(&mut self.looked_at, now);
        let was_stopped = now.since(before) > self.check_every() * 2;
        for link in self.peers.values_mut().chain(self.superseded.links_mut()) {
            link.look(before, now);
            if was_stopped {
                link.listen_again(now);
            }
        }
        let idle_timeout = self.links.limits.idle_timeout;
        let silent = self.peers.values().filter(|link| link.silent_for(now) >= idle_timeout);
        let silent: Vec<(NodeId, u64, Duration)> =
            silent.map(|link| (link.peer, link.id, link.silent_for(now))).collect();
        for (peer, link, silent_for) in silent {
            if silent_for >= self.silence_max(peer) {
                self.close_silent(peer, link);
            }
        }
        let unanswered = self.superseded.links_mut().filter(|link| link.silent_for(now) >= idle_timeout);
        unanswered.for_each(|link| link.close(code::SILENT, WORDS));
    }

    /// How long a link may be silent: for the idle timeout, or for as long as a group waits for the peer.
    fn silence_max(&self, peer: NodeId) -> Duration {
        let patience = self.groups.values().filter_map(|group| group.machine.patience_with(peer));
        patience.max().unwrap_or_default().max(self.links.limits.idle_timeout)
    }

    fn close_silent(&mut self, peer: NodeId, link: u64) {
        if let Some(link) = self.peers.get(&peer) {
            link.close(code::SILENT, WORDS);
        }
        self.link_down(peer, link, &LinkFailure::TimedOut.to_string());
    }
}
