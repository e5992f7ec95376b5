//! One attempt to join a group: its aim, its progress, and the reason of its failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloudy_proto::wire::NodeFrame;
use cloudy_proto::{Index, NodeId};

use crate::error::JoinError;
use crate::wait::{Answer, Awaited};

/// The aim of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To become a member.
    Member,
    /// To observe, from an index on, or without the result.
    Observer(Option<Index>),
}

impl Aim {
    /// The request to the contact.
    pub(super) fn question(self, name: String) -> NodeFrame {
        match self {
            Self::Member => NodeFrame::Join { name },
            Self::Observer(_) => NodeFrame::Observe { name },
        }
    }
}

/// The progress of an attempt to join a group, for the error of a timeout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage(Arc<Mutex<Option<Answer>>>);

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        // A panic under the lock leaves the value valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reach(&self, node: NodeId, words: &str) {
        *self.lock() = Some(Answer { from: Awaited::Node(node), words: words.to_owned() });
    }

    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    pub(crate) fn reached(&self) -> Option<Answer> {
        self.lock().clone()
    }
}

/// The reason for which an attempt to join a group failed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// A later attempt may succeed: the node and its answer.
    NotYet(Answer),
    /// Every later attempt would fail in the same way.
    Failed(JoinError),
}

impl Attempt {
    pub(super) fn not_yet(node: NodeId, words: impl Into<String>) -> Self {
        Self::NotYet(Answer { from: Awaited::Node(node), words: words.into() })
    }
}

impl From<JoinError> for Attempt {
    fn from(error: JoinError) -> Self {
        Self::Failed(error)
    }
}

/// The reason for which a group was not joined.
#[derive(Debug)]
pub(crate) enum NotJoined {
    /// A node refuses this one, for good, with its reason.
    Refused(String),
    /// The group has stopped for good, with the reason.
    Gone(String),
    /// A node refuses this one at this time, or is out of reach; a later request may succeed.
    NotYet(NodeId, String),
    /// No node retains the result before this index.
    Truncated(Index),
}
