//! One connection with one peer: dialled or accepted, hello first, then streams (`protocol.md` §4).

mod held;
mod mail;
mod reached;
mod recv;
mod requests;
mod revoked;
mod send;
#[cfg(test)]
mod tests;
mod traffic;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloudy_proto::NodeId;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Level;

use crate::discovery::DiscoveryKeys;
use crate::endpoint::{self, Admission, AdmissionGuard, EndpointLimits, KnownNodes, NotAdmitted, OpenError, canonical};
use crate::health::Health;
use crate::identity::{Identity, SERVER_NAME};
use crate::link_error::{ConnectError, LinkFailure, Words, code};
use crate::repeats::{Repeats, Source};

pub(crate) use held::Taken;
pub(crate) use mail::LinkMail;
use reached::Reached;
pub(crate) use requests::RequestKind;
pub(crate) use revoked::Revoked;
pub(crate) use send::{Link, NodeWriter, WRITERS_LINGER};
pub use traffic::Traffic;

/// Maximum of groups of a node, including those that it waits to join.
pub const GROUPS_MAX: usize = 512;

/// The first pause before a node without capacity is dialled again; it doubles each time, within the timeout of a
/// handshake.
const DIAL_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The closing text for a revoked peer.
pub(crate) const REVOKED_WORDS: &str = "this node's identity was revoked";

/// The closing text for a peer whose identity another process has too.
pub(crate) const SAME_IDENTITY_WORDS: &str = "two processes have this node's identity, and the one that was started later ends: never copy a data directory or a node's key";

/// Random bits of a process's number: 54 bits of microseconds before them last for 500 years.
const PROCESS_RANDOM_BITS: u32 = 10;

/// A connection on which both sides have sent their hello.
pub(crate) struct NewLink {
    pub(crate) id: u64,
    pub(crate) peer: NodeId,
    /// The process number of the peer's process.
    pub(crate) process: u64,
    /// The highest wire version that both nodes speak.
    pub(crate) version: u16,
    pub(crate) connection: Connection,
    /// The address that was dialled; none if the peer dialled.
    pub(crate) dialled: Option<SocketAddr>,
    /// The addresses at which the peer can be reached.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) advertised: Option<String>,
    pub(crate) node_stream: NodeWriter,
}

/// A connection that this node dialled.
#[derive(Clone, Copy)]
struct Dialled {
    address: SocketAddr,
    /// Whether other addresses of the same peer are dialled in parallel.
    beside: bool,
}

impl NewLink {
    /// The source address of the peer.
    pub(crate) fn remote(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }
}

/// The state that all links of a node share.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) me: NodeId,
    /// This process's number among all processes with this identity.
    pub(crate) process: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: Arc<EndpointLimits>,
    /// The addresses of this node, as in its hello.
    pub(crate) addresses: Arc<Vec<SocketAddr>>,
    /// The name that this node advertises, as in its hello.
    pub(crate) advertised: Option<Arc<str>>,
    pub(crate) mail: mpsc::Sender<LinkMail>,
    pub(crate) health: Health,
    /// Nodes whose links are refused.
    pub(crate) revoked: Revoked,
    /// Nodes that this node wants links to.
    pub(crate) known: KnownNodes,
    /// Logs events that peers can cause any number of times.
    pub(crate) repeats: Repeats,
    /// Follows the keys that this node has adopted.
    pub(crate) discovery_keys: DiscoveryKeys,
    /// The configuration for dialling and for being dialled.
    client: ClientConfig,
    server: ServerConfig,
    /// Peers that this node's dials have reached.
    reached: Reached,
    next_id: Arc<AtomicU64>,
}

