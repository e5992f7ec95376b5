//! Frames of a source in a transfer (`protocol.md` §7.7).

use core::time::Duration;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::delivery::Delivery;
use crate::digest::{Checkpoint, Digest};
use crate::id::{Incarnation, Index, NodeId, Seq, ViewId};
use crate::io::{Entry, Event};
use crate::machine::delivery;
use crate::machine::fetch::FetchHandler;
use crate::machine::fetching::Transfer;
use crate::machine::incoming::{Header, Held};
use crate::machine::keep_up::Progress;
use crate::machine::serve::part_cost;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::slot::{Batch, check_body};
use crate::stored::Record;
use crate::view::{InstalledView, View};
use crate::wire::{AHEAD_UNKNOWN, Fetched};

/// The time between two requests to a member whose result does not continue yet.
const FOLLOW_EVERY: Duration = Duration::from_millis(10);

/// The effect of a frame.
#[derive(Debug)]
pub(super) enum Reached {
    /// More is missing, or the frame was ignored.
    Nothing,
    /// This member has the result up to the first index of the view in force.
    View { view: Arc<View>, first: Index },
    /// The last view is in force, and a source has sent its final result.
    Final { from: NodeId, theirs: Checkpoint, view: ViewId },
}

/// The header in every part of an entry.
struct EntryHeader {
    first_index: Index,
    view: ViewId,
    from: (NodeId, Incarnation),
    seqs: (Seq, u32),
    length: u64,
}

/// The end of what a source has, as it reports that.
struct End {
    index: Index,
    ahead: u64,
    view: ViewId,
    first: Index,
    digest: Digest,
}

