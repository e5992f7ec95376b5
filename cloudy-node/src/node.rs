//! A node: one endpoint, one identity, any number of groups.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use cloudy_proto::limits::GROUP_NAME_BYTES_MAX;
use cloudy_proto::{GroupId, Index, NodeId};
use tokio::sync::oneshot;

use crate::cluster_key::ClusterKey;
use crate::cluster_keys::ClusterKeys;
use crate::discovery::DiscoveryKeys;
use crate::driver::joins::Aim;
use crate::driver::{Command, Driver, Mailbox, mailbox};
use crate::endpoint::{self, EndpointLimits, EndpointSocket};
use crate::founding::{FoundError, Founding, FoundingEvent};
use crate::group::{Group, GroupConfig};
use crate::identity::{Identity, IdentityError};
use crate::link::{Links, Revoked};
use crate::storage::DataDir;
use crate::tls::chain::since_1970;

mod error;
mod resume;
mod trust;

pub use error::{ConnectError, JoinError, StartError};
pub use trust::{RevokeError, SetKeysError};

use resume::{open_store, resume_all};

/// How a [`Node`] is started.
#[derive(Default)]
#[must_use = "a builder does nothing until start()"]
pub struct NodeBuilder {
    bind: Option<SocketAddr>,
    identity: Option<Result<Identity, IdentityError>>,
    data_dir: Option<DataDir>,
    keys: Option<ClusterKeys>,
    limits: EndpointLimits,
    join_config: GroupConfig,
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
    /// # Errors
    /// What is wrong with key, address or limits; nothing is left running.
    pub async fn start(mut self) -> Result<Node, StartError> {
        check_clock(SystemTime::now())?;
        let identity = self.take_identity()?;
        let revoked = self.keys.take().map(|keys| keys.revoked().clone()).unwrap_or_default();
        if revoked.contains(&identity.node_id()) {
            return Err(StartError::Revoked { node: identity.node_id() });
        }
        let (disk, stored) = match self.data_dir.take() {
            Some(data_dir) => {
                let (directory, identity) = (data_dir.node_id(), identity.node_id());
                if directory != identity {
                    return Err(StartError::OtherNode { directory, identity });
                }
                let (disk, stored) = open_store(data_dir).await?;
                (Some(disk), stored)
            }
            None => (None, Vec::new()),
        };
        let socket = match self.take_socket() {
            Some(socket) => socket,
            None => EndpointSocket::Udp(endpoint::bind(self.bind.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0))))?),
        };
        let endpoint = endpoint::open(&identity, socket, &self.limits, self.rng_seed)?;
        let address = endpoint.local_addr()?;
        let (mailbox, mail, inbox) = mailbox();
        let links = Links::new(&identity, endpoint, self.limits, vec![address], mail)?;
        links.revoked.set_keys(&revoked);
        let (revoked, resumed) = (links.revoked.clone(), Arc::default());
        let discovery_keys = links.discovery_keys.clone();
        let join_config = Arc::new(self.join_config);
        let node = Node { id: identity.node_id(), address, mailbox, resumed, revoked, discovery_keys, join_config };
        let accepted = links.clone();
        tokio::spawn(Driver::new(identity, links, inbox, node.mailbox.downgrade(), disk).run());
        let resumed = Arc::new(resume_all(&node.mailbox, stored).await?);
        // A peer must not be told that a group is unknown here that is only about to go on.
        tokio::spawn(accepted.accept());
        Ok(Node { resumed, ..node })
    }
}

/// A clock that goes wrong later harms nothing that the cluster's keys vouch for.
fn check_clock(now: SystemTime) -> Result<(), StartError> {
    since_1970(now).map(|_| ()).ok_or(StartError::Clock)
}

