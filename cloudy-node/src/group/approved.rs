//! Reading the result.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_proto::limits::READ_BYTES_MAX;
use cloudy_proto::{Entry, Event, Index};
use futures_core::Stream;
use tokio::sync::oneshot;

use crate::group::feed::{ApprovedItem, Cursor, Read};
use crate::group::shared::{EndReason, Shared, wait_until};
use crate::storage::{Part, ReadGroupError};

/// A reader that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovedError {
    /// The reader was too slow, or asked for too early an index: what it wants is no longer retained. Reading again goes
    /// on at `resume_from`.
    #[error(
        "the result before index {resume_from} is no longer retained here; read on from there, or raise retain_bytes (on disk: retain_disk_bytes)"
    )]
    Lagged {
        /// The first index that is retained.
        resume_from: Index,
    },
    /// What it wants is on the disk, and cannot be read. Reading again goes on at `resume_from`.
    #[error("the result before index {resume_from} cannot be read from the disk here: {cause}")]
    Unreadable {
        /// What is wrong, and what to do.
        cause: ReadGroupError,
        /// The first index that memory retains.
        resume_from: Index,
    },
    /// The group ended at this node before its result was final; all that was approved here has been read.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

type Next = (Approved, Option<Result<ApprovedItem, ApprovedError>>);

/// How long it takes about until more of the result is on disk.
const SYNC_LOOK_EVERY: Duration = Duration::from_millis(5);

/// A reader of the result, from an index on: batches and view changes, in order. It holds nobody up. In a `Disk` group
/// it reads from the disk what memory does not keep any more, without the view changes of that time.
#[derive(Debug)]
pub struct Approved {
    shared: Arc<Shared>,
    cursor: Cursor,
    done: bool,
    /// Read from the disk, and not given out: what comes before the cursor.
    stored: VecDeque<Entry>,
    /// What the disk is reading.
    reading: Option<oneshot::Receiver<Result<Part, ReadGroupError>>>,
}

/// What a reader can do next.
enum Step {
    /// Give out the next item: none at the end.
    Item(Option<Result<ApprovedItem, ApprovedError>>),
    /// Ask the disk; memory begins only here.
    Read(Index),
}

impl Approved {
    pub(crate) fn new(shared: Arc<Shared>, from: Index) -> Self {
        let cursor = shared.lock().feed.cursor_at(from);
        Self { shared, cursor, done: false, stored: VecDeque::new(), reading: None }
    }

    /// The next batch or view change. None once a final result was read to its end, or after an
    /// [`ApprovedError::Ended`]. Nothing is lost if it is dropped before it is ready.
    pub async fn next_batch(&mut self) -> Option<Result<ApprovedItem, ApprovedError>> {
        let shared = Arc::clone(&self.shared);
        loop {
            match wait_until(&shared.moved, || self.try_next()).await {
                Step::Item(item) => return item,
                Step::Read(retained_from) => {
                    if let Err(lagged) = self.read_stored(retained_from).await {
                        return Some(Err(lagged));
                    }
                }
            }
        }
    }

    /// What can be done at once.
    fn try_next(&mut self) -> Option<Step> {
        if let Some(entry) = self.stored.pop_front() {
            return Some(Step::Item(Some(Ok(ApprovedItem::Batch(entry)))));
        }
        if self.done {
            return Some(Step::Item(None));
        }
        let state = self.shared.lock();
        match state.feed.read(&mut self.cursor) {
            Read::Item(item) => Some(Step::Item(Some(Ok(item)))),
            Read::Lagged(retained_from) if self.shared.stored().is_some() => Some(Step::Read(retained_from)),
            Read::Lagged(resume_from) => {
                self.cursor = state.feed.cursor_at(resume_from);
                Some(Step::Item(Some(Err(ApprovedError::Lagged { resume_from }))))
            }
            Read::UpToDate if state.is_final_at(self.cursor.index) => Some(Step::Item(None)),
            Read::UpToDate => {
                let reason = state.ended.clone()?;
                self.done = true;
                Some(Step::Item((reason != EndReason::Final).then(|| Err(reason.into()))))
            }
        }
    }

