//! Congestion control that ignores losses on a path without an answer.
//!
//! While a peer is out of reach, the packets of the handshake are lost at any capacity of the path. CUBIC takes
//! that for congestion and ends slow start with ten packets: with a round trip of 100 ms it then takes 10 s to reach 1
//! MB/s. So packets that were sent before the peer's first acknowledgement do not count as lost. TCP does the same: it
//! keeps the threshold of slow start when it repeats a SYN. Until then a node sends no more than the initial window, as
//! any new connection may.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// Builds controllers that ignore losses from before the first acknowledgement.
pub(super) struct SlowStart<F>(pub(super) Arc<F>);

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for SlowStart<F> {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Started { inner, answered_at: None })
    }
}

struct Started {
    inner: Box<dyn Controller>,
    /// The time of the peer's first acknowledgement.
    answered_at: Option<Instant>,
}

impl Controller for Started {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.answered_at.get_or_insert(now);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        // A router's mark arrives with an acknowledgement, and names no lost bytes.
        let is_loss = lost_bytes > 0;
        if is_loss && self.answered_at.is_none_or(|answered_at| sent < answered_at) {
            return;
        }
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), answered_at: self.answered_at })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quinn::congestion::CubicConfig;

    use super::*;

    const LOST_BYTES: u64 = 1_200;

    /// The window in parts of its initial size, after a loss (or a mark, if no bytes are lost) of a packet that was
    /// sent `sent_ms` after the start. The peer answered after 100 ms, if at all.
    fn window_left(answered: bool, sent_ms: u64, lost_bytes: u64) -> f64 {
        let started = Instant::now();
        let after = |ms| started + Duration::from_millis(ms);
        let inner = Arc::new(CubicConfig::default()).build(started, 1_200);
        let mut controller = Started { inner, answered_at: answered.then(|| after(100)) };
        controller.on_congestion_event(after(1_000), after(sent_ms), false, lost_bytes);
        controller.window() as f64 / controller.initial_window() as f64
    }

    #[test]
    fn only_losses_of_packets_that_were_sent_after_the_first_answer_count() {
        assert_eq!(window_left(false, 50, LOST_BYTES), 1.0);
        assert_eq!(window_left(true, 50, LOST_BYTES), 1.0);
        assert!(window_left(true, 150, LOST_BYTES) < 0.8);
        assert!(window_left(true, 50, 0) < 0.8, "a router has marked a packet that arrived");
    }
}
