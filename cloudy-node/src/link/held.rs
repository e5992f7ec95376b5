//! Bounds on the memory that a peer uses on one connection beside the transport's window: the bytes of its frames from
//! arrival until the driver has handled them, and the number of its control frames that wait for the driver.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use cloudy_proto::limits::CONTROL_FRAME_BYTES_MAX;
use cloudy_proto::wire::{Stream, StreamHeader};
use cloudy_proto::{Frame, GroupId, Incarnation};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Maximum of control and node frames of one connection that wait for the driver. A peer that sends more costs the
/// driver no more in each turn.
pub(super) const CONTROL_FRAMES_MAX: usize = 64;
/// Bytes that are charged for a decoded frame beside its encoding.
const FRAME_COST_BYTES: usize = size_of::<Frame>();

/// The counts of one connection. Clones share them.
#[derive(Clone)]
pub(super) struct Held(Arc<Counts>);

struct Counts {
    max: usize,
    /// All counted bytes.
    bytes: AtomicUsize,
    /// The bytes of frames that have not arrived completely.
    unfinished: AtomicUsize,
    freed: Notify,
    control_frames: Arc<Semaphore>,
    /// Open streams that may exist once at a time.
    single: Mutex<BTreeSet<(GroupId, Incarnation, Stream)>>,
}

/// The unfinished frames of one connection exceed their bound.
#[derive(Debug, thiserror::Error)]
#[error("more than {max} bytes of unfinished frames")]
pub(super) struct TooMuch {
    max: usize,
}

/// The charge for frames on their way to the driver. Dropped once they are handled.
pub(crate) struct Taken {
    counts: Arc<Counts>,
    bytes: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// A capacity for one frame of the maximum size, and for the transport's window.
    pub(super) fn new(window_bytes: u32) -> Self {
        Self(Arc::new(Counts {
            max: window_bytes as usize + CONTROL_FRAME_BYTES_MAX,
            bytes: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            freed: Notify::new(),
            control_frames: Arc::new(Semaphore::new(CONTROL_FRAMES_MAX)),
            single: Mutex::default(),
        }))
    }

    /// The charge for a new stream.
    pub(super) fn stream(&self) -> HeldStream {
        HeldStream { counts: Arc::clone(&self.0), unfinished: 0, lane: false, single: None }
    }
}

/// The charge of one stream; returned when dropped.
pub(super) struct HeldStream {
    counts: Arc<Counts>,
    unfinished: usize,
    /// Whether it carries a lane of a ring that the peer is on.
    lane: bool,
    single: Option<(GroupId, Incarnation, Stream)>,
}

impl HeldStream {
    /// False if another stream of the same lane or tally is open: each has only one.
    pub(super) fn is_single(&mut self, header: &StreamHeader) -> bool {
        if header.stream.view().is_none() {
            return true;
        }
        let key = (header.group, header.incarnation, header.stream);
        let mut open = self.counts.single.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = open.insert(key);
        self.single = fresh.then_some(key);
        fresh
    }

    /// Notes that the stream carries a lane that the peer may carry. Its one unfinished slot is not counted: the
    /// group's windows bound it, and streams that wait for each other's slots would block.
    pub(super) fn is_lane(&mut self) {
        self.lane = true;
        let bytes = std::mem::take(&mut self.unfinished);
        self.counts.unfinished.fetch_sub(bytes, Ordering::Relaxed);
        self.counts.free(bytes);
    }

    /// Charges bytes of a frame that may be incomplete.
    pub(super) fn arrived(&mut self, bytes: usize) -> Result<(), TooMuch> {
        if self.lane {
            return Ok(());
        }
        self.unfinished += bytes;
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        let unfinished = self.counts.unfinished.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unfinished > self.counts.max { Err(TooMuch { max: self.counts.max }) } else { Ok(()) }
    }

    /// Moves bytes of complete frames to a charge that goes to the driver.
    pub(super) fn finished(&mut self, bytes: usize, frames: usize) -> Taken {
        let counted = bytes.min(self.unfinished);
        self.unfinished -= counted;
        self.counts.unfinished.fetch_sub(counted, Ordering::Relaxed);
        let bytes = bytes + frames * FRAME_COST_BYTES;
        self.counts.bytes.fetch_add(bytes - counted, Ordering::Relaxed);
        Taken { counts: Arc::clone(&self.counts), bytes, _permit: None }
    }

    /// Like `finished`, for frames with a maximum number in the driver's queue; waits for their turn. Cancel safe.
    pub(super) async fn finished_control(&mut self, bytes: usize, frames: usize) -> Taken {
        let mut taken = self.finished(bytes, frames);
        let frames = frames.min(CONTROL_FRAMES_MAX) as u32;
        // The semaphore is never closed.
        taken._permit = Arc::clone(&self.counts.control_frames).acquire_many_owned(frames).await.ok();
        taken
    }

    /// Ready if at the moment of the poll too much is held to read more.
    pub(super) async fn is_full(&self) {
        poll_fn(|_| if self.counts.is_full() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Waits until the driver has handled enough to read more.
    pub(super) async fn has_capacity(&self) {
        loop {
            let freed = self.counts.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if !self.counts.is_full() {
                return;
            }
            freed.await;
        }
    }
}

impl Counts {
    fn is_full(&self) -> bool {
        // Unfinished frames have their own bound, and only more bytes can finish them.
        let (bytes, unfinished) = (self.bytes.load(Ordering::Relaxed), self.unfinished.load(Ordering::Relaxed));
        bytes >= self.max && bytes > unfinished
    }

    fn free(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.max {
            self.freed.notify_waiters();
        }
    }
}

impl Drop for HeldStream {
    fn drop(&mut self) {
        self.counts.unfinished.fetch_sub(self.unfinished, Ordering::Relaxed);
        self.counts.free(self.unfinished);
        if let Some(key) = self.single {
            self.counts.single.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.counts.free(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn unfinished_frames_are_bounded_and_unhandled_inputs_stop_reading() {
        let held = Held::new(0);
        let (mut one, mut other) = (held.stream(), held.stream());
        one.arrived(CONTROL_FRAME_BYTES_MAX).unwrap();
        assert!(one.has_capacity().now_or_never().is_some(), "only further bytes can finish a frame");
        assert!(other.arrived(1).is_err());
        let taken = one.finished(CONTROL_FRAME_BYTES_MAX, 1);
        drop(other);
        let mut waits = held.stream();
        assert!(waits.has_capacity().now_or_never().is_none() && waits.is_full().now_or_never().is_some());
        drop(taken);
        assert!(waits.has_capacity().now_or_never().is_some());
        // The slots of a lane count once they are complete.
        waits.is_lane();
        waits.arrived(2 * CONTROL_FRAME_BYTES_MAX).unwrap();
        let taken = waits.finished(2 * CONTROL_FRAME_BYTES_MAX, 1);
        assert!(one.has_capacity().now_or_never().is_none());
        drop((one, waits, taken));
        assert_eq!((held.0.bytes.load(Ordering::Relaxed), held.0.unfinished.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn control_frames_of_one_connection_wait_for_the_driver() {
        let held = Held::new(0);
        let mut stream = held.stream();
        let many = stream.finished_control(0, CONTROL_FRAMES_MAX).now_or_never().unwrap();
        assert!(held.stream().finished_control(0, 1).now_or_never().is_none());
        drop(many);
        assert!(held.stream().finished_control(0, 1).now_or_never().is_some());
    }
}
