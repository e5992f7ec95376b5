//! The retained part of the result, for nodes that lack some of it (`protocol.md` §7).

use std::collections::VecDeque;

use crate::id::{Index, ViewId};
use crate::io::{ApprovedItem, Entry, Position};
use crate::limits::FETCH_PART_COST_BYTES;
use crate::read_back::Stored;
use crate::view::InstalledView;

/// The newest items of the result, up to a number of bytes of memory.
#[derive(Debug)]
pub struct Retained {
    /// Each with the cost of sending all items before it. Views are dropped with the entry that follows them, so that all
    /// items that begin at the first index are here.
    items: VecDeque<(ApprovedItem, u64)>,
    /// Number of entries among them.
    entries: usize,
    /// The view in force before the first of them, if it is known.
    in_force: Option<InstalledView>,
    /// The cost of sending all.
    cost: u64,
    bytes: u64,
    bytes_max: u64,
    /// The first index that a transfer still has to send.
    needed: Option<Index>,
}

/// The retained part at a position.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// This item, which begins there.
    Item(ApprovedItem),
    /// The result is not that long.
    End,
    /// It is not retained.
    Truncated,
}

/// The cost of an item for the credit of a fetch.
fn cost_of(item: &ApprovedItem) -> u64 {
    match item {
        ApprovedItem::Batch(entry) => entry.batch.fetch_bytes(),
        ApprovedItem::View(_) => FETCH_PART_COST_BYTES,
    }
}

impl Retained {
    /// An empty one that keeps up to a number of bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self { items: VecDeque::new(), entries: 0, in_force: None, cost: 0, bytes: 0, bytes_max, needed: None }
    }

    /// Drops all items. The next one follows another part of the result, where this view is in force.
    pub fn restart(&mut self, in_force: Option<InstalledView>) {
        self.items.clear();
        (self.bytes, self.entries, self.in_force) = (0, 0, in_force);
    }

    /// Its memory in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first index that is kept, if there is any.
    #[must_use]
    pub fn first(&self) -> Option<Index> {
        self.items.front().map(|(item, _)| item.first_index())
    }

    /// Notes that transfers still have to send the entries from an index on: up to as much again is retained for them.
    pub(crate) fn need(&mut self, from: Option<Index>) {
        self.needed = from;
    }

    /// Keeps an item, and drops the oldest beyond the bound; the newest entry always stays.
    pub fn push(&mut self, item: ApprovedItem) {
        self.bytes += item.kept_bytes();
        let before = self.cost;
        self.cost += cost_of(&item);
        self.entries += usize::from(item.entry().is_some());
        self.items.push_back((item, before));
        while self.bytes > self.bytes_max && self.entries > 1 {
            let oldest = self.items.iter().find_map(|(item, _)| item.entry());
            let is_needed = self.needed.zip(oldest).is_some_and(|(from, oldest)| oldest.last_index() >= from);
            if is_needed && self.bytes <= self.bytes_max.saturating_mul(2) {
                break;
            }
            self.pop_oldest();
        }
    }

    /// Drops the oldest entry, with the views before it.
    fn pop_oldest(&mut self) {
        while let Some((item, _)) = self.items.pop_front() {
            self.bytes -= item.kept_bytes();
            match item {
                ApprovedItem::View(view) => self.in_force = Some(view),
                ApprovedItem::Batch(_) => {
                    self.entries -= 1;
                    return;
                }
            }
        }
    }

    /// The item at a position, from there on.
    #[must_use]
    pub fn item_from(&self, from: Position) -> Part {
        if self.first().is_some_and(|first| from.next < first) {
            return Part::Truncated;
        }
        if from.begins_late()
            && let Some(view) = self.view_at(from.next)
        {
            return Part::Item(ApprovedItem::View(view.clone()));
        }
        match self.items.get(self.place_of(from)) {
            Some((ApprovedItem::Batch(entry), _)) => {
                Part::Item(ApprovedItem::Batch(entry.clone().beginning_at(from.next)))
            }
            Some((view, _)) => Part::Item(view.clone()),
            None => Part::End,
        }
    }

    /// The view in force at an index, which is at most one behind the end; none if it is not known here.
    #[must_use]
    pub fn view_at(&self, index: Index) -> Option<&InstalledView> {
        let up_to_there = self.items.partition_point(|(item, _)| item.first_index() <= index);
        let view = |(item, _): &'_ (ApprovedItem, u64)| matches!(item, ApprovedItem::View(_));
        let latest = self.items.range(..up_to_there).rposition(view);
        match latest.map(|at| &self.items[at].0) {
            Some(ApprovedItem::View(view)) => Some(view),
            _ => self.in_force.as_ref().filter(|view| view.first <= index),
        }
    }

    /// The cost of sending the result from a position on, to its end or up to another index with the views that begin
    /// there; none if a part of it is not retained.
    pub(crate) fn cost_between(&self, from: Position, before: Option<Index>) -> Option<u64> {
        let cost_at = |place: usize| self.items.get(place).map_or(self.cost, |(_, before)| *before);
        let end =
            before.map_or(self.cost, |index| cost_at(self.place_of(Position { next: index, view: ViewId(u64::MAX) })));
        (from.next >= self.first()?).then(|| end.saturating_sub(cost_at(self.place_of(from))))
    }

    /// The place of the item at a position.
    fn place_of(&self, position: Position) -> usize {
        self.items.partition_point(|(item, _)| match item {
            // Up to an index with all that begins there: no view of a later one.
            ApprovedItem::View(view) if view.first > position.next => false,
            item => item.is_before(position),
        })
    }
}

