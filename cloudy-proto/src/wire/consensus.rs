//! What voters say to each other (`protocol.md` §6).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::Standing;
use crate::id::{ConsensusId, LogIndex};

/// A message of the consensus library: what it calls by the same names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusMessage {
    /// What it asks or answers.
    pub kind: ConsensusKind,
    /// For which voter.
    pub to: ConsensusId,
    /// Of which voter.
    pub from: ConsensusId,
    /// The sender's term, or the one it would stand for.
    pub term: u64,
    /// The term of the entry at `index`.
    pub log_term: u64,
    /// A position in the log.
    pub index: LogIndex,
    /// The entries after `index`.
    pub entries: Vec<ConsensusEntry>,
    /// How far the log is committed.
    pub commit: LogIndex,
    /// The term of the entry at `commit`.
    pub commit_term: u64,
    /// A refusal.
    pub reject: bool,
    /// Where to try again after a refusal.
    pub reject_hint: LogIndex,
    /// Tells a forced election from others.
    pub context: Bytes,
    /// In place of entries that the sender does not keep: what the log up to `index` comes to.
    pub snapshot: Bytes,
}

/// What a [`ConsensusMessage`] asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the consensus library's own names")]
pub enum ConsensusKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
    RequestPreVote,
    RequestPreVoteResponse,
    Snapshot,
}

/// An entry of the control log on its way from the coordinator to a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusEntry {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its position.
    pub index: LogIndex,
    /// The change of who votes, if it is one.
    pub change: Option<(ConsensusId, Standing)>,
    /// The encoded [`Command`](crate::Command); empty at the begin of a term.
    pub command: Bytes,
}
