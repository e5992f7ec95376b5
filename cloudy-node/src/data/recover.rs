//! Recovery of a group from one data directory, after the other members are lost for good.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use cloudy_proto::{AloneError, GroupId, Index, NodeId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::error::DataError;
use super::stored::{StoredGroup, StoredNode};
use crate::cluster_key::ClusterKey;
use crate::cluster_keys::ClusterKeys;
use crate::discovery::seeds;
use crate::link_error::ConnectError;
use crate::node::Node;
use crate::storage::{
    Completion, DATABASE_FILE, DRAFT_FILE, DataDir, DataDirError, Op, Recorder, Store, Table, is_of_log, meta_op,
    read_group,
};

/// The time in which a member has to answer [`ask_members`], unless a caller knows its paths better.
pub const MEMBER_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The time in which the node has to exclude the others: several times the longest timeouts of a group.
const ALONE_MAX: Duration = Duration::from_secs(120);
/// Between two looks at the group's state.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Maximum bytes of one piece of a copy.
const PIECE_BYTES: usize = 4 << 20;

/// The members of a stored group, asked whether they can still answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskedMembers {
    path: PathBuf,
    /// The group.
    pub group: StoredGroup,
    /// The other members, and the voters, with their known addresses.
    pub others: Vec<(NodeId, Vec<SocketAddr>)>,
    /// A description of the nodes that answered; empty if none did.
    pub answers: Vec<String>,
}

/// A recovered group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The id of the new group.
    pub group: GroupId,
    /// The id of the former group.
    pub former: GroupId,
    /// The last index with a stored approval in the former group.
    pub approved: Index,
    /// The last index of the new group: it has every message that this node held as well.
    pub last: Index,
    /// The members that are not in the new group.
    pub excluded: Vec<NodeId>,
    /// The database as it was.
    pub backup: PathBuf,
}

