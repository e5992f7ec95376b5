//! Conversion between the consensus library's messages and the wire's: the library's own encoding never reaches a peer.

use bytes::Bytes;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message, MessageType};

use crate::command::VoterRole;
use crate::id::{ConsensusId, LogIndex};
use crate::wire::{CommandError, ConsensusEntry, ConsensusKind, ConsensusMessage};

const KINDS: [(ConsensusKind, MessageType); 10] = [
    (ConsensusKind::Append, MessageType::MsgAppend),
    (ConsensusKind::AppendResponse, MessageType::MsgAppendResponse),
    (ConsensusKind::RequestVote, MessageType::MsgRequestVote),
    (ConsensusKind::RequestVoteResponse, MessageType::MsgRequestVoteResponse),
    (ConsensusKind::Heartbeat, MessageType::MsgHeartbeat),
    (ConsensusKind::HeartbeatResponse, MessageType::MsgHeartbeatResponse),
    (ConsensusKind::TimeoutNow, MessageType::MsgTimeoutNow),
    (ConsensusKind::RequestPreVote, MessageType::MsgRequestPreVote),
    (ConsensusKind::RequestPreVoteResponse, MessageType::MsgRequestPreVoteResponse),
    (ConsensusKind::Snapshot, MessageType::MsgSnapshot),
];

/// Converts an outgoing message; none if this group does not use its kind.
pub(super) fn to_wire(mut message: Message) -> Option<ConsensusMessage> {
    let (kind, _) = KINDS.into_iter().find(|(_, kind)| *kind == message.msg_type)?;
    let snapshot = message.take_snapshot();
    if kind == ConsensusKind::Snapshot {
        let metadata = snapshot.get_metadata();
        (message.index, message.log_term) = (metadata.index, metadata.term);
    }
    Some(ConsensusMessage {
        kind,
        to: ConsensusId(message.to),
        from: ConsensusId(message.from),
        term: message.term,
        log_term: message.log_term,
        index: LogIndex(message.index),
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        commit: LogIndex(message.commit),
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: message.context,
        snapshot: snapshot.data,
    })
}

/// Converts an incoming message; a snapshot comes with the participants of the consensus at that point.
pub(super) fn from_wire(message: ConsensusMessage, electors: &[(ConsensusId, VoterRole)]) -> Message {
    let mut taken = Message::default();
    if let Some((_, kind)) = KINDS.into_iter().find(|(kind, _)| *kind == message.kind) {
        taken.set_msg_type(kind);
    }
    taken.to = message.to.0;
    taken.from = message.from.0;
    taken.term = message.term;
    taken.log_term = message.log_term;
    taken.index = message.index.0;
    taken.entries = message.entries.into_iter().map(entry_from_wire).collect::<Vec<_>>().into();
    taken.commit = message.commit.0;
    taken.commit_term = message.commit_term;
    taken.reject = message.reject;
    taken.reject_hint = message.reject_hint.0;
    taken.context = message.context;
    if message.kind == ConsensusKind::Snapshot {
        let metadata = taken.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (message.index.0, message.log_term);
        metadata.set_conf_state(conf_state(electors));
        taken.mut_snapshot().data = message.snapshot;
    }
    taken
}

/// The participants of the consensus, in the library's form.
pub(super) fn conf_state(electors: &[(ConsensusId, VoterRole)]) -> ConfState {
    let all = |wanted| electors.iter().filter(move |(_, role)| *role == wanted).map(|(id, _)| id.0).collect();
    ConfState { voters: all(VoterRole::Voter), learners: all(VoterRole::Learner), ..ConfState::default() }
}

pub(super) fn entry_to_wire(entry: Entry) -> ConsensusEntry {
    // Only this function and `entry_from_wire` make entries.
    let change = change_of(&entry).ok().flatten();
    let change = change.map(|change| (ConsensusId(change.node_id), role(change.get_change_type())));
    ConsensusEntry { term: entry.term, index: LogIndex(entry.index), change, command: command_of(&entry) }
}

pub(super) fn entry_from_wire(entry: ConsensusEntry) -> Entry {
    let mut taken = Entry { term: entry.term, index: entry.index.0, ..Entry::default() };
    match entry.change {
        Some((id, role)) => {
            taken.set_entry_type(EntryType::EntryConfChange);
            taken.data = encoded(&change(id, role));
            taken.context = entry.command;
        }
        None => taken.data = entry.command,
    }
    taken
}

/// The command of an entry: a change of the voters carries it beside the library's part.
pub(super) fn command_of(entry: &Entry) -> Bytes {
    let is_change = entry.get_entry_type() != EntryType::EntryNormal;
    if is_change { entry.context.clone() } else { entry.data.clone() }
}

/// The change of the voters in an entry, if there is one.
///
/// # Errors
/// The library's own encoding does not decode: memory is corrupt.
pub(super) fn change_of(entry: &Entry) -> Result<Option<ConfChange>, CommandError> {
    if entry.get_entry_type() != EntryType::EntryConfChange {
        return Ok(None);
    }
    let mut change = ConfChange::default();
    match protobuf::Message::merge_from_bytes(&mut change, &entry.data) {
        Ok(()) => Ok(Some(change)),
        Err(_) => Err(CommandError::Change),
    }
}

pub(super) fn change(id: ConsensusId, role: VoterRole) -> ConfChange {
    let mut change = ConfChange { node_id: id.0, ..ConfChange::default() };
    change.set_change_type(match role {
        VoterRole::Learner => ConfChangeType::AddLearnerNode,
        VoterRole::Voter => ConfChangeType::AddNode,
        VoterRole::Gone => ConfChangeType::RemoveNode,
    });
    change
}

fn encoded(change: &ConfChange) -> Bytes {
    // Plain fields always encode.
    protobuf::Message::write_to_bytes(change).unwrap_or_default().into()
}

fn role(change: ConfChangeType) -> VoterRole {
    match change {
        ConfChangeType::AddLearnerNode => VoterRole::Learner,
        ConfChangeType::AddNode => VoterRole::Voter,
        ConfChangeType::RemoveNode => VoterRole::Gone,
    }
}