impl Stored {
    /// The stored result from a position on, as [`Input::ResultRead`](crate::Input::ResultRead) takes it: up to a
    /// number of bytes of slot bodies, one entry at least. None if a part or a view of it is missing.
    #[must_use]
    pub fn part_from(&self, from: Position, bytes_max: usize) -> Option<Vec<ApprovedItem>> {
        let start = self.result.partition_point(|(entry, _)| entry.last_index() < from.next);
        let mut bytes = 0;
        let entries = self.result.range(start..).take_while(|(entry, batch)| {
            let begins = bytes > 0 || entry.first_index <= from.next;
            bytes += batch.body.len();
            begins && (bytes <= bytes_max || bytes == batch.body.len())
        });
        let entries = entries.map(|(entry, batch)| Entry::of_stored(entry, batch.clone()).beginning_at(from.next));
        let entries: Vec<Entry> = entries.collect();
        let is_gone = start < self.result.len() || from.next <= self.before.index();
        if entries.is_empty() && is_gone {
            return None;
        }
        let views: Vec<InstalledView> = self.before.view().into_iter().chain(&self.views).cloned().collect();
        from.with_views(entries, &views)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;

    use super::*;
    use crate::config::Parameters;
    use crate::id::{Incarnation, NodeId, Seq, ViewId};
    use crate::slot::{Batch, push_payload};
    use crate::view::View;

    fn entry(first: u64, count: u32) -> Entry {
        let mut body = BytesMut::new();
        (0..count).for_each(|at| push_payload(&mut body, &[at as u8; 20]));
        Entry {
            first_index: Index(first),
            view: ViewId(1),
            origin: NodeId([1; 32]),
            incarnation: Incarnation(1),
            batch: Batch { first_seq: Seq(first), count, body: body.freeze() },
        }
    }

    fn batch(first: u64, count: u32) -> ApprovedItem {
        ApprovedItem::Batch(entry(first, count))
    }

    fn at(next: u64) -> Position {
        Position { next: Index(next), view: ViewId(1) }
    }

    #[test]
    fn an_entry_begins_at_the_wanted_index_and_the_oldest_goes_first() {
        let bytes_max = 2 * entry(1, 4).kept_bytes();
        let mut retained = Retained::new(bytes_max);
        retained.push(batch(1, 4));
        retained.push(batch(5, 4));
        let Part::Item(ApprovedItem::Batch(part)) = retained.item_from(at(3)) else { panic!("retained") };
        assert_eq!((part.first_index, part.batch.first_seq, part.batch.count), (Index(3), Seq(3), 2));
        assert_eq!(retained.item_from(at(5)), Part::Item(batch(5, 4)));
        assert_eq!(retained.item_from(at(9)), Part::End);
        let cost = cost_of(&batch(5, 4));
        assert_eq!(retained.cost_between(at(1), None), Some(2 * cost));
        assert_eq!(retained.cost_between(at(1), Some(Index(5))), Some(cost));
        assert_eq!(retained.cost_between(at(9), None), Some(0));
        retained.push(batch(9, 4));
        assert_eq!(retained.item_from(at(3)), Part::Truncated);
        assert_eq!((retained.cost_between(at(3), None), retained.cost_between(at(5), None)), (None, Some(2 * cost)));
        assert_eq!(retained.bytes, bytes_max);
    }

    #[test]
    fn views_are_given_at_their_places_and_go_with_the_entry_that_follows() {
        let view = |id, first| {
            let view = View { id: ViewId(id), ring: Vec::new(), parameters: Parameters::default(), last: false };
            ApprovedItem::View(InstalledView { first: Index(first), view: Arc::new(view) })
        };
        let batch = |of: u64, first: u64| ApprovedItem::Batch(Entry { view: ViewId(of), ..entry(first, 2) });
        let mut retained = Retained::new(2 * entry(1, 2).kept_bytes() + 3 * view(1, 1).kept_bytes());
        [view(1, 1), batch(1, 1), view(2, 3), view(3, 3), batch(3, 3)].into_iter().for_each(|item| retained.push(item));
        let read = |retained: &Retained, next, view| {
            let mut position = Position { next: Index(next), view: ViewId(view) };
            let mut read = Vec::new();
            while let Part::Item(item) = retained.item_from(position) {
                position.pass(&item);
                read.push(item);
            }
            read
        };
        assert_eq!(read(&retained, 1, 0), [view(1, 1), batch(1, 1), view(2, 3), view(3, 3), batch(3, 3)]);
        assert_eq!(read(&retained, 3, 1), [view(2, 3), view(3, 3), batch(3, 3)]);
        assert_eq!(read(&retained, 3, 2), [view(3, 3), batch(3, 3)]);
        assert_eq!(read(&retained, 3, 0), [view(3, 3), batch(3, 3)], "the view in force comes first");
        assert_eq!(read(&retained, 5, 0), [view(3, 3)], "also at the end");
        let end = |index| retained.cost_between(Position { next: Index(1), view: ViewId(0) }, Some(Index(index)));
        assert_eq!(end(3), Some(3 * cost_of(&view(1, 1)) + cost_of(&batch(1, 1))), "with the views that begin there");
        retained.push(batch(3, 5));
        assert_eq!(retained.first(), Some(Index(3)), "all that begins there is here");
        assert_eq!(read(&retained, 3, 1).len(), 4);
        assert_eq!(retained.view_at(Index(2)).map(InstalledView::id), Some(ViewId(1)));
        assert_eq!(read(&retained, 2, 0), [], "truncated");
        retained.push(view(4, 7));
        retained.push(batch(4, 7));
        assert_eq!(
            (retained.first(), read(&retained, 5, 0).len()),
            (Some(Index(5)), 4),
            "one before, two entries, one view"
        );
    }

    #[test]
    fn entries_of_a_transfer_are_retained_up_to_twice_the_bound() {
        let mut retained = Retained::new(2 * entry(1, 4).kept_bytes());
        let first_after = |retained: &mut Retained, first| {
            retained.push(batch(first, 4));
            retained.first()
        };
        retained.need(Some(Index(5)));
        let firsts = [1, 5, 9, 13, 17, 21].map(|first| first_after(&mut retained, first));
        assert_eq!(firsts.map(Option::unwrap).map(|first| first.0), [1, 1, 5, 5, 5, 9]);
        retained.need(None);
        assert_eq!(first_after(&mut retained, 25), Some(Index(21)));
    }
}
