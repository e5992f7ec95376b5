//! The newest snapshot of the application at this node.

use std::io::Read;

use bytes::{Buf, Bytes};
use cloudy_proto::SnapshotState;

use crate::storage::{StateStore, StoredState};

/// A state: in memory, or on disk, where it is kept as long as this handle.
#[derive(Clone, Debug)]
pub(crate) enum Saved {
    Here(Bytes),
    Stored(StoredState),
}

impl Saved {
    /// A state of a machine. None if it is on a disk that this node does not have.
    pub(crate) fn of(state: SnapshotState, states: Option<&StateStore>) -> Option<Self> {
        match state {
            SnapshotState::Here(bytes) => Some(Self::Here(bytes)),
            SnapshotState::Parts(parts) => states.map(|states| Self::Stored(states.open(parts))),
        }
    }

    pub(crate) fn state(&self) -> SnapshotState {
        match self {
            Self::Here(bytes) => SnapshotState::Here(bytes.clone()),
            Self::Stored(stored) => SnapshotState::Parts(stored.parts()),
        }
    }

    /// Reads it from its beginning. Each call may wait for the disk.
    pub(crate) fn reader(&self) -> Box<dyn Read> {
        match self {
            Self::Here(bytes) => Box::new(bytes.clone().reader()),
            Self::Stored(stored) => Box::new(stored.reader()),
        }
    }
}
