//! Counters of faults.

use serde::{Deserialize, Serialize};

/// Counts of datagrams by outcome, from the creation of the socket or network. A snapshot.
///
/// A datagram that is sent counts once in [`dropped`](Self::dropped) or [`blocked`](Self::blocked), or passes. Each
/// copy that passes ends in `sent`, `blocked`, `overflowed` or `undeliverable`, or is still held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FaultCounters {
    /// Passed on: by [`FaultSocket`](super::FaultSocket) to the operating system, by
    /// [`MemoryNetwork`](super::MemoryNetwork) to the receiver. Copies count.
    pub sent: u64,
    /// Lost at random ([`Faults::loss`](super::Faults::loss)).
    pub dropped: u64,
    /// Lost because of a cut between the two addresses; a `FaultSocket` counts both directions.
    pub blocked: u64,
    /// Held for longer than zero before being sent, for any reason. Copies do not count.
    pub delayed: u64,
    /// Sent a second time ([`Faults::duplicate`](super::Faults::duplicate)).
    pub duplicated: u64,
    /// Held back for [`REORDER_HOLD`](super::REORDER_HOLD), so that later datagrams overtake it.
    pub reordered: u64,
    /// Lost because too many datagrams or bytes were held ([`LINE_DATAGRAMS_MAX`](super::LINE_DATAGRAMS_MAX),
    /// [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX)).
    pub overflowed: u64,
    /// Lost because no socket has the address, the datagram is larger than the network's maximum, or the operating
    /// system refused it.
    pub undeliverable: u64,
}
