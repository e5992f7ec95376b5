//! Queries, and the collection of replies.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::NodeId;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, trace};

use super::datagram::{DATAGRAM_BYTES_MAX, Nonce, decode_reply, encode_query, nonce_of_reply};
use super::interfaces::scoped;
use super::stations::{Fault, Stations, Trouble, asking, group_on};
use super::{DiscoveryError, DiscoveryKeys, Multicast};
use crate::endpoint::canonical;

/// The times of the first queries after the start: dense at first, because a datagram may be lost and a node may be
/// just starting.
pub const QUERY_SCHEDULE_MS: [u64; 5] = [0, 50, 150, 350, 750];
/// The time between two queries after the [schedule](QUERY_SCHEDULE_MS).
pub const QUERY_EVERY_MS: u64 = 1_000;
/// Maximum of nodes that a finder remembers. A new node replaces one that could not be dialled, or else the one with
/// the oldest reply.
pub const HINTS_MAX: usize = 256;
/// The time for which a node that could not be dialled is not returned again; it doubles each time.
pub const DIAL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The longest time for a finder.
const FIND_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Number of rounds of queries whose replies are accepted.
const ROUNDS_OPEN: usize = 8;
/// Maximum of addresses of a node: one on several interfaces answers on each.
const ADDRESSES_MAX: usize = 8;
/// Maximum of doublings of [`DIAL_AGAIN_AFTER`].
const DOUBLINGS_MAX: u32 = 6;

/// A node that answered. It holds a cluster key; the handshake decides whether it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hint {
    /// The node.
    pub node: NodeId,
    /// The address that the node advertises.
    pub address: SocketAddr,
    /// The application's label, for example a session's name.
    pub label: String,
}

/// A search for nodes that returns each node once, as the replies arrive.
#[derive(Debug)]
pub struct Finder {
    keys: DiscoveryKeys,
    place: Multicast,
    stations: Stations,
    trouble: Trouble,
    /// The nonces of the queries whose replies are accepted.
    nonces: VecDeque<Nonce>,
    started_at: Instant,
    deadline: Instant,
    rounds: u32,
    /// Number of sent queries, over all interfaces.
    queries_sent: u64,
    fault: Option<Fault>,
    hints: Hints,
}

