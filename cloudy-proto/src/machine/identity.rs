//! The identity of this node in its group: its ids, and its configuration.

use core::net::SocketAddr;

use crate::config::Durability;
use crate::id::{GroupId, Incarnation, NodeId};
use crate::limits::ServeLimits;
use crate::rules::Rules;

/// The identity of this node in its group, and its configuration.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) me: NodeId,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) advertised: Option<String>,
    pub(super) group: GroupId,
    pub(super) name: String,
    pub(super) run: u64,
    /// Zero until the control log lists this process.
    pub(super) incarnation: Incarnation,
    /// Whether this process continues from the stored data of an earlier one.
    pub(super) is_restored: bool,
    /// Whether that one was in the group before the first view.
    pub(super) was_there_first: bool,
    /// Whether the result here begins at index 1.
    pub(super) reads_all: bool,
    pub(super) durability: Durability,
    /// The highest feature level that this node supports.
    pub(super) level_max: u16,
    pub(super) serves: ServeLimits,
    pub(super) rules: Rules,
}
