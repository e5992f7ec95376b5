//! A node: one endpoint, one identity, any number of groups.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudy_proto::{GroupId, NodeId, is_advertisable};
use tokio::sync::watch;

#[cfg(feature = "admin")]
use crate::admin::{AdminAddress, AdminError, AdminListener};
use crate::cluster_key::ClusterKey;
use crate::cluster_keys::ClusterKeys;
use crate::discovery::DiscoveryKeys;
use crate::discovery::seeds::{self, Resolver};
use crate::driver::{Command, Driver, Mailbox, Seeks, mailbox};
use crate::endpoint::{self, EndpointLimits, EndpointSocket};
use crate::error::ForgetError;
use crate::group::GroupConfig;
use crate::group::shared::Shared;
use crate::handle::Group;
use crate::health::{CloseReason, Health};
use crate::identity::chain::since_1970;
use crate::identity::{Identity, IdentityError};
use crate::link::{Links, Revoked, Traffic};
use crate::storage::DataDir;
use crate::wait::{Answers, WAIT_TIMEOUT, Wait};

mod create;
mod error;
mod join;
mod lookup;
mod pending_group;
mod resume;
mod trust;

pub use error::StartError;
pub(crate) use join::Answered;
pub use join::Joining;
pub use lookup::{Lookup, LookupError};
pub use pending_group::PendingGroup;

use lookup::Lookups;
use resume::{open_store, resume_all};

/// The configuration of a [`Node`], which [`NodeBuilder::start`] starts.
#[derive(Default)]
#[must_use = "a builder does nothing until start()"]
pub struct NodeBuilder {
    bind: Option<SocketAddr>,
    bound: Option<UdpSocket>,
    advertised: Option<String>,
    identity: Option<Result<Identity, IdentityError>>,
    data_dir: Option<DataDir>,
    keys: Option<ClusterKeys>,
    limits: EndpointLimits,
    join_config: GroupConfig,
    wait_timeout: Option<Duration>,
    #[cfg(feature = "fault")]
    socket: Option<Arc<dyn quinn::AsyncUdpSocket>>,
    rng_seed: Option<[u8; 32]>,
    resolver: Resolver,
    #[cfg(feature = "admin")]
    admin: Option<AdminAddress>,
}

impl NodeBuilder {
    /// Sets the address to listen on; port 0 is replaced by a free one. Default: a free port of 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Uses a bound socket, as [`endpoint::bind`] returns it: so a program knows that its address is free before it
    /// creates files for the node.
    pub fn bound(mut self, socket: UdpSocket) -> Self {
        self.bound = Some(socket);
        self
    }

