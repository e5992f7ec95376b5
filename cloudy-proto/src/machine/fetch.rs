//! Fetching what is missing of the result, from one source at a time (`protocol.md` §7.7).

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::config::Durability;
use crate::digest::{Checkpoint, Digest};
use crate::id::{Incarnation, Index, NodeId, Seq, ViewId};
use crate::io::{Entry, Event};
use crate::limits::{FETCH_BURST_BYTES, UNSYNCED_FETCH_BYTES_MAX};
use crate::machine::Machine;
use crate::machine::incoming::{Header, Held};
use crate::machine::keep_up::{KeepUp, Progress};
use crate::machine::serve::part_cost;
use crate::machine::timers::Timer;
use crate::rules::Rule;
use crate::slot::{Batch, check_body};
use crate::stored::Record;
use crate::time::Time;
use crate::view::{InstalledView, View};
use crate::wire::{AHEAD_UNKNOWN, ControlFrame, Fetch, Fetched, HeldPart, Rates};

/// Between two requests to a member whose result goes no further yet.
const FOLLOW_EVERY: Duration = Duration::from_millis(10);
/// A source is silent if nothing comes for so many of its round trips …
const SILENT_TRIPS: u32 = 4;
/// … doubled with each source that was silent before, so many times at most …
const SILENCES_COUNTED_MAX: u32 = 4;
/// … and up to this.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// The window is granted again in so many steps …
const GRANTS_PER_WINDOW: u64 = 4;
/// … of no more than this: each request brings more than it takes to make the next one.
const GRANT_BYTES_MAX: u64 = FETCH_BURST_BYTES / 2;

/// What is missing of the result: up to a joiner's first index, or, for who was evicted, whatever is added to it.
#[derive(Debug)]
pub(crate) struct Fetching {
    /// The view in force: who answers must know it, before its answer is complete.
    view: ViewId,
    /// The node that has it.
    pub(super) sources: Vec<NodeId>,
    /// The transfer in progress.
    transfer: Option<Transfer>,
    /// One whose source was silent: what it brings late is used.
    silent: Option<Transfer>,
    /// The source of the last transfer, and whether that brought anything.
    last: Option<(NodeId, bool)>,
    /// Sources in a row that were silent.
    silences: u32,
    /// Bytes that sources have brought.
    received: u64,
    keep_up: KeepUp,
    /// The result reaches the first index of the view in force.
    pub(super) reaches: bool,
    /// Nodes that do not retain the missing entries, and the first index that each retains.
    truncated: BTreeMap<NodeId, Index>,
    truncated_since: Option<Time>,
    /// Nodes that lack the beginning of the view as well, and the end of each one's result.
    behind: BTreeMap<NodeId, Index>,
    /// What is here of an entry or of a snapshot.
    pub(super) held: Held,
    /// Since when nothing has come.
    pub(super) stands_since: Option<Time>,
    /// That was reported.
    pub(super) missed: bool,
}

/// A transfer from one source.
#[derive(Debug)]
struct Transfer {
    source: NodeId,
    number: u64,
    granted: u64,
    received: u64,
}

impl Transfer {
    fn is_from(transfer: Option<&Self>, node: NodeId) -> bool {
        transfer.is_some_and(|transfer| transfer.source == node)
    }
}

/// What every part of an entry says of all of it.
struct EntryHeader {
    first_index: Index,
    view: ViewId,
    from: (NodeId, Incarnation),
    seqs: (Seq, u32),
    length: u64,
}

impl Fetching {
    fn of(view: ViewId, sources: Vec<NodeId>) -> Self {
        Self {
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
        }
    }

    /// A node that is not of the view in force has the result.
    pub(super) fn add_source(&mut self, node: NodeId) {
        if !self.sources.contains(&node) {
            self.sources.push(node);
        }
    }