/// What a node's links have carried, summed over them since each came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl Node {
    /// How to start one.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Who it is: the hash of its key.
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

    /// Deletes all that the data directory holds of a group, and leaves it at once if it goes on: the other members
    /// notice as they notice a crash.
    pub async fn forget_group(&self, group: GroupId) {
        self.mailbox.send(Command::ForgetStored { group }).await;
    }

    /// Dials an address, and returns once the link is up: who is there.
    ///
    /// # Errors
    /// Nobody answers, or the other side refuses: in words.
    pub async fn connect(&self, address: SocketAddr) -> Result<NodeId, ConnectError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Connect { address, reply }).await;
        answer.await.unwrap_or(Err(ConnectError::ShutDown))
    }

    /// Begins to found a group: invite nodes, then [`Founding::found`] it.
    ///
    /// # Errors
    /// The name is taken at this node, or the configuration cannot work.
    pub async fn found_group(&self, name: &str, config: GroupConfig) -> Result<Founding, FoundError> {
        config.validate()?;
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(FoundError::NameTooLong);
        }
        let founder_is_member = config.founder_is_member;
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Found { name: name.to_owned(), config: Box::new(config), reply }).await;
        let parts = answer.await.unwrap_or(Err(FoundError::ShutDown))?;
        Ok(Founding::new(parts, founder_is_member))
    }

    /// Founds a group of so many members, this node included: takes in whoever asks by [`Node::join_group_at`], and
    /// returns once the ring is full and view 1 is in force.
    ///
    /// # Errors
    /// As [`Node::found_group`] and [`Founding::found`].
    pub async fn create_group(&self, name: &str, members: usize, config: GroupConfig) -> Result<Group, FoundError> {
        let others = members.saturating_sub(usize::from(config.founder_is_member));
        let mut founding = self.found_group(name, config).await?;
        let (mut accepted, mut invited) = (0, BTreeSet::new());
        while accepted < others {
            match founding.next_event().await.ok_or(FoundError::ShutDown)? {
                FoundingEvent::AskedToJoin { node } => {
                    founding.invite(node);
                    invited.insert(node);
                }
                FoundingEvent::Accepted { node } => {
                    invited.remove(&node);
                    accepted += 1;
                }
                FoundingEvent::Refused { .. } => {}
            }
        }
        // Whoever else asked is too late, even if it has accepted meanwhile.
        invited.into_iter().for_each(|node| founding.uninvite(node));
        founding.found(None).await
    }

    /// Waits for an invitation to a group of that name. While nobody waits, invitations are refused in words. A node that
    /// was a member of a running group of that name, and was started again with the same identity, comes back to it as
    /// soon as a member links to it.
    ///
    /// # Errors
    /// The name is too long.
    pub async fn join_group(&self, name: &str) -> Result<Joining, JoinError> {
        self.join(name, None, Aim::Member).await
    }

    /// Asks the node at an address to take this node into a group: its founder, while it gathers members, or any node of
    /// a group that runs. Returns once this node is on the ring. It has the whole result, from index 1 on. A node that
    /// was a member before, and was started again with the same identity, comes back this way too.
    ///
    /// # Errors
    /// The node cannot be reached, or the group does not take this one: in words.
    pub async fn join_group_at(&self, name: &str, member: SocketAddr) -> Result<Group, JoinError> {
        let contact = self.connect(member).await?;
        self.join(name, Some(contact), Aim::Member).await?.joined().await
    }

    /// Reads along in a group that runs, from an index of its result on, which should not lie beyond its end; any node of
    /// the group can be asked. An observer takes no place on the ring, holds nobody up, and broadcasts nothing. Its
    /// [`Group::end`] ends the group like a member's.
    ///
    /// # Errors
    /// The node cannot be reached, or knows no such group: in words. Where the result is no longer retained from that
    /// index on, its readers are told by [`EndReason::Truncated`](crate::EndReason::Truncated) from where it is.
    pub async fn observe_group(&self, name: &str, member: SocketAddr, from: Index) -> Result<Group, JoinError> {
        let contact = self.connect(member).await?;
        self.observe(name, contact, Some(from)).await
    }

    /// Observes a group by a linked node of it, with its result or without.
    pub(crate) async fn observe(&self, name: &str, contact: NodeId, from: Option<Index>) -> Result<Group, JoinError> {
        self.join(name, Some(contact), Aim::Observer(from)).await?.joined().await
    }

    async fn join(&self, name: &str, contact: Option<NodeId>, aim: Aim) -> Result<Joining, JoinError> {
        if name.len() > GROUP_NAME_BYTES_MAX {
            return Err(JoinError::NameTooLong);
        }
        let (reply, answer) = oneshot::channel();
        let (name, config) = (name.to_owned(), Box::new(GroupConfig::clone(&self.join_config)));
        self.mailbox.send(Command::Join { name, contact, aim, config, reply }).await;
        Ok(Joining { answer, _keeps_the_node: self.mailbox.clone() })
    }

    /// What the links that are up at this moment have carried, as the transport counts it, whatever a lossy socket does
    /// below. A link that breaks takes its counts along. All zero after the node was shut down.
    pub async fn traffic(&self) -> Traffic {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Traffic { reply }).await;
        answer.await.unwrap_or_default()
    }

    /// Ends all groups here, lets what was written arrive (at most half a second), and closes all links.
    pub async fn shutdown(&self) {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Shutdown { reply }).await;
        // A driver that has stopped already has dropped the reply.
        let _ = answer.await;
    }
}

/// Somebody who waits to be invited. Dropping it withdraws.
#[derive(Debug)]
#[must_use = "nothing is joined until joined() is awaited"]
pub struct Joining {
    answer: oneshot::Receiver<Result<Group, JoinError>>,
    _keeps_the_node: Mailbox,
}

impl Joining {
    /// Returns once this node is on the ring.
    ///
    /// # Errors
    /// The group was not joined: in words.
    pub async fn joined(self) -> Result<Group, JoinError> {
        self.answer.await.unwrap_or(Err(JoinError::ShutDown))
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
