//! Lookup of nodes that may have another address: by the names that the operator gave, and by multicast.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::discovery::seeds::{self, Resolver, SeedError};
use crate::discovery::{DiscoveryError, DiscoveryKeys, Finder, Multicast};
use crate::driver::{Command, Seeks, WeakMailbox};
use crate::node::Node;
use crate::wait::Backoff;

/// The longest pause between two attempts by a name.
const NAME_AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);
/// The time for which one finder sends queries.
const FIND_FOR: Duration = Duration::from_secs(3_600);

/// The sources of addresses for [`Node::look_up`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lookup {
    /// Names, each `HOST:PORT`. A name is resolved again at each attempt, and all its addresses are dialled in
    /// parallel.
    pub names: Vec<String>,
    /// The multicast group for queries. Members answer if they run a [`Responder`](crate::discovery::Responder).
    pub multicast: Option<Multicast>,
}

impl Lookup {
    cloudy_proto::setters! {
        names: Vec<String>,
        multicast: Option<Multicast>,
    }
}

/// The reason for which a lookup does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// A name is malformed, or there are too many.
    #[error(transparent)]
    Name(#[from] SeedError),
    /// Multicast cannot be used.
    #[error(transparent)]
    Multicast(#[from] DiscoveryError),
}

/// The state that lookups share with the node. Clones share the lookup in progress.
#[derive(Clone, Debug)]
pub(crate) struct Lookups {
    resolver: Resolver,
    seeks: watch::Receiver<Seeks>,
    task: Arc<Mutex<Option<AbortHandle>>>,
    /// Seeds of groups that were opened: looked up until the node is closed.
    seeds: Arc<Mutex<BTreeSet<String>>>,
}

impl Lookups {
    pub(crate) fn new(seeks: watch::Receiver<Seeks>, resolver: Resolver) -> Self {
        Self { resolver, seeks, task: Arc::default(), seeds: Arc::default() }
    }
}

impl Node {
    /// The addresses of a seed at this moment.
    pub(crate) async fn resolve(&self, seed: &str) -> Result<Vec<SocketAddr>, SeedError> {
        self.lookups.resolver.look_up(seed).await
    }

    /// Looks for members of this node's groups while it has no link to one of them, and for a group while it waits to
    /// join one. It runs in the background until the node is closed, by names and by multicast. So nodes find each
    /// other even if all were restarted at other addresses; linked nodes exchange the addresses of the others. The
    /// handshake decides which node is at an address. A second lookup replaces the first.
    ///
    /// An unreachable address and a name that does not resolve are retried, after pauses of up to two seconds.
    ///
    /// # Errors
    /// A name is malformed, there are too many names, or multicast cannot be used. An earlier lookup then continues.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```no_run
    /// # fn example(node: &cloudy_node::Node) -> Result<(), cloudy_node::LookupError> {
    /// use cloudy_node::Lookup;
    ///
    /// let names = vec!["node-1.example:10502".to_owned(), "node-2.example:10502".to_owned()];
    /// node.look_up(Lookup::default().names(names))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn look_up(&self, lookup: Lookup) -> Result<(), LookupError> {
        seeds::check(&lookup.names)?;
        let keys = self.discovery_keys();
        if let Some(place) = &lookup.multicast {
            place.check(&keys)?;
        }
        let (seeker, health) = (self.seeker(), self.mailbox.health.clone());
        let task = self.mailbox.health.spawn("lookup", async move {
            let mut searches = JoinSet::new();
            for name in lookup.names {
                let (seeker, health) = (seeker.clone(), health.clone());
                searches.spawn(async move { health.run("lookup", seeker.by_name(&name)).await });
            }
            if let Some(place) = lookup.multicast {
                searches.spawn(async move { health.run("lookup", seeker.by_multicast(&keys, place)).await });
            }
            searches.join_all().await;
        });
        let mut current = self.lookups.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = current.replace(task.abort_handle()) {
            earlier.abort();
        }
        Ok(())
    }

    /// Looks for members by these names as well, until the node is closed.
    pub(crate) fn look_up_seeds(&self, names: &[String]) {
        let mut seeds = self.lookups.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if seeds.insert(name.clone()) {
                let (seeker, name) = (self.seeker(), name.clone());
                self.mailbox.health.spawn("lookup", async move { seeker.by_name(&name).await });
            }
        }
    }

    /// Looks for members by the names that they advertise, until the node is closed.
    pub(crate) fn look_up_advertised(&self) {
        let seeker = self.seeker();
        self.mailbox.health.spawn("lookup", seeker.by_advertised());
    }

    fn seeker(&self) -> Seeker {
        let (seeks, resolver) = (self.lookups.seeks.clone(), self.lookups.resolver.clone());
        Seeker { mailbox: Arc::new(self.mailbox.downgrade()), seeks, resolver }
    }
}