/// Asks the other members of the group in the data directory at `path` whether they can still answer, at the addresses
/// that it knows and at `more`. Any node of the group that answers within `answer_timeout` counts, and so does a node
/// that refuses the link. [`MEMBER_ANSWER_TIMEOUT`] is long enough on any usual path.
///
/// Cancel safe: nothing is changed.
///
/// # Errors
/// The directory cannot be read, or no node can be started to ask.
pub async fn ask_members(
    path: &Path,
    name_or_id: Option<&str>,
    keys: &ClusterKeys,
    more: &[SocketAddr],
    answer_timeout: Duration,
) -> Result<AskedMembers, DataError> {
    let (of_path, name_or_id) = (path.to_owned(), name_or_id.map(str::to_owned));
    let (own, group) = blocking(move || {
        let node = StoredNode::open(&of_path)?;
        Ok((node.node_id(), node.group(name_or_id.as_deref())?))
    })
    .await?;
    let ring = group.view.iter().flat_map(|view| &view.ring);
    let mut others: Vec<(NodeId, Vec<SocketAddr>)> =
        ring.filter(|member| member.node != own).map(|member| (member.node, member.addresses.clone())).collect();
    for voter in group.voters.iter().filter(|voter| **voter != own) {
        if !others.iter().any(|(node, _)| node == voter) {
            others.push((*voter, Vec::new()));
        }
    }
    let mut addresses: BTreeSet<SocketAddr> =
        others.iter().flat_map(|(_, addresses)| addresses).chain(more).copied().collect();
    // A name that does not resolve leads to no member.
    let names = group.view.iter().flat_map(|view| &view.ring).filter(|member| member.node != own);
    for name in names.filter_map(|member| member.advertised.as_deref()) {
        addresses.extend(seeds::look_up(name).await.unwrap_or_default());
    }
    let mut asked = JoinSet::new();
    for address in addresses {
        let (keys, group) = (keys.clone(), group.clone());
        asked.spawn(async move { ask(&keys, address, &group, answer_timeout).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?);
    }
    answers.sort();
    Ok(AskedMembers { path: path.to_owned(), group, others, answers })
}

/// A local address from which that one can be reached.
fn beside(address: SocketAddr) -> SocketAddr {
    let any: IpAddr = match address.ip() {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, 0)
}

/// The answer of a node at an address, if it can be one of the group.
async fn ask(
    keys: &ClusterKeys,
    address: SocketAddr,
    group: &StoredGroup,
    answer_timeout: Duration,
) -> Result<Option<String>, DataError> {
    // An identity of its own, so that the members do not take it for the node of the directory.
    let node = Node::builder().cluster_keys(keys).bind(beside(address)).start().await?;
    let answer = match node.connect(address).timeout(answer_timeout).await {
        Ok(peer) if group.view.as_ref().is_some_and(|view| view.rank_of(peer).is_some()) => {
            Some(format!("node {peer} answers at {address}, and is a member"))
        }
        Ok(peer) => {
            match node.observe_group(&group.name, address, Index(1).max(group.last)).timeout(answer_timeout).await {
                Ok(running) if running.id() == group.id => {
                    Some(format!("node {peer} answers at {address}, and the group runs there"))
                }
                _ => None,
            }
        }
        Err(ConnectError::Link { failure, .. }) if failure.is_refusal() => {
            Some(format!("a node at {address} refuses the link: {failure}"))
        }
        Err(_) => None,
    };
    node.shutdown().await;
    Ok(answer)
}

impl AskedMembers {
    /// Replaces the group in the data directory by a new group with a new id, of which this node is the only member.
    /// The new group has the result, the snapshot and every message that this node held. The former database is kept
    /// beside the new one. Nodes of the former group accept nothing of the new one, and the other way round.
    ///
    /// Not cancel safe: dropped, it leaves the directory as it was, with an unfinished file beside the database.
    ///
    /// # Errors
    /// A member answered ([`DataError::MembersAnswer`]); or the group cannot continue from this directory. It is
    /// unchanged then.
    pub async fn recover(self) -> Result<Recovered, DataError> {
        if !self.answers.is_empty() {
            return Err(DataError::MembersAnswer { answers: self.answers.join("; ") });
        }
        let Self { path, group, others, .. } = self;
        let new = GroupId(rand::random());
        let (of_path, id) = (path.clone(), group.id);
        let dir = blocking(move || {
            let dir = DataDir::open(&of_path, false)?;
            rewrite(&dir, id, new)?;
            Ok(dir)
        })
        .await?;
        let started = alone(&dir, new).await;
        let finished = match started {
            Ok(last) => blocking(move || Ok((last, dir.replace_database(&format!("before-recovery-{id}"))?))).await,
            Err(error) => Err(error),
        };
        if finished.is_err() {
            // The original is unchanged.
            let _ = fs::remove_file(path.join(DRAFT_FILE));
        }
        let (last, backup) = finished?;
        let excluded = others.into_iter().map(|(node, _)| node).collect();
        Ok(Recovered { group: new, former: id, approved: group.last, last, excluded, backup })
    }
}

/// Runs the node on the rewritten database until it is the only member. Its key is in no other process.
async fn alone(dir: &DataDir, group: GroupId) -> Result<Index, DataError> {
    let draft = dir.on_draft()?;
    let identity = draft.identity(&ClusterKey::generate()?)?;
    let node = Node::builder().identity(identity).data_dir(draft).start().await?;
    let deadline = Instant::now() + ALONE_MAX;
    let alone = async {
        let resumed = node.resumed_groups().iter().find(|resumed| resumed.id() == group);
        let resumed = resumed.ok_or(DataError::NotRecovered { state: "it was not resumed".to_owned() })?;
        loop {
            let status = resumed.status().await;
            let is_alone = |status: &&cloudy_proto::Status| {
                status.rank.is_some() && status.view.as_ref().is_some_and(|view| view.members() == 1)
            };
            if let Some(status) = status.as_ref().filter(is_alone) {
                return Ok(status.index);
            }
            if Instant::now() >= deadline {
                let members = status.and_then(|status| status.view).map_or(0, |view| view.members());
                let state = format!("it has {members} members after {} s", ALONE_MAX.as_secs());
                return Err(DataError::NotRecovered { state });
            }
            // sleep: not every step of a view change is an event.
            sleep(LOOK_EVERY).await;
        }
    };
    let alone = alone.await;
    node.shutdown().await;
    alone
}

/// Copies the database, and replaces one of its groups by a new one in which this node votes alone.
fn rewrite(dir: &DataDir, group: GroupId, new: GroupId) -> Result<(), DataError> {
    let io = |action, source| DataDirError::Io { action, path: dir.path().join(DRAFT_FILE), source };
    fs::copy(dir.path().join(DATABASE_FILE), dir.path().join(DRAFT_FILE)).map_err(|error| io("create", error))?;
    let (completed, completions) = channel();
    let store = dir.on_draft()?.open_store_guarded(
        // The receiver may be gone after an error.
        move |completion| drop(completed.send(completion)),
        |write| write(),
    )?;
    let mut copy = GroupCopy { store: &store, new, ticket: 0, completions };
    let Some((meta, stored)) = read_group(&store, group)? else {
        return Err(DataError::Empty { path: dir.path().to_owned() });
    };
    let alone = stored.alone(dir.node_id()).map_err(|error| match error {
        AloneError::Stored(cause) => DataError::Read(crate::storage::ReadGroupError::Contradiction { group, cause }),
        cause => DataError::Alone { cause },
    })?;
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Log) {
        copy.table(group, table)?;
    }
    copy.submit(Recorder::default().ops(alone))?;
    copy.submit(vec![meta_op(&meta)])?;
    store.submit(group, vec![Op::Forget], u64::MAX).map_err(|_| crate::storage::StoreError::Ended)?;
    store.close()?;
    Ok(())
}

/// A copy of a group's records to a new group.
struct GroupCopy<'a> {
    store: &'a Store,
    new: GroupId,
    ticket: u64,
    completions: Receiver<Completion>,
}

impl GroupCopy<'_> {
    fn table(&mut self, from: GroupId, table: Table) -> Result<(), DataError> {
        let mut start = std::ops::Bound::Unbounded;
        loop {
            let range = (start.as_ref().map(Vec::as_slice), std::ops::Bound::Unbounded);
            let records = self.store.range(from, table, range, PIECE_BYTES)?;
            let Some(last) = records.last() else { return Ok(()) };
            start = std::ops::Bound::Excluded(last.key.clone());
            let kept = records.into_iter().filter(|record| !is_of_log(table, &record.key));
            let puts = kept.map(|record| Op::Put { table, key: record.key, value: record.value.into() });
            self.submit(puts.collect())?;
        }
    }

    /// Stores operations of the new group, and waits until they are on disk.
    fn submit(&mut self, ops: Vec<Op>) -> Result<(), DataError> {
        self.ticket += 1;
        let submitted = self.store.submit(self.new, ops, self.ticket);
        submitted.map_err(|_| crate::storage::StoreError::Ended)?;
        loop {
            let completion = self.completions.recv().map_err(|_| crate::storage::StoreError::Ended)?;
            completion.result?;
            if completion.group == self.new && completion.ticket >= self.ticket {
                return Ok(());
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}
