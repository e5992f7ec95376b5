//! One configuration of a group: its ring and the order of slots on it (`protocol.md` §2).

use core::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Parameters;
use crate::id::{Incarnation, Index, NodeId, Rank, Round, ViewId};

/// The way in which a member entered a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// It was in the view before.
    Survivor,
    /// It was not: it fetches the missing part of the result.
    Joiner,
    /// An earlier incarnation of it was, and answered from its disk (`protocol.md` §6.3).
    Restarted,
}

/// A place on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMember {
    /// The id of the node.
    pub node: NodeId,
    /// The incarnation of the node: no other one is active in this view.
    pub incarnation: Incarnation,
    /// The way in which it entered.
    pub origin: Origin,
    /// Its addresses, as hints: its identity decides.
    pub addresses: Vec<SocketAddr>,
    /// `HOST:PORT` at which others find it, also after its addresses have changed. As a hint, too.
    pub advertised: Option<String>,
}

/// One configuration of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The id of the view: 1, 2, 3, …
    pub id: ViewId,
    /// Survivors in their old order, then joiners by node id; a node at most once.
    pub ring: Vec<RingMember>,
    /// The parameters that all members share.
    pub parameters: Parameters,
    /// No view follows: the session has ended (`protocol.md` §9, STOP).
    pub last: bool,
}

impl View {
    /// Number of members.
    #[must_use]
    pub fn members(&self) -> usize {
        self.ring.len()
    }

    /// The ranks, in order.
    pub fn ranks(&self) -> impl Iterator<Item = Rank> + use<> {
        (0..self.ring.len() as u16).map(Rank)
    }

    /// All other ranks, from a member's successor on to its parent.
    pub(crate) fn ranks_after(&self, rank: Rank) -> impl Iterator<Item = Rank> + use<> {
        let members = self.ring.len();
        (1..members).map(move |step| Rank(((rank.at() + step) % members) as u16))
    }

    /// A node's rank, whichever of its incarnations the ring lists.
    #[must_use]
    #[inline]
    pub fn rank_of(&self, node: NodeId) -> Option<Rank> {
        self.ring.iter().position(|member| member.node == node).map(|at| Rank(at as u16))
    }

    /// The rank of an incarnation of a node.
    #[must_use]
    pub fn rank_of_run(&self, node: NodeId, incarnation: Incarnation) -> Option<Rank> {
        self.rank_of(node).filter(|rank| self.ring[rank.at()].incarnation == incarnation)
    }

    /// The member at a rank.
    #[must_use]
    pub fn member(&self, rank: Rank) -> &RingMember {
        &self.ring[rank.at()]
    }

    /// The member before, with wrap-around.
    #[must_use]
    pub fn parent(&self, rank: Rank) -> Rank {
        Rank(((rank.at() + self.ring.len() - 1) % self.ring.len()) as u16)
    }

    /// The slot just before another in the order; none before the first.
    #[must_use]
    pub fn place_before(&self, place: Place) -> Option<Place> {
        match (place.round, place.rank) {
            (Round(0), Rank(0)) => None,
            (Round(round), Rank(0)) => Some(Place { round: Round(round - 1), rank: self.parent(Rank(0)) }),
            (round, rank) => Some(Place { round, rank: self.parent(rank) }),
        }
    }
}

/// A view at its place in the result: an item of the agreed order, as messages are. It has no index of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledView {
    /// The index of the first message of the view or, if the view has none, of a later one: it takes force before that index.
    pub first: Index,
    /// The view.
    pub view: Arc<View>,
}

/// The cost of a member in a view that is kept: its names and some addresses.
const VIEW_MEMBER_BYTES: usize = 512;

impl InstalledView {
    /// The view's id.
    #[must_use]
    pub fn id(&self) -> ViewId {
        self.view.id
    }

    /// Its approximate cost in memory while it is kept, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        (size_of::<View>() + self.view.ring.len() * VIEW_MEMBER_BYTES) as u64
    }
}

/// A slot's place in the order: by round, then by rank (`protocol.md` §2, *order*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The round.
    pub round: Round,
    /// The lane's owner.
    pub rank: Rank,
}