impl Links {
    pub(crate) fn new(
        identity: &Identity,
        endpoint: Endpoint,
        limits: EndpointLimits,
        (addresses, advertised): (Vec<SocketAddr>, Option<String>),
        (mail, health): (mpsc::Sender<LinkMail>, Health),
    ) -> Result<Self, OpenError> {
        let (client, server) =
            (endpoint::client_config(identity, &limits)?, endpoint::server_config(identity, &limits)?);
        endpoint.set_server_config(Some(server.clone()));
        Ok(Self {
            me: identity.node_id(),
            process: process_number(),
            endpoint,
            limits: Arc::new(limits),
            addresses: Arc::new(addresses),
            advertised: advertised.map(Into::into),
            mail,
            revoked: Revoked::default(),
            known: KnownNodes::default(),
            repeats: Repeats::new(health.clone()),
            discovery_keys: DiscoveryKeys::of_node(identity.discovery_keys(), health.clone()),
            client,
            server,
            reached: Reached::default(),
            next_id: Arc::new(AtomicU64::new(1)),
            health,
        })
    }

    /// Uses another certificate and other roots for new connections; existing ones stay.
    pub(crate) fn adopt(&mut self, identity: &Identity) -> Result<(), OpenError> {
        let (client, server) =
            (endpoint::client_config(identity, &self.limits)?, endpoint::server_config(identity, &self.limits)?);
        self.client = client;
        self.discovery_keys.replace(identity.discovery_keys());
        // The rest stays, so that a dialler that is proving its address remains known.
        self.server.crypto = server.crypto;
        self.endpoint.set_server_config(Some(self.server.clone()));
        Ok(())
    }

    /// Accepts connections in a separate task, until the endpoint is closed.
    pub(crate) fn spawn_accept(&self) {
        let (links, health) = (self.clone(), self.health.clone());
        self.health.spawn("acceptor", async move {
            links.accept().await;
            if health.close_reason().is_none() {
                // Without the socket no link can be established or kept.
                health.fail("endpoint", "its socket cannot be used".to_owned());
            }
        });
    }

    async fn accept(self) {
        let admission = Admission::with_known(&self.limits, self.known.clone());
        while let Some(incoming) = self.endpoint.accept().await {
            let from = canonical(incoming.remote_address());
            match admission.admit(incoming) {
                Ok((connecting, guard)) => {
                    self.health.spawn("accepted link", self.clone().accepted(from, connecting, guard));
                }
                // The first datagram names the versions of the dialler.
                Err(NotAdmitted::Failed(failure)) => self.not_linked(from, &failure),
                Err(refusal) => tracing::debug!(%from, %refusal, "connection not accepted"),
            }
        }
    }

    async fn accepted(self, from: SocketAddr, connecting: quinn::Connecting, mut guard: AdmissionGuard) {
        let connection = tokio::select! {
            connection = endpoint::handshake(connecting, &self.limits) => connection,
            () = guard.gives_way() => return tracing::debug!(%from, "a newer handshake replaced an unfinished one"),
        };
        let failure = match connection {
            Ok(connection) => match self.run(connection, None, Some(guard)).await {
                Ok(()) => return,
                Err(ConnectError::Link { failure, .. }) => failure,
                Err(error) => return tracing::debug!(%from, %error, "link not established"),
            },
            Err(failure) => failure,
        };
        self.not_linked(from, &failure);
    }

    /// Logs the failure, with its cause if it remains until a key, a certificate or a version changes.
    fn not_linked(&self, from: SocketAddr, failure: &LinkFailure) {
        if failure.is_refusal() {
            let text = format_args!("a node was refused: {failure}");
            self.repeats.say(Level::WARN, &turned_away(failure), Source::Address(from.ip()), text);
        } else {
            tracing::debug!(%from, %failure, "link not established");
        }
    }

    /// Dials an address, alone or in parallel with others of the same peer, and reports the outcome to the driver.
    pub(crate) fn dial(&self, address: SocketAddr, beside: bool) {
        let links = self.clone();
        self.health.spawn("dialler", async move {
            if let Err(error) = links.dial_patiently(address, beside).await {
                // The driver is gone only if the node shuts down.
                let _ = links.mail.send(LinkMail::DialFailed { address, error }).await;
            }
        });
    }

