//! Transfers to nodes that fetch: the result is sent from memory, from the disk, or as a snapshot, within the credit of
//! the transfer (`protocol.md` §7.7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::catch_up::Part;
use crate::config::Durability;
use crate::id::{Index, NodeId, ViewId};
use crate::io::{ApprovedItem, Entry, Frame, Output, Position};
use crate::limits::{FETCH_BURST_BYTES, FETCH_PART_COST_BYTES, SNAPSHOT_PIN_IDLE};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::data_plane::DataPlane;
use crate::machine::identity::Identity;
use crate::machine::offers::{Offering, Offers, StateRead};
use crate::machine::storage::Storage;
use crate::outputs::Outputs;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::stored::SnapshotState;
use crate::time::Time;
use crate::view::InstalledView;
use crate::wire::{AHEAD_UNKNOWN, ControlFrame, Fetch, Fetched, HeldPart, Stream};

/// Transfers to nodes that fetch from this one.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// By node that fetches.
    serving: BTreeMap<NodeId, Serving>,
    /// The nodes for which the disk reads.
    reading: BTreeSet<NodeId>,
    /// The nodes for which the disk reads a snapshot.
    reading_snapshot: BTreeSet<NodeId>,
    /// Snapshots for them.
    pub(super) offers: Offers,
    /// The parts of a snapshot that could not be read: it is not offered.
    unreadable: Option<u64>,
}

impl Transfers {
    pub(super) fn on_link_down(&mut self, node: NodeId) {
        self.serving.remove(&node);
    }

    /// Whether a state can be read, as far as is known.
    fn can_read(&self, state: &SnapshotState) -> bool {
        !matches!(state, SnapshotState::Parts(parts) if Some(parts.id) == self.unreadable)
    }
}

/// A transfer to one node.
#[derive(Debug)]
struct Serving {
    number: u64,
    /// The requested position.
    from: Position,
    /// The item that is next, or of which a part is.
    next: Position,
    /// Sent bytes of its body, and the length of that body.
    sent_of_body: u64,
    body_length: u64,
    /// All sent bytes, as they count for the credit.
    sent: u64,
    credit: u64,
    before: ViewId,
    /// Entries from the disk that are sent next.
    read: VecDeque<ApprovedItem>,
    /// Whether the disk cannot read the next entry.
    is_unreadable: bool,
    /// The snapshot that is sent in place of the next entries.
    snapshot: Option<Offering>,
    /// Bytes of its state from the disk.
    state_read: Option<StateRead>,
    held: HeldPart,
    /// The time of the last request.
    used_at: Time,
    /// Whether everything was sent, so that more credit changes nothing.
    is_over: bool,
}

/// The next step of a transfer.
enum Step {
    Entry(Entry),
    View(InstalledView),
    Snapshot(Offering),
    /// The disk reads.
    Wait,
    End,
    Truncated,
}

impl Serving {
    fn new(fetch: &Fetch, used_at: Time) -> Self {
        let (body_length, sent_of_body) = match fetch.held {
            HeldPart::Entry { length, offset } => (length, offset),
            _ => (0, 0),
        };
        let from = Position { next: fetch.from, view: fetch.view };
        Self {
            number: fetch.number,
            from,
            next: from,
            sent_of_body,
            body_length,
            sent: 0,
            credit: fetch.credit,
            before: fetch.before,
            read: VecDeque::new(),
            is_unreadable: false,
            snapshot: None,
            state_read: None,
            held: fetch.held,
            used_at,
            is_over: false,
        }
    }

    /// The first index that it still has to send, after the snapshot if it sends one.
    fn needs(&self) -> Position {
        self.snapshot.as_ref().map_or(self.next, Offering::needed)
    }

    /// The next part of an entry, and whether it is the last. A held part of another entry does not count.
    fn part_of(&mut self, entry: &Entry, part_bytes: usize) -> (Fetched, bool) {
        let body = &entry.batch.body;
        let length = body.len() as u64;
        if self.body_length != length {
            (self.body_length, self.sent_of_body) = (length, 0);
        }
        let offset = self.sent_of_body;
        let start = offset as usize;
        let part = body.slice(start..body.len().min(start + part_bytes));
        self.sent += part.len() as u64 + FETCH_PART_COST_BYTES;
        self.sent_of_body += part.len() as u64;
        let is_last = self.sent_of_body >= length;
        if is_last {
            self.next = Position { next: entry.last_index().next(), view: entry.view };
            (self.sent_of_body, self.body_length) = (0, 0);
        }
        let Entry { first_index, view, origin, incarnation, ref batch } = *entry;
        let (first_seq, count) = (batch.first_seq, batch.count);
        (Fetched::Entry { first_index, view, origin, incarnation, first_seq, count, length, offset, part }, is_last)
    }
}

