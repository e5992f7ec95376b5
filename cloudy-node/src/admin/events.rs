//! `/events`: the status as server-sent events, for the live page. The number of streams is bounded, and a client that
//! does not read its stream loses it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::history::History;
use super::source::Source;

/// Maximum of streams.
const STREAMS_MAX: usize = 8;
/// The time between two events.
const EVERY: Duration = Duration::from_secs(1);
/// Events wait for this time at most for a client to read.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// The open streams.
pub(super) struct Streams(Arc<Semaphore>);

/// A stream of events.
pub(super) struct Stream {
    events: mpsc::Receiver<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }

    /// Opens a stream; none if there are too many. `on_stalled` is called once the client has not read for too long.
    pub(super) fn open(
        &self,
        source: &Arc<Source>,
        history: &Arc<History>,
        on_stalled: impl FnOnce() + Send + 'static,
    ) -> Option<Stream> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let (sender, events) = mpsc::channel(1);
        let (source, history) = (Arc::clone(source), Arc::clone(history));
        tokio::spawn(async move {
            if write(&source, &history, &sender).await == Written::Stalled {
                on_stalled();
            }
        });
        Some(Stream { events, _place: place })
    }
}

impl Stream {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Pin::new(&mut self.events).poll_recv(context)
    }
}

/// Why no more events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// The client is gone.
    Closed,
    /// The client does not read.
    Stalled,
}

async fn write(source: &Source, history: &History, events: &mpsc::Sender<Bytes>) -> Written {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next = Some(event("history", &history.samples()));
    loop {
        let text = match next.take() {
            Some(history) => history,
            None => match source.status().await {
                Ok(status) => event("status", &*status),
                Err(error) => event("trouble", &error.to_string()),
            },
        };
        match timeout(READ_WITHIN, events.send(text.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Written::Closed,
            Err(_) => return Written::Stalled,
        }
        tokio::select! {
            _ = ticks.tick() => {}
            () = events.closed() => return Written::Closed,
        }
    }
}

/// One event. JSON has no line breaks.
fn event(name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}