    /// Dials again while the other node has no capacity, within the timeout of a handshake.
    async fn dial_patiently(&self, address: SocketAddr, beside: bool) -> Result<(), ConnectError> {
        let (began, mut pause) = (Instant::now(), DIAL_AGAIN_AFTER);
        loop {
            let dialled = self.dialled(address, beside).await;
            let momentary = matches!(&dialled, Err(ConnectError::Link { failure, .. }) if failure.is_momentary());
            if !momentary || began.elapsed() + pause >= self.limits.handshake_timeout {
                return dialled;
            }
            // sleep: the other node sends no notification when it has capacity.
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Nodes send link-local addresses without a scope, which has no meaning on another host: here it is the scope of
    /// the interface that this node listens on.
    fn scoped(&self, address: SocketAddr) -> SocketAddr {
        match (address, self.addresses.first()) {
            (SocketAddr::V6(mut v6), Some(SocketAddr::V6(own)))
                if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 =>
            {
                v6.set_scope_id(own.scope_id());
                v6.into()
            }
            _ => address,
        }
    }

    async fn dialled(&self, address: SocketAddr, beside: bool) -> Result<(), ConnectError> {
        let failed = |failure| ConnectError::Link { address, failure };
        let connecting = self.endpoint.connect_with(self.client.clone(), self.scoped(address), SERVER_NAME);
        let connecting = connecting.map_err(|error| failed(LinkFailure::from(error)))?;
        let connection = endpoint::handshake(connecting, &self.limits).await.map_err(failed)?;
        self.run(connection, Some(Dialled { address, beside }), None).await
    }

    /// Sends a hello, waits for the peer's, notifies the driver, and reads the peer's streams until the connection is
    /// closed. Until then a connection that the peer dialled keeps its place in the counts.
    async fn run(
        &self,
        connection: Connection,
        dialled: Option<Dialled>,
        mut guard: Option<AdmissionGuard>,
    ) -> Result<(), ConnectError> {
        let address = canonical(connection.remote_address());
        let failed = |failure| ConnectError::Link { address, failure };
        let peer = endpoint::peer_id(&connection)
            .map_err(|error| failed(LinkFailure::Certificate { detail: Words::new(error.to_string().as_bytes()) }))?;
        if self.revoked.contains(peer) {
            self.turn_away(&connection, dialled.is_some()).await;
            return Err(failed(LinkFailure::RevokedThere));
        }
        if let Some(Err(refusal)) = guard.as_mut().map(|guard| guard.established(peer)) {
            tracing::debug!(from = %address, %refusal, "connection not accepted");
            connection.close(code::FULL.into(), b"this node has no capacity for another connection");
            return Err(failed(LinkFailure::Full));
        }
        // Of connections that this node dials in parallel, one sends a hello at a time; so both ends keep the same one.
        let mut claim = None;
        if let Some(dialled) = dialled.filter(|dialled| dialled.beside && peer != self.me) {
            let claimed = claim.insert(self.reached.claim(peer).await);
            if claimed.is_linked() {
                connection.close(code::DUPLICATE.into(), b"another connection of this pair stays");
                // The driver is gone only if the node shuts down.
                let _ = self.mail.send(LinkMail::DialledAgain { address: dialled.address, peer }).await;
                return Ok(());
            }
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (node_stream, hello) = match self.exchange_hellos(&connection).await {
            Ok(hellos) => hellos,
            Err(failure) if peer == self.me => return Err(self.turned_away_by_itself(address, failure).await),
            Err(failure) => {
                if failure == LinkFailure::RevokedHere {
                    // The driver is gone only if the node shuts down.
                    let _ = self.mail.send(LinkMail::RevokedHere { by: peer }).await;
                }
                return Err(failed(failure));
            }
        };
        let (process, version) = (hello.process, hello.version);
        if peer == self.me {
            return Err(self.met_itself(&connection, process, dialled.is_some()).await);
        }
        let (addresses, advertised) = (recv::reachable_at(address, hello.addresses), hello.advertised);
        let (dialled, kept) = (dialled.map(|dialled| dialled.address), connection.clone());
        let link =
            NewLink { id, peer, process, version, connection: kept, dialled, addresses, advertised, node_stream };
        if self.mail.send(LinkMail::Up(link)).await.is_err() {
            return Ok(());
        }
        if let Some(claim) = &mut claim {
            claim.link(connection.clone());
        }
        let (mail, repeats, health) = (self.mail.clone(), self.repeats.clone(), self.health.clone());
        let held = held::Held::new(self.limits.connection_receive_window_bytes);
        let reader =
            recv::Reader { peer, version, link: id, connection: connection.clone(), mail, repeats, held, health };
        self.health.spawn("link reader", async move {
            let failure = reader.run(hello.stream).await;
            // The driver is gone only if the node shuts down.
            let _ = reader.mail.send(LinkMail::Down { peer, link: id, failure }).await;
            drop(guard);
        });
        Ok(())
    }

    /// Handles a connection to this node's own identity: to this process, or to another one. The dialled side closes it
    /// once it has read the other's hello, so that both know the other's process number or the closing code.
    async fn met_itself(&self, connection: &Connection, process: u64, dialled: bool) -> ConnectError {
        let address = canonical(connection.remote_address());
        if dialled {
            // Both addresses are logged, whether it was closed or not.
            let _ = tokio::time::timeout(self.limits.handshake_timeout, connection.closed()).await;
        }
        if process == self.process {
            connection.close(code::ITSELF.into(), b"this node dialled itself");
            return ConnectError::Itself { address };
        }
        let code = if self.process > process { code::SAME_IDENTITY } else { code::PEER_IS_SECOND };
        connection.close(code.into(), SAME_IDENTITY_WORDS.as_bytes());
        self.found_same_identity(process, address).await
    }

    /// Handles a connection to this node's own identity that the other end closed before this side read its hello.
    async fn turned_away_by_itself(&self, address: SocketAddr, failure: LinkFailure) -> ConnectError {
        let LinkFailure::ClosedByPeer { code, .. } = &failure else { return ConnectError::Link { address, failure } };
        if *code == u64::from(code::SAME_IDENTITY) {
            self.found_same_identity(u64::MAX, address).await
        } else if *code == u64::from(code::PEER_IS_SECOND) {
            self.found_same_identity(0, address).await
        } else {
            ConnectError::Itself { address }
        }
    }

    async fn found_same_identity(&self, process: u64, address: SocketAddr) -> ConnectError {
        // The driver is gone only if the node shuts down.
        let _ = self.mail.send(LinkMail::SameIdentity { process, address, by: self.me }).await;
        ConnectError::SameIdentity { address }
    }

    /// Refuses a revoked peer, with the reason.
    async fn turn_away(&self, connection: &Connection, dialled: bool) {
        if dialled {
            // The peer's hello shows that its handshake is finished: an earlier close may reach it without code and
            // text (RFC 9000 §10.2.3).
            let hello = recv::read_hello(connection);
            // With a hello or without.
            let _ = tokio::time::timeout(self.limits.handshake_timeout, hello).await;
        }
        connection.close(code::REVOKED.into(), REVOKED_WORDS.as_bytes());
    }

    /// Exchanges hellos within the timeout of a handshake: a peer may allow no stream, or send nothing.
    async fn exchange_hellos(&self, connection: &Connection) -> Result<(NodeWriter, recv::Hello), LinkFailure> {
        let timeout = self.limits.handshake_timeout;
        let both = async {
            let advertised = self.advertised.as_deref().map(ToOwned::to_owned);
            let node_stream = NodeWriter::open(connection, self.addresses.to_vec(), self.process, advertised).await?;
            Ok((node_stream, recv::read_hello(connection).await?))
        };
        tokio::time::timeout(timeout, both).await.unwrap_or_else(|_| {
            connection.close(code::BREACH.into(), b"no hello within the timeout of a handshake");
            Err(LinkFailure::HandshakeTimeout { timeout })
        })
    }
}

/// The text that represents all refusals with this cause in the log: without text that a peer can choose.
fn turned_away(failure: &LinkFailure) -> String {
    match failure {
        LinkFailure::Certificate { .. } => "a node was refused because of its certificate".to_owned(),
        failure => format!("a node was refused: {failure}"),
    }
}

/// A number that rises with the start time, and that no other process has: microseconds and random bits.
fn process_number() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since_1970.as_micros() as u64) << PROCESS_RANDOM_BITS
        | u64::from(rand::random::<u32>()) >> (32 - PROCESS_RANDOM_BITS)
}
