//! The keys of a cluster: the one that its nodes present, another one that they accept while the cluster changes its
//! key, and the revoked nodes.
//!
//! A cluster changes its key in three steps, each of which has to reach every node before the next one begins. So no
//! two nodes ever differ by more than one step, and nodes that differ by one step accept each other:
//!
//! | step | presented | accepted beside it |
//! |---|---|---|
//! | before | old | |
//! | [`begin_rotation`](ClusterKeys::begin_rotation) | old | the next key |
//! | [`switch`](ClusterKeys::switch) | the next key | the former one |
//! | [`finish`](ClusterKeys::finish) | the next key | |

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeSet;

use cloudy_proto::limits::REVOKED_MAX;
use cloudy_proto::{NodeId, ParseNodeIdError};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::cluster_key::{CLUSTER_KEY_BYTES, CLUSTER_KEY_PREFIX, ClusterKey, ParseClusterKeyError};

/// The prefix of a key file's line with the next key.
const NEXT: &str = "next";
/// The prefix of the line with the former key.
const FORMER: &str = "former";
/// The prefix of a line with a revoked node.
const REVOKED: &str = "revoked";
/// The maximum length of a line with its end: the longest word, a space, and a key or a node's id.
const LINE_BYTES_MAX: usize = REVOKED.len() + 1 + CLUSTER_KEY_PREFIX.len() + 2 * CLUSTER_KEY_BYTES + 1;
/// The maximum length of the text form.
pub(crate) const TEXT_BYTES_MAX: usize = (2 + REVOKED_MAX) * LINE_BYTES_MAX;

/// The role of the accepted key that is not the primary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedAs {
    /// Nodes will present it once every node accepts it.
    Next,
    /// Nodes presented it before, and some may still do.
    Former,
}

impl fmt::Display for AcceptedAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Next => NEXT,
            Self::Former => FORMER,
        })
    }
}

/// The content of a key file: a primary key, at most one other accepted key, and at most [`REVOKED_MAX`] revoked nodes.
///
/// A node presents a certificate of the primary key, accepts nodes of either key, and refuses revoked nodes. `Debug`
/// shows only fingerprints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys {
    primary: ClusterKey,
    accepted: Option<(AcceptedAs, ClusterKey)>,
    revoked: BTreeSet<NodeId>,
}

/// A step of a rotation that is not the next one. The keys are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RotateError {
    /// Another rotation has begun.
    #[error(
        "a change of the key is in progress: continue it by `cloudy key rotate FILE --switch`, once every node accepts the next key"
    )]
    Begun,
    /// Another rotation waits for its last step.
    #[error(
        "a change of the key waits for its last step: take it by `cloudy key rotate FILE --finish`, once every node presents the new key"
    )]
    Switched,
    /// There is no next key.
    #[error(
        "there is no next key: begin a change of the key by `cloudy key rotate FILE` without --switch and --finish"
    )]
    NotBegun,
    /// The next key is the primary one.
    #[error("the next key is the present one: give another")]
    SameKey,
}

/// There is no capacity for another revoked node; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{REVOKED_MAX} nodes are revoked, which is the maximum: change the key (`cloudy key rotate`), keep the new file from those nodes, and delete their `revoked` lines from it"
)]
pub struct RevokedFullError;

/// The reason for which a text is not a set of cluster keys. No variant repeats the text, which may be most of a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseClusterKeysError {
    /// The first line is not a key.
    #[error(transparent)]
    Primary(#[from] ParseClusterKeyError),
    /// A further line has an invalid key.
    #[error("line {line}: {cause}")]
    Accepted {
        /// The line, from 1.
        line: usize,
        /// The cause.
        cause: ParseClusterKeyError,
    },
    /// A further line has an unknown form.
    #[error(
        "line {line} is none of \"{NEXT} KEY\", \"{FORMER} KEY\" and \"{REVOKED} NODE-ID\": copy the whole file again, and change it by `cloudy key` only"
    )]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A third key.
    #[error("line {line}: a file holds one key beside the first at most; finish one change of the key before the next")]
    ThirdKey {
        /// The line, from 1.
        line: usize,
    },
    /// The first key is repeated.
    #[error("line {line} repeats the first key: delete that line")]
    SameKey {
        /// The line, from 1.
        line: usize,
    },
    /// A line of a revoked node has no valid id.
    #[error("line {line}: {cause}")]
    Node {
        /// The line, from 1.
        line: usize,
        /// The cause.
        cause: ParseNodeIdError,
    },
    /// There are more revoked nodes than the maximum.
    #[error(transparent)]
    RevokedFull(#[from] RevokedFullError),
}

impl From<ClusterKey> for ClusterKeys {
    fn from(primary: ClusterKey) -> Self {
        Self { primary, accepted: None, revoked: BTreeSet::new() }
    }
}

