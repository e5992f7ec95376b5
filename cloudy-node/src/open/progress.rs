//! Progress reports of a node that opens a group, and its errors.

use core::fmt;
use std::time::Duration;

use cloudy_proto::limits::{GROUP_NAME_BYTES_MAX, MEMBERS_MAX};
use cloudy_proto::{GroupId, NodeId, ParametersError};

use crate::discovery::seeds::SeedError;
use crate::error::{CreateGroupError, JoinError};
use crate::health::CloseReason;

/// Progress of a node that opens a group ([`OpenGroup::on_progress`](crate::OpenGroup::on_progress)). Each is reported
/// when it changes. `Display` writes a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenEvent {
    /// A seed's name does not resolve. It is resolved again.
    SeedUnresolved {
        /// The seed, as given.
        seed: String,
        /// Why.
        why: String,
    },
    /// No address of a seed leads to a node. It is dialled again.
    SeedUnreachable {
        /// The seed, as given.
        seed: String,
        /// The failure at one of its addresses.
        why: String,
    },
    /// A seed is linked.
    SeedReached {
        /// The seed, as given.
        seed: String,
        /// The node that it leads to; this node itself if it is one of its own seeds.
        node: NodeId,
    },
    /// A linked node is in no group of that name and does not open one.
    KnowsNoGroup {
        /// The node.
        node: NodeId,
    },
    /// A linked node opens the group, or is in it, with other settings.
    SettingsDiffer {
        /// The node.
        node: NodeId,
        /// Each setting, with its value there and here.
        differences: Vec<SettingDifference>,
    },
    /// This node waits for other nodes.
    Waits {
        /// The awaited condition, as text.
        why: String,
    },
    /// This node asks a node to let it join the group.
    Joining {
        /// The node.
        node: NodeId,
    },
    /// A node that was asked has not let this node join. It asks again.
    NotJoined {
        /// The reason, as text.
        why: String,
    },
    /// This node invites others to create the group with it.
    Creating {
        /// All that are to be members, this node included.
        members: Vec<NodeId>,
    },
    /// The creation did not succeed, and is tried again.
    NotCreated {
        /// The reason, as text.
        why: String,
    },
    /// The data directory has the group.
    Resuming {
        /// The group.
        group: GroupId,
    },
}

impl fmt::Display for OpenEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeedUnresolved { seed, why } => write!(f, "seed {seed} does not resolve, and is tried again: {why}"),
            Self::SeedUnreachable { seed, why } => write!(f, "seed {seed} is not reached, and is tried again: {why}"),
            Self::SeedReached { seed, node } => write!(f, "seed {seed} is node {}", node.short()),
            Self::KnowsNoGroup { node } => write!(f, "node {} knows no group of that name", node.short()),
            Self::SettingsDiffer { node, differences } => {
                write!(f, "node {} has other settings:", node.short())?;
                list(f, differences)
            }
            Self::Waits { why } => f.write_str(why),
            Self::Joining { node } => write!(f, "asks node {} to let this node join", node.short()),
            Self::NotJoined { why } => write!(f, "not joined yet: {why}"),
            Self::Creating { members } => {
                let names = members.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
                write!(f, "creates the group with {names}")
            }
            Self::NotCreated { why } => write!(f, "not created yet: {why}"),
            Self::Resuming { group } => write!(f, "the data directory has group {group}, which this node resumes"),
        }
    }
}

/// A setting that two nodes which open a group do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingDifference {
    /// The setting's name: `bootstrap_expect`, or a field of [`Parameters`](crate::Parameters).
    pub setting: String,
    /// Its value at the other node.
    pub there: String,
    /// Its value at this node.
    pub here: String,
}

impl fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} there and {} here", self.setting, self.there, self.here)
    }
}

