//! The missing part of the result, and the transfers that bring it.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::id::{Index, NodeId, ViewId};
use crate::machine::incoming::Held;
use crate::machine::keep_up::KeepUp;
use crate::machine::pace::Pace;
use crate::time::Time;
use crate::wire::{Fetched, HeldPart, Rates};

/// Everything that this node fetches.
#[derive(Debug)]
pub(super) struct Fetches {
    /// The missing part of the result.
    pub(super) missing: Option<Fetching>,
    /// The rate of transfers, kept from one to the next.
    pub(super) pace: Pace,
    /// The number of the last request for a transfer.
    number: u64,
}

impl Fetches {
    /// `run` distinguishes the numbers of transfers from those of an earlier process, which may have used the same links.
    pub(super) fn new(run: u64) -> Self {
        Self { missing: None, pace: Pace::default(), number: run }
    }

    /// Whether a part of the result is missing, as far as this node follows it.
    pub(super) fn is_fetching(&self) -> bool {
        self.missing.is_some()
    }

    /// The number of a new transfer.
    pub(super) fn next_number(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// The transfer in progress.
    pub(super) fn transfer(&self) -> Option<&Transfer> {
        self.missing.as_ref()?.transfer.as_ref()
    }

    pub(super) fn transfer_mut(&mut self) -> Option<&mut Transfer> {
        self.missing.as_mut()?.transfer.as_mut()
    }

    /// Whether the missing part is small enough for a place on the ring.
    pub(super) fn is_near(&self) -> bool {
        self.missing.as_ref().is_some_and(|fetching| fetching.keep_up.is_near())
    }

    /// The measured rates if this node cannot keep up.
    pub(super) fn slower(&self) -> Option<Rates> {
        self.missing.as_ref().and_then(|fetching| fetching.keep_up.slower())
    }

    /// Whether the result reaches the first index of the view in force.
    pub(super) fn reaches_view(&self) -> bool {
        self.missing.as_ref().is_some_and(|fetching| fetching.reaches)
    }
}

/// The missing part of the result: up to a joiner's first index, or, at an evicted node, all new entries.
#[derive(Debug)]
pub(super) struct Fetching {
    /// The view in force. A source must know it for its answer to be complete.
    pub(super) view: ViewId,
    /// The nodes that have the missing part.
    pub(super) sources: Vec<NodeId>,
    /// The transfer in progress.
    pub(super) transfer: Option<Transfer>,
    /// A transfer whose source was silent: late parts of it are used.
    pub(super) silent: Option<Transfer>,
    /// The source of the last transfer, and whether that brought anything.
    pub(super) last: Option<(NodeId, bool)>,
    /// Number of consecutive silent sources.
    pub(super) silences: u32,
    /// Number of received bytes.
    pub(super) received: u64,
    pub(super) keep_up: KeepUp,
    /// Whether the result reaches the first index of the present view.
    pub(super) reaches: bool,
    /// Nodes that do not retain the missing entries, with the first index that each retains.
    pub(super) truncated: BTreeMap<NodeId, Index>,
    pub(super) truncated_since: Option<Time>,
    /// Nodes that lack the beginning of the view as well, with the end of each one's result.
    pub(super) behind: BTreeMap<NodeId, Index>,
    /// The received part of an entry or of a snapshot.
    pub(super) held: Held,
    /// The time from which nothing was received.
    stands_since: Option<Time>,
    /// Whether that was reported.
    missed: bool,
}

/// A transfer from one source.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) source: NodeId,
    pub(super) number: u64,
    pub(super) granted: u64,
    pub(super) received: u64,
}

impl Transfer {
    pub(super) fn is_from(transfer: Option<&Self>, node: NodeId) -> bool {
        transfer.is_some_and(|transfer| transfer.source == node)
    }
}

impl Fetching {
    /// The missing part in a view. A transfer in progress for the view before continues if its source is still one.
    pub(super) fn of(view: ViewId, sources: Vec<NodeId>, before: Option<Self>) -> Self {
        let mut fetching = Self {
            view,
            sources,
            transfer: None,
            silent: None,
            last: None,
            silences: 0,
            received: 0,
            keep_up: KeepUp::default(),
            reaches: false,
            truncated: BTreeMap::new(),
            truncated_since: None,
            behind: BTreeMap::new(),
            held: Held::Nothing,
            stands_since: None,
            missed: false,
        };
        if let Some(before) = before {
            let is_source = |transfer: &Transfer| fetching.sources.contains(&transfer.source);
            fetching.transfer = before.transfer.filter(is_source);
            (fetching.last, fetching.held) = (before.last, before.held);
            (fetching.received, fetching.keep_up) = (before.received, before.keep_up);
            fetching.keep_up.begin_view();
        }
        fetching
    }

