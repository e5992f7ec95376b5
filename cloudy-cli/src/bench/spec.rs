//! The specification of a run.

use std::fmt;
use std::time::Duration;

use cloudy_node::fault::Faults;
use cloudy_node::{Durability, RingKind};
use serde::{Deserialize, Serialize};

/// Size of the due time at the beginning of a payload. Shorter payloads have no latency.
pub(crate) const STAMP_BYTES: usize = 8;
/// Minimum cost of a payload in a window, in the library and the baseline alike (`protocol.md` §5).
const PAYLOAD_COST_BYTES_MIN: u64 = 16;
/// Number of a sender's messages outside its own result, on the `token` ring: a turn sends one.
const TOKEN_IN_FLIGHT: u64 = 4;
/// Minimum of messages in flight in the default window.
const MESSAGES_IN_WINDOW_MIN: u64 = 4;

/// The settings of a run, equal at all its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Members of the ring.
    pub(crate) nodes: usize,
    /// Number of members that broadcast, the first ones.
    pub(crate) senders: usize,
    /// A payload's size.
    pub(crate) size_bytes: usize,
    /// Messages that a sender broadcasts per second; none for full speed.
    pub(crate) rate_per_s: Option<u64>,
    /// The window of a sender.
    pub(crate) window_bytes: u64,
    /// Whether a sender of the library uses less if its path does not need it.
    pub(crate) window_adapts: bool,
    /// The ring model.
    pub(crate) ring: RingKind,
    /// The durability of the group.
    pub(crate) durability: Durability,
    /// Time under load before the measurement.
    pub(crate) warm_up: Duration,
    /// The measured time.
    pub(crate) duration: Duration,
    /// Injected below QUIC, with another seed at each node.
    pub(crate) faults: Faults,
}

impl Spec {
    /// Maximum of messages of a sender in flight at full speed: offered, and not yet in its own result.
    pub(crate) fn in_flight_max(&self) -> u64 {
        match self.ring {
            RingKind::Token => TOKEN_IN_FLIGHT,
            RingKind::Pipelined | RingKind::Relay => self.messages_in(self.window_bytes).max(1),
        }
    }

    /// The same for a window of this size: one more slot that waits for capacity. Without it slots would be as small as
    /// the last approval.
    pub(crate) fn in_flight_max_of(&self, window_bytes: u64) -> u64 {
        let slot_bytes = u64::from(cloudy_node::Parameters::default().slot_bytes_max);
        self.messages_in(window_bytes).max(1) + self.messages_in(slot_bytes).max(1)
    }

    fn messages_in(&self, bytes: u64) -> u64 {
        bytes / (self.size_bytes as u64).max(PAYLOAD_COST_BYTES_MIN)
    }

    /// The same run with a fixed window.
    pub(crate) fn with_window(&self, window_bytes: u64) -> Self {
        Self { window_bytes, window_adapts: false, ..self.clone() }
    }

    /// The ring model's name on the command line.
    pub(crate) fn ring_name(&self) -> &'static str {
        match self.ring {
            RingKind::Token => "token",
            RingKind::Pipelined => "pipelined",
            RingKind::Relay => "relay",
        }
    }

    /// The durability's name on the command line.
    pub(crate) fn durability_name(&self) -> &'static str {
        match self.durability {
            Durability::Memory => "memory",
            Durability::Disk => "disk",
        }
    }
}

/// The maximum window without an option: the library's own, or four payloads if these are large.
pub(crate) fn default_window(size_bytes: usize) -> u64 {
    cloudy_node::Parameters::default().window_bytes.max(MESSAGES_IN_WINDOW_MIN * size_bytes as u64)
}

/// The measured program: the library, or the bare transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Program {
    /// A group, through the library's API.
    Group,
    /// The bare QUIC program.
    Baseline,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, senders, size_bytes, .. } = self;
        write!(f, "{nodes} nodes, {senders} sending, {size_bytes} B, {}", self.ring_name())?;
        match self.rate_per_s {
            Some(rate) => write!(f, ", {rate}/s each"),
            None => f.write_str(", full speed"),
        }
    }
}