    /// Reads on from the disk. Fails if the disk does not have it either.
    async fn read_stored(&mut self, retained_from: Index) -> Result<(), ApprovedError> {
        let (group, from) = (self.shared.id, self.cursor.index);
        let reading = self.reading.get_or_insert_with(|| {
            let (answer, reading) = oneshot::channel();
            if let Some(stored) = self.shared.stored() {
                // A reader that is gone needs no answer.
                stored.read(group, from, READ_BYTES_MAX, |part| drop(answer.send(part)));
            }
            reading
        });
        let read = reading.await;
        self.reading = None;
        let entries = match read {
            Ok(Ok(entries)) => entries,
            Ok(Err(cause)) => {
                self.cursor = self.shared.lock().feed.cursor_at(retained_from);
                return Err(ApprovedError::Unreadable { cause, resume_from: retained_from });
            }
            Err(_) => None,
        };
        let ended = self.shared.lock().ended.is_some();
        match entries.filter(|entries| !entries.is_empty() || !ended) {
            None => {
                self.cursor = self.shared.lock().feed.cursor_at(retained_from);
                Err(ApprovedError::Lagged { resume_from: retained_from })
            }
            Some(entries) => {
                match entries.last() {
                    Some(last) => self.cursor = self.shared.lock().feed.cursor_at(last.last_index().next()),
                    // sleep: nobody says here when it is synced.
                    None => tokio::time::sleep(SYNC_LOOK_EVERY).await,
                }
                self.stored = entries.into();
                Ok(())
            }
        }
    }

    /// The same as a [`Stream`], for combinators.
    #[must_use]
    pub fn into_stream(self) -> ApprovedStream {
        ApprovedStream { state: StreamState::Idle(Some(self)) }
    }
}

/// [`Approved`] as a stream.
pub struct ApprovedStream {
    state: StreamState,
}

enum StreamState {
    Idle(Option<Approved>),
    Reading(Pin<Box<dyn Future<Output = Next> + Send>>),
}

impl Stream for ApprovedStream {
    type Item = Result<ApprovedItem, ApprovedError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.state {
                StreamState::Idle(reader) => {
                    let Some(mut reader) = reader.take() else { return Poll::Ready(None) };
                    // What is there already needs no future.
                    if let Some(Step::Item(item)) = reader.try_next() {
                        self.state = StreamState::Idle(Some(reader));
                        return Poll::Ready(item);
                    }
                    self.state = StreamState::Reading(Box::pin(async move {
                        let item = reader.next_batch().await;
                        (reader, item)
                    }));
                }
                StreamState::Reading(next) => {
                    let Poll::Ready((reader, item)) = next.as_mut().poll(cx) else { return Poll::Pending };
                    self.state = StreamState::Idle(Some(reader));
                    return Poll::Ready(item);
                }
            }
        }
    }
}

/// A reader of events that cannot continue, or has to without some of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// The reader was too slow: so many events were dropped unread. The next read gives the oldest that is kept.
    #[error(
        "{count} events were dropped before they were read: read faster, and look at Group::status for what they said"
    )]
    Missed {
        /// How many.
        count: u64,
    },
    /// The group ended at this node before its result was final; all events have been read.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// What happened in the group, from its first event on. The newest 4,096 events are kept.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    position: u64,
    done: bool,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, position: 0, done: false }
    }

    /// The next event. None once all events of a group with a final result were read, or after an
    /// [`EventsError::Ended`]. Cancel safe.
    ///
    /// # Errors
    /// See [`EventsError`]; after [`EventsError::Missed`] reading goes on.
    pub async fn next(&mut self) -> Option<Result<Event, EventsError>> {
        let shared = Arc::clone(&self.shared);
        wait_until(&shared.happened, || self.try_next()).await
    }

    fn try_next(&mut self) -> Option<Option<Result<Event, EventsError>>> {
        if self.done {
            return Some(None);
        }
        let state = self.shared.lock();
        if let Some(read) = state.events.read(&mut self.position) {
            return Some(Some(read.map_err(|count| EventsError::Missed { count })));
        }
        let reason = state.ended.clone()?;
        self.done = true;
        Some((reason != EndReason::Final).then(|| Err(reason.into())))
    }
}