    /// Notes a node outside the view in force that has the result.
    pub(super) fn add_source(&mut self, node: NodeId) {
        if !self.sources.contains(&node) {
            self.sources.push(node);
        }
    }

    /// The next source: that of the last transfer if it brought anything, or else the next linked one.
    pub(super) fn next_source(&self, is_linked: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let again = self.last.filter(|(_, brought)| *brought).map(|(node, _)| node);
        let again = again.filter(|node| self.sources.contains(node) && is_linked(*node));
        let after = self.last.and_then(|(last, _)| self.sources.iter().position(|&node| node == last));
        let start = after.map_or(0, |at| at + 1);
        let mut in_turn = self.sources.iter().cycle().skip(start).take(self.sources.len());
        again.or_else(|| in_turn.find(|node| is_linked(**node)).copied())
    }

    /// Whether a frame continues the result here, which ends before an index.
    pub(super) fn fits(&self, fetched: &Fetched, next: Index) -> bool {
        match fetched {
            Fetched::Entry { first_index, length, offset, .. } if *first_index == next => match self.held.part(next) {
                HeldPart::Entry { length: held, offset: at } if held == *length => at == *offset,
                _ => *offset == 0,
            },
            Fetched::View(view) => view.first == next,
            _ => false,
        }
    }

    /// Notes a source that brought something new.
    pub(super) fn on_brought(&mut self, source: NodeId) {
        (self.stands_since, self.missed) = (None, false);
        self.last = Some((source, true));
    }

    /// Notes that nothing was received so far. True, once, if that has lasted for a time.
    pub(super) fn stands_for(&mut self, patience: Duration, now: Time) -> bool {
        let since = *self.stands_since.get_or_insert(now);
        now.since(since) >= patience && !core::mem::replace(&mut self.missed, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NodeId = NodeId([1; 32]);
    const OTHER: NodeId = NodeId([2; 32]);

    fn fetching() -> Fetching {
        Fetching::of(ViewId(1), vec![ONE, OTHER], None)
    }

    #[test]
    fn a_source_that_brought_something_is_used_again_and_a_silent_one_is_not() {
        let mut fetching = fetching();
        assert_eq!(fetching.next_source(|_| true), Some(ONE));
        fetching.last = Some((ONE, false));
        assert_eq!(fetching.next_source(|_| true), Some(OTHER));
        assert_eq!(fetching.next_source(|node| node == ONE), Some(ONE), "the only linked one");
        fetching.on_brought(ONE);
        assert_eq!(fetching.next_source(|_| true), Some(ONE));
        assert_eq!(fetching.next_source(|node| node == OTHER), Some(OTHER), "its link is gone");
        assert_eq!(fetching.next_source(|_| false), None);
    }

    #[test]
    fn a_transfer_continues_in_the_next_view_while_its_source_is_a_source() {
        let with_transfer = || {
            let mut before = fetching();
            before.transfer = Some(Transfer { source: ONE, number: 7, granted: 10, received: 5 });
            before.received = 5;
            Some(before)
        };
        let next = Fetching::of(ViewId(2), vec![OTHER, ONE], with_transfer());
        assert!(Transfer::is_from(next.transfer.as_ref(), ONE) && next.received == 5);
        assert!(Fetching::of(ViewId(2), vec![OTHER], with_transfer()).transfer.is_none());
    }

    #[test]
    fn a_standstill_is_reported_once_and_again_after_something_was_received() {
        let patience = Duration::from_micros(10);
        let mut fetching = fetching();
        assert_eq!([1, 10, 11, 12].map(|at| fetching.stands_for(patience, Time(at))), [false, false, true, false]);
        fetching.on_brought(ONE);
        assert_eq!([13, 22, 23].map(|at| fetching.stands_for(patience, Time(at))), [false, false, true]);
    }

    #[test]
    fn only_a_frame_that_continues_the_result_fits() {
        let part = |first_index, offset| Fetched::Entry {
            first_index: Index(first_index),
            view: ViewId(1),
            origin: ONE,
            incarnation: crate::id::Incarnation(1),
            first_seq: crate::id::Seq(1),
            count: 1,
            length: 9,
            offset,
            part: bytes::Bytes::new(),
        };
        let mut fetching = fetching();
        assert!(fetching.fits(&part(5, 0), Index(5)) && !fetching.fits(&part(5, 3), Index(5)));
        assert!(!fetching.fits(&part(6, 0), Index(5)), "a gap");
        fetching.held = Held::Entry { first_index: Index(5), length: 9, body: bytes::BytesMut::from(&b"abc"[..]) };
        assert!(fetching.fits(&part(5, 3), Index(5)) && !fetching.fits(&part(5, 0), Index(5)), "it continues");
        assert!(!fetching.fits(&Fetched::Truncated { first: Index(5) }, Index(5)));
    }
}