    /// What a source brings continues what is here, where that ends before an index.
    fn fits(&self, fetched: &Fetched, next: Index) -> bool {
        match fetched {
            Fetched::Entry { first_index, length, offset, .. } if *first_index == next => match self.held.part(next) {
                HeldPart::Entry { length: held, offset: at } if held == *length => at == *offset,
                _ => *offset == 0,
            },
            Fetched::View(view) => view.first == next,
            _ => false,
        }
    }
}

impl Machine {
    /// A view is in force, and the result here does not reach its beginning, or this node is not on its ring.
    pub(super) fn start_fetching(&mut self, view: &View) {
        let ring = view.ring.iter().map(|member| member.node).filter(|&node| node != self.identity.me);
        let elsewhere = self.closing.told_by().filter(|node| view.rank_of(*node).is_none());
        let sources: Vec<NodeId> = ring.chain(elsewhere).collect();
        let mut fetching = Fetching::of(view.id, sources);
        if let Some(before) = self.catch_up.fetching.take() {
            // What is on its way is not requested again.
            let is_source = |transfer: &Transfer| fetching.sources.contains(&transfer.source);
            fetching.transfer = before.transfer.filter(is_source);
            (fetching.last, fetching.held) = (before.last, before.held);
            (fetching.received, fetching.keep_up) = (before.received, before.keep_up);
            fetching.keep_up.begin_view();
        }
        let goes_on = fetching.transfer.is_some();
        self.catch_up.fetching = Some(fetching);
        if goes_on {
            self.send_fetch();
            self.await_source();
        } else {
            self.fetch();
        }
    }

    /// Starts a transfer from the source of the last one if that brought anything, or else from the next that is linked.
    pub(super) fn fetch(&mut self) {
        self.miss_final();
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        let linked = |node: &&NodeId| self.peers.is_linked(**node);
        let again = fetching.last.filter(|(_, brought)| *brought).map(|(node, _)| node);
        let again = again.filter(|node| fetching.sources.contains(node) && self.peers.is_linked(*node));
        let after = fetching.last.and_then(|(last, _)| fetching.sources.iter().position(|&node| node == last));
        let start = after.map_or(0, |at| at + 1);
        let mut in_turn = fetching.sources.iter().cycle().skip(start).take(fetching.sources.len());
        let source = again.or_else(|| in_turn.find(linked).copied());
        fetching.transfer = None;
        match source {
            Some(source) => self.start_transfer(source),
            None => self.await_source(),
        }
    }

    /// Another transfer from the source of the one so far, which is over.
    pub(super) fn fetch_on(&mut self) {
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        match fetching.transfer.take().map(|transfer| transfer.source).filter(|node| self.peers.is_linked(*node)) {
            Some(source) => self.start_transfer(source),
            None => self.fetch(),
        }
    }

    fn start_transfer(&mut self, source: NodeId) {
        self.catch_up.transfers.number = self.catch_up.transfers.number.wrapping_add(1);
        let number = self.catch_up.transfers.number;
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        fetching.last = Some((source, false));
        fetching.transfer = Some(Transfer { source, number, granted: 0, received: 0 });
        self.catch_up.transfers.pace.start(self.timers.now());
        self.await_source();
        self.grant();
    }

    /// The source may send more, as far as the window and the own disk allow.
    fn grant(&mut self) {
        let window = self.catch_up.transfers.pace.window_bytes();
        let Some(transfer) = self.catch_up.fetching.as_ref().and_then(|fetching| fetching.transfer.as_ref()) else {
            return;
        };
        let (granted, received) = (transfer.granted, transfer.received);
        let step = (window / GRANTS_PER_WINDOW).min(GRANT_BYTES_MAX);
        if received + window < granted + step {
            return;
        }
        let wanted = received + window.min(self.unsynced_left());
        // The last part of a grant may exceed it: less than one is not worth a request.
        let is_idle = received >= granted;
        if wanted >= granted + step || (is_idle && wanted > granted) {
            if let Some(transfer) = self.catch_up.fetching.as_mut().and_then(|fetching| fetching.transfer.as_mut()) {
                transfer.granted = wanted;
            }
            self.catch_up.transfers.pace.request(wanted, received, self.timers.now());
            self.send_fetch();
        } else if is_idle {
            // The source waits for this node's disk.
            self.timers.stop(Timer::Fetch);
        }
    }

