//! Messages between voters (`protocol.md` §6).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::VoterRole;
use crate::id::{ConsensusId, LogIndex};

/// A message of the consensus library, with the library's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusMessage {
    /// The kind of request or answer.
    pub kind: ConsensusKind,
    /// The receiving voter.
    pub to: ConsensusId,
    /// The sending voter.
    pub from: ConsensusId,
    /// The sender's term, or the one of its candidacy.
    pub term: u64,
    /// The term of the entry at `index`.
    pub log_term: u64,
    /// A position in the log.
    pub index: LogIndex,
    /// The entries after `index`.
    pub entries: Vec<ConsensusEntry>,
    /// The last committed position.
    pub commit: LogIndex,
    /// The term of the entry at `commit`.
    pub commit_term: u64,
    /// Whether it is a refusal.
    pub reject: bool,
    /// The position for the next attempt after a refusal.
    pub reject_hint: LogIndex,
    /// Distinguishes a forced election from others.
    pub context: Bytes,
    /// In place of entries that the sender does not keep: the state of the log up to `index`.
    pub snapshot: Bytes,
}

/// The kind of a [`ConsensusMessage`].
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

/// An entry of the control log from the coordinator to a voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusEntry {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its position.
    pub index: LogIndex,
    /// The change of the voters, if it is one.
    pub change: Option<(ConsensusId, VoterRole)>,
    /// The encoded [`Command`](crate::Command); empty at the start of a term.
    pub command: Bytes,
}
