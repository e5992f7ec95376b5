//! Datagrams that are held until they are due.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use quinn::udp::EcnCodepoint;
use tokio::time::Instant;

/// Maximum of datagrams that are held: by a [`FaultSocket`](super::FaultSocket), or for one receiver of a
/// [`MemoryNetwork`](super::MemoryNetwork). More are dropped and counted as `overflowed`.
pub const LINE_DATAGRAMS_MAX: usize = 65_536;

/// Maximum of bytes that are held, in the same places: 64 MiB, five seconds of 100 Mbit/s.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    /// The sender, for the receiver.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) ecn: Option<EcnCodepoint>,
    /// The requested local address, for the operating system.
    pub(super) src_ip: Option<IpAddr>,
    pub(super) contents: Box<[u8]>,
}

/// Held datagrams in order of (due time, entry).
#[derive(Debug)]
pub(super) struct Line {
    held: BTreeMap<(Instant, u64), Datagram>,
    entries: u64,
    bytes: usize,
    datagrams_max: usize,
    bytes_max: usize,
}

impl Line {
    pub(super) fn new(datagrams_max: usize, bytes_max: usize) -> Self {
        Self { held: BTreeMap::new(), entries: 0, bytes: 0, datagrams_max, bytes_max }
    }

    /// Holds a datagram; `false` if there is no capacity, and then it is dropped.
    #[must_use]
    pub(super) fn push(&mut self, due: Instant, datagram: Datagram) -> bool {
        let bytes = self.bytes + datagram.contents.len();
        if self.held.len() == self.datagrams_max || bytes > self.bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.held.insert((due, self.entries), datagram);
        self.entries += 1;
        true
    }

    /// The due time of the first datagram.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.keys().next().map(|&(due, _)| due)
    }

    /// Removes the first datagram, if it is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Datagram> {
        let first = self.held.first_entry().filter(|it| it.key().0 <= now)?;
        let datagram = first.remove();
        self.bytes -= datagram.contents.len();
        Some(datagram)
    }
}
