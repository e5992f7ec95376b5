//! What this node is in its group: its names, and what it was configured with.

use core::net::SocketAddr;

use crate::config::Durability;
use crate::id::{GroupId, Incarnation, NodeId};
use crate::rules::Rules;

/// The identity of this node in its group, and its configuration.
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
