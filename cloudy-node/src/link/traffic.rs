//! Traffic of links.

use std::iter::Sum;

use quinn::ConnectionStats;

/// The traffic of a node's links, each since it was established.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// UDP datagrams sent.
    pub datagrams_sent: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes_sent: u64,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// Their bytes, without UDP and IP headers.
    pub bytes_received: u64,
}

impl Sum<ConnectionStats> for Traffic {
    fn sum<I: Iterator<Item = ConnectionStats>>(links: I) -> Self {
        links.fold(Self::default(), |sum, link| Self {
            datagrams_sent: sum.datagrams_sent + link.udp_tx.datagrams,
            bytes_sent: sum.bytes_sent + link.udp_tx.bytes,
            datagrams_received: sum.datagrams_received + link.udp_rx.datagrams,
            bytes_received: sum.bytes_received + link.udp_rx.bytes,
        })
    }
}
