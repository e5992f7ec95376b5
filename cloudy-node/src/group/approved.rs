//! Readers of the result and of events.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloudy_proto::limits::READ_BYTES_MAX;
use cloudy_proto::{ApprovedItem, Event, Index};
use futures_core::Stream;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::group::feed::{Cursor, Read};
use crate::group::shared::{EndReason, Listener, Shared};
use crate::storage::{Part, ReadGroupError};

/// The reason for which a reader of the result cannot continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovedError {
    /// The reader was too slow, or started at too early an index: that part of the result is not retained here. The
    /// next read continues at `resume_from`.
    #[error(
        "the result before index {resume_from} is not retained here; continue to read from there, or raise retain_bytes (on disk: retain_disk_bytes)"
    )]
    Lagged {
        /// The first retained index.
        resume_from: Index,
    },
    /// A part of the result is on the disk and cannot be read. The next read continues at `resume_from`.
    #[error("the result before index {resume_from} cannot be read from the disk here: {cause}")]
    Unreadable {
        /// The cause, with the remedy.
        cause: ReadGroupError,
        /// The first index that is retained in memory.
        resume_from: Index,
    },
    /// The group closed at this node before its result was final. Everything that was approved here has been read.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// Approximate time until more of the result is on disk.
const SYNC_LOOK_EVERY: Duration = Duration::from_millis(5);

/// A stream of the result from an index on: batches and views, the same items in the same order at every node. It
/// delays no other node. In a `Disk` group it reads items from the disk that memory does not retain.
///
/// A reader that starts at index 1 gets every view. A reader that starts at a later index first gets the view in force
/// there.
#[derive(Debug)]
pub struct Approved {
    shared: Arc<Shared>,
    cursor: Cursor,
    done: bool,
    /// Items that were read from the disk and not returned yet; they precede the cursor.
    stored: VecDeque<ApprovedItem>,
    /// The running read of the disk, and the first index in memory when it started.
    reading: Option<(oneshot::Receiver<Result<Part, ReadGroupError>>, Index)>,
    /// The pause before the next read of the disk.
    pause: Option<Pin<Box<Sleep>>>,
    listener: Listener,
}

/// The next step of a reader.
enum Step {
    /// Return the next item: none at the end.
    Item(Option<Result<ApprovedItem, ApprovedError>>),
    /// Read from the disk; memory begins at this index.
    Read(Index),
}

impl Approved {
    pub(crate) fn new(shared: Arc<Shared>, cursor: Cursor) -> Self {
        let (stored, reading, pause, listener) = Default::default();
        Self { shared, cursor, done: false, stored, reading, pause, listener }
    }