impl FetchHandler<'_> {
    /// Handles a frame of a source.
    pub(super) fn on_fetched(&mut self, from: NodeId, fetched: Fetched) -> Reached {
        let next = self.result.state().index().next();
        let Some(fetching) = &mut self.fetches.missing else { return Reached::Nothing };
        if !Transfer::is_from(fetching.transfer.as_ref(), from) {
            if !fetching.fits(&fetched, next) || !fetching.sources.contains(&from) {
                return Reached::Nothing;
            }
            if Transfer::is_from(fetching.silent.as_ref(), from) {
                // It was late, and still first.
                core::mem::swap(&mut fetching.transfer, &mut fetching.silent);
                if let Some(other) = fetching.silent.take() {
                    self.stop_transfer(other.source);
                }
            }
        }
        self.account(from, part_cost(&fetched));
        let is_new = match fetched {
            Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, length, offset, part } => {
                let (author, seqs) = ((origin, incarnation), (first_seq, count));
                let header = EntryHeader { first_index, view, from: author, seqs, length };
                self.on_entry(from, &header, offset, part)
            }
            Fetched::View(view) => self.on_view(view),
            Fetched::End { index, ahead, view, first, digest } => {
                let reached = self.on_end(from, &End { index, ahead, view, first, digest });
                if !matches!(reached, Reached::Nothing) {
                    return reached;
                }
                false
            }
            Fetched::Truncated { first } => {
                self.on_truncated(from, first);
                false
            }
            Fetched::Snapshot { index, digest, base_length, length, offset, part } => {
                self.on_snapshot(from, Header { index, digest, base_length, length }, offset, &part)
            }
        };
        if let Some(fetching) = self.fetches.missing.as_mut().filter(|_| is_new) {
            fetching.on_brought(from);
        }
        self.grant();
        Reached::Nothing
    }

    /// Notes the received bytes of a frame.
    fn account(&mut self, from: NodeId, cost: u64) {
        let Some(fetching) = &mut self.fetches.missing else { return };
        let Some(transfer) = fetching.transfer.as_mut().filter(|transfer| transfer.source == from) else { return };
        transfer.received += cost;
        fetching.received += cost;
        fetching.silences = 0;
        if let Some(rate) = self.fetches.pace.receive(transfer.received, self.timers.now()) {
            fetching.keep_up.trip(rate);
        }
        self.await_source();
    }

    /// Handles the begin of a view in the result. True if it is new.
    fn on_view(&mut self, view: InstalledView) -> bool {
        let state = self.result.state();
        let next = state.index().next();
        // A result that begins late may not have reached its beginning yet.
        let continues = view.first == next || (view.first < next && !state.knows_all_numbers());
        if !continues || view.id() <= state.view_id() {
            return false;
        }
        self.delivery().begin_view(view);
        true
    }

    /// Handles a part of an entry. True if it is new.
    fn on_entry(&mut self, from: NodeId, header: &EntryHeader, offset: u64, part: Bytes) -> bool {
        let Some(fetching) = &mut self.fetches.missing else { return false };
        let (next, view) = (self.result.state().index().next(), self.result.state().view_id());
        // A view comes before its entries; only a source that began late itself does not know the one in force.
        let has_view = header.view == view || view == ViewId(0) && next > Index(1);
        if header.first_index != next || (!has_view && self.identity.rules.holds(Rule::ViewsAreServed)) {
            return false;
        }
        if offset == 0 && part.len() as u64 == header.length {
            fetching.held = Held::Nothing;
            self.append(header, part);
            return true;
        }
        if offset == 0 {
            let body = BytesMut::new();
            fetching.held = Held::Entry { first_index: header.first_index, length: header.length, body };
        }
        let Held::Entry { first_index, length, body } = &mut fetching.held else { return false };
        if (*first_index, *length, body.len() as u64) != (header.first_index, header.length, offset) {
            return false;
        }
        body.extend_from_slice(&part);
        if (body.len() as u64) < header.length {
            return true;
        }
        let body = core::mem::take(body).freeze();
        fetching.held = Held::Nothing;
        if let Err(error) = check_body(&body, header.seqs.1) {
            self.outputs.close_link(from, error.to_string());
            return false;
        }
        self.append(header, body);
        true
    }

    fn append(&mut self, header: &EntryHeader, body: Bytes) {
        let EntryHeader { first_index, view, from: (origin, incarnation), seqs: (first_seq, count), .. } = *header;
        let batch = Batch { first_seq, count, body };
        self.delivery().fetched(Entry { first_index, view, origin, incarnation, batch });
    }

    /// Handles a source that does not retain the missing entries. Another one may; once none is left, this node cannot
    /// follow.
    pub(super) fn on_truncated(&mut self, source: NodeId, first: Index) {
        let failure_timeout = self.log.state().view().map(|view| view.parameters.failure_timeout).unwrap_or_default();
        let (now, here) = (self.timers.now(), self.result.state().index());
        let Some(fetching) = &mut self.fetches.missing else { return };
        fetching.transfer.take_if(|transfer| transfer.source == source);
        fetching.last = Some((source, false));
        let fresh = fetching.truncated.insert(source, first).is_none();
        let since = *fetching.truncated_since.get_or_insert(now);
        let left: Vec<NodeId> =
            fetching.sources.iter().filter(|node| !fetching.truncated.contains_key(node)).copied().collect();
        let reached: Vec<&NodeId> = left.iter().filter(|node| self.peers.is_linked(**node)).collect();
        let helps = |node: &&NodeId| fetching.behind.get(node).is_none_or(|end| *end > here);
        let helped = reached.iter().any(helps);
        if fresh && !reached.is_empty() {
            return self.fetch();
        }
        // A source that is out of reach for so long may not return, and a node that lacks the same entries has no source
        // either.
        if left.is_empty() || (!helped && now.since(since) > failure_timeout) {
            let first = fetching.truncated.values().min().copied().unwrap_or(first);
            self.stop();
            self.outputs.event(Event::Truncated { first });
        }
    }

    /// Measures the rate by a complete member's report of its end, and of the bytes before that.
    fn measure(&mut self, end: Index, ahead: u64) {
        let stall_timeout = self.log.state().view().map(|view| view.parameters.stall_timeout).unwrap_or_default();
        let (at, here) = (self.timers.now(), self.result.state().index());
        let Some(fetching) = &mut self.fetches.missing else { return };
        let ahead = Some(ahead).filter(|&ahead| ahead != AHEAD_UNKNOWN);
        let progress = Progress { at, received: fetching.received, here, end, ahead };
        if let Some(slower) = fetching.keep_up.measure(progress, stall_timeout)
            && !self.plane.is_member()
        {
            self.outputs.event(Event::CannotKeepUp(slower));
        }
    }

    /// Handles the end of what a source may send, or has for the moment.
    fn on_end(&mut self, from: NodeId, end: &End) -> Reached {
        let &End { index, ahead, view: installed, first, digest } = end;
        let here = self.result.state().index();
        if first > Index(0) {
            self.measure(index, ahead);
        }
        let Some(fetching) = self.fetches.missing.as_mut() else { return Reached::Nothing };
        let knows_view = installed == fetching.view && first > Index(0);
        let target = if self.plane.is_member() && knows_view { Index(first.0 - 1) } else { index };
        if first == Index(0) && self.identity.rules.holds(Rule::LaggingSourceIsSkipped) {
            fetching.behind.insert(from, index);
        } else {
            fetching.behind.remove(&from);
        }
        fetching.reaches |= knows_view && here.next() >= first;
        if ahead == 0 {
            fetching.transfer.take_if(|transfer| transfer.source == from);
        }
        // The views before a member's are on their way after the last entry.
        let lacks_views = ahead > 0 && knows_view && self.result.state().view_id().next() < installed;
        if here < target || lacks_views {
            if fetching.transfer.is_none() {
                self.start_transfer(from);
            }
            return Reached::Nothing;
        }
        let last = self.log.state().view().is_some_and(|view| view.last);
        match self.plane.member() {
            Some(member) if knows_view => {
                if here.next() == first {
                    self.result.checkpoint();
                }
                let view = Arc::clone(&member.view);
                self.stop();
                return Reached::View { view, first };
            }
            None if last && knows_view => {
                let theirs = Checkpoint { index: Index(first.0 - 1), digest };
                return Reached::Final { from, theirs, view: installed };
            }
            _ if ahead == 0 => self.timers.set(Timer::Fetch, self.timers.now() + FOLLOW_EVERY),
            _ => {}
        }
        Reached::Nothing
    }

    /// Ends fetching with the final result, which is here up to its end.
    pub(super) fn on_final(&mut self, theirs: Checkpoint, view: ViewId) {
        let first = theirs.index.next();
        if let Some(last) = self.log.state().view().cloned() {
            self.delivery().begin_view(InstalledView { first, view: last });
        }
        // With `Disk` it knows after a restart that nothing is missing.
        if self.identity.rules.holds(Rule::FinalIsStoredWhole) {
            self.storage.records.keep(Record::Complete { view, first });
        }
        self.stop();
    }

    fn delivery(&mut self) -> Delivery<'_> {
        delivery(self.identity, self.result, self.storage, self.outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::Output;
    use crate::machine::Machine;
    use crate::machine::tests::{COORDINATOR, JOINER, MEMBER, drain, pair};
    use crate::slot::push_payload;

    const VIEW: ViewId = ViewId(1);

    /// A member of a group of two that fetches from the coordinator.
    fn fetching() -> Machine {
        let (_, mut member) = pair(Parameters::default());
        let view = member.log.state().view().cloned().expect("it is a member");
        member.fetch().start(&view);
        drain(&mut member);
        member
    }

    fn body() -> Bytes {
        let mut body = BytesMut::new();
        push_payload(&mut body, b"a message");
        body.freeze()
    }

    /// A part of the entry at an index.
    fn entry(index: u64, offset: usize, part: Bytes) -> Fetched {
        Fetched::Entry {
            first_index: Index(index),
            view: VIEW,
            origin: MEMBER,
            incarnation: Incarnation(9),
            first_seq: Seq(1),
            count: 1,
            length: body().len() as u64,
            offset: offset as u64,
            part,
        }
    }

    fn end(index: u64, view: ViewId, first: u64) -> Fetched {
        Fetched::End { index: Index(index), ahead: 0, view, first: Index(first), digest: Digest(0) }
    }

    fn index(machine: &Machine) -> Index {
        machine.result.state().index()
    }

    #[test]
    fn an_entry_is_accepted_in_order_from_a_source_and_ignored_otherwise() {
        let mut member = fetching();
        member.fetch().on_fetched(COORDINATOR, entry(2, 0, body()));
        assert_eq!(index(&member), Index(0), "a gap");
        member.fetch().on_fetched(JOINER, entry(1, 0, body()));
        assert_eq!(index(&member), Index(0), "no source");
        member.fetch().on_fetched(COORDINATOR, entry(1, 0, body()));
        assert_eq!(index(&member), Index(1));
        member.fetch().stop();
        member.fetch().on_fetched(COORDINATOR, entry(2, 0, body()));
        assert_eq!(index(&member), Index(1), "nothing is missing");
    }

    #[test]
    fn an_entry_in_parts_is_accepted_when_it_is_whole_and_refused_when_it_does_not_decode() {
        let mut member = fetching();
        member.fetch().on_fetched(COORDINATOR, entry(1, 0, body().slice(..4)));
        member.fetch().on_fetched(COORDINATOR, entry(1, 5, body().slice(5..)));
        assert_eq!(index(&member), Index(0), "a part is missing");
        member.fetch().on_fetched(COORDINATOR, entry(1, 4, body().slice(4..)));
        assert_eq!(index(&member), Index(1));
        drain(&mut member);
        let broken = Bytes::from(vec![0xff; body().len()]);
        member.fetch().on_fetched(COORDINATOR, entry(2, 0, broken.slice(..4)));
        member.fetch().on_fetched(COORDINATOR, entry(2, 4, broken.slice(4..)));
        let refused = |output: &Output| matches!(output, Output::CloseLink { peer: COORDINATOR, .. });
        assert!(drain(&mut member).iter().any(refused) && index(&member) == Index(1));
    }

    #[test]
    fn the_end_counts_from_a_source_that_knows_the_view() {
        let mut member = fetching();
        let mut reached = |fetched| member.fetch().on_fetched(COORDINATOR, fetched);
        assert!(matches!(reached(end(0, ViewId(2), 1)), Reached::Nothing), "a later view");
        assert!(matches!(reached(end(0, VIEW, 0)), Reached::Nothing), "the source is not complete");
    }

    #[test]
    fn the_end_completes_a_member_once_its_result_reaches_the_view() {
        let mut member = fetching();
        let reached = member.fetch().on_fetched(COORDINATOR, end(1, VIEW, 2));
        assert!(matches!(reached, Reached::Nothing), "an entry is missing");
        member.fetch().on_fetched(COORDINATOR, entry(1, 0, body()));
        let reached = member.fetch().on_fetched(COORDINATOR, end(1, VIEW, 2));
        assert!(matches!(reached, Reached::View { first: Index(2), .. }), "{reached:?}");
        assert!(!member.catch_up.fetches.is_fetching());
    }

    #[test]
    fn a_node_whose_only_source_retains_too_little_cannot_follow() {
        let mut member = fetching();
        member.fetch().on_fetched(JOINER, Fetched::Truncated { first: Index(5) });
        assert!(member.catch_up.fetches.is_fetching(), "no source");
        member.fetch().on_fetched(COORDINATOR, Fetched::Truncated { first: Index(5) });
        let truncated = |output: &Output| matches!(output, Output::Event(Event::Truncated { first: Index(5) }));
        assert!(drain(&mut member).iter().any(truncated) && !member.catch_up.fetches.is_fetching());
    }

    #[test]
    fn a_snapshot_with_another_digest_is_refused() {
        let mut member = fetching();
        let part = Bytes::from_static(b"no snapshot");
        let length = part.len() as u64;
        let snapshot =
            Fetched::Snapshot { index: Index(7), digest: Digest(1), base_length: 3, length, offset: 0, part };
        member.fetch().on_fetched(COORDINATOR, snapshot);
        let refused = |output: &Output| matches!(output, Output::CloseLink { peer: COORDINATOR, .. });
        assert!(drain(&mut member).iter().any(refused) && index(&member) == Index(0));
    }
}
