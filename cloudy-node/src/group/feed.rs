//! The source of all readers: the newest part of the result with its view changes, and the events.

use std::collections::VecDeque;

use cloudy_proto::{ApprovedItem, Event, Index, InstalledView, Part, Position, Retained, ViewId};

/// The newest items, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Feed {
    retained: Retained,
    /// The first index of the next batch.
    next_index: Index,
}

/// The position of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    /// The position of the next item.
    pub(crate) position: Position,
    /// The last view that was read: no view is returned twice.
    view: ViewId,
}

impl Cursor {
    /// A cursor that starts at an index. After the first index, the view in force there comes first.
    pub(crate) fn beginning_at(index: Index) -> Self {
        Self { position: Position::beginning_at(index), view: ViewId(0) }
    }

    /// A cursor that continues after the items that a reader has.
    pub(crate) fn continuing_at(position: Position) -> Self {
        Self { position, view: position.view }
    }

    /// Continues at an index, because earlier items are not retained.
    pub(crate) fn skip_to(&mut self, index: Index) {
        self.position = Position::beginning_at(index);
    }

    /// Passes the next item. False if it was read already.
    pub(crate) fn pass(&mut self, item: &ApprovedItem) -> bool {
        self.position.pass(item);
        match item {
            ApprovedItem::View(view) if view.id() <= self.view => false,
            ApprovedItem::View(view) => {
                self.view = view.id();
                true
            }
            ApprovedItem::Batch(_) => true,
        }
    }
}

/// The result of a read.
pub(crate) enum Read {
    Item(ApprovedItem),
    /// There is no new item yet.
    UpToDate,
    /// The item is not retained. This index is the first one that is.
    Lagged(Index),
}

impl Feed {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { retained: Retained::new(bytes_max), next_index: Index(1) }
    }

    /// The last index that was given to readers.
    pub(crate) fn last_index(&self) -> Index {
        Index(self.next_index.0 - 1)
    }

    /// Drops all items: the next item follows `index`, where `view` is in force.
    pub(crate) fn begin_after(&mut self, index: Index, view: Option<InstalledView>) {
        self.retained.restart(view);
        self.next_index = index.next();
    }

    pub(crate) fn push(&mut self, item: ApprovedItem) {
        match item {
            // The result starts here in the middle of a view.
            ApprovedItem::View(view) if view.first != self.next_index => self.retained.restart(Some(view)),
            ApprovedItem::View(_) => self.retained.push(item),
            ApprovedItem::Batch(ref entry) => {
                self.next_index = entry.last_index().next();
                self.retained.push(item);
            }
        }
    }

    /// The next item for a cursor.
    pub(crate) fn read(&self, cursor: &mut Cursor) -> Read {
        loop {
            match self.retained.item_from(cursor.position) {
                Part::Item(item) if item.first_index() > cursor.position.next => return self.lagged(cursor),
                Part::Item(item) => {
                    if cursor.pass(&item) {
                        return Read::Item(item);
                    }
                }
                Part::Truncated => return self.lagged(cursor),
                // A snapshot replaced the items that this reader waits for.
                Part::End if cursor.position.next < self.next_index => return self.lagged(cursor),
                Part::End => return Read::UpToDate,
            }
        }
    }

    fn lagged(&self, cursor: &Cursor) -> Read {
        Read::Lagged(self.retained.first().unwrap_or(self.next_index).max(cursor.position.next))
    }
}

/// Maximum of events that are kept for readers.
pub(crate) const EVENTS_KEPT_MAX: usize = 4_096;

/// The group's events, oldest first; the oldest are dropped at the bound.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    first: u64,
}

impl EventLog {
    pub(crate) fn push(&mut self, event: Event) {
        if self.events.len() == EVENTS_KEPT_MAX {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(event);
    }

    /// The next event, or the number of events that were dropped before they were read.
    pub(crate) fn read(&self, position: &mut u64) -> Option<Result<Event, u64>> {
        let Some(at) = position.checked_sub(self.first) else {
            let missed = self.first - *position;
            *position = self.first;
            return Some(Err(missed));
        };
        let event = self.events.get(at as usize)?.clone();
        *position += 1;
        Some(Ok(event))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use cloudy_proto::slot::{Batch, push_payload};
    use cloudy_proto::{Entry, Incarnation, NodeId, Parameters, Seq, View};

    use super::*;

    fn entry(first: u64, count: u32) -> ApprovedItem {
        let mut body = BytesMut::new();
        (0..count).for_each(|_| push_payload(&mut body, &[1; 15]));
        ApprovedItem::Batch(Entry {
            first_index: Index(first),
            view: ViewId(1),
            origin: NodeId([1; 32]),
            incarnation: Incarnation(1),
            batch: Batch { first_seq: Seq(first), count, body: body.freeze() },
        })
    }

    fn view(id: u64, first: u64) -> ApprovedItem {
        let view = View { id: ViewId(id), ring: Vec::new(), parameters: Parameters::default(), last: false };
        ApprovedItem::View(InstalledView { first: Index(first), view: Arc::new(view) })
    }

    /// All items that a reader gets, as text.
    fn read(feed: &Feed, cursor: &mut Cursor) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            match feed.read(cursor) {
                Read::Item(ApprovedItem::Batch(entry)) => {
                    read.push(format!("{}-{}", entry.first_index, entry.last_index()));
                }
                Read::Item(ApprovedItem::View(view)) => read.push(format!("view {}", view.id())),
                Read::UpToDate => return read,
                Read::Lagged(resume) => {
                    read.push(format!("lagged to {resume}"));
                    cursor.skip_to(resume);
                }
            }
        }
    }