#[derive(Clone)]
struct Seeker {
    /// A running lookup does not keep its node alive.
    mailbox: Arc<WeakMailbox>,
    seeks: watch::Receiver<Seeks>,
    resolver: Resolver,
}

impl Seeker {
    /// Dials all addresses of a name while a node is sought; returns once the node is closed.
    async fn by_name(mut self, name: &str) {
        let mut dials = JoinSet::new();
        let mut open = BTreeSet::new();
        let mut backoff = Backoff::up_to(NAME_AGAIN_AFTER_MAX);
        let mut reported = false;
        let seeks = |seeks: &Seeks| seeks.members || seeks.group;
        loop {
            if !seeks(&self.seeks.borrow()) {
                backoff = Backoff::up_to(NAME_AGAIN_AFTER_MAX);
            }
            if self.seeks.wait_for(seeks).await.is_err() {
                return;
            }
            match self.resolver.look_up(name).await {
                Ok(addresses) => {
                    reported = false;
                    let new: Vec<SocketAddr> = addresses.into_iter().filter(|&address| open.insert(address)).collect();
                    for address in new {
                        let dial = dial(Arc::clone(&self.mailbox), address);
                        dials.spawn(async move {
                            dial.await;
                            address
                        });
                    }
                }
                Err(error) if !std::mem::replace(&mut reported, true) => {
                    tracing::warn!("{error}; it is resolved again while this node looks for others");
                }
                Err(_) => {}
            }
            let again_at = Instant::now() + backoff.next();
            loop {
                tokio::select! {
                    // sleep: names and nodes send no notification.
                    () = sleep_until(again_at) => break,
                    Some(Ok(address)) = dials.join_next() => drop(open.remove(&address)),
                }
            }
        }
    }

    /// Dials the advertised names of the members without a link; returns once the node is closed.
    async fn by_advertised(mut self) {
        let mut searches = JoinSet::new();
        let mut names = BTreeMap::<String, AbortHandle>::new();
        loop {
            let sought = self.seeks.borrow_and_update().advertised.clone();
            names.retain(|name, search| {
                let stays = sought.contains(name);
                if !stays {
                    search.abort();
                }
                stays
            });
            for name in sought {
                let (seeker, searched) = (self.clone(), name.clone());
                names.entry(name).or_insert_with(|| searches.spawn(async move { seeker.by_name(&searched).await }));
            }
            if self.seeks.changed().await.is_err() {
                return;
            }
            // Aborted ones.
            while searches.try_join_next().is_some() {}
        }
    }

    /// Sends multicast queries while a member is sought, and dials the nodes that answer; returns once the node is
    /// closed.
    async fn by_multicast(mut self, keys: &DiscoveryKeys, place: Multicast) {
        loop {
            if self.seeks.wait_for(|seeks| seeks.members).await.is_err() {
                return;
            }
            let Ok(mut finder) = Finder::start(keys.clone(), place, FIND_FOR) else { return };
            loop {
                tokio::select! {
                    hint = finder.next() => {
                        let Some(hint) = hint else { break };
                        let Some(mailbox) = self.mailbox.upgrade() else { return };
                        mailbox.send(Command::Located { node: hint.node, address: hint.address }).await;
                    }
                    changed = async { self.seeks.wait_for(|seeks| !seeks.members).await.map(drop) } => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                }
            }
        }
    }
}

/// Dials an address once. The driver takes the link, if it is established.
async fn dial(mailbox: Arc<WeakMailbox>, address: SocketAddr) {
    let (reply, answer) = oneshot::channel();
    let Some(open) = mailbox.upgrade() else { return };
    open.send(Command::Connect { address, beside: true, reply }).await;
    // While it dials, this task does not keep the node alive.
    drop(open);
    let _ = answer.await;
}