/// Sends the result to nodes that fetch it.
pub(super) struct ServeHandler<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) plane: &'a DataPlane,
    pub(super) result: &'a mut ResultLog,
    pub(super) storage: &'a Storage,
    pub(super) transfers: &'a mut Transfers,
    pub(super) closing: &'a Closing,
    pub(super) outputs: &'a mut Outputs,
    pub(super) now: Time,
}

impl ServeHandler<'_> {
    /// Handles a request for a part of the result, or more credit for a transfer.
    pub(super) fn on_fetch(&mut self, to: NodeId, fetch: &Fetch) {
        if fetch.credit == 0 {
            self.transfers.serving.remove(&to);
            return;
        }
        let now = self.now;
        let serving = self.transfers.serving.entry(to).or_insert_with(|| Serving::new(fetch, now));
        if serving.number == fetch.number {
            serving.credit = serving.credit.max(fetch.credit);
            (serving.before, serving.used_at) = (fetch.before, now);
        } else {
            *serving = Serving::new(fetch, now);
        }
        self.serve_on(to);
    }

    /// Sends within the credit, at most [`FETCH_BURST_BYTES`] at once.
    fn serve_on(&mut self, to: NodeId) {
        let Some(mut serving) = self.transfers.serving.remove(&to) else { return };
        let part_bytes = self.identity.serves.part_bytes;
        let until = serving.credit.min(serving.sent + FETCH_BURST_BYTES);
        let mut waits = serving.is_over;
        while !serving.is_over && serving.sent < until {
            match self.next_step(to, &mut serving) {
                Step::Entry(entry) => {
                    let (part, is_last) = serving.part_of(&entry, part_bytes);
                    if is_last {
                        let next = serving.next;
                        serving.read.retain(|read| !read.is_before(next));
                    }
                    self.send_fetched(to, part);
                }
                Step::View(view) => {
                    serving.next.view = view.id();
                    let part = Fetched::View(view);
                    serving.sent += part_cost(&part);
                    if self.identity.rules.holds(Rule::ViewsAreServed) {
                        self.send_fetched(to, part);
                    }
                }
                Step::Snapshot(offering) => {
                    waits = self.send_snapshot(to, &mut serving, offering);
                    if waits {
                        break;
                    }
                }
                Step::Wait => {
                    waits = true;
                    break;
                }
                Step::End => serving.is_over = true,
                Step::Truncated => {
                    let first = self.storage.first_kept(self.result).unwrap_or(self.result.state().index().next());
                    (serving.is_over, waits) = (true, true);
                    self.send_fetched(to, Fetched::Truncated { first });
                }
            }
        }
        if !waits {
            let end = self.end_of(&serving);
            self.send_fetched(to, end);
        }
        self.transfers.serving.insert(to, serving);
        self.keep_for_transfers();
    }

    /// Sends the next part of a snapshot. True if it was the last one, or the disk reads the part.
    fn send_snapshot(&mut self, to: NodeId, serving: &mut Serving, offering: Offering) -> bool {
        self.transfers.offers.touch(&offering, self.now);
        serving.next = offering.needed();
        let Some(part) = offering.next_bytes(self.identity.serves.part_bytes, serving.state_read.as_ref()) else {
            if let Some((id, offset)) = offering.stored()
                && self.transfers.reading_snapshot.insert(to)
            {
                let bytes_max = self.identity.serves.read_bytes;
                self.outputs.push(Output::ReadSnapshot { to, id, offset, bytes_max });
            }
            serving.snapshot = Some(offering);
            return true;
        };
        let (part, rest) = offering.part_of(part);
        serving.sent += part_cost(&part);
        serving.is_over = rest.is_none();
        serving.snapshot = rest;
        self.send_fetched(to, part);
        serving.is_over
    }

    /// `Memory`: retains the entries that live transfers still have to send: otherwise a node whose link is hardly
    /// faster than the growth of the result would never reach its end.
    fn keep_for_transfers(&mut self) {
        let now = self.now;
        let is_alive = |serving: &&Serving| now.since(serving.used_at) <= SNAPSHOT_PIN_IDLE;
        let first = self.result.retained().first().unwrap_or_default();
        let needs = self.transfers.serving.values().filter(is_alive).map(|serving| serving.needs().next);
        let needed = needs.filter(|from| *from >= first);
        let needed = needed.min().filter(|_| self.identity.durability == Durability::Memory);
        self.result.need(needed);
    }

    /// Releases memory once a transfer has ended.
    pub(super) fn release(&mut self) {
        self.transfers.offers.purge(self.now);
        self.keep_for_transfers();
    }

    fn next_step(&mut self, to: NodeId, serving: &mut Serving) -> Step {
        if let Some(offering) = serving.snapshot.take() {
            return Step::Snapshot(offering);
        }
        let next = serving.next;
        let ends = self.bound_of(serving).is_some_and(|first| next.next >= first);
        // The receiver knows its own view.
        if ends && next.view.next() >= serving.before {
            return Step::End;
        }
        let fits = |item: &&ApprovedItem| next.begins_late() || !item.is_before(next);
        let read = serving.read.iter().find(fits).filter(|item| item.first_index() <= next.next);
        // It began with a snapshot itself and nothing has come since, or memory was given up.
        let lacks = next.next <= self.result.state().index()
            || (next.view < self.result.state().view_id() && !next.begins_late());
        let part = match (read, self.result.retained().first()) {
            (Some(read), _) => Part::Item(read.clone()),
            (None, None) if lacks => Part::Truncated,
            (None, _) => self.result.retained().item_from(next),
        };
        match part {
            Part::Item(ApprovedItem::View(view)) => Step::View(view),
            Part::Item(ApprovedItem::Batch(_)) if ends => Step::End,
            Part::Item(ApprovedItem::Batch(entry)) => Step::Entry(entry.beginning_at(next.next)),
            Part::End => Step::End,
            Part::Truncated if !serving.is_unreadable && self.read_for(to, next) => Step::Wait,
            Part::Truncated => {
                let (end, first) = (self.result.state().index(), self.storage.first_kept(self.result));
                let follows = |needed: Index| first.map_or(needed > end, |first| first <= needed);
                let newest = self.storage.snapshot.as_ref().filter(|newest| follows(newest.begins.index().next()));
                let newest = newest.filter(|newest| self.transfers.can_read(&newest.state));
                match self.transfers.offers.offer(serving.held, newest, follows, self.now) {
                    Some(offering) => Step::Snapshot(offering),
                    None => Step::Truncated,
                }
            }
        }
    }

    /// The first index that the transfer does not include.
    fn bound_of(&self, serving: &Serving) -> Option<Index> {
        let of_view = self.log.state().view().is_some_and(|view| view.id == serving.before);
        Some(self.first_of_view()).filter(|first| of_view && *first > Index(0))
    }

    /// The first index of the present view; zero at a node that does not know it, because it is not complete.
    fn first_of_view(&self) -> Index {
        match self.plane.place() {
            Some(member) => member.first(),
            None => self.closing.final_result().map_or(Index(0), |result| result.index.next()),
        }
    }

    fn end_of(&self, serving: &Serving) -> Fetched {
        let view = self.log.state().view().map_or(ViewId(0), |view| view.id);
        let (index, first) = (self.result.state().index(), self.first_of_view());
        let digest = self.result.state().end_before(first).digest;
        let left = self.result.retained().cost_between(serving.needs(), self.bound_of(serving));
        let of_snapshot = serving.snapshot.as_ref().map_or(0, Offering::left);
        let ahead = match left {
            _ if serving.is_over => 0,
            Some(cost) => (of_snapshot + cost).saturating_sub(serving.sent_of_body).max(1),
            None => AHEAD_UNKNOWN,
        };
        Fetched::End { index, ahead, view, first, digest }
    }

    /// Reads entries from the disk that are not in memory; false if they are not there either.
    fn read_for(&mut self, to: NodeId, from: Position) -> bool {
        if self.identity.durability == Durability::Memory || from.next < self.storage.retention.stored_from() {
            return false;
        }
        // Entries that are already being read answer a later request, if it needs the same ones.
        if self.transfers.reading.insert(to) {
            self.outputs.push(Output::ReadResult { to, from, bytes_max: self.identity.serves.read_bytes });
        }
        true
    }

    /// Handles entries that the disk has read for a node.
    pub(super) fn on_read(&mut self, to: NodeId, items: Option<Vec<ApprovedItem>>) {
        if !self.transfers.reading.remove(&to) {
            return;
        }
        let Some(serving) = self.transfers.serving.get_mut(&to) else { return };
        match items {
            // It is not synced yet, or a snapshot replaces it: a node that lacks it repeats its request.
            Some(items) if items.is_empty() => return,
            Some(items) => serving.read = items.into(),
            None => serving.is_unreadable = true,
        }
        self.serve_on(to);
    }

    /// Handles bytes of a state that the disk has read for a node. Without any, the transfer begins again: with a newer
    /// snapshot, if there is one.
    pub(super) fn on_snapshot_read(&mut self, to: NodeId, (id, offset): (u64, u64), part: Option<Bytes>) {
        if !self.transfers.reading_snapshot.remove(&to) {
            return;
        }
        let bytes = part.unwrap_or_default();
        if bytes.is_empty() {
            self.transfers.unreadable = Some(id);
            self.transfers.offers.drop_unreadable(id);
        }
        let Some(serving) = self.transfers.serving.get_mut(&to) else { return };
        let awaited = serving.snapshot.as_ref().and_then(Offering::stored);
        if bytes.is_empty() && awaited.is_some_and(|(awaited, _)| awaited == id) {
            (serving.snapshot, serving.next) = (None, serving.from);
        }
        serving.state_read = Some(StateRead { id, offset, bytes });
        self.serve_on(to);
    }

    fn send_fetched(&mut self, to: NodeId, fetched: Fetched) {
        let frame = Frame::Control(ControlFrame::Fetched(fetched));
        self.outputs.send(to, Stream::Result, frame);
    }
}

