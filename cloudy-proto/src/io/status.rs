//! The status of a group at one node.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::digest::Checkpoint;
use crate::id::{Index, NodeId, Rank, Seq, ViewId};
use crate::view::View;

/// An own slot that waits for confirmations.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingSlot {
    /// The sequence number of the first message.
    pub first_seq: Seq,
    /// Number of messages.
    pub count: u32,
    /// The members that have not confirmed it.
    pub waits_for: Vec<NodeId>,
    /// The time from its sending.
    pub age: Duration,
}

/// The status of a group at one node, at one moment.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// The present view, if one is installed.
    pub view: Option<Arc<View>>,
    /// This node's rank in it; none for an observer.
    pub rank: Option<Rank>,
    /// The coordinator, if it is known and in reach.
    pub coordinator: Option<NodeId>,
    /// For how long the latest coordinator has given no sign of life, and no other is known: none while one gives signs of
    /// life, and once the group is closed.
    pub coordinator_silent_for: Option<Duration>,
    /// The voters of the control log, as far as known here (`protocol.md` §6.6). Without a majority of them no view
    /// changes.
    pub voters: Vec<NodeId>,
    /// The feature level of the group (`protocol.md` §6.10).
    pub level: u16,
    /// The phase of the session, or of the group.
    pub phase: Phase,
    /// The length of the result.
    pub index: Index,
    /// The newest checkpoint of the result.
    pub checkpoint: Checkpoint,
    /// The place where this node stores messages that it confirms.
    pub durability: Durability,
    /// The last index that the newest snapshot of the application's state includes; none without one.
    pub snapshot: Option<Index>,
    /// The members, by rank.
    pub members: Vec<MemberStatus>,
    /// The pending table: the first own slots that wait for confirmations, oldest first.
    pub pending: Vec<PendingSlot>,
    /// Number of own slots that wait for confirmations.
    pub pending_slots: usize,
    /// Number of payloads that wait for a round.
    pub outbox_payloads: u64,
    /// The present window of this node: the maximum bytes of own slots outside its own result (`protocol.md` §5); zero
    /// while it is no member.
    pub window_bytes: u64,
    /// Number of messages of others that this node has confirmed.
    pub confirmations_given: u64,
    /// The slot that the result waits for.
    pub waits_for: Option<Waiting>,
    /// The condition that this node waits for, if it is leaving.
    pub leaving: Option<LeaveWait>,
    /// Set if most voters returned without their votes, so that the group has stopped.
    pub votes_lost: Option<VotesLost>,
    /// No coordinator was in reach for the coordinator timeout, and too few voters are.
    pub missing_voters: Option<MissingVoters>,
}

impl Status {
    /// Whether this node is an active member of the view in force, and has heard from every other member within the time
    /// that a living member may be silent. It is what the node knows, and no proof that it is not evicted.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.rank.is_some() && self.window_bytes > 0 && self.members.iter().all(|member| member.alive)
    }
}

/// The condition that a leaving node waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaveWait {
    /// No coordinator is in reach, so no view can change.
    CoordinatorOutOfReach,
    /// It is on the ring; the view without it is not in force yet.
    View,
    /// It is on the ring, which would have fewer members than [`ring_min`](crate::Parameters::ring_min) without it.
    LeastRing {
        /// Members on the ring.
        members: usize,
        /// The least ring size.
        ring_min: u16,
    },
    /// No member of the ring stays, and these evicted members do not follow the result: none takes over. Known at the
    /// last member, and at the coordinator.
    Heir {
        /// The evicted members.
        evicted: Vec<NodeId>,
        /// The time for which no node that could take over has given a sign of life.
        silent_for: Duration,
    },
    /// It is off the ring and still votes: other voters have not replaced it.
    Vote,
    /// It is off the ring, and the control log does not record that it has left.
    Log,
}

/// The text for errors: the reason for the delay, and the remedy.
impl fmt::Display for LeaveWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoordinatorOutOfReach => {
                f.write_str("no coordinator of the group is in reach; restore the network, or start most of the voters")
            }
            Self::View => f.write_str(
                "the view without this node is not in force; a member that does not answer delays it, and if all members of \
                 the ring leave, an evicted one has to take over first",
            ),
            Self::LeastRing { members, ring_min } => write!(
                f,
                "the ring has {members} members and ring_min is {ring_min}, so it needs this node; let another node join, or close the group"
            ),
            Self::Heir { evicted, .. } => {
                let names = evicted.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "no member of the ring stays, and no evicted member follows the result to take over: {names}; start one of them again, or close the group"
                )
            }
            Self::Vote => f.write_str("this node still votes; other voters that answer have to replace it"),
            Self::Log => f.write_str("the control log does not record yet that this node has left"),
        }
    }
}

