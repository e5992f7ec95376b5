//! What a tally stream carries (`protocol.md` §3, §4).

use serde::{Deserialize, Serialize};

use crate::digest::Checkpoint;
use crate::id::{Index, Rank, Round};

/// What a tally stream carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TallyFrame {
    /// First on every tally stream: the sender's frontier of every lane that it takes from the receiver, who sends
    /// each from there on.
    Resume {
        /// By lane.
        frontiers: Vec<(Rank, Round)>,
    },
    /// The sender holds all of the receiver's lane below.
    Confirm {
        /// The first round that this says nothing of.
        frontier: Round,
    },
    /// Every recipient confirmed the sender's lane below: `MessageApproved`.
    Approved {
        /// The first round that this says nothing of.
        frontier: Round,
    },
    /// At intervals, and whenever [`Heartbeat::waiting`] changes.
    Heartbeat(Heartbeat),
    /// Skips of other members that the sender knows of, and the receiver needs to pass what the sender approves.
    Skips {
        /// Each at most once.
        lanes: Vec<KnownSkip>,
    },
    /// With a heartbeat, where bytes of unfinished slots have come since the last one.
    Moved {
        /// Of the receiver's lane, to the sender, in this view.
        taken: u64,
        /// Of the sender's lane, to all its recipients together, as these have said.
        everywhere: u64,
    },
}

/// The skips behind the last message slot of a lane, told by another member than its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSkip {
    /// Whose.
    pub lane: Rank,
    /// The round after the lane's last message slot.
    pub prev: Round,
    /// The first round that is not known to be a skip.
    pub frontier: Round,
}

/// A member's sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The length of its result.
    pub index: Index,
    /// Its newest checkpoint.
    pub checkpoint: Checkpoint,
    /// Its outbox is not empty, so a `Token` holder with nothing to say should pass the turn on.
    pub waiting: bool,
    /// It has the whole result before the view; with `Disk` that is synced.
    pub complete: bool,
    /// The end of the result before the view, if it has that: a digest of zero behind the first index is not known.
    pub begins: Checkpoint,
    /// `Disk`: the longest recent sync, one that is not finished included, in milliseconds.
    pub sync_ms: u32,
}