    /// Bytes that may be fetched without exceeding what may wait for the disk.
    fn unsynced_left(&self) -> u64 {
        match self.identity.durability {
            Durability::Memory => u64::MAX,
            Durability::Disk => UNSYNCED_FETCH_BYTES_MAX.saturating_sub(self.unsynced_fetch_bytes()),
        }
    }

    /// The disk has taken more.
    pub(super) fn fetch_held_back(&mut self) {
        let Some(transfer) = self.catch_up.fetching.as_ref().and_then(|fetching| fetching.transfer.as_ref()) else {
            return;
        };
        if transfer.received >= transfer.granted {
            self.await_source();
            self.grant();
        }
    }

    /// Says to the source of the transfer what it may send.
    fn send_fetch(&mut self) {
        let (from, view) = (self.result.state().index().next(), self.result.state().view_id());
        let Some(fetching) = &self.catch_up.fetching else { return };
        let Some(Transfer { source, number, granted, .. }) = fetching.transfer else { return };
        let before = if self.plane.is_member() { fetching.view } else { ViewId(0) };
        let held = fetching.held.part(from);
        self.send_control(source, ControlFrame::Fetch(Fetch { number, from, view, credit: granted, before, held }));
    }

    /// Ends a transfer that brings nothing that is still missing.
    fn stop_transfer(&mut self, source: NodeId) {
        self.catch_up.transfers.number = self.catch_up.transfers.number.wrapping_add(1);
        self.send_control(
            source,
            ControlFrame::Fetch(Fetch { number: self.catch_up.transfers.number, ..Fetch::default() }),
        );
    }

    /// Something is to come, or another source is asked.
    fn await_source(&mut self) {
        let wedge_timeout =
            self.log.state().view().map_or(Duration::from_millis(100), |view| view.parameters.wedge_timeout);
        let trips = self.catch_up.transfers.pace.round_trip().unwrap_or_default() * SILENT_TRIPS;
        let silences =
            self.catch_up.fetching.as_ref().map_or(0, |fetching| fetching.silences.min(SILENCES_COUNTED_MAX));
        let silence = (wedge_timeout.max(trips) * (1 << silences)).min(SILENCE_MAX.max(wedge_timeout));
        self.set_timer(Timer::Fetch, silence);
    }

    /// Nothing has come for a while, or it is time to ask whether there is more.
    pub(super) fn fetch_due(&mut self) {
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        let Some(transfer) = &fetching.transfer else { return self.fetch() };
        let source = transfer.source;
        fetching.silences += 1;
        let others = fetching.sources.iter().any(|node| *node != source && self.peers.is_linked(*node));
        if others || !self.peers.is_linked(source) {
            fetching.silent = fetching.transfer.take();
            fetching.last = Some((source, false));
            self.fetch();
        } else {
            // There is no other: what is on its way is not requested again.
            self.miss_final();
            self.send_fetch();
            self.await_source();
        }
    }

    /// Starts a transfer if none is in progress.
    pub(super) fn fetch_if_idle(&mut self) {
        if self.catch_up.fetching.as_ref().is_some_and(|fetching| fetching.transfer.is_none()) {
            self.fetch();
        }
    }

    /// A link is up.
    pub(super) fn fetch_over_new_link(&mut self, peer: NodeId) {
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        fetching.silent.take_if(|transfer| transfer.source == peer);
        if Transfer::is_from(fetching.transfer.as_ref(), peer) {
            // What was on its way is lost.
            return self.fetch_on();
        }
        self.fetch_if_idle();
    }