/// The slot at the result's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The next index.
    pub index: Index,
    /// The node that delays the result: this node itself if its own disk does.
    pub node: NodeId,
    /// The missing part.
    pub cause: WaitCause,
    /// The time from its sending.
    pub age: Duration,
    /// Set if the ring needs the node: see [`LeastRing`].
    pub least_ring: Option<LeastRing>,
}

/// A view change waits for members, because [`ring_min`](crate::Parameters::ring_min) does not allow a ring of those in
/// reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeastRing {
    /// Members of the ring that this node reaches, itself included.
    pub in_reach: usize,
    /// The least ring size.
    pub ring_min: u16,
}

/// The cause for which a result waits at its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitCause {
    /// The node's next slot has not arrived here.
    Slot,
    /// The node has not approved its slot.
    Approval,
    /// The node has not confirmed a slot of this node.
    Confirmation,
    /// `Disk`: this node's own disk has not synced the slot.
    OwnDisk,
}

/// The reason for which a node is not on the ring: the result grows at least as fast as the node fetches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CannotKeepUp {
    /// Bytes a second that the node fetches.
    pub fetched: u64,
    /// Bytes a second by which the result grows.
    pub grown: u64,
}

/// Why a group does not slow down any longer for a node that could not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SlowDownEnd {
    /// The node is on the ring.
    Joined,
    /// The node or the coordinator is out of reach.
    Gone,
    /// The node was not on the ring within [`slow_down_max`](crate::Parameters::slow_down_max). It remains a learner.
    TimeExpired,
}

/// Shown in logs: what became of the node.
impl fmt::Display for SlowDownEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joined => "it is on the ring",
            Self::Gone => "it is out of reach",
            Self::TimeExpired => {
                "it was not on the ring within slow_down_max, and remains a learner; give it a faster path or disk, or reduce the load"
            }
        })
    }
}

/// The text for logs and errors: both rates, and the remedy.
impl fmt::Display for CannotKeepUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fetched, grown] = [self.fetched, self.grown].map(|bytes| bytes as f64 / 1e6);
        write!(
            f,
            "this node cannot keep up: it fetches {fetched:.2} MB/s and the result grows by {grown:.2} MB/s, so it stays off \
             the ring; give it a faster path or disk, or reduce the load"
        )
    }
}

/// The reason for which a group has stopped: no member that answers has the result up to the view's first index.
/// Approved messages survive only at the missing members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NoCompleteMember {
    /// The view whose end is unknown.
    pub view: ViewId,
    /// Members that may have the whole result, and do not answer: the group continues once one of them returns with it.
    pub missing: Vec<NodeId>,
    /// Members that returned without data: as another incarnation (`Memory`), or with another disk (`Disk`).
    pub lost: Vec<NodeId>,
    /// The durability of the result: data in memory is lost with its process.
    pub durability: Durability,
}

/// The reason for which a group has stopped: most of its voters run without their votes, so there is never a majority
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VotesLost {
    /// Voters that returned without their votes.
    pub lost: Vec<NodeId>,
    /// Number of all voters.
    pub voters: usize,
    /// The durability of votes: data in memory is lost with its process.
    pub durability: Durability,
}

/// The reason for which no coordinator is elected: too few voters are in reach.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingVoters {
    /// The voters that are out of reach, or back without their votes, each with its last known address.
    pub missing: Vec<(NodeId, Option<SocketAddr>)>,
    /// The number of these that make a majority with the voters in reach.
    pub needed: usize,
    /// Where votes are kept.
    pub durability: Durability,
}

/// The text for logs and errors: the nodes that are needed, and the remedy.
impl fmt::Display for MissingVoters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.missing.iter().map(|(node, address)| match address {
            Some(address) => format!("node {}, last at {address}", node.short()),
            None => format!("node {}", node.short()),
        });
        let (names, needed) = (names.collect::<Vec<_>>().join("; "), self.needed);
        write!(f, "the group needs {needed} of these nodes to continue: {names}; ")?;
        f.write_str(match self.durability {
            Durability::Memory => {
                "restore the network to them; if their processes are gone, so are their votes: save the data of the members that are left, and create another group"
            }
            Durability::Disk => "start them with their data directories; ",
        })?;
        match self.durability {
            Durability::Memory => Ok(()),
            Durability::Disk => f.write_str(RECOVERY),
        }
    }
}

