//! What a run measures.

use std::fmt;
use std::time::Duration;

use cloudy_node::fault::Faults;
use cloudy_node::{Durability, RingKind};
use serde::{Deserialize, Serialize};

/// A payload's first bytes: when it was due. Shorter payloads have no latency.
pub(crate) const STAMP_BYTES: usize = 8;
/// What a payload counts at least towards a window, in the real program and the floor alike (`protocol.md` §5).
const PAYLOAD_COST_BYTES_MIN: u64 = 16;
/// Messages of a sender outside its own result, on the `token` ring: a turn takes one.
const TOKEN_IN_FLIGHT: u64 = 4;
/// Messages in flight that the default window takes at least.
const MESSAGES_IN_WINDOW_MIN: u64 = 4;

/// How a run is set up. Equal at all its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// Members of the ring.
    pub(crate) nodes: usize,
    /// The first so many of them broadcast.
    pub(crate) senders: usize,
    /// A payload's size.
    pub(crate) size_bytes: usize,
    /// Messages that a sender broadcasts a second; as many as its window takes, if absent.
    pub(crate) rate_per_s: Option<u64>,
    /// What a sender may have outside its own result.
    pub(crate) window_bytes: u64,
    /// A sender of the library keeps itself to less than that where its path does not need it.
    pub(crate) window_adapts: bool,
    /// When a member may send.
    pub(crate) ring: RingKind,
    /// Where a message is before it is confirmed.
    pub(crate) durability: Durability,
    /// Load before anything is measured.
    pub(crate) warm_up: Duration,
    /// What is measured.
    pub(crate) duration: Duration,
    /// Injected below QUIC; each node has dice of its own.
    pub(crate) faults: Faults,
}

impl Spec {
    /// Messages that a sender has in flight at full speed: offered, and not yet in its own result.
    pub(crate) fn in_flight_max(&self) -> u64 {
        match self.ring {
            RingKind::Token => TOKEN_IN_FLIGHT,
            RingKind::Pipelined | RingKind::Relay => self.messages_in(self.window_bytes).max(1),
        }
    }

    /// The same for a window that is so large at the moment: a slot more, that waits for room. Without it slots would be as
    /// small as what was approved last.
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

/// The greatest window where none is named: the library's own, or four payloads if these are large.
pub(crate) fn default_window(size_bytes: usize) -> u64 {
    cloudy_node::Parameters::default().window_bytes.max(MESSAGES_IN_WINDOW_MIN * size_bytes as u64)
}

/// What is measured: the library, or the wire beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Program {
    /// A group, through the library's API.
    Group,
    /// The bare QUIC program.
    Floor,
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
