//! A network that loses, delays, duplicates and reorders datagrams, and a disk that loses, tears and alters data, to
//! test an application on cloudy.
//!
//! Both parts of the network sit below QUIC, as a [`quinn::AsyncUdpSocket`], and enter an endpoint by
//! [`quinn::Endpoint::new_with_abstract_socket`]:
//!
//! - [`FaultSocket`] wraps a real UDP socket. It injects [`Faults`] into *sent* datagrams, so each node of a group has
//!   its own. Real sockets and threads are not repeatable: an equal seed gives equal random numbers, not an equal run.
//! - [`MemoryNetwork`] replaces the network within one process. In tokio's paused time on one thread, equal seeds give
//!   equal runs. Each of its addresses may have a [`Bandwidth`].
//!
//! [`FaultCounters`] count the faults. A test that expects its application to survive a fault should require that the
//! fault occurred.
//!
//! A [`FaultDisk`] replaces the file of a node's store, and a [`GroupDisk`] is the store of one group on such a disk.
//!
//! Delays are rounded up to tokio's timer tick of one millisecond.

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

/// Makes the task or thread of a node with this name panic when it runs next, like a defect: see
/// [`NodeFailure::part`](crate::NodeFailure::part). Names: `driver`, `acceptor`, `dialler`, `accepted link`, `link
/// reader`, `node stream reader`, `node stream writer`, `stream reader`, `stream writer`, `join`, `storage writer`,
/// `storage reader`.
pub fn panic_in(node: &crate::Node, part: &'static str) {
    node.health().inject_panic(part);
}

/// Locks, also after a panic elsewhere: every section under these locks leaves the state valid.
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
