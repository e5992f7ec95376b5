//! Reports of nodes about a group's name while one of them opens a group of that name (`protocol.md` §7.1).

use serde::{Deserialize, Serialize};

use crate::config::Parameters;
use crate::id::{GroupId, NodeId};

/// The sender's state under a group's name. A node that opens a group of that name sends it to every linked node, and
/// again after a change; a node that does not, answers with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameReport {
    /// The group's name.
    pub name: String,
    /// The group of that name at the sender.
    pub group: NamedGroup,
    /// The sender opens a group of that name.
    pub opening: Option<Opening>,
}

/// The group of a name at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamedGroup {
    /// No group has this name at the sender.
    Absent,
    /// The node creates it, or has accepted the creator's invitation, and does not know whether it exists.
    Forming {
        /// The group.
        group: GroupId,
        /// Its creator.
        creator: NodeId,
    },
    /// The node is in it.
    Runs {
        /// The group.
        group: GroupId,
    },
}

/// How a node opens a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Number of members of the group that is created if no node is in one; 0 if none is created.
    pub expect: u16,
    /// The parameters that all members share.
    pub parameters: Parameters,
    /// The linked nodes that open a group of that name too.
    pub linked: Vec<NodeId>,
    /// The sender's seeds.
    pub seeds: Vec<ReportedSeed>,
}

/// A seed of a node that opens a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedSeed {
    /// The XXH3 hash of its text in lower case.
    pub name: u64,
    /// The node that it leads to, if the sender knows.
    pub node: Option<NodeId>,
}
