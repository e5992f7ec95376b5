//! Reading the result.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloudy_proto::{Event, Index};
use futures_core::Stream;

use crate::group::feed::{ApprovedItem, Cursor, Read};
use crate::group::shared::{EndReason, Shared, wait_until};

/// A reader that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovedError {
    /// The reader was too slow, or asked for too early an index: what it wants is no longer retained. Reading again goes
    /// on at `resume_from`.
    #[error(
        "the result before index {resume_from} is no longer retained here; read on from there, or raise retain_bytes"
    )]
    Lagged {
        /// The first index that is retained.
        resume_from: Index,
    },
    /// The group ended at this node before its result was final; all that was approved here has been read.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

type Next = (Approved, Option<Result<ApprovedItem, ApprovedError>>);

/// A reader of the result, from an index on: batches and view changes, in order. It holds nobody up.
#[derive(Debug)]
pub struct Approved {
    shared: Arc<Shared>,
    cursor: Cursor,
    done: bool,
}

impl Approved {
    pub(crate) fn new(shared: Arc<Shared>, from: Index) -> Self {
        let cursor = shared.lock().feed.cursor_at(from);
        Self { shared, cursor, done: false }
    }

    /// The next batch or view change. None once a final result was read to its end, or after an
    /// [`ApprovedError::Ended`].
    pub async fn next_batch(&mut self) -> Option<Result<ApprovedItem, ApprovedError>> {
        let shared = Arc::clone(&self.shared);
        wait_until(&shared.moved, || self.try_next()).await
    }

    /// The next item, if it is known: `Some(None)` at the end.
    fn try_next(&mut self) -> Option<Option<Result<ApprovedItem, ApprovedError>>> {
        if self.done {
            return Some(None);
        }
        let state = self.shared.lock();
        match state.feed.read(&mut self.cursor) {
            Read::Item(item) => Some(Some(Ok(item))),
            Read::Lagged(resume_from) => {
                self.cursor = state.feed.cursor_at(resume_from);
                Some(Some(Err(ApprovedError::Lagged { resume_from })))
            }
            Read::UpToDate if state.is_final_at(self.cursor.index) => Some(None),
            Read::UpToDate => {
                let reason = state.ended.clone()?;
                self.done = true;
                Some((reason != EndReason::Final).then(|| Err(reason.into())))
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
                    if let Some(item) = reader.try_next() {
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

/// What happened in the group, from its first event on.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    position: u64,
}

impl Events {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, position: 0 }
    }

    /// The next event; none once the group has ended here and all was read.
    pub async fn next(&mut self) -> Option<Event> {
        let shared = Arc::clone(&self.shared);
        wait_until(&shared.happened, || {
            let state = shared.lock();
            match state.events.read(&mut self.position) {
                Some(event) => Some(Some(event)),
                None => state.ended.is_some().then_some(None),
            }
        })
        .await
    }
}
