//! A network that loses, delays, duplicates and reorders on purpose, and a disk that loses, tears and alters, to test an
//! application on cloudy.
//!
//! Both parts of the network sit below QUIC, as a [`quinn::AsyncUdpSocket`], and enter an endpoint by
//! [`quinn::Endpoint::new_with_abstract_socket`]:
//!
//! - [`FaultSocket`] is put around a real UDP socket. It injects [`Faults`] into what it *sends*, so each
//!   node of a group carries its own. Real sockets and threads are not repeatable: an equal seed gives equal
//!   dice, not an equal run.
//! - [`MemoryNetwork`] replaces the network within one process. In tokio's paused time on one thread, equal
//!   seeds give equal runs. Each of its addresses may have a [`Bandwidth`].
//!
//! [`FaultCounters`] tell what was done. A test that expects its application to survive a fault should require
//! that the fault happened.
//!
//! A [`FaultDisk`] takes the place of a file under the store of a node, and a [`GroupDisk`] is one group's store on one.
//!
//! Delays are kept to tokio's timer tick of one millisecond, rounded up.

mod bandwidth;
mod counters;
mod dice;
mod disk;
mod faults;
mod group_disk;
mod line;
mod memory;
mod socket;

#[cfg(test)]
mod tests;

pub use crate::storage::SubmitError;
pub use bandwidth::Bandwidth;
pub use counters::FaultCounters;
pub use disk::{CrashCounters, DiskFault, FaultDisk};
pub use faults::{DELAY_MAX, Faults, FaultsError, REORDER_HOLD};
pub use group_disk::{GroupDisk, GroupDiskError};
pub use line::{LINE_BYTES_MAX, LINE_DATAGRAMS_MAX};
pub use memory::{MEMORY_DATAGRAM_BYTES_MAX, MEMORY_LATENCY, MemoryBindError, MemoryNetwork, MemorySocket};
pub use socket::{FaultControl, FaultSocket, FaultSocketError};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The task or thread of a node that has this name panics when it runs next, as by a defect: see
/// [`NodeFailure::part`](crate::NodeFailure::part). `driver`, `acceptor`, `dialler`, `accepted link`, `link reader`,
/// `node stream reader`, `node stream writer`, `stream reader`, `stream writer`, `join`, `storage writer`, `storage reader`.
pub fn panic_in(node: &crate::Node, part: &'static str) {
    node.health().inject_panic(part);
}

/// Locks, also after a panic elsewhere: every section under these locks leaves the state whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The datagrams of one transmit: one, or several of equal size with a shorter last one (segmentation offload).
///
/// An empty transmit holds none: QUIC sends no empty datagram (RFC 9000 §12.2).
fn segments<'a>(transmit: &quinn::udp::Transmit<'a>) -> std::slice::Chunks<'a, u8> {
    let size = transmit.segment_size.unwrap_or(transmit.contents.len());
    transmit.contents.chunks(size.max(1))
}
