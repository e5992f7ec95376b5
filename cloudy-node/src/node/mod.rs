//! A node: one endpoint, one identity, any number of groups.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cloudy_proto::{GroupId, NodeId};
use tokio::sync::watch;

use crate::cluster_key::ClusterKey;
use crate::cluster_keys::ClusterKeys;
use crate::discovery::DiscoveryKeys;
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
mod founding;
mod join;
mod lookup;
mod resume;
mod trust;

pub use error::StartError;
pub use founding::Founding;
pub use join::Joining;
pub use lookup::{Lookup, LookupError};

use lookup::Lookups;
use resume::{open_store, resume_all};

/// How a [`Node`] is started.
#[derive(Default)]
#[must_use = "a builder does nothing until start()"]
pub struct NodeBuilder {
    bind: Option<SocketAddr>,
    bound: Option<UdpSocket>,
    identity: Option<Result<Identity, IdentityError>>,
    data_dir: Option<DataDir>,
    keys: Option<ClusterKeys>,
    limits: EndpointLimits,
    join_config: GroupConfig,
    wait_timeout: Option<Duration>,
    #[cfg(feature = "fault")]
    socket: Option<Arc<dyn quinn::AsyncUdpSocket>>,
    rng_seed: Option<[u8; 32]>,
}

impl NodeBuilder {
    /// Where to listen; a port of 0 takes a free one. Default: a free port of 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// A socket to use in place of a new one, as [`endpoint::bind`] gives it: so a program knows that its address is free
    /// before it makes files for the node.
    pub fn bound(mut self, socket: UdpSocket) -> Self {
        self.bound = Some(socket);
        self
    }

    /// The cluster's key: the node makes itself a fresh identity from it. Only holders of the same key can link.
    pub fn cluster_key(mut self, key: &ClusterKey) -> Self {
        self.identity = Some(Identity::generate(key));
        self
    }

    /// An identity made elsewhere, in place of a cluster key.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(Ok(identity));
        self
    }

    /// Where the node keeps its `Disk` groups, and its identity: give [`DataDir::identity`] as the node's. Those that it
    /// holds go on at once: [`Node::resumed_groups`].
    pub fn data_dir(mut self, data_dir: DataDir) -> Self {
        self.data_dir = Some(data_dir);
        self
    }

    /// Bounds on what peers can make the node hold.
    pub fn limits(mut self, limits: EndpointLimits) -> Self {
        self.limits = limits;
        self
    }

    /// What the node keeps of groups that it joins: the bytes of this configuration. What all members share comes from the
    /// group. Default: as [`GroupConfig::default`].
    pub fn join_config(mut self, config: GroupConfig) -> Self {
        self.join_config = config;
        self
    }

    /// How long this node's waits for others take at most, unless [`Wait::timeout`] gives another time. Default:
    /// [`WAIT_TIMEOUT`].
    pub fn wait_timeout(mut self, limit: Duration) -> Self {
        self.wait_timeout = Some(limit);
        self
    }

    /// A socket to use in place of a bound one: one that loses datagrams, or one in memory.
    #[cfg(feature = "fault")]
    pub fn socket(mut self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Makes the transport's own choices repeatable: for tests.
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

    /// Binds, and starts the node's driver on the present tokio runtime.
    ///
    /// Not cancel safe: the builder is used up. Dropped, it leaves nothing running; a data directory may stay in use for a moment.
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
    /// What is wrong with key, address or limits; nothing is left running.
    pub async fn start(mut self) -> Result<Node, StartError> {
        check_clock(SystemTime::now())?;
        let identity = self.take_identity()?;
        let revoked = self.keys.take().map(|keys| keys.revoked().clone()).unwrap_or_default();
        if revoked.contains(&identity.node_id()) {
            return Err(StartError::Revoked { node: identity.node_id() });
        }
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
        let address = endpoint::canonical(endpoint.local_addr()?);
        let wait_timeout = self.wait_timeout.unwrap_or(WAIT_TIMEOUT);
        let (mailbox, mail, inbox) = mailbox(health.clone(), wait_timeout);
        let links = Links::new(&identity, endpoint, self.limits, vec![address], (mail, health))?;
        links.revoked.set_keys(&revoked);
        let (revoked, resumed) = (links.revoked.clone(), Arc::default());
        let discovery_keys = links.discovery_keys.clone();
        let join_config = Arc::new(self.join_config);
        let id = identity.node_id();
        let (seeks, sought) = watch::channel(Seeks::default());
        let lookups = Lookups::new(sought);
        let node = Node { id, address, mailbox, resumed, revoked, discovery_keys, join_config, lookups };
        let accepting = links.clone();
        tokio::spawn(Driver::new(identity, links, inbox, node.mailbox.downgrade(), disk, seeks).run());
        let resumed = Arc::new(resume_all(&node, stored).await?);
        // A peer must not be told that a group is unknown here that is only about to go on.
        accepting.spawn_accept();
        Ok(Node { resumed, ..node })
    }
}

