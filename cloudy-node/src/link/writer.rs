//! Writes to one stream.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use cloudy_proto::Frame;
use cloudy_proto::wire::{Stream, StreamHeader, encode_control, encode_header, encode_lane, encode_tally_in};
use quinn::{Connection, SendStream, WriteError};
use tokio::sync::mpsc;

use crate::health::Health;
use crate::link::requests::Backlog;

/// Maximum bytes that wait for one lane's stream: windows bound honest groups, so a link above it cannot recover.
const LANE_QUEUE_BYTES_MAX: usize = 128 << 20;
/// Maximum bytes that wait for any other stream. Answers are bounded before they are queued; this bounds frames without
/// a request.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Maximum size of a body that is copied behind its header: one piece costs the transport less than two.
const COPY_BYTES_MAX: usize = 1 << 10;

/// The frames for one stream in this turn. They are written to the stream itself, or passed to its task while it is not
/// open or has no capacity.
pub(super) struct Writer {
    /// The wire version of the link.
    version: u16,
    head: BytesMut,
    chunks: Vec<Bytes>,
    /// Bytes of both parts.
    collected: usize,
    bytes_max: usize,
    queue: mpsc::UnboundedSender<Queued>,
    shared: Arc<Shared>,
    /// Counts waiting bytes, on control and result streams.
    backlog: Option<Arc<Backlog>>,
}

/// The state that a writer shares with its task.
#[derive(Default)]
struct Shared {
    /// The stream, while it is open and the task does not write to it.
    idle: Mutex<Option<SendStream>>,
    /// Bytes that were passed to the task and not written yet.
    queued_bytes: AtomicUsize,
}

/// Chunks that were passed to the task; counted until dropped.
struct Queued {
    chunks: Vec<Bytes>,
    bytes: usize,
    shared: Arc<Shared>,
    backlog: Option<Arc<Backlog>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.shared.queued_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.backlog.iter().for_each(|backlog| backlog.remove(self.bytes));
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Option<SendStream>> {
        // A panic under the lock leaves the stream unchanged.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    pub(super) fn open(
        connection: &Connection,
        (header, version): (StreamHeader, u16),
        alive: (mpsc::Sender<()>, Arc<()>),
        (backlog, health): (&Arc<Backlog>, &Health),
    ) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let priority = match header.stream {
            Stream::Node | Stream::Control => 2,
            Stream::Tally { .. } => 1,
            Stream::Lane { .. } | Stream::Result => 0,
        };
        let is_lane = matches!(header.stream, Stream::Lane { .. });
        let bytes_max = if is_lane { LANE_QUEUE_BYTES_MAX } else { QUEUE_BYTES_MAX };
        let answers = matches!(header.stream, Stream::Control | Stream::Result);
        let backlog = answers.then(|| Arc::clone(backlog));
        let (connection, of_task) = (connection.clone(), Arc::clone(&shared));
        health.spawn("stream writer", async move {
            let opened = connection.open_uni().await;
            let Ok(stream) = opened else { return };
            // Fails only on a closed stream.
            let _ = stream.set_priority(priority);
            // The connection was closed, of which the driver is notified, or the peer stopped the stream, which is
            // intended.
            let _ = write(stream, encode_header(&header), queued, &of_task).await;
            drop(alive);
        });
        Self { version, head: BytesMut::new(), chunks: Vec::new(), collected: 0, bytes_max, queue, shared, backlog }
    }

    /// Whether nothing was collected in this turn.
    pub(super) fn is_empty(&self) -> bool {
        self.collected == 0
    }

    /// Collects a frame; false if too many bytes wait with it.
    pub(super) fn push(&mut self, frame: &Frame) -> bool {
        let before = self.head.len();
        let mut body_bytes = 0;
        match frame {
            Frame::Tally(frame) => encode_tally_in(self.version, frame, &mut self.head),
            Frame::Control(frame) => encode_control(frame, &mut self.head),
            Frame::Lane(frame) => {
                if let Some(body) = encode_lane(frame, &mut self.head) {
                    body_bytes = body.len();
                    if body.len() <= COPY_BYTES_MAX {
                        self.head.extend_from_slice(&body);
                        body_bytes = 0;
                    } else {
                        body_bytes += self.head.len() - before;
                        self.chunks.push(self.head.split().freeze());
                        self.chunks.push(body);
                    }
                }
            }
        }
        let bytes = if body_bytes > 0 { body_bytes } else { self.head.len() - before };
        self.collected += bytes;
        self.backlog.iter().for_each(|backlog| backlog.add(bytes));
        self.collected + self.shared.queued_bytes.load(Ordering::Relaxed) <= self.bytes_max
    }

    /// Writes the collected frames as far as the stream has capacity, and passes the rest to the task; false if too
    /// many bytes wait already.
    pub(super) fn flush(&mut self) -> bool {
        if !self.head.is_empty() {
            self.chunks.push(self.head.split().freeze());
        }
        if self.shared.queued_bytes.load(Ordering::Acquire) == 0 {
            self.write_at_once();
        }
        let collected = std::mem::take(&mut self.collected);
        let bytes: usize = self.chunks.iter().map(Bytes::len).sum();
        self.backlog.iter().for_each(|backlog| backlog.remove(collected - bytes));
        if self.chunks.is_empty() {
            return true;
        }
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let (shared, backlog) = (Arc::clone(&self.shared), self.backlog.clone());
        // A stopped task does not need them.
        let _ = self.queue.send(Queued { chunks: std::mem::take(&mut self.chunks), bytes, shared, backlog });
        before + bytes <= self.bytes_max
    }

    /// Writes without the task if nothing waits: the task would only cost a turn.
    fn write_at_once(&mut self) {
        if let Some(stream) = &mut *self.shared.idle() {
            let mut context = Context::from_waker(Waker::noop());
            // The task finds the remaining bytes, or the failure.
            let _ = pin!(stream.write_all_chunks(&mut self.chunks)).poll(&mut context);
            self.chunks.retain(|chunk| !chunk.is_empty());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.backlog.iter().for_each(|backlog| backlog.remove(self.collected));
    }
}

async fn write(
    mut stream: SendStream,
    header: Bytes,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    shared: &Shared,
) -> Result<(), WriteError> {
    stream.write_chunk(header).await?;
    *shared.idle() = Some(stream);
    while let Some(first) = queued.recv().await {
        let Some(mut stream) = shared.idle().take() else { return Ok(()) };
        let mut next = Some(first);
        while let Some(mut queue) = next {
            stream.write_all_chunks(&mut queue.chunks).await?;
            drop(queue);
            next = queued.try_recv().ok();
        }
        *shared.idle() = Some(stream);
    }
    let Some(mut stream) = shared.idle().take() else { return Ok(()) };
    if stream.finish().is_ok() {
        // Waits until the peer has everything, so that a node that shuts down loses nothing.
        let _ = stream.stopped().await;
    }
    Ok(())
}
