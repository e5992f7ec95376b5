//! The source of all readers: the newest part of the result with its view changes, and the events.

use std::collections::VecDeque;
use std::sync::Arc;

use cloudy_proto::{Entry, Event, Index, View};

/// Bytes that are charged for each member of a retained view: its names and addresses.
const VIEW_MEMBER_BYTES: usize = 256;

/// An item of the result.
#[derive(Clone, Debug)]
pub enum ApprovedItem {
    /// Approved messages, all of one origin, with consecutive indexes and sequence numbers.
    Batch(Entry),
    /// A view came into force: the following messages were approved in it.
    View(Arc<View>),
}

impl ApprovedItem {
    /// Bytes that are charged while the item is retained.
    fn kept_bytes(&self) -> u64 {
        match self {
            Self::Batch(entry) => entry.kept_bytes(),
            Self::View(view) => (size_of::<View>() + view.ring.len() * VIEW_MEMBER_BYTES) as u64,
        }
    }
}

/// The newest items, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Feed {
    items: VecDeque<ApprovedItem>,
    /// The position of the first retained item, counted from the first item ever.
    first: u64,
    /// Bytes that are charged for the retained items.
    bytes: u64,
    bytes_max: u64,
    /// The first index of the next batch.
    next_index: Index,
}

/// The position of a reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    /// The position of the next item, counted from the first item ever.
    position: u64,
    /// The next index to read.
    pub(crate) index: Index,
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
        Self { items: VecDeque::new(), first: 0, bytes: 0, bytes_max, next_index: Index(1) }
    }

    /// The last index that was given to readers.
    pub(crate) fn last_index(&self) -> Index {
        Index(self.next_index.0 - 1)
    }

    pub(crate) fn push_view(&mut self, view: Arc<View>) {
        self.push_item(ApprovedItem::View(view));
    }

    fn push_item(&mut self, item: ApprovedItem) {
        self.bytes += item.kept_bytes();
        self.items.push_back(item);
        while self.bytes > self.bytes_max && self.items.len() > 1 {
            if let Some(gone) = self.items.pop_front() {
                self.bytes -= gone.kept_bytes();
            }
            self.first += 1;
        }
    }

    /// Drops all items: the next item follows `index`.
    pub(crate) fn begin_after(&mut self, index: Index) {
        self.first += self.items.len() as u64;
        self.items.clear();
        self.bytes = 0;
        self.next_index = index.next();
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.next_index = entry.last_index().next();
        self.push_item(ApprovedItem::Batch(entry));
    }

    /// A cursor for a reader that starts at `index`.
    pub(crate) fn cursor_at(&self, index: Index) -> Cursor {
        let before = |item: &ApprovedItem| match item {
            ApprovedItem::Batch(entry) => entry.last_index() < index,
            ApprovedItem::View(_) => false,
        };
        // The reader gets the view changes right before its first entry as well.
        let at = self.items.iter().rposition(before).map_or(0, |at| at + 1);
        Cursor { position: self.first + at as u64, index: index.max(Index(1)) }
    }

    pub(crate) fn read(&self, cursor: &mut Cursor) -> Read {
        loop {
            let Some(at) = cursor.position.checked_sub(self.first) else { return self.lagged(cursor) };
            let Some(item) = self.items.get(at as usize) else {
                // A snapshot replaced the entries that this reader waits for.
                let missed = cursor.index < self.next_index;
                return if missed { self.lagged(cursor) } else { Read::UpToDate };
            };
            cursor.position += 1;
            let ApprovedItem::Batch(entry) = item else {
                if self.batch_after(at) > cursor.index {
                    // Entries before this view change are missing.
                    cursor.position -= 1;
                    return self.lagged(cursor);
                }
                return Read::Item(item.clone());
            };
            if entry.last_index() < cursor.index {
                continue;
            }
            if entry.first_index > cursor.index {
                cursor.position -= 1;
                return self.lagged(cursor);
            }
            let skip = (cursor.index.0 - entry.first_index.0) as u32;
            cursor.index = entry.last_index().next();
            if skip == 0 {
                return Read::Item(item.clone());
            }
            let first_index = Index(entry.first_index.0 + u64::from(skip));
            let batch = entry.batch.without_first(skip);
            return Read::Item(ApprovedItem::Batch(Entry { first_index, batch, ..entry.clone() }));
        }
    }

    /// The first index of the first batch at or after an item.
    fn batch_after(&self, at: u64) -> Index {
        let first = self.items.range(at as usize..).find_map(|item| match item {
            ApprovedItem::Batch(entry) => Some(entry.first_index),
            ApprovedItem::View(_) => None,
        });
        first.unwrap_or(self.next_index)
    }

    fn lagged(&self, cursor: &Cursor) -> Read {
        Read::Lagged(self.batch_after(0).max(cursor.index))
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
    use bytes::BytesMut;
    use cloudy_proto::slot::{Batch, push_payload};
    use cloudy_proto::{Incarnation, NodeId, Seq, ViewId};

    use super::*;

    fn entry(first: u64, count: u32) -> Entry {
        let mut body = BytesMut::new();
        (0..count).for_each(|_| push_payload(&mut body, &[1; 15]));
        Entry {
            first_index: Index(first),
            view: ViewId(1),
            origin: NodeId([1; 32]),
            incarnation: Incarnation(1),
            batch: Batch { first_seq: Seq(first), count, body: body.freeze() },
        }
    }

    fn indexes(feed: &Feed, cursor: &mut Cursor) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| match feed.read(cursor) {
            Read::Item(ApprovedItem::Batch(entry)) => Some((entry.first_index.0, entry.batch.count)),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn a_reader_begins_inside_a_batch() {
        let mut feed = Feed::new(10_000);
        feed.push(entry(1, 4));
        feed.push(entry(5, 2));
        let mut cursor = feed.cursor_at(Index(3));
        assert_eq!(indexes(&feed, &mut cursor), [(3, 2), (5, 2)]);
        feed.push(entry(7, 1));
        assert_eq!(indexes(&feed, &mut cursor), [(7, 1)]);
    }

    #[test]
    fn view_changes_are_read_in_their_places_wherever_a_reader_begins() {
        let view = |id| {
            let parameters = cloudy_proto::Parameters::default();
            Arc::new(View { id: ViewId(id), ring: Vec::new(), parameters, last: id == 2 })
        };
        let mut feed = Feed::new(10_000);
        feed.push_view(view(1));
        feed.push(entry(1, 4));
        feed.push_view(view(2));
        let items = |from| {
            let mut cursor = feed.cursor_at(Index(from));
            std::iter::from_fn(|| match feed.read(&mut cursor) {
                Read::Item(ApprovedItem::Batch(entry)) => Some(format!("{}", entry.first_index)),
                Read::Item(ApprovedItem::View(view)) => Some(format!("view {}", view.id)),
                _ => None,
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(items(1), ["view 1", "1", "view 2"]);
        assert_eq!(items(3), ["view 1", "3", "view 2"]);
        assert_eq!(items(5), ["view 2"]);
    }

    #[test]
    fn who_misses_what_comes_before_a_view_change_is_told_before_it_is_given() {
        let view = |id| {
            let parameters = cloudy_proto::Parameters::default();
            Arc::new(View { id: ViewId(id), ring: Vec::new(), parameters, last: false })
        };
        let mut feed = Feed::new(ApprovedItem::View(view(1)).kept_bytes() + entry(1, 2).kept_bytes());
        feed.push(entry(1, 2));
        let mut waits = feed.cursor_at(Index(3));
        feed.push_view(view(2));
        let Read::Item(ApprovedItem::View(_)) = feed.read(&mut waits) else { panic!("nothing is missing before it") };
        feed.push(entry(3, 2));
        let mut behind = feed.cursor_at(Index(1));
        let Read::Lagged(resume) = feed.read(&mut behind) else { panic!("the first entry is gone") };
        assert_eq!(resume, Index(3));
        let mut behind = feed.cursor_at(resume);
        let Read::Item(ApprovedItem::View(_)) = feed.read(&mut behind) else { panic!("it comes first") };
        assert_eq!(indexes(&feed, &mut behind), [(3, 2)]);
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

    #[test]
    fn a_slow_reader_is_told_where_to_resume() {
        let mut feed = Feed::new(2 * entry(1, 2).kept_bytes());
        let mut slow = feed.cursor_at(Index(1));
        (0..4).for_each(|at| feed.push(entry(1 + 2 * at, 2)));
        let Read::Lagged(resume) = feed.read(&mut slow) else { panic!("the first entries are gone") };
        assert_eq!(resume, Index(5));
        assert_eq!(indexes(&feed, &mut feed.cursor_at(resume)), [(5, 2), (7, 2)]);
    }
}