/// A clock that goes wrong later harms nothing that the cluster's keys vouch for.
fn check_clock(now: SystemTime) -> Result<(), StartError> {
    since_1970(now).map(|_| ()).ok_or(StartError::Clock)
}

/// One endpoint and its groups. Clones are handles to the same node; when the last one and the last of its groups'
/// handles are dropped, it ends as by [`Node::shutdown`].
#[derive(Clone, Debug)]
pub struct Node {
    id: NodeId,
    address: SocketAddr,
    mailbox: Mailbox,
    resumed: Arc<Vec<Group>>,
    revoked: Revoked,
    discovery_keys: DiscoveryKeys,
    join_config: Arc<GroupConfig>,
    lookups: Lookups,
}

impl Node {
    /// How to start one.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Its identity: the hash of its key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The keys that prove in multicast discovery that a node belongs to this node's cluster; they follow
    /// [`set_keys`](Self::set_keys). There are none at a node whose certificate comes from its own public key
    /// infrastructure.
    #[must_use]
    pub fn discovery_keys(&self) -> DiscoveryKeys {
        self.discovery_keys.clone()
    }

    /// The groups that its data directory held when it was started, in the order of their ids. Each goes on: its
    /// readers find all of the stored result, of which the newest part is in memory, and this node comes back onto its ring as soon as it reaches the
    /// others, as a new run: what the earlier one broadcast and nobody approved is not sent again. A group that had
    /// ended is there with its result.
    #[must_use]
    pub fn resumed_groups(&self) -> &[Group] {
        &self.resumed
    }

    /// Deletes all that the data directory holds of a group that has ended here, that this node observes, or that it was told
    /// to leave ([`Group::leave`]). If it could not leave yet, it is gone without handing over: the other members notice as
    /// they notice a crash, and the group may lose its majority. Returns once the group is certain to be gone, after a restart too; its records are
    /// deleted in the background, in pieces that hold up no other group. Dropped after its first poll, it is done all the
    /// same.
    ///
    /// # Errors
    /// The group runs here and this node was not told to leave it ([`ForgetError::Running`]): nothing is deleted. The disk
    /// cannot be written, or has not been in time ([`NodeBuilder::wait_timeout`] or [`Wait::timeout`]); or the
    /// node is closed.
    pub fn forget_group(&self, group: GroupId) -> Wait<'_, Result<(), ForgetError>> {
        Wait::new(Some(self.mailbox.wait_timeout), move |deadline| async move {
            let asked = deadline.run(self.mailbox.ask(|reply| Command::ForgetStored { group, reply })).await;
            let late = || deadline.passed("the disk of this node has not confirmed".to_owned(), Answers::default());
            asked.ok_or_else(late)??
        })
    }

    /// What the links that are up at this moment have carried, as the transport counts it, whatever a lossy socket does
    /// below. A link that breaks takes its counts along. All zero after the node was shut down.
    ///
    /// Cancel safe.
    pub async fn traffic(&self) -> Traffic {
        self.mailbox.ask(|reply| Command::Traffic { reply }).await.unwrap_or_default()
    }

    /// Ends all groups here, lets what was written arrive (at most half a second), and closes all links.
    ///
    /// Cancel safe: dropped after its first poll, it shuts the node down all the same.
    ///
    /// ```no_run
    /// # async fn example(node: &cloudy_node::Node) {
    /// node.shutdown().await;
    /// println!("closed: {}", node.closed().await);
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        // What has failed meanwhile is closed as well.
        let _ = self.mailbox.ask(|reply| Command::Shutdown { reply }).await;
    }

    /// Returns once the node is closed: shut down, or stopped because one of its tasks or threads failed. Every handle of a
    /// node that failed gives the same reason. Cancel safe.
    pub async fn closed(&self) -> CloseReason {
        self.mailbox.health.closed().await
    }

    /// Why the node is closed; none while it works.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.mailbox.health.close_reason()
    }

    /// The users' end of a group that the driver runs.
    fn handle(&self, shared: Arc<Shared>) -> Group {
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
    fn a_clock_before_1970_is_an_error_in_words_and_any_later_one_is_not() {
        let error = check_clock(UNIX_EPOCH - Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("before 1970"), "{error}");
        for seconds in [0, 86_400, 1 << 35] {
            assert!(check_clock(UNIX_EPOCH + Duration::from_secs(seconds)).is_ok(), "{seconds}");
        }
    }
}
