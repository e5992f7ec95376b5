//! Requests of a peer with answers that are longer than they are: answered as fast as the peer reads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cloudy_proto::wire::{ControlFrame, StreamHeader};
use cloudy_proto::{Frame, GroupId};
use tokio::sync::Notify;

/// Maximum bytes on all control and result streams of a link that wait for the transport. Beyond it no request of the
/// peer is answered; a single answer may exceed it.
const ANSWERS_BYTES_MAX: usize = 1 << 20;

/// The bytes that wait on the control and result streams of one link.
#[derive(Default)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    /// Whether requests wait for a smaller backlog.
    awaited: AtomicBool,
    /// Wakes the driver.
    wake: Arc<Notify>,
}

impl Backlog {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { wake, ..Self::default() }
    }

    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if self.awaited.load(Ordering::Acquire) && !self.is_large() {
            self.wake.notify_one();
        }
    }

    fn is_large(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= ANSWERS_BYTES_MAX
    }
}

/// A kind of request. A later request replaces an earlier one of the same kind and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequestKind {
    /// A part of the result, or of a snapshot.
    Result,
    /// The control log.
    Log,
    /// A request to join, or for the coordinator.
    Join,
}

impl RequestKind {
    /// The kind of request of a frame; none for another frame.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        match frame {
            Frame::Control(ControlFrame::Fetch(_)) => Some(Self::Result),
            Frame::Control(ControlFrame::Follow { .. }) => Some(Self::Log),
            Frame::Control(ControlFrame::Join { .. }) => Some(Self::Join),
            _ => None,
        }
    }
}

/// The requests of one peer that wait until it has read the answers to earlier ones: one of each kind for each group.
pub(super) struct Requests {
    pub(super) backlog: Arc<Backlog>,
    waiting: BTreeMap<(GroupId, RequestKind), (StreamHeader, Frame)>,
    order: VecDeque<(GroupId, RequestKind)>,
}

impl Requests {
    pub(super) fn new(wake: Arc<Notify>) -> Self {
        Self { backlog: Arc::new(Backlog::new(wake)), waiting: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Whether the peer has to read earlier answers first.
    pub(super) fn must_wait(&self) -> bool {
        self.backlog.is_large()
    }

    pub(super) fn wait(&mut self, kind: RequestKind, header: StreamHeader, frame: Frame) {
        let key = (header.group, kind);
        if self.waiting.insert(key, (header, frame)).is_none() {
            self.order.push_back(key);
        }
        self.backlog.awaited.store(true, Ordering::Release);
    }

    /// The next request to answer.
    pub(super) fn next(&mut self) -> Option<(StreamHeader, Frame)> {
        if self.order.is_empty() || self.must_wait() {
            return None;
        }
        let next = self.order.pop_front().and_then(|key| self.waiting.remove(&key));
        self.backlog.awaited.store(!self.order.is_empty(), Ordering::Release);
        next
    }
}

#[cfg(test)]
mod tests {
    use cloudy_proto::wire::{Fetch, Stream, WireVersions};
    use cloudy_proto::{Incarnation, Index};

    use super::*;

    #[test]
    fn a_request_waits_while_answers_do_and_a_later_one_takes_its_place() {
        let header = |group: u8| StreamHeader {
            versions: WireVersions::CURRENT,
            group: GroupId([group; 16]),
            incarnation: Incarnation(0),
            stream: Stream::Control,
        };
        let fetch = |from| Frame::Control(ControlFrame::Fetch(Fetch { from: Index(from), ..Fetch::default() }));
        let mut requests = Requests::new(Arc::default());
        requests.backlog.add(ANSWERS_BYTES_MAX);
        assert!(requests.must_wait());
        for from in 0..1_000 {
            requests.wait(RequestKind::Result, header(1), fetch(from));
        }
        requests.wait(RequestKind::Result, header(2), fetch(7));
        assert_eq!((requests.waiting.len(), requests.order.len()), (2, 2));
        assert_eq!(requests.next(), None);
        requests.backlog.remove(1);
        assert_eq!(requests.next(), Some((header(1), fetch(999))));
        assert_eq!(requests.next(), Some((header(2), fetch(7))));
        assert_eq!(requests.next(), None);
    }
}