    /// Returns the next batch or view change; none once a final result was read to its end, or after an
    /// [`ApprovedError::Ended`]. Equal to the next item of the stream. Cancel safe: a dropped call loses nothing.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
    /// use cloudy_node::{ApprovedItem, Index, Payloads};
    ///
    /// let mut approved = group.approved_from(Index(1));
    /// while let Some(item) = approved.next_batch().await.transpose()? {
    ///     match item {
    ///         ApprovedItem::Batch(entry) => {
    ///             let first = entry.first_index;
    ///             Payloads::of(entry.batch.body).for_each(|payload| println!("from {first} on: {payload:?}"));
    ///         }
    ///         ApprovedItem::View(installed) => {
    ///             println!("before index {}: {} members", installed.first, installed.view.members());
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn next_batch(&mut self) -> Option<Result<ApprovedItem, ApprovedError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ApprovedItem, ApprovedError>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            if let Some((reading, retained_from)) = &mut self.reading {
                let (read, retained_from) = (ready!(Pin::new(reading).poll(context)), *retained_from);
                self.reading = None;
                if let Err(error) = self.take_stored(read.unwrap_or(Ok(None)), retained_from) {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let (shared, mut listener) = (Arc::clone(&self.shared), std::mem::take(&mut self.listener));
            let step = if self.pause.is_some() {
                Poll::Pending
            } else {
                listener.poll(&shared.moved, context, || self.try_next())
            };
            self.listener = listener;
            match step {
                Poll::Ready(Step::Item(item)) => return Poll::Ready(item),
                Poll::Ready(Step::Read(retained_from)) => self.read_stored(retained_from),
                Poll::Pending if self.pause.is_some() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next step that needs no wait.
    fn try_next(&mut self) -> Option<Step> {
        if let Some(item) = self.stored.pop_front() {
            return Some(Step::Item(Some(Ok(item))));
        }
        if self.done {
            return Some(Step::Item(None));
        }
        let state = self.shared.lock();
        match state.feed.read(&mut self.cursor) {
            Read::Item(item) => Some(Step::Item(Some(Ok(item)))),
            Read::Lagged(retained_from) if self.shared.stored().is_some() => Some(Step::Read(retained_from)),
            Read::Lagged(resume_from) => {
                self.cursor.skip_to(resume_from);
                Some(Step::Item(Some(Err(ApprovedError::Lagged { resume_from }))))
            }
            Read::UpToDate if state.is_final_at(self.cursor.position.next) => Some(Step::Item(None)),
            Read::UpToDate => {
                let reason = state.ended.clone()?;
                self.done = true;
                Some(Step::Item((reason != EndReason::Final).then(|| Err(reason.into()))))
            }
        }
    }

    /// Starts a read of the disk at the cursor.
    fn read_stored(&mut self, retained_from: Index) {
        let (answer, reading) = oneshot::channel();
        if let Some(stored) = self.shared.stored() {
            // The reader may be dropped meanwhile.
            stored.read(self.shared.id, self.cursor.position, READ_BYTES_MAX, |part| drop(answer.send(part)));
        }
        self.reading = Some((reading, retained_from));
    }

    /// Takes the entries that were read. Fails if the disk does not have them either.
    fn take_stored(&mut self, read: Result<Part, ReadGroupError>, retained_from: Index) -> Result<(), ApprovedError> {
        let items = match read {
            Ok(items) => items,
            Err(cause) => {
                self.cursor.skip_to(retained_from);
                return Err(ApprovedError::Unreadable { cause, resume_from: retained_from });
            }
        };
        let ended = self.shared.lock().ended.is_some();
        match items.filter(|items| !items.is_empty() || !ended) {
            None => {
                self.cursor.skip_to(retained_from);
                Err(ApprovedError::Lagged { resume_from: retained_from })
            }
            Some(items) => {
                if items.is_empty() {
                    // sleep: no notification reports the sync of the items.
                    self.pause = Some(Box::pin(sleep(SYNC_LOOK_EVERY)));
                }
                self.stored = items.into_iter().filter(|item| self.cursor.pass(item)).collect();
                Ok(())
            }
        }
    }
}

impl Stream for Approved {
    type Item = Result<ApprovedItem, ApprovedError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

/// The reason for which a reader of events cannot continue, or has missed some of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// The reader was too slow, and `count` events were dropped unread. The next read returns the oldest event that is
    /// kept.
    #[error(
        "{count} events were dropped before they were read: read faster, and query Group::status for the present state"
    )]
    Missed {
        /// The number of dropped events.
        count: u64,
    },
    /// The group closed at this node before its result was final. All events have been read.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// A stream of the group's events, from the first one on. If that is dropped already, it starts with
/// [`EventsError::Missed`] and the newest 4,096 events.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    position: u64,
    done: bool,
    listener: Listener,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, position: 0, done: false, listener: Listener::default() }
    }

    /// Returns the next event; none once all events of a group with a final result were read, or after an
    /// [`EventsError::Ended`]. Equal to the next item of the stream. Cancel safe.
    ///
    /// # Errors
    /// See [`EventsError`]; after [`EventsError::Missed`] the next call continues.
    pub async fn next(&mut self) -> Option<Result<Event, EventsError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Event, EventsError>>> {
        let (shared, mut listener) = (Arc::clone(&self.shared), std::mem::take(&mut self.listener));
        let event = listener.poll(&shared.happened, context, || self.try_next());
        self.listener = listener;
        event
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

impl Stream for Events {
    type Item = Result<Event, EventsError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(context)
    }
}