    /// A link is gone.
    pub(super) fn fetch_without_link(&mut self, peer: NodeId) {
        self.catch_up.transfers.serving.remove(&peer);
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        fetching.silent.take_if(|transfer| transfer.source == peer);
        if Transfer::is_from(fetching.transfer.as_ref(), peer) {
            fetching.last = Some((peer, false));
            self.fetch();
        }
    }

    pub(super) fn take_fetched(&mut self, from: NodeId, fetched: Fetched) {
        let next = self.result.state().index().next();
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        if !Transfer::is_from(fetching.transfer.as_ref(), from) {
            if !fetching.fits(&fetched, next) || !fetching.sources.contains(&from) {
                return;
            }
            if Transfer::is_from(fetching.silent.as_ref(), from) {
                // It was late, and still first.
                core::mem::swap(&mut fetching.transfer, &mut fetching.silent);
                if let Some(other) = fetching.silent.take() {
                    self.stop_transfer(other.source);
                }
            }
        }
        let cost = part_cost(&fetched);
        self.account(from, cost);
        if self.take_part_of_result(from, fetched)
            && let Some(fetching) = &mut self.catch_up.fetching
        {
            (fetching.stands_since, fetching.missed) = (None, false);
            fetching.last = Some((from, true));
        }
        self.grant();
    }

    /// A frame of a source has come.
    fn account(&mut self, from: NodeId, cost: u64) {
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        let Some(transfer) = fetching.transfer.as_mut().filter(|transfer| transfer.source == from) else { return };
        transfer.received += cost;
        fetching.received += cost;
        fetching.silences = 0;
        if let Some(rate) = self.catch_up.transfers.pace.receive(transfer.received, self.timers.now()) {
            fetching.keep_up.trip(rate);
        }
        self.await_source();
    }

