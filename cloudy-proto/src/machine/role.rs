//! What a node is in a group.

use crate::config::Parameters;
use crate::id::{Index, NodeId};
use crate::machine::founding::Founding;
use crate::machine::join::{Aim, Joining};

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
        /// Who asked.
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

/// What a role begins with.
pub(super) struct Beginning {
    /// Who coordinates the group, as far as known.
    pub(super) coordinator: NodeId,
    pub(super) founding: Option<Founding>,
    pub(super) joining: Option<Joining>,
    /// The first index of the result here.
    pub(super) index: Index,
}

impl Role {
    pub(super) fn beginning(self, me: NodeId) -> Beginning {
        let beginning = |coordinator| Beginning { coordinator, founding: None, joining: None, index: Index(1) };
        match self {
            Self::Founder { member, parameters } => {
                Beginning { founding: Some(Founding::new(member, parameters)), ..beginning(me) }
            }
            Self::Invited { by } => beginning(by),
            Self::Restored => Beginning { joining: Some(Joining::new(me, Aim::Member)), ..beginning(me) },
            Self::Joiner { contact } => {
                Beginning { joining: Some(Joining::new(contact, Aim::Member)), ..beginning(contact) }
            }
            Self::Observer { contact, from } => {
                let joining = Some(Joining::new(contact, Aim::Observer { from }));
                Beginning { joining, index: from.unwrap_or_default().max(Index(1)), ..beginning(contact) }
            }
        }
    }
}