impl Finder {
    /// Starts to send queries on every interface of `place`, for `timeout`, a day at most. The first queries are sent
    /// at once, the others while [`next`](Self::next) is awaited. An interface on which multicast fails is logged once
    /// and retried with each round of queries.
    ///
    /// # Errors
    /// An argument is not valid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(keys: DiscoveryKeys, place: Multicast, timeout: Duration) -> Result<Self, DiscoveryError> {
        place.check(&keys)?;
        let started_at = Instant::now();
        let mut finder = Self {
            keys,
            place,
            stations: Stations::new(place, asking),
            trouble: Trouble::default(),
            nonces: VecDeque::new(),
            started_at,
            deadline: started_at + timeout.min(FIND_MAX),
            rounds: 0,
            queries_sent: 0,
            fault: None,
            hints: Hints::default(),
        };
        finder.ask();
        Ok(finder)
    }

    /// Returns the next new node; `None` once the timeout has passed. A node is returned again if its label or address
    /// has changed, or if it [could not be dialled](Self::could_not_dial), after a pause. Cancel safe.
    pub async fn next(&mut self) -> Option<Hint> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let query_at = self.started_at + query_time(self.rounds);
            tokio::select! {
                // The deadline first, the queries second: a flood of datagrams delays neither.
                biased;
                () = sleep_until(self.deadline) => return None,
                () = sleep_until(query_at) => self.ask(),
                (at, length, source) = self.stations.receive(&mut buffer) => {
                    if let Some(hint) = self.hint(at, &buffer[..length], source) {
                        return Some(hint);
                    }
                }
            }
        }
    }

    /// Notes that a returned node could not be dialled: later replies return it again, after a pause that grows.
    pub fn could_not_dial(&mut self, node: NodeId) {
        self.hints.could_not_dial(node, Instant::now());
    }

    /// The reason for which no query could be sent, if none was.
    #[must_use]
    pub fn failure(&mut self) -> Option<DiscoveryError> {
        let Fault { interface, source } = self.fault.take().filter(|_| self.queries_sent == 0)?;
        Some(DiscoveryError::Interface { interface, cause: source })
    }

    fn ask(&mut self) {
        self.rounds += 1;
        let mut outcome = self.stations.renew();
        let keys = self.keys.all();
        let nonce = Nonce(rand::random());
        self.nonces.push_back(nonce);
        if self.nonces.len() > ROUNDS_OPEN {
            self.nonces.pop_front();
        }
        for station in self.stations.all() {
            let Some(key) = keys.first() else { continue };
            let query = station.socket.local_addr().map(|source| encode_query(key, nonce, source));
            let sent = query.and_then(|query| station.send(&query, group_on(self.place, &station.interface)));
            match sent {
                Ok(()) => self.queries_sent += 1,
                // The next round repeats the query.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(source) => outcome = Err(Fault { interface: station.interface.name.clone(), source }),
            }
        }
        if let Err(Fault { interface, source }) = &outcome {
            let source = std::io::Error::new(source.kind(), source.to_string());
            self.fault = Some(Fault { interface: interface.clone(), source });
        }
        self.trouble.note(outcome);
    }

    /// Handles a datagram. Returns a hint if it is new.
    fn hint(&mut self, at: usize, datagram: &[u8], source: SocketAddr) -> Option<Hint> {
        // Replies to other finders may be many; they are dropped without cryptography.
        match nonce_of_reply(datagram) {
            Ok(nonce) if self.nonces.contains(&nonce) => {}
            Ok(_) => {
                trace!(%source, "discovery reply to another query");
                return None;
            }
            Err(error) => {
                trace!(%error, %source, "discovery reply");
                return None;
            }
        }
        let reply = decode_reply(&self.keys.all(), datagram)
            .inspect_err(|error| debug!(%error, %source, "discovery reply"))
            .ok()?;
        let interface = self.stations.all().get(at)?.interface.index;
        let address = scoped(canonical(reply.address), interface);
        let hint = Hint { node: reply.node, address, label: reply.label };
        self.hints.take(&hint, Instant::now()).then_some(hint)
    }
}

/// The time of a round of queries after the start; rounds count from 0.
pub(super) fn query_time(number: u32) -> Duration {
    let number = number as usize;
    let last = QUERY_SCHEDULE_MS.len() - 1;
    let after_schedule = number.saturating_sub(last) as u64;
    Duration::from_millis(QUERY_SCHEDULE_MS[number.min(last)] + after_schedule * QUERY_EVERY_MS)
}

/// The nodes that answered.
#[derive(Debug, Default)]
struct Hints {
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    node: NodeId,
    label: String,
    /// The addresses that the node advertised, newest last.
    addresses: Vec<SocketAddr>,
    /// The time of its last answer.
    heard_at: Instant,
    /// Number of failed dials.
    failures: u32,
    /// The time from which it may be returned again; none if there is no reason to.
    again_at: Option<Instant>,
}

impl Hints {
    /// Notes an answer. Returns whether the node is to be returned.
    fn take(&mut self, hint: &Hint, now: Instant) -> bool {
        if let Some(known) = self.known.iter_mut().find(|known| known.node == hint.node) {
            known.heard_at = now;
            let elsewhere = !known.addresses.contains(&hint.address);
            if elsewhere {
                known.addresses.push(hint.address);
                known.addresses.drain(..known.addresses.len().saturating_sub(ADDRESSES_MAX));
            }
            let moved = elsewhere || known.label != hint.label;
            let again = known.again_at.is_some_and(|again_at| again_at <= now);
            if moved || again {
                known.again_at = None;
                known.label.clone_from(&hint.label);
            }
            return moved || again;
        }
        if self.known.len() >= HINTS_MAX {
            let least_useful = |known: &&Known| (known.failures == 0, known.heard_at);
            let out = self.known.iter().min_by_key(least_useful).map(|known| known.node);
            self.known.retain(|known| Some(known.node) != out);
        }
        let (node, label) = (hint.node, hint.label.clone());
        let addresses = vec![hint.address];
        self.known.push(Known { node, label, addresses, heard_at: now, failures: 0, again_at: None });
        true
    }