/// The remedy for a group on disk whose other disks are lost.
const RECOVERY: &str =
    "if their disks are lost for good, recover the group from this node's data directory as a new group";

/// The text for logs and errors: the loss, and the remedy.
impl fmt::Display for VotesLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.lost.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
        let (count, voters) = (self.lost.len(), self.voters);
        write!(
            f,
            "{count} of {voters} voters have no data of this group ({names}): no view changes, and no node can join; "
        )?;
        f.write_str(match self.durability {
            Durability::Memory => {
                "votes in memory are gone with their processes, so the group has stopped for good: save the members' data, end the group's processes and create another group"
            }
            Durability::Disk => {
                "start them with the data directories that they had, unless the group was closed and forgotten there; "
            }
        })?;
        match self.durability {
            Durability::Memory => Ok(()),
            Durability::Disk => f.write_str(RECOVERY),
        }
    }
}

/// The evidence that a disk is older than its node's messages to others (`protocol.md` §6.3, §6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaleDisk {
    /// The group has continued from the node's answer for a view, and the disk does not have that answer.
    Answer {
        /// The view.
        view: ViewId,
    },
    /// The voter has confirmed more of the control log than the disk has.
    Log,
}

impl fmt::Display for StaleDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this node's disk is older than its earlier messages to others: ")?;
        match self {
            Self::Answer { view } => write!(f, "it does not know of the answer for view {view}")?,
            Self::Log => f.write_str("its part of the control log is too short")?,
        }
        f.write_str(
            "; the node continues like one that lost its disk. Never restore an older copy of a data directory: start such a node with a new one",
        )
    }
}

/// The status of a member, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The id of the node.
    pub node: NodeId,
    /// Whether the link to it is up (always, for this node itself).
    pub linked: bool,
    /// It was heard from within the time that a living member may be silent (always, for this node itself).
    pub alive: bool,
    /// Whether it has reported that its links to all others are up. Only the coordinator knows that.
    pub ready: bool,
    /// The frontier of its lane here: the first round that is not held.
    pub frontier: u64,
    /// The approved frontier of its lane, as known here.
    pub approved: u64,
    /// The frontier of this node's lane that it has confirmed.
    pub confirmed: u64,
    /// The length of its result in its last heartbeat.
    pub index: Index,
}

/// The phase of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for view 1, or for the kickstart.
    #[default]
    Start,
    /// Members broadcast.
    Send,
    /// Messages in flight are approved.
    Grace,
    /// The last view change is in progress.
    Stop,
    /// The result is final.
    Done,
}

/// The text for logs and programs: the loss, and the remedy.
impl fmt::Display for NoCompleteMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no node in reach has the whole result of view {}: nothing is approved", self.view)?;
        let names = |nodes: &[NodeId]| nodes.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
        if !self.lost.is_empty() {
            write!(f, "; returned without data: {}", names(&self.lost))?;
        }
        let missing = names(&self.missing);
        match (missing.is_empty(), self.durability) {
            (true, _) => f.write_str("; no other node has it, so unread entries are lost for good"),
            (false, Durability::Memory) => write!(
                f,
                "; the group continues only if one of these still runs and is reached again, because data in memory is lost with its process: {missing}"
            ),
            (false, Durability::Disk) => {
                write!(
                    f,
                    "; the group continues once one of these is started again with its data directory: {missing}; {RECOVERY}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_group_names_the_remedy() {
        let words = |durability, missing: &[u8], lost: &[u8]| {
            let nodes = |bytes: &[u8]| bytes.iter().map(|byte| NodeId([*byte; 32])).collect();
            NoCompleteMember { view: ViewId(3), missing: nodes(missing), lost: nodes(lost), durability }.to_string()
        };
        let stopped = "no node in reach has the whole result of view 3: nothing is approved; ";
        assert_eq!(
            words(Durability::Disk, &[1, 2], &[3]),
            format!(
                "{stopped}returned without data: 03030303; the group continues once one of these is started again with its \
                 data directory: 01010101, 02020202; {RECOVERY}"
            )
        );
        assert!(words(Durability::Memory, &[1], &[]).contains("only if one of these still runs and is reached again"));
        for durability in [Durability::Memory, Durability::Disk] {
            assert!(words(durability, &[], &[1]).ends_with("so unread entries are lost for good"));
        }
    }
}
