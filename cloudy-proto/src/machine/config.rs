//! The configuration of a machine, and the role of its node in the group.

use core::net::SocketAddr;

use crate::config::{Durability, Parameters};
use crate::id::{GroupId, Index, NodeId};
use crate::limits::ServeLimits;
use crate::machine::arrival::Arrival;
use crate::machine::creation::Creation;
use crate::machine::join::{Aim, Joining};
use crate::rules::Rules;

/// The role of a node in a group.
#[derive(Clone, Debug)]
pub enum Role {
    /// It creates the group and coordinates it at first.
    Creator {
        /// Whether it takes a place on the ring too.
        member: bool,
        /// The parameters that all members share; validated by the caller.
        parameters: Parameters,
    },
    /// It was invited and will take a place on the ring.
    Invited {
        /// The node that invited it.
        by: NodeId,
    },
    /// It returns with the stored data of an earlier incarnation: [`Machine::restored`](crate::Machine::restored).
    Restored,
    /// It joins a running group: a newcomer, or a restarted process of a member (`protocol.md` §7).
    Joiner {
        /// A node of the group.
        contact: NodeId,
    },
    /// It observes a running group, and delays no node.
    Observer {
        /// A node of the group.
        contact: NodeId,
        /// The first index of the result that it requests; none for no result. From a later index than 1 it cannot
        /// check the digest at the end: it takes that, and the length, from the node that sent the end.
        from: Option<Index>,
    },
}

impl Role {
    /// The way in which a node with this role enters the group, the likely coordinator, and the first index of the
    /// result here.
    pub(super) fn arrival(self, me: NodeId) -> (Arrival, NodeId, Index) {
        let joining = |contact| Joining::new(contact, Aim::Member);
        match self {
            Self::Creator { member, parameters } => (Arrival::Creates(Creation::new(member, parameters)), me, Index(1)),
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

/// The configuration of a machine.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// This node.
    pub me: NodeId,
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// The name that it advertises, if [`is_advertisable`](crate::is_advertisable).
    pub advertised: Option<String>,
    /// The group: a new id if this node creates it, else from the invitation.
    pub group: GroupId,
    /// The group's name.
    pub name: String,
    /// The process's own number for its incarnation: random, so that no two are equal.
    pub run: u64,
    /// The role of this node.
    pub role: Role,
    /// The durability of the group's result: with `Disk` every [`Output::Persist`](crate::Output::Persist) is stored.
    pub durability: Durability,
    /// Memory for the newest part of the result, retained for nodes that lack some of it, in bytes of
    /// [`Entry::kept_bytes`](crate::Entry::kept_bytes); at least a few windows.
    pub retain_bytes: u64,
    /// `Disk`: the part of the result that is kept there, in bytes of
    /// [`StoredEntry::kept_bytes`](crate::StoredEntry::kept_bytes); none for all of it. At least the part after the
    /// newest checkpoint is kept, and entries that a member of the present view may lack.
    pub retain_disk_bytes: Option<u64>,
    /// Number of entries of the control log that are kept before a state replaces them: with
    /// [`LOG_ENTRIES_MAX`](crate::limits::LOG_ENTRIES_MAX) hardly any node that was away lacks some.
    pub log_entries_max: usize,
    /// The highest feature level that this node supports: the newest wire version that it speaks.
    pub level_max: u16,
    /// The amounts in which it sends the result to others.
    pub serves: ServeLimits,
    /// The rules that are in force: all.
    pub rules: Rules,
}