    fn could_not_dial(&mut self, node: NodeId, now: Instant) {
        if let Some(known) = self.known.iter_mut().find(|known| known.node == node) {
            known.again_at = Some(now + DIAL_AGAIN_AFTER * (1 << known.failures.min(DOUBLINGS_MAX)));
            known.failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::ClusterKey;
    use crate::cluster_keys::ClusterKeys;

    fn hint(number: u16, label: &str) -> Hint {
        let mut node = NodeId([0; 32]);
        node.0[..2].copy_from_slice(&number.to_be_bytes());
        Hint { node, address: SocketAddr::from(([127, 0, 0, 1], 1 + number)), label: label.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_finder_sends_queries_on_schedule_and_stops_at_its_deadline() {
        let keys = DiscoveryKeys::from(&ClusterKeys::from(ClusterKey::from_bytes(&[1; 32])));
        // No node answers on TEST-NET's (RFC 5771 §9.2) group.
        let group = SocketAddrV4::new(Ipv4Addr::new(233, 252, 0, 1), 19_699);
        let place = Multicast { group, interface: Ipv4Addr::LOCALHOST.into() };
        let timeout = Duration::from_millis(1_800);
        let mut finder = Finder::start(keys, place, timeout).expect("starts");
        assert_eq!(finder.next().await, None);
        assert_eq!(finder.started_at.elapsed(), timeout);
        // At 0, 50, 150, 350, 750 and 1,750 ms.
        assert_eq!((finder.rounds, finder.queries_sent), (6, 6));
        let nonces: HashSet<Nonce> = finder.nonces.iter().copied().collect();
        assert_eq!(nonces.len(), 6, "each round has a nonce of its own");
        assert!(finder.failure().is_none());
    }

    #[test]
    fn queries_follow_the_schedule_and_then_the_interval() {
        let times: Vec<_> = (0..8).map(|number| query_time(number).as_millis()).collect();
        assert_eq!(times, [0, 50, 150, 350, 750, 1_750, 2_750, 3_750]);
    }

    #[test]
    fn a_node_is_named_once_unless_it_moves_or_could_not_be_dialled() {
        let (mut hints, start) = (Hints::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(hints.take(&hint(1, "a"), start));
        assert!((0..9).all(|seconds| !hints.take(&hint(1, "a"), after(seconds))), "named again");
        assert!(hints.take(&hint(1, "b"), after(9)), "another label is news");
        let elsewhere = Hint { address: hint(2, "").address, ..hint(1, "b") };
        assert!(hints.take(&elsewhere, after(9)), "another address is news");
        assert!(!hints.take(&elsewhere, after(9)) && !hints.take(&hint(1, "b"), after(9)), "both are known");
        for (failed_at, named_at) in [(10, 11), (20, 22), (30, 34)] {
            hints.could_not_dial(hint(1, "b").node, after(failed_at));
            assert!(!hints.take(&hint(1, "b"), after(named_at - 1)), "before its back-off");
            assert!(hints.take(&hint(1, "b"), after(named_at)));
            assert!(!hints.take(&hint(1, "b"), after(named_at)), "named twice");
        }
    }

    #[test]
    fn a_full_table_makes_room_for_newer_nodes_by_failed_and_old_ones() {
        let (mut hints, start) = (Hints::default(), Instant::now());
        let at = |number: u16| start + Duration::from_millis(u64::from(number));
        for number in 0..HINTS_MAX as u16 {
            assert!(hints.take(&hint(number, ""), at(number)));
        }
        hints.could_not_dial(hint(77, "").node, at(300));
        for late in 1_000..1_003 {
            assert!(hints.take(&hint(late, ""), at(late)), "a late node is named");
        }
        assert_eq!(hints.known.len(), HINTS_MAX);
        let kept = |number| hints.known.iter().any(|known| known.node == hint(number, "").node);
        assert!(!kept(77) && !kept(0) && !kept(1) && kept(2) && kept(1_002));
    }
}
