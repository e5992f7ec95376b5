//! Ids and positions: nodes, groups, incarnations, views (`protocol.md` §2).

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The id of a node: the SHA-256 of its TLS public key (`protocol.md` §2, *incarnation*).
///
/// It is independent of the node's addresses: several may lead to one node. Node ids are ordered, and the order decides
/// which of two connections of a pair stays (§4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first eight hexadecimal digits: enough to distinguish nodes in a log line.
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The reason for which a text is not a node's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseNodeIdError {
    /// Too short or too long.
    #[error("a node's id has 64 hexadecimal digits, this has {found}: copy the whole id, not the first digits of it")]
    Length {
        /// Number of characters.
        found: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("character {position} of the node's id is not a hexadecimal digit: copy the id again")]
    Digit {
        /// Its position, from 1.
        position: usize,
    },
}

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    /// Parses the whole output of `Display`; the case of digits has no meaning.
    fn from_str(text: &str) -> Result<Self, ParseNodeIdError> {
        let mut id = [0; 32];
        let found = text.chars().count();
        if found != 2 * id.len() {
            return Err(ParseNodeIdError::Length { found });
        }
        for (at, digit) in text.chars().enumerate() {
            let value = digit.to_digit(16).ok_or(ParseNodeIdError::Digit { position: at + 1 })?;
            id[at / 2] = id[at / 2] << 4 | value as u8;
        }
        Ok(Self(id))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.short())
    }
}

/// The id of a group: random for each creation, so that no group is ever started twice (`protocol.md` §6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub [u8; 16]);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next value.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// A process of a node in a group: the index of the control log's entry that assigned it, so it is never reused and
    /// independent of clocks. Zero: none assigned.
    Incarnation(u64)
);
counter!(
    /// One configuration of a group: 1, 2, 3, …; zero before the first.
    ViewId(u64)
);
counter!(
    /// A position in the result: 1, 2, 3, …; zero before the first.
    Index(u64)
);
counter!(
    /// A position in a lane: 0, 1, 2, …
    Round(u64)
);
counter!(
    /// A position on the ring: 0, 1, 2, …
    Rank(u16)
);
counter!(
    /// The sequence number of a broadcast in its incarnation: 1, 2, 3, … without gaps; zero before the first.
    Seq(u64)
);
counter!(
    /// A position in the control log: 1, 2, 3, …; zero before the first.
    LogIndex(u64)
);

counter!(
    /// The id of a voter in the consensus library; it exists as long as its consensus state and is never reused. Zero:
    /// none.
    ConsensusId(u64)
);

impl ConsensusId {
    /// The group's creator; every other voter has the incarnation in which it began to vote.
    pub const CREATOR: Self = Self(1);
}

impl Rank {
    /// The rank as an index into a table with an entry for each member.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// The id of a broadcast, never reused, and kept when it is sent again in a later view (`protocol.md` §2, *message
/// id*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The node that broadcast it.
    pub origin: NodeId,
    /// The incarnation of that node.
    pub incarnation: Incarnation,
    /// The sequence number in that incarnation.
    pub seq: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_id_is_read_as_it_is_written_and_whole_only() {
        let id = NodeId(core::array::from_fn(|at| 7 * at as u8));
        let text = id.to_string();
        assert_eq!((text.parse(), text.to_uppercase().parse()), (Ok(id), Ok(id)));
        assert_eq!(id.short().parse::<NodeId>(), Err(ParseNodeIdError::Length { found: 8 }));
        assert_eq!(format!("{text}0").parse::<NodeId>(), Err(ParseNodeIdError::Length { found: 65 }));
        assert_eq!(format!("{}g", &text[1..]).parse::<NodeId>(), Err(ParseNodeIdError::Digit { position: 64 }));
        assert_eq!(format!("ä{}", &text[1..]).parse::<NodeId>(), Err(ParseNodeIdError::Digit { position: 1 }));
    }
}
