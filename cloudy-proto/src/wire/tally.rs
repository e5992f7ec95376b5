//! Frames on a tally stream (`protocol.md` §3, §4).

use serde::{Deserialize, Serialize};

use crate::digest::Checkpoint;
use crate::id::{Index, Rank, Round};

/// A frame on a tally stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TallyFrame {
    /// The first frame on every tally stream: the sender's frontier of every lane that it receives from the receiver,
    /// which sends each lane from there on.
    Resume {
        /// By lane.
        frontiers: Vec<(Rank, Round)>,
    },
    /// The sender holds all of the receiver's lane below this round.
    Confirm {
        /// The first round that the frame does not cover.
        frontier: Round,
    },
    /// Every recipient confirmed the sender's lane below this round: `MessageApproved`.
    Approved {
        /// The first round that the frame does not cover.
        frontier: Round,
    },
    /// At intervals, and whenever [`Heartbeat::waiting`] changes.
    Heartbeat(Heartbeat),
    /// Skips of other members that the sender knows, and the receiver needs to pass slots that the sender approves.
    Skips {
        /// Each at most once.
        lanes: Vec<KnownSkip>,
    },
    /// Follows a heartbeat if bytes of unfinished slots were received after the last one.
    Moved {
        /// Received bytes of the receiver's lane at the sender, in this view.
        taken: u64,
        /// Received bytes of the sender's lane at all its recipients, by their reports.
        everywhere: u64,
    },
}

/// The skips behind the last message slot of a lane, from another member than its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSkip {
    /// The lane.
    pub lane: Rank,
    /// The round after the lane's last message slot.
    pub prev: Round,
    /// The first round that is not known to be a skip.
    pub frontier: Round,
}

/// A member's heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The length of its result.
    pub index: Index,
    /// Its newest checkpoint.
    pub checkpoint: Checkpoint,
    /// Whether its outbox has payloads, so that a `Token` holder without messages should pass on the turn.
    pub waiting: bool,
    /// Whether it has the whole result before the view; with `Disk`, synced.
    pub complete: bool,
    /// The end of the result before the view, if it has that. A digest of zero behind the first index is unknown.
    pub begins: Checkpoint,
    /// `Disk`: the longest recent sync in milliseconds, including one in progress.
    pub sync_ms: u32,
}