    /// True if it brought anything.
    fn take_part_of_result(&mut self, from: NodeId, fetched: Fetched) -> bool {
        match fetched {
            Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, length, offset, part } => {
                let (author, seqs) = ((origin, incarnation), (first_seq, count));
                let header = EntryHeader { first_index, view, from: author, seqs, length };
                self.take_entry(from, &header, offset, part)
            }
            Fetched::View(view) => self.take_view(view),
            Fetched::End { index, ahead, view, first, digest } => {
                self.fetched_to(from, (index, ahead), view, (first, digest));
                false
            }
            Fetched::Truncated { first } => {
                self.truncated(from, first);
                false
            }
            Fetched::Snapshot { index, digest, base_length, length, offset, part } => {
                self.take_part(from, Header { index, digest, base_length, length }, offset, &part)
            }
        }
    }

    /// A view begins in what is fetched. True if it is new.
    fn take_view(&mut self, view: InstalledView) -> bool {
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

    fn take_entry(&mut self, from: NodeId, header: &EntryHeader, offset: u64, part: Bytes) -> bool {
        let Some(fetching) = &mut self.catch_up.fetching else { return false };
        let (next, view) = (self.result.state().index().next(), self.result.state().view_id());
        // A view comes before its entries; only a source that began late itself does not know the one in force.
        let has_view = header.view == view || view == ViewId(0) && next > Index(1);
        if header.first_index != next || (!has_view && self.identity.rules.holds(Rule::ViewsAreServed)) {
            return false;
        }
        if offset == 0 && part.len() as u64 == header.length {
            fetching.held = Held::Nothing;
            self.append_fetched(header, part);
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
            self.breach(from, error.to_string());
            return false;
        }
        self.append_fetched(header, body);
        true
    }

    fn append_fetched(&mut self, header: &EntryHeader, body: Bytes) {
        let EntryHeader { first_index, view, from: (origin, incarnation), seqs: (first_seq, count), .. } = *header;
        let batch = Batch { first_seq, count, body };
        self.delivery().fetched(Entry { first_index, view, origin, incarnation, batch });
    }

    /// A source does not retain what is missing. Another one may; once none is left, this node cannot follow.
    pub(super) fn truncated(&mut self, source: NodeId, first: Index) {
        let failure_timeout = self.log.state().view().map(|view| view.parameters.failure_timeout).unwrap_or_default();
        let (now, here) = (self.timers.now(), self.result.state().index());
        let Some(fetching) = &mut self.catch_up.fetching else { return };
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
        // A source that is out of reach for so long may not come back, and a node that lacks the same entries has no source either.
        if left.is_empty() || (!helped && now.since(since) > failure_timeout) {
            let first = fetching.truncated.values().min().copied().unwrap_or(first);
            self.stop_fetching();
            self.event(Event::Truncated { first });
        }
    }

    /// A complete member has said how far it is, and how many bytes are yet to come.
    fn measure(&mut self, end: Index, ahead: u64) {
        let stall_timeout = self.log.state().view().map(|view| view.parameters.stall_timeout).unwrap_or_default();
        let (at, here) = (self.timers.now(), self.result.state().index());
        let Some(fetching) = &mut self.catch_up.fetching else { return };
        let ahead = Some(ahead).filter(|&ahead| ahead != AHEAD_UNKNOWN);
        let progress = Progress { at, received: fetching.received, here, end, ahead };
        if let Some(slower) = fetching.keep_up.measure(progress, stall_timeout)
            && !self.plane.is_member()
        {
            self.event(Event::CannotKeepUp(slower));
        }
    }

    /// What is missing is little enough for a place on the ring.
    pub(super) fn is_near(&self) -> bool {
        self.catch_up.fetching.as_ref().is_some_and(|fetching| fetching.keep_up.is_near())
    }

    /// This node cannot keep up, as far as it was measured.
    pub(super) fn slower(&self) -> Option<Rates> {
        self.catch_up.fetching.as_ref().and_then(|fetching| fetching.keep_up.slower())
    }

    fn stop_fetching(&mut self) {
        self.timers.stop(Timer::Fetch);
        if let Some(transfer) = self.catch_up.fetching.take().and_then(|fetching| fetching.transfer) {
            self.stop_transfer(transfer.source);
        }
    }

    /// A source has sent what it may, or what it has for now.
    fn fetched_to(
        &mut self,
        from: NodeId,
        (index, ahead): (Index, u64),
        installed: ViewId,
        (first, digest): (Index, Digest),
    ) {
        let here = self.result.state().index();
        if first > Index(0) {
            self.measure(index, ahead);
        }
        let Some(fetching) = self.catch_up.fetching.as_mut() else { return };
        let knows_view = installed == fetching.view && first > Index(0);
        let target = if self.plane.is_member() && knows_view { Index(first.0 - 1) } else { index };
        if first == Index(0) && self.identity.rules.holds(Rule::BehindHelpsNobody) {
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
            return;
        }
        let last = self.log.state().view().is_some_and(|view| view.last);
        match self.plane.member() {
            Some(member) if knows_view => {
                if here.next() == first {
                    self.result.checkpoint();
                }
                let view = Arc::clone(&member.view);
                self.stop_fetching();
                self.fetched_all(&view, first);
            }
            None if last && knows_view => {
                let theirs = Checkpoint { index: Index(first.0 - 1), digest };
                if !self.divergence().agrees_with_source(from, theirs) {
                    return;
                }
                if let Some(view) = self.log.state().view().cloned() {
                    self.delivery().begin_view(InstalledView { first, view });
                }
                // With `Disk` it knows after a restart that nothing is missing.
                if self.identity.rules.holds(Rule::FinalIsStoredWhole) {
                    self.storage.records.keep(Record::Complete { view: installed, first });
                }
                self.stop_fetching();
                self.finish_with(theirs);
            }
            _ if ahead == 0 => self.set_timer(Timer::Fetch, FOLLOW_EVERY),
            _ => {}
        }
    }
}