    /// Sets the name at which other nodes find this one: `HOST:PORT`, where HOST is a DNS name, an IPv4 address or an
    /// IPv6 address in brackets. Default: none; the others use the addresses that they know.
    ///
    /// Name a node that is behind an address translation, or whose address changes when it is restarted, as that of a
    /// pod in Kubernetes. The groups of this node store the name with the member. Members that miss this node resolve
    /// the name again and again, so a group finds itself again without seeds after a restart in which every address has
    /// changed. A name is a hint: the handshake decides which node is there.
    ///
    /// ```no_run
    /// # async fn example(key: &cloudy_node::ClusterKey) -> Result<(), Box<dyn std::error::Error>> {
    /// use cloudy_node::Node;
    ///
    /// let builder = Node::builder().cluster_key(key).bind("0.0.0.0:7400".parse()?);
    /// let node = builder.advertise("orders-0.orders:7400").start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn advertise(mut self, name: impl Into<String>) -> Self {
        self.advertised = Some(name.into());
        self
    }

    /// Sets the cluster's key: the node creates a fresh identity from it. Only holders of the same key can link.
    pub fn cluster_key(mut self, key: &ClusterKey) -> Self {
        self.identity = Some(Identity::generate(key));
        self
    }

    /// Sets an identity, in place of a cluster key.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(Ok(identity));
        self
    }

    /// Sets the directory of the node's `Disk` groups and its identity: use the node's [`DataDir::identity`]. The
    /// groups in it are resumed at the start: [`Node::resumed_groups`].
    pub fn data_dir(mut self, data_dir: DataDir) -> Self {
        self.data_dir = Some(data_dir);
        self
    }

    /// Sets bounds on the resources that peers can use.
    pub fn limits(mut self, limits: EndpointLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the node's own limits for groups that it joins: the bytes of this configuration. The shared parameters come
    /// from the group. Default: [`GroupConfig::default`].
    pub fn join_config(mut self, config: GroupConfig) -> Self {
        self.join_config = config;
        self
    }

    /// Sets the timeout of this node's waits for others, unless [`Wait::timeout`] sets another. Default:
    /// [`WAIT_TIMEOUT`].
    pub fn wait_timeout(mut self, limit: Duration) -> Self {
        self.wait_timeout = Some(limit);
        self
    }

    /// Uses a socket in place of a bound one: one that loses datagrams, or one in memory.
    #[cfg(feature = "fault")]
    pub fn socket(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Asks this function for the addresses of a seed before the system's name service: an empty list stands for a name
    /// that does not resolve, none for the system's answer.
    #[cfg(feature = "fault")]
    pub fn resolver(mut self, answers: impl Fn(&str) -> Option<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        self.resolver = Resolver::answering(Arc::new(answers));
        self
    }

    /// Opens an [admin endpoint](crate::admin) at this address: health, status, metrics and a live page for every
    /// client that reaches it, read-only. Default: none.
    #[cfg(feature = "admin")]
    pub fn admin(mut self, address: AdminAddress) -> Self {
        self.admin = Some(address);
        self
    }

    /// Makes the random choices of the transport repeatable, for tests.
    pub fn rng_seed(mut self, seed: [u8; 32]) -> Self {
        self.rng_seed = Some(seed);
        self
    }

    #[cfg(feature = "fault")]
    fn take_socket(&mut self) -> Option<EndpointSocket> {
        let socket = self.socket.take()?;
        Some(EndpointSocket::Abstract(socket, Arc::new(quinn::TokioRuntime)))
    }

    #[cfg(not(feature = "fault"))]
    fn take_socket(&mut self) -> Option<EndpointSocket> {
        None
    }

    /// Binds the socket, and starts the node's driver on the current tokio runtime.
    ///
    /// Not cancel safe: the builder is consumed. A dropped call leaves nothing running; a data directory may stay in
    /// use for a moment.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use cloudy_node::{DataDir, Node, key_file};
    ///
    /// let keys = key_file::load_or_create("/etc/cloudy/cluster.key".as_ref())?;
    /// let data = DataDir::open("/var/lib/orders".as_ref(), true)?;
    /// let node = Node::builder()
    ///     .identity(data.identity(keys.primary())?)
    ///     .cluster_keys(&keys)
    ///     .data_dir(data)
    ///     .bind("0.0.0.0:7400".parse()?)
    ///     .start()
    ///     .await?;
    /// println!("node {} listens on {}", node.id(), node.local_addr());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The key, the address or the limits are not valid, or the data directory cannot be used. Nothing is left running.
    pub async fn start(mut self) -> Result<Node, StartError> {
        check_clock(SystemTime::now())?;
        self.advertised.as_deref().map_or(Ok(()), check_advertised)?;
        let identity = self.take_identity()?;
        let revoked = self.keys.take().map(|keys| keys.revoked().clone()).unwrap_or_default();
        if revoked.contains(&identity.node_id()) {
            return Err(StartError::Revoked { node: identity.node_id() });
        }
        // Before anything is changed.
        #[cfg(feature = "admin")]
        let admin = self.admin.as_ref().map(AdminListener::bind).transpose()?;
        let health = Health::default();
        let (disk, stored) = match self.data_dir.take() {
            Some(data_dir) => {
                let (directory, identity) = (data_dir.node_id(), identity.node_id());
                if directory != identity {
                    return Err(StartError::OtherNode { directory, identity });
                }
                let (disk, stored) = open_store(data_dir, health.clone()).await?;
                (Some(disk), stored)
            }
            None => (None, Vec::new()),
        };
        let socket = match (self.take_socket(), self.bound.take()) {
            (Some(socket), _) => socket,
            (None, Some(socket)) => EndpointSocket::Udp(socket),
            (None, None) => {
                EndpointSocket::Udp(endpoint::bind(self.bind.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))))?)
            }
        };
        let endpoint = endpoint::open(&identity, socket, &self.limits, self.rng_seed)?;
        let address = endpoint::canonical(endpoint.local_addr().map_err(StartError::Address)?);
        let wait_timeout = self.wait_timeout.unwrap_or(WAIT_TIMEOUT);
        let (mailbox, mail, inbox) = mailbox(health.clone(), wait_timeout);
        let links = Links::new(&identity, endpoint, self.limits, (vec![address], self.advertised), (mail, health))?;
        links.revoked.set_keys(&revoked);
        let (revoked, resumed) = (links.revoked.clone(), Arc::default());
        let discovery_keys = links.discovery_keys.clone();
        let join_config = Arc::new(self.join_config);
        let id = identity.node_id();
        let (seeks, sought) = watch::channel(Seeks::default());
        let lookups = Lookups::new(sought, self.resolver);
        let node = Node { id, address, mailbox, resumed, revoked, discovery_keys, join_config, lookups };
        let accepting = links.clone();
        tokio::spawn(Driver::new(identity, links, inbox, node.mailbox.downgrade(), disk, seeks).run());
        #[cfg(feature = "admin")]
        if let Some(listener) = admin {
            node.serve_admin(listener)?;
        }
        node.look_up_advertised();
        let resumed = Arc::new(resume_all(&node, stored).await?);
        // Before this, a peer could receive the answer that a group is unknown which is about to be resumed.
        accepting.spawn_accept();
        Ok(Node { resumed, ..node })
    }
}

/// Checks the clock at the start only: a clock that is wrong later does not affect certificates of the cluster's keys.
fn check_clock(now: SystemTime) -> Result<(), StartError> {
    since_1970(now).map(|_| ()).ok_or(StartError::Clock)
}

