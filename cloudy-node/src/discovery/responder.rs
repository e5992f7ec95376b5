//! Answers to queries.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, trace, warn};

use super::datagram::{DATAGRAM_BYTES_MAX, DatagramError, LABEL_BYTES_MAX, Nonce, Reply, decode_query, encode_reply};
use super::interfaces::scoped;
use super::rate_limit::RateLimit;
use super::stations::{Stations, Trouble, answering};
use super::{DiscoveryError, DiscoveryKeys, Multicast};

/// The time between two searches for interfaces that appeared or disappeared.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Maximum of recent queries that are remembered by their nonces and not answered again.
const NONCES_MAX: usize = 1_024;

/// The information that a responder sends about its node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advertisement {
    /// The id of the node.
    pub node: NodeId,
    /// The address of the node. For an unspecified IP each finder receives the address of the interface on which its
    /// query arrived.
    pub address: SocketAddr,
    /// The application's label, for example a session's name; at most 64 bytes.
    pub label: String,
}

impl Advertisement {
    /// An advertisement of a node under a label.
    #[must_use]
    pub fn new(node: NodeId, address: SocketAddr, label: impl Into<String>) -> Self {
        Self { node, address, label: label.into() }
    }

    cloudy_proto::setters! {
        node: NodeId,
        address: SocketAddr,
        label: String,
    }
}

/// A task that answers the queries of holders of a cluster key, until it is dropped.
///
/// It answers on every interface of its [`Multicast`]. An interface that appears later, or returns, is used within
/// [`RENEW_EVERY`]. Any number of responders on a host share the group's port. At most
/// [`REPLIES_PER_SECOND_MAX`](super::REPLIES_PER_SECOND_MAX) replies are sent in a second, and at most
/// [`REPLIES_PER_SECOND_TO_ONE_MAX`](super::REPLIES_PER_SECOND_TO_ONE_MAX) to one source. No reply is longer than its
/// query. With a node's keys it is a part of that node: if it fails because of a defect, the node stops with that
/// reason.
#[derive(Debug)]
pub struct Responder {
    task: AbortHandle,
}

impl Responder {
    /// Starts to answer. An interface on which multicast fails is logged once and retried every [`RENEW_EVERY`].
    ///
    /// # Errors
    /// An argument is not valid, or another program holds the group's port without sharing it. Nothing was started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(keys: DiscoveryKeys, place: Multicast, advertised: Advertisement) -> Result<Self, DiscoveryError> {
        place.check(&keys)?;
        if advertised.address.port() == 0 {
            return Err(DiscoveryError::NoPort);
        }
        if advertised.label.len() > LABEL_BYTES_MAX {
            return Err(DiscoveryError::Label { bytes: advertised.label.len() });
        }
        let mut answers = Answers::new(keys, place, advertised);
        match answers.stations.renew() {
            Err(fault) if fault.source.kind() == io::ErrorKind::AddrInUse => {
                return Err(DiscoveryError::Port { port: place.group.port(), cause: fault.source });
            }
            outcome => answers.trouble.note(outcome),
        }
        let keys = answers.keys.clone();
        Ok(Self { task: keys.spawn("discovery responder", answers.run()).abort_handle() })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answers {
    keys: DiscoveryKeys,
    advertised: Advertisement,
    stations: Stations,
    trouble: Trouble,
    limit: RateLimit,
    seen: Seen,
    /// Whether the log has reported that queries are not answered.
    warned: bool,
}

impl Answers {
    fn new(keys: DiscoveryKeys, place: Multicast, advertised: Advertisement) -> Self {
        Self {
            keys,
            advertised,
            stations: Stations::new(place, answering),
            trouble: Trouble::default(),
            limit: RateLimit::new(Instant::now()),
            seen: Seen::default(),
            warned: false,
        }
    }

    async fn run(mut self) {
        let mut renewals = interval(RENEW_EVERY);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            tokio::select! {
                _ = renewals.tick() => {
                    let outcome = self.stations.renew();
                    self.trouble.note(outcome);
                }
                (at, length, source) = self.stations.receive(&mut buffer) => self.answer(at, &buffer[..length], source),
            }
        }
    }