/// The cost of a frame for the credit of its transfer.
pub(super) fn part_cost(fetched: &Fetched) -> u64 {
    match fetched {
        Fetched::Entry { part, .. } | Fetched::Snapshot { part, .. } => part.len() as u64 + FETCH_PART_COST_BYTES,
        Fetched::View(_) => FETCH_PART_COST_BYTES,
        Fetched::End { .. } | Fetched::Truncated { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::config::Parameters;
    use crate::id::Seq;
    use crate::io::{Input, Request};
    use crate::machine::Machine;
    use crate::machine::tests::{MEMBER, alone, drain};
    use crate::slot::{Batch, push_payload};

    /// A group of one with two entries, one message each.
    fn source() -> Machine {
        let mut machine = alone(Parameters::default());
        for seq in 1..=2 {
            let mut body = BytesMut::new();
            push_payload(&mut body, b"a message");
            let batch = Batch { first_seq: Seq(seq), count: 1, body: body.freeze() };
            machine.handle(machine.timers.now(), Input::Broadcast(batch));
            drain(&mut machine);
        }
        machine
    }

    fn fetch(number: u64, from: u64, credit: u64) -> Fetch {
        Fetch { number, from: Index(from), credit, ..Fetch::default() }
    }

    /// The names of the frames that follow a request, with the index of each.
    fn answers(machine: &mut Machine, fetch: &Fetch) -> Vec<(&'static str, u64)> {
        machine.serve().on_fetch(MEMBER, fetch);
        let answer = |output| match output {
            Output::Send { to: MEMBER, frame: Frame::Control(ControlFrame::Fetched(fetched)), .. } => {
                Some(match fetched {
                    Fetched::Entry { first_index, .. } => ("entry", first_index.0),
                    Fetched::View(view) => ("view", view.first.0),
                    Fetched::End { index, .. } => ("end", index.0),
                    Fetched::Truncated { first } => ("truncated", first.0),
                    Fetched::Snapshot { index, .. } => ("snapshot", index.0),
                })
            }
            _ => None,
        };
        drain(machine).into_iter().filter_map(answer).collect()
    }

    #[test]
    fn a_request_is_answered_within_its_credit_and_continues_with_more() {
        let mut machine = source();
        assert_eq!(answers(&mut machine, &fetch(1, 1, 1)), [("view", 1), ("end", 2)]);
        assert_eq!(answers(&mut machine, &fetch(1, 1, 1 << 20)), [("entry", 1), ("entry", 2), ("end", 2)]);
        assert_eq!(answers(&mut machine, &fetch(1, 1, 1 << 20)), [], "all was sent");
        assert_eq!(answers(&mut machine, &fetch(2, 2, 1 << 20)), [("view", 1), ("entry", 2), ("end", 2)]);
    }

    #[test]
    fn a_request_without_credit_ends_the_transfer() {
        let mut machine = source();
        answers(&mut machine, &fetch(1, 1, 1));
        assert_eq!(answers(&mut machine, &fetch(1, 1, 0)), []);
        assert!(machine.catch_up.transfers.serving.is_empty());
        answers(&mut machine, &fetch(1, 1, 1));
        machine.catch_up.transfers.on_link_down(MEMBER);
        assert!(machine.catch_up.transfers.serving.is_empty());
    }

    #[test]
    fn a_node_that_lacks_dropped_entries_receives_a_snapshot_or_learns_the_first_kept_index() {
        let mut machine = source();
        machine.forget_retained();
        assert_eq!(answers(&mut machine, &fetch(1, 1, 1 << 20)), [("truncated", 3)]);
        let mut machine = source();
        machine.result.checkpoint();
        let request = Request::Snapshot { index: Index(2), state: SnapshotState::Here(Bytes::from_static(b"state")) };
        machine.handle(machine.timers.now(), Input::Request(request));
        machine.forget_retained();
        let said = answers(&mut machine, &fetch(1, 1, 1 << 20));
        assert!(!said.is_empty() && said.iter().all(|part| *part == ("snapshot", 2)), "{said:?}");
    }

    #[test]
    fn entries_from_the_disk_are_sent_only_while_they_are_awaited() {
        let mut machine = source();
        machine.serve().on_read(MEMBER, Some(Vec::new()));
        assert!(drain(&mut machine).is_empty());
    }
}
