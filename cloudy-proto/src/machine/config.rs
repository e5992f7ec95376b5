//! What a machine is made of, and what its node is in the group.

use core::net::SocketAddr;

use crate::config::{Durability, Parameters};
use crate::id::{GroupId, Index, NodeId};
use crate::machine::arrival::Arrival;
use crate::machine::creation::Creation;
use crate::machine::join::{Aim, Joining};
use crate::rules::Rules;

/// What a node is in a group.
#[derive(Clone, Debug)]
pub enum Role {
    /// It founds the group, keeps its control log and coordinates it.
    Founder {
        /// It takes a place on the ring too.
        member: bool,
        /// What all members share; validated by the caller.
        parameters: Parameters,
    },
    /// It was invited and will take a place on the ring.
    Invited {
        /// The node that asked.
        by: NodeId,
    },
    /// It comes back with what an earlier run stored: [`Machine::restored`](crate::Machine::restored).
    Restored,
    /// It comes into a running group: a newcomer, or a restarted process of a member (`protocol.md` §7).
    Joiner {
        /// A node of the group.
        contact: NodeId,
    },
    /// It reads along in a running group, and holds nobody up.
    Observer {
        /// A node of the group.
        contact: NodeId,
        /// The first index of the result that it wants; none if it wants nothing of it. From a later index than 1 it cannot
        /// check the digest at the end: it takes that, and the length, from the node that gave it the end.
        from: Option<Index>,
    },
}

impl Role {
    /// How a node with this role comes into the group, the node that is likely to coordinate it, and the first index of the
    /// result here.
    pub(super) fn arrival(self, me: NodeId) -> (Arrival, NodeId, Index) {
        let joining = |contact| Joining::new(contact, Aim::Member);
        match self {
            Self::Founder { member, parameters } => (Arrival::Creates(Creation::new(member, parameters)), me, Index(1)),
            Self::Invited { by } => (Arrival::Invited { has_accepted: false }, by, Index(1)),
            Self::Restored => (Arrival::Resumes(joining(me)), me, Index(1)),
            Self::Joiner { contact } => (Arrival::Joins(joining(contact)), contact, Index(1)),
            Self::Observer { contact, from } => {
                let arrival = Arrival::Joins(Joining::new(contact, Aim::Observer { from }));
                (arrival, contact, from.unwrap_or_default().max(Index(1)))
            }
        }
    }
}

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