    /// Answers a datagram that the station `at` received, if it is an authentic query and new.
    fn answer(&mut self, at: usize, datagram: &[u8], source: SocketAddr) {
        let keys = self.keys.all();
        let (nonce, key) = match decode_query(&keys, datagram, source) {
            Ok(query) => query,
            Err(error @ (DatagramError::Version(_) | DatagramError::Tag)) => return self.not_answered(error, source),
            Err(error) => return trace!(%error, %source, "discovery query"),
        };
        if !self.seen.insert(nonce) {
            return trace!(%source, "discovery query that was answered before");
        }
        if !self.limit.take(source, Instant::now()) {
            return debug!(%source, "discovery query over the rate");
        }
        let Some(station) = self.stations.all().get(at) else { return };
        let Advertisement { node, mut address, label } = self.advertised.clone();
        if address.ip().is_unspecified() {
            address.set_ip(station.interface.reached_from(source.ip()));
        }
        let reply = encode_reply(key, &Reply { nonce, node, address, label });
        // The finder's next query repeats the request for a reply that the socket has no capacity for.
        if let Err(error) = station.send(&reply, scoped(source, station.interface.index)) {
            debug!(%error, %source, "discovery reply");
        }
    }

    /// Logs once why a query is not answered: a wrong key file is a common mistake, and hard to detect.
    fn not_answered(&mut self, error: DatagramError, source: SocketAddr) {
        if std::mem::replace(&mut self.warned, true) {
            debug!(%error, %source, "discovery query");
        } else {
            warn!("discovery queries of {source} are not answered: {error}; others like it are not reported");
        }
    }
}

/// The nonces of recent authentic queries, so that a repeated query is answered once.
#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<Nonce>,
    all: HashSet<Nonce>,
}

impl Seen {
    /// Whether the nonce is new.
    fn insert(&mut self, nonce: Nonce) -> bool {
        if !self.all.insert(nonce) {
            return false;
        }
        self.order.push_back(nonce);
        if self.order.len() > NONCES_MAX {
            self.order.pop_front().map(|oldest| self.all.remove(&oldest));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use tokio::net::UdpSocket;

    use super::super::datagram::{QUERY_BYTES_MIN, decode_reply, encode_query};
    use super::super::{REPLIES_PER_SECOND_MAX, REPLIES_PER_SECOND_TO_ONE_MAX};
    use super::*;
    use crate::ClusterKey;
    use crate::cluster_keys::ClusterKeys;

    fn keys(seed: u8) -> DiscoveryKeys {
        DiscoveryKeys::from(&ClusterKeys::from(ClusterKey::from_bytes(&[seed; 32])))
    }

    #[tokio::test]
    async fn queries_of_strangers_use_up_nothing_that_members_need() {
        let interface = Ipv4Addr::LOCALHOST.into();
        // No other program sends queries to TEST-NET's (RFC 5771 §9.2) group.
        let place = Multicast { group: SocketAddrV4::new(Ipv4Addr::new(233, 252, 0, 2), 19_698), interface };
        let member = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let source = member.local_addr().expect("an address");
        let advertised = Advertisement { node: NodeId([7; 32]), address: source, label: String::new() };
        let mut answers = Answers::new(keys(1), place, advertised);
        answers.stations.renew().expect("loopback takes multicast");
        let strangers = 4 * REPLIES_PER_SECOND_MAX + 4 * REPLIES_PER_SECOND_TO_ONE_MAX + NONCES_MAX as u32;
        let stranger = &keys(2).all()[0];
        for number in 0..strangers {
            let nonce = Nonce(std::array::from_fn(|at| number.to_be_bytes()[at % 4]));
            // From the member's own address and from others; well formed under another key, or malformed.
            let from = if number % 2 == 0 { source } else { SocketAddr::from(([192, 0, 2, 1], number as u16)) };
            answers.answer(0, &encode_query(stranger, nonce, from), from);
            answers.answer(0, &[0; QUERY_BYTES_MIN], from);
        }
        let (nonce, all) = (Nonce([0; 16]), keys(1).all());
        answers.answer(0, &encode_query(&all[0], nonce, source), source);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let (length, _) = tokio::time::timeout(Duration::from_secs(10), member.recv_from(&mut buffer))
            .await
            .expect("the member is answered")
            .expect("a reply");
        assert_eq!(decode_reply(&all, &buffer[..length]).expect("a reply").nonce, nonce);
    }
}