    fn read_from(feed: &Feed, index: u64) -> Vec<String> {
        read(feed, &mut Cursor::beginning_at(Index(index)))
    }

    #[test]
    fn a_reader_begins_inside_a_batch() {
        let mut feed = Feed::new(10_000);
        [entry(1, 4), entry(5, 2)].into_iter().for_each(|item| feed.push(item));
        let mut cursor = Cursor::beginning_at(Index(3));
        assert_eq!(read(&feed, &mut cursor), ["3-4", "5-6"]);
        feed.push(entry(7, 1));
        assert_eq!(read(&feed, &mut cursor), ["7-7"]);
    }

    #[test]
    fn view_changes_are_read_in_their_places_and_the_view_in_force_comes_first() {
        let mut feed = Feed::new(10_000);
        [view(1, 1), entry(1, 4), view(2, 5), view(3, 5)].into_iter().for_each(|item| feed.push(item));
        assert_eq!(read_from(&feed, 1), ["view 1", "1-4", "view 2", "view 3"]);
        assert_eq!(read_from(&feed, 3), ["view 1", "3-4", "view 2", "view 3"]);
        assert_eq!(read_from(&feed, 5), ["view 3"]);
        let mut waits = Cursor::beginning_at(Index(5));
        assert_eq!(read(&feed, &mut waits), ["view 3"]);
        [view(4, 5), entry(5, 1)].into_iter().for_each(|item| feed.push(item));
        assert_eq!(read(&feed, &mut waits), ["view 4", "5-5"]);
    }

    #[test]
    fn a_reader_that_has_a_view_gets_each_that_follows_it() {
        let mut feed = Feed::new(10_000);
        [view(1, 1), entry(1, 4), view(2, 5), view(3, 5)].into_iter().for_each(|item| feed.push(item));
        let read_after = |view| {
            let position = Position { next: Index(5), view: ViewId(view) };
            read(&feed, &mut Cursor::continuing_at(position))
        };
        assert_eq!(read_after(1), ["view 2", "view 3"]);
        assert_eq!(read_after(2), ["view 3"]);
        assert_eq!(read_after(0), ["view 3"], "a reader without a view begins with the one in force");
    }

    #[test]
    fn a_reader_that_lags_learns_where_to_resume_and_reads_no_view_twice() {
        let mut feed = Feed::new(view(1, 1).kept_bytes() + 2 * entry(1, 2).kept_bytes());
        [view(1, 1), entry(1, 2)].into_iter().for_each(|item| feed.push(item));
        let mut slow = Cursor::beginning_at(Index(1));
        let Read::Item(ApprovedItem::View(_)) = feed.read(&mut slow) else { panic!("it comes first") };
        [entry(3, 2), entry(5, 2), view(2, 7), entry(7, 2)].into_iter().for_each(|item| feed.push(item));
        assert_eq!(read(&feed, &mut slow), ["lagged to 5", "5-6", "view 2", "7-8"]);
        assert_eq!(read_from(&feed, 1), ["lagged to 5", "view 1", "5-6", "view 2", "7-8"]);
    }

    #[test]
    fn after_a_snapshot_a_reader_begins_with_the_view_in_force_there() {
        let mut feed = Feed::new(10_000);
        [view(1, 1), entry(1, 2)].into_iter().for_each(|item| feed.push(item));
        let mut behind = Cursor::beginning_at(Index(1));
        let ApprovedItem::View(in_force) = view(2, 7) else { panic!("a view") };
        feed.begin_after(Index(9), Some(in_force));
        assert_eq!(read(&feed, &mut behind), ["lagged to 10", "view 2"]);
        [view(3, 10), entry(10, 1)].into_iter().for_each(|item| feed.push(item));
        assert_eq!(read(&feed, &mut behind), ["view 3", "10-10"]);
        assert_eq!(read_from(&feed, 10), ["view 3", "10-10"]);
    }

    #[test]
    fn a_reader_of_events_learns_how_many_it_missed() {
        let mut log = EventLog::default();
        let (mut slow, mut fast) = (0, 0);
        log.push(Event::Grace);
        assert_eq!(log.read(&mut fast), Some(Ok(Event::Grace)));
        (0..EVENTS_KEPT_MAX - 1).for_each(|_| log.push(Event::AllReady));
        let mut all = 0;
        assert_eq!(log.read(&mut all), Some(Ok(Event::Grace)), "nothing is missing");
        (0..3).for_each(|_| log.push(Event::Stop));
        assert_eq!(log.read(&mut slow), Some(Err(3)));
        assert_eq!(log.read(&mut fast), Some(Err(2)));
        assert_eq!(log.read(&mut slow), Some(Ok(Event::AllReady)), "it continues with the oldest");
        let rest = std::iter::from_fn(|| log.read(&mut slow)).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!((rest.len(), rest.last()), (EVENTS_KEPT_MAX - 1, Some(&Event::Stop)));
    }
}
