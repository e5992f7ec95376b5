//! Requests of peers to groups, answered as fast as the peers read.

use cloudy_proto::wire::StreamHeader;
use cloudy_proto::{Frame, Input, NodeId};

use crate::driver::Driver;
use crate::link::{Link, RequestKind};

impl Driver {
    /// Handles a request of a peer whose answer may be longer than it. The answer is queued before the next request is
    /// handled; while the peer has many answers to read, its latest request waits.
    pub(super) fn take_request(&mut self, from: NodeId, kind: RequestKind, header: &StreamHeader, frame: Frame) {
        let known = kind == RequestKind::Result
            && self.groups.get(&header.group).is_some_and(|group| group.machine.knows(from));
        let send_window = self.links.limits.send_window_bytes();
        let Some(link) = self.peers.get_mut(&from) else { return };
        if known {
            // An evicted member or a newcomer: its fetch may need as many streams as a ring.
            link.widen(send_window);
        }
        if link.must_wait() {
            link.wait(kind, header.clone(), frame);
        } else {
            self.answer(from, header, frame);
        }
    }

    /// Answers kept requests of peers that have read earlier answers.
    pub(super) fn answer_waiting(&mut self) {
        let mut peers = self.peers.keys().copied().next();
        while let Some(peer) = peers {
            while let Some((header, frame)) = self.peers.get_mut(&peer).and_then(Link::next_request) {
                self.answer(peer, &header, frame);
            }
            peers = self.peers.range(peer..).map(|(&next, _)| next).find(|&next| next > peer);
        }
    }

    fn answer(&mut self, from: NodeId, header: &StreamHeader, frame: Frame) {
        let now = self.now();
        let (incarnation, stream) = (header.incarnation, header.stream);
        let input = Input::Frame { from, incarnation, stream, frame };
        if let Some(group) = self.groups.get_mut(&header.group) {
            group.machine.handle(now, input);
            self.turn_group(header.group);
        } else if self.handle_closed(header.group, input) {
            self.turn_closed();
        }
    }
}