fn check_advertised(name: &str) -> Result<(), StartError> {
    seeds::split(name)?;
    if is_advertisable(name) { Ok(()) } else { Err(StartError::Advertised { name: name.to_owned() }) }
}

/// An endpoint with an identity, and its groups. Clones are handles to the same node; when the last one and the last
/// handle of its groups are dropped, the node closes as by [`Node::shutdown`].
#[derive(Clone, Debug)]
pub struct Node {
    id: NodeId,
    address: SocketAddr,
    pub(crate) mailbox: Mailbox,
    resumed: Arc<Vec<Group>>,
    revoked: Revoked,
    discovery_keys: DiscoveryKeys,
    join_config: Arc<GroupConfig>,
    lookups: Lookups,
}

impl Node {
    /// A builder with default settings.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// The id of this node: the hash of its public key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The address that this node listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The keys that prove in multicast discovery that a node belongs to this node's cluster; they follow
    /// [`set_keys`](Self::set_keys). None at a node whose certificate comes from another public key infrastructure.
    #[must_use]
    pub fn discovery_keys(&self) -> DiscoveryKeys {
        self.discovery_keys.clone()
    }

    /// The groups that the data directory held at the start, ordered by id. Each is resumed: readers have the stored
    /// result, of which the newest part is in memory, and the node rejoins the ring as a new incarnation as soon as it
    /// reaches the others. Unapproved messages of the earlier incarnation are not sent again. A closed group is here
    /// with its result.
    #[must_use]
    pub fn resumed_groups(&self) -> &[Group] {
        &self.resumed
    }

    /// Deletes all data of a group from the data directory. The group is closed here, or observed, or [`Group::leave`]
    /// was called.
    ///
    /// A node that has not left yet is gone without handing over: the other members detect it like a crash, and the
    /// group may lose its majority. Returns once the group is certainly gone, also after a restart; its records are
    /// deleted in the background, in pieces that delay no other group.
    ///
    /// Cancel safe: dropped after its first poll, it still deletes the group.
    ///
    /// # Errors
    /// The group runs here and [`Group::leave`] was not called ([`ForgetError::Running`]): nothing is deleted. The disk
    /// cannot be written, or was not before the timeout ([`NodeBuilder::wait_timeout`] or [`Wait::timeout`]); or the
    /// node is closed.
    pub fn forget_group(&self, group: GroupId) -> Wait<'_, Result<(), ForgetError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| async move {
            let asked = deadline.run(self.mailbox.ask(|reply| Command::ForgetStored { group, reply })).await;
            let late = || deadline.passed("the disk of this node has not confirmed".to_owned(), Answers::default());
            asked.ok_or_else(late)??
        })
    }

    /// The traffic of the present links, as the transport counts it, above a lossy socket. The counts of a broken link
    /// are dropped. All zero after the node was shut down.
    ///
    /// Cancel safe.
    pub async fn traffic(&self) -> Traffic {
        self.mailbox.ask(|reply| Command::Traffic { reply }).await.unwrap_or_default()
    }

    /// Serves an [admin endpoint](crate::admin) on a bound socket until the node is closed: so a program knows that the
    /// address is free before it creates files for the node. [`NodeBuilder::admin`] does both.
    ///
    /// # Errors
    /// The operating system has no thread for it.
    #[cfg(feature = "admin")]
    pub fn serve_admin(&self, listener: AdminListener) -> Result<(), AdminError> {
        crate::admin::serve(listener, (self.id, self.address), &self.mailbox)
    }

    /// Suspends all groups here as [`Group::suspend`](crate::Group::suspend) does, so that the other members continue
    /// without a timeout; waits for sent data to arrive (at most half a second), and closes all links. It takes
    /// [`SUSPEND_TIMEOUT`](crate::SUSPEND_TIMEOUT) at most for all groups together, and none if no peer is linked. The
    /// processes of a session leave or end it instead, and an observer has nothing to announce.
    ///
    /// Cancel safe: dropped after its first poll, it still shuts the node down.
    ///
    /// ```no_run
    /// # async fn example(node: &cloudy_node::Node) {
    /// node.shutdown().await;
    /// println!("closed: {}", node.closed().await);
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        // A node that has failed meanwhile is closed as well.
        let _ = self.mailbox.ask(|reply| Command::Shutdown { reply }).await;
    }

    /// Returns once the node is closed: shut down, or stopped because a task or thread failed. Every handle of a failed
    /// node reports the same reason. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.mailbox.health.closed().await
    }

    /// The reason for which the node is closed; none while it works.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.mailbox.health.close_reason()
    }

    /// The handle of a group that the driver runs.
    pub(crate) fn handle(&self, shared: Arc<Shared>) -> Group {
        Group { shared, mailbox: self.mailbox.clone() }
    }

    #[cfg(feature = "fault")]
    pub(crate) fn health(&self) -> &Health {
        &self.mailbox.health
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_clock_before_1970_is_an_error_and_any_later_one_is_not() {
        let error = check_clock(UNIX_EPOCH - Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("before 1970"), "{error}");
        for seconds in [0, 86_400, 1 << 35] {
            assert!(check_clock(UNIX_EPOCH + Duration::from_secs(seconds)).is_ok(), "{seconds}");
        }
    }
}
