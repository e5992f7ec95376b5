//! What a machine is made of.

use core::net::SocketAddr;

use crate::config::Durability;
use crate::id::{GroupId, Incarnation, NodeId};
use crate::machine::Role;
use crate::rules::Rules;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// This node.
    pub me: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// The group: fresh if this node founds it, else from the invitation.
    pub group: GroupId,
    /// The group's name.
    pub name: String,
    /// The name of this run of the node's process: random, so that no two runs have the same.
    pub run: u64,
    /// What this node is in it.
    pub role: Role,
    /// Where the group keeps its result: with `Disk` what is given out as [`Output::Persist`](crate::Output::Persist) is stored.
    pub durability: Durability,
    /// Memory for the newest part of the result, kept for those who miss some of it, in bytes of
    /// [`Entry::kept_bytes`](crate::Entry::kept_bytes); at least a few windows.
    pub retain_bytes: u64,
    /// `Disk`: how much of the result is kept there, in bytes of [`StoredEntry::kept_bytes`](crate::StoredEntry::kept_bytes);
    /// none for all of it. At least what follows the newest checkpoint is, and what a member of the view in force may miss.
    pub retain_disk_bytes: Option<u64>,
    /// How many entries of the control log are kept before they are replaced by what they come to: with
    /// [`LOG_ENTRIES_MAX`](crate::limits::LOG_ENTRIES_MAX) hardly anybody who was away misses any.
    pub log_entries_max: usize,
    /// Which rules hold: all.
    pub rules: Rules,
}

/// Who this node is in its group, and what it was configured with.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) me: NodeId,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) group: GroupId,
    pub(super) name: String,
    pub(super) run: u64,
    /// Zero until the control log lists this run.
    pub(super) incarnation: Incarnation,
    /// This process continues from what an earlier one stored.
    pub(super) is_restored: bool,
    /// That one was there before the first view.
    pub(super) was_there_first: bool,
    /// The result here begins at index 1.
    pub(super) reads_all: bool,
    pub(super) durability: Durability,
    pub(super) rules: Rules,
}
