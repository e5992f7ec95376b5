//! What the faults did so far.

use serde::{Deserialize, Serialize};

/// Datagrams counted by what became of them, since the socket or network was made. A snapshot.
///
/// A datagram handed over for sending counts once in [`dropped`](Self::dropped) or
/// [`blocked`](Self::blocked), or goes on; each copy that goes on ends in `sent`, `blocked`, `overflowed` or
/// `undeliverable`, or is still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FaultCounters {
    /// Handed on: by [`FaultSocket`](super::FaultSocket) to the operating system, by
    /// [`MemoryNetwork`](super::MemoryNetwork) to the receiver. Copies count.
    pub sent: u64,
    /// Lost by the dice ([`Faults::loss`](super::Faults::loss)).
    pub dropped: u64,
    /// Lost because the two addresses are cut off from each other; a `FaultSocket` counts both directions.
    pub blocked: u64,
    /// Held for longer than zero before being sent, for whatever reason. Copies do not count.
    pub delayed: u64,
    /// Sent a second time ([`Faults::duplicate`](super::Faults::duplicate)).
    pub duplicated: u64,
    /// Held back for [`REORDER_HOLD`](super::REORDER_HOLD), so that later ones overtake if there are any.
    pub reordered: u64,
    /// Lost because too much was held already ([`LINE_DATAGRAMS_MAX`](super::LINE_DATAGRAMS_MAX),
    /// [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX)).
    pub overflowed: u64,
    /// Lost because nobody has the address, the datagram is larger than the network takes, or the operating
    /// system refused it.
    pub undeliverable: u64,
}
