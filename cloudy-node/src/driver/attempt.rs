//! One attempt to come into a group: what is wanted, how far it is, and why it failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloudy_proto::wire::NodeFrame;
use cloudy_proto::{Index, NodeId};

use crate::error::JoinError;
use crate::wait::{Answer, Awaited};

/// What somebody wants of a group that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To be a member.
    Member,
    /// To read along, from an index on, or without the result.
    Observer(Option<Index>),
}

impl Aim {
    /// What is said to the node that is asked.
    pub(super) fn question(self, name: String) -> NodeFrame {
        match self {
            Self::Member => NodeFrame::Join { name },
            Self::Observer(_) => NodeFrame::Observe { name },
        }
    }
}

/// How far an attempt to join a group has come, for the error of a wait that is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage(Arc<Mutex<Option<Answer>>>);

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Option<Answer>> {
        // A thread that panicked under the lock left it readable.
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

/// Why one attempt to join a group failed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Another one may not: who answered what.
    NotYet(Answer),
    /// Every other one would.
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

/// Why a group was not joined.
#[derive(Debug)]
pub(crate) enum NotJoined {
    /// A node does not take this one, for good: in words.
    Refused(String),
    /// The group has stopped for good: in words.
    Gone(String),
    /// A node does not take this one, or is out of reach; asking again can help.
    NotYet(NodeId, String),
    /// The result before this index is retained by nobody.
    Truncated(Index),
}