/// The differences, one after the other.
pub(super) fn list(f: &mut dyn fmt::Write, differences: &[SettingDifference]) -> fmt::Result {
    for (at, difference) in differences.iter().enumerate() {
        write!(f, "{} {difference}", if at == 0 { "" } else { "," })?;
    }
    Ok(())
}

/// The last answer of a seed or of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeedAnswer {
    /// The seed, as given, or the id of a node that is none.
    pub from: String,
    /// In words, without control characters.
    pub words: String,
}

/// A group that was not opened in time. Opening it can be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotOpened {
    pub(super) name: String,
    pub(super) waited: Duration,
    pub(super) waits_for: String,
    pub(super) answers: Vec<SeedAnswer>,
}

impl NotOpened {
    /// How long was waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The condition that this node waited for last, as text.
    #[must_use]
    pub fn waits_for(&self) -> &str {
        &self.waits_for
    }

    /// The last answer of each seed, in their order, then those of other relevant nodes.
    #[must_use]
    pub fn answers(&self) -> &[SeedAnswer] {
        &self.answers
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {:?} was not opened within {:?}: {}", self.name, self.waited, self.waits_for)?;
        for SeedAnswer { from, words } in &self.answers {
            write!(f, "; {from}: {words}")?;
        }
        f.write_str("; check the seeds, then try again or allow more time")
    }
}

/// A group that was not opened; this node is not in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenGroupError {
    /// The name is too long.
    #[error("a group's name has at most {GROUP_NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// A seed is not `HOST:PORT`, or there are too many.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// A group has no more members than this.
    #[error("{seeds} seeds are too many; give at most {MEMBERS_MAX}")]
    TooManySeeds {
        /// How many were given.
        seeds: usize,
    },
    /// The configuration cannot work.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// The group is to keep its result on disk.
    #[error(
        "group {name:?} is to keep its result on disk, and this node has no data directory: start it with NodeBuilder::data_dir"
    )]
    NeedsDataDir {
        /// The name.
        name: String,
    },
    /// Two disjoint sets of this size could create two groups.
    #[error(
        "bootstrap_expect is {expect}, which is not more than half of {seeds} seeds, those of other nodes included: two parts of a divided network could each create a group; set it to at least {}", .seeds / 2 + 1
    )]
    TooFewExpected {
        /// The given value.
        expect: usize,
        /// The distinct seeds, those of other nodes included.
        seeds: usize,
    },
    /// The number is 0, or above the maximum of members of a group.
    #[error("bootstrap_expect is {expect}; a group has at least one and at most {MEMBERS_MAX} members")]
    ExpectOutOfRange {
        /// The given value.
        expect: usize,
    },
    /// Two groups have the name, so it is not certain which one is meant.
    #[error(
        "there are two groups named {name:?}: {one} at node {} and {other} at node {}; end the wrong one at its nodes and delete it (Node::forget_group), then open the other", .at_one.short(), .at_other.short()
    )]
    TwoGroups {
        /// The name.
        name: String,
        /// One group.
        one: GroupId,
        /// A node that is in it.
        at_one: NodeId,
        /// The other group.
        other: GroupId,
        /// A node that is in that.
        at_other: NodeId,
    },
    /// The data directory holds a group of that name that has ended.
    #[error(
        "group {name:?} ({group}) has ended, and its result is in the data directory: read it by Node::resumed_groups after a restart, or delete it by Node::forget_group to open a new group of that name"
    )]
    Ended {
        /// The name.
        name: String,
        /// The group.
        group: GroupId,
    },
    /// This node observes a group of that name.
    #[error("this node observes a group named {name:?}: leave that one first")]
    Observed {
        /// The name.
        name: String,
    },
    /// A node of the group does not let this one join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The group was not created.
    #[error(transparent)]
    Create(#[from] CreateGroupError),
    /// Too few nodes were in reach in time, or their answers did not permit opening the group.
    #[error(transparent)]
    TimedOut(#[from] NotOpened),
    /// The node was shut down, or a part of it failed.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}
