//! What a group looks like from one node.

use core::time::Duration;
use std::sync::Arc;

use crate::config::Durability;
use crate::digest::Checkpoint;
use crate::id::{Index, NodeId, Rank, Seq};
use crate::view::View;

/// A member that something waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingSlot {
    /// The first payload's number.
    pub first_seq: Seq,
    /// How many payloads.
    pub count: u32,
    /// Who has not confirmed it.
    pub waits_for: Vec<NodeId>,
    /// For how long.
    pub age: Duration,
}

/// What a group looks like from one node, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The view in force, if one is installed.
    pub view: Option<Arc<View>>,
    /// This node's position in it; none for an observer.
    pub rank: Option<Rank>,
    /// Who coordinates the group, if that is known and in reach.
    pub coordinator: Option<NodeId>,
    /// The nodes that vote on the control log, as far as known here (`protocol.md` §6.6). From the moment that most of
    /// them are gone no view changes any more.
    pub voters: Vec<NodeId>,
    /// The phase of the session, or of the group.
    pub phase: Phase,
    /// The length of the result.
    pub index: Index,
    /// The newest checkpoint of the result.
    pub checkpoint: Checkpoint,
    /// Where this node keeps what it confirms.
    pub durability: Durability,
    /// The last index that the newest snapshot of the application's state knows; none without one.
    pub snapshot: Option<Index>,
    /// Every member: by rank.
    pub members: Vec<MemberStatus>,
    /// The pending table: own slots that wait for confirmations, oldest first, the first few of them.
    pub pending: Vec<PendingSlot>,
    /// How many own slots wait for confirmations.
    pub pending_slots: usize,
    /// Payloads that wait for a round.
    pub outbox_payloads: u64,
    /// Confirmations that this node gave: payloads of others that it confirmed.
    pub confirmations_given: u64,
    /// What the result waits for.
    pub waits_for: Option<Waiting>,
}

/// The slot that the result's cursor stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The next index.
    pub index: Index,
    /// Whose slot, or whose approval.
    pub node: NodeId,
    /// For how long.
    pub age: Duration,
}

/// A member as another sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who.
    pub node: NodeId,
    /// The link to it is up (always, for this node itself).
    pub linked: bool,
    /// At the coordinator: it has reported its links to all others up.
    pub ready: bool,
    /// Its lane as held here: the first round not held.
    pub frontier: u64,
    /// Its lane's approved frontier as known here.
    pub approved: u64,
    /// What it has confirmed of this node's lane.
    pub confirmed: u64,
    /// The length of its result when it was last heard of.
    pub index: Index,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for view 1, or for the kickstart.
    #[default]
    Start,
    /// Members broadcast.
    Send,
    /// Members finish.
    Grace,
    /// The last view change is under way.
    Stop,
    /// The result is final.
    Done,
}