impl ClusterKeys {
    /// The key that nodes present.
    pub fn primary(&self) -> &ClusterKey {
        &self.primary
    }

    /// The other accepted key, while the cluster changes its key.
    pub fn accepted(&self) -> Option<(AcceptedAs, &ClusterKey)> {
        self.accepted.as_ref().map(|(accepted_as, key)| (*accepted_as, key))
    }

    /// The revoked nodes.
    pub fn revoked(&self) -> &BTreeSet<NodeId> {
        &self.revoked
    }

    /// First step: the next key is accepted. Every node needs this before any node takes the second step.
    ///
    /// # Errors
    /// Another rotation is in progress, or the key is the present one.
    pub fn begin_rotation(&mut self, next: ClusterKey) -> Result<(), RotateError> {
        match self.accepted {
            Some((AcceptedAs::Next, _)) => Err(RotateError::Begun),
            Some((AcceptedAs::Former, _)) => Err(RotateError::Switched),
            None if next == self.primary => Err(RotateError::SameKey),
            None => {
                self.accepted = Some((AcceptedAs::Next, next));
                Ok(())
            }
        }
    }

    /// Second step: nodes present the next key, and accept the former one. Every node needs this before any node takes
    /// the third step.
    ///
    /// # Errors
    /// There is no next key.
    pub fn switch(&mut self) -> Result<(), RotateError> {
        match self.accepted.take() {
            Some((AcceptedAs::Next, next)) => {
                let former = core::mem::replace(&mut self.primary, next);
                self.accepted = Some((AcceptedAs::Former, former));
                Ok(())
            }
            Some(former) => {
                self.accepted = Some(former);
                Err(RotateError::Switched)
            }
            None => Err(RotateError::NotBegun),
        }
    }

    /// Third step: the former key is not accepted.
    ///
    /// # Errors
    /// There is no former key.
    pub fn finish(&mut self) -> Result<(), RotateError> {
        match self.accepted {
            Some((AcceptedAs::Former, _)) => {
                self.accepted = None;
                Ok(())
            }
            Some((AcceptedAs::Next, _)) => Err(RotateError::Begun),
            None => Err(RotateError::NotBegun),
        }
    }

    /// Revokes a node. Returns whether it was not revoked before. A holder of the key can create a fresh identity: to
    /// exclude a person, revoke the node, and keep the next key of a rotation from them.
    ///
    /// # Errors
    /// [`REVOKED_MAX`] nodes are revoked.
    pub fn revoke(&mut self, node: NodeId) -> Result<bool, RevokedFullError> {
        if self.revoked.len() >= REVOKED_MAX && !self.revoked.contains(&node) {
            return Err(RevokedFullError);
        }
        Ok(self.revoked.insert(node))
    }

    /// The text form: the primary key, the other key, the revoked nodes, each on a line. Overwritten when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Allocated in full size: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity((2 + self.revoked.len()) * LINE_BYTES_MAX));
        text.push_str(&self.primary.to_text());
        text.push('\n');
        if let Some((accepted_as, key)) = self.accepted() {
            text.push_str(if accepted_as == AcceptedAs::Next { NEXT } else { FORMER });
            text.push(' ');
            text.push_str(&key.to_text());
            text.push('\n');
        }
        for node in &self.revoked {
            text.push_str(&format!("{REVOKED} {node}\n"));
        }
        text
    }

    fn take_line(&mut self, line: usize, text: &str) -> Result<(), ParseClusterKeysError> {
        let (word, rest) = text.split_once(char::is_whitespace).ok_or(ParseClusterKeysError::Line { line })?;
        let accepted_as = match word {
            NEXT => AcceptedAs::Next,
            FORMER => AcceptedAs::Former,
            REVOKED => {
                let node = rest.trim().parse().map_err(|cause| ParseClusterKeysError::Node { line, cause })?;
                self.revoke(node)?;
                return Ok(());
            }
            _ => return Err(ParseClusterKeysError::Line { line }),
        };
        let key: ClusterKey = rest.parse().map_err(|cause| ParseClusterKeysError::Accepted { line, cause })?;
        if key == self.primary {
            return Err(ParseClusterKeysError::SameKey { line });
        }
        if self.accepted.replace((accepted_as, key)).is_some() {
            return Err(ParseClusterKeysError::ThirdKey { line });
        }
        Ok(())
    }
}

impl FromStr for ClusterKeys {
    type Err = ParseClusterKeysError;

    /// Parses the text form, of which a single key is a case. Empty lines and white space around a line have no
    /// meaning.
    fn from_str(text: &str) -> Result<Self, ParseClusterKeysError> {
        let mut lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
        let primary: ClusterKey = lines.next().map_or("", |(_, line)| line).parse()?;
        let mut keys = Self::from(primary);
        for (number, line) in lines {
            keys.take_line(number, line)?;
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests;
