//! The frames of each kind of stream (`protocol.md` §4).
//!
//! Encodings follow the order of variants and fields: append variants only, and change a field only together with
//! [`WIRE_VERSION`](crate::wire::WIRE_VERSION).

use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::digest::{Checkpoint, Digest};
use crate::id::{ConsensusId, GroupId, Incarnation, Index, LogIndex, NodeId, Rank, Round, Seq, ViewId};
use crate::slot::Slot;
use crate::view::{InstalledView, Place};
use crate::wire::{ConsensusMessage, NameReport, WireVersions};

/// The kind of stream on a link. Nothing depends on the order between two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Frames about groups that need not exist yet: [`NodeFrame`]. Its header has no group (all zero).
    Node,
    /// Creation, the control log, view changes, requests: [`ControlFrame`].
    Control,
    /// Confirmations and approvals of one view: [`TallyFrame`](crate::wire::TallyFrame).
    Tally {
        /// The view.
        view: ViewId,
    },
    /// The slots of one lane of one view: [`LaneFrame`].
    Lane {
        /// The view.
        view: ViewId,
        /// The lane's owner.
        lane: Rank,
    },
    /// Parts of the result and of snapshots for a node that fetches: only [`ControlFrame::Fetched`]. It is a separate
    /// stream so that no other frame waits behind them.
    Result,
}

impl Stream {
    /// The view of the stream, if it has one.
    #[must_use]
    pub fn view(self) -> Option<ViewId> {
        match self {
            Self::Node | Self::Control | Self::Result => None,
            Self::Tally { view } | Self::Lane { view, .. } => Some(view),
        }
    }
}

/// The beginning of each stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The versions that the sender speaks.
    pub versions: WireVersions,
    /// The group.
    pub group: GroupId,
    /// The incarnation of the sender; zero while none is assigned.
    pub incarnation: Incarnation,
    /// The kind of stream.
    pub stream: Stream,
}

/// A frame on a lane stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneFrame {
    /// A message slot.
    Slot(Slot),
    /// The rounds from `prev`, the round after the lane's previous message slot, up to `frontier` are skips.
    Skip {
        /// The round after the lane's previous message slot.
        prev: Round,
        /// The first round that the frame does not cover.
        frontier: Round,
    },
}

/// Whether a refused node should repeat its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The reason is temporary: a later request may be accepted.
    NotYet,
    /// The answer stays the same.
    Final,
    /// The group has stopped for good: a node that waits for it would wait for ever.
    Gone,
}

/// A frame on the node stream, independent of existing groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeFrame {
    /// The first frame on every link, from both sides; only then the link is up.
    Hello {
        /// The addresses of the sender.
        addresses: Vec<SocketAddr>,
        /// The sender's process number: another process with the same identity has another number, and one that was
        /// started later, by its own clock, a higher one.
        process: u64,
        /// `HOST:PORT` at which others find the sender, also after its address has changed.
        advertised: Option<String>,
    },
    /// Asks the receiver to take the sender into a group that it creates.
    Join {
        /// The group's name.
        name: String,
    },
    /// Answers [`NodeFrame::Join`] or an invitation.
    Refused {
        /// The group's name.
        name: String,
        /// The reason.
        reason: String,
        /// Whether another request can succeed.
        refusal: Refusal,
    },
    /// Requests the receiver to admit the sender as an observer of a group.
    Observe {
        /// The group's name.
        name: String,
    },
    /// Identities that no node may link to; the receiver forwards those that it did not know.
    Revoked {
        /// Whether the sender's operator revoked them; otherwise the sender received them from others.
        own: bool,
        /// The identities.
        nodes: Vec<NodeId>,
    },
    /// The sender's certificate under another cluster key, for the same public key as the link's own. It vouches for
    /// the link once the former key is not accepted. X.509, DER.
    Certificate(Bytes),
    /// Another process with the receiver's identity has linked to the sender. A running receiver answers with
    /// [`NodeFrame::Present`]; of the two processes the one with the higher number stops (`protocol.md` §4).
    SameIdentity {
        /// The other process.
        process: u64,
        /// Its last source address.
        address: SocketAddr,
    },
    /// Answers [`NodeFrame::SameIdentity`].
    Present,
    /// The address at which the sender is linked to another member of a group of the receiver's, if it differs from the
    /// group's view. A hint: the handshake decides which node is there.
    Located {
        /// The member.
        node: NodeId,
        /// Its address at the sender.
        address: SocketAddr,
    },
    /// The sender's state under a group's name; answered if the sender opens a group of that name.
    Named(Box<NameReport>),
}

/// A frame on a control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlFrame {
    /// The creator asks the receiver to become a member.
    Invite {
        /// The group's name.
        name: String,
        /// The durability of the group's result: with `Disk` every member needs a data directory.
        durability: Durability,
    },
    /// Answers [`ControlFrame::Invite`].
    Accept {
        /// The process's own number for its incarnation.
        run: u64,
    },
    /// Answers [`ControlFrame::Invite`].
    Refuse {
        /// The reason.
        reason: String,
        /// Whether another request can succeed.
        refusal: Refusal,
    },
    /// Requests the log from an entry on; from the coordinator also future entries.
    Follow {
        /// The first requested entry.
        next: LogIndex,
        /// The sender's id in the consensus library; zero while it has none.
        voter: ConsensusId,
        /// The highest feature level that the sender supports.
        level: u16,
    },
    /// Committed entries of the control log, consecutive.
    Log {
        /// The position of the first one.
        first: LogIndex,
        /// Encoded [`Command`](crate::Command)s.
        entries: Vec<Bytes>,
        /// The term of the last one, by which a voter knows that its own is committed; zero if it is unknown.
        term: u64,
    },
    /// The sender's links to all other members of a view are up.
    Ready {
        /// The view.
        view: ViewId,
    },
    /// Requests a member to freeze a view (`protocol.md` §6.2).
    Wedge {
        /// The view.
        view: ViewId,
        /// Whether no view follows the next one: STOP.
        last: bool,
        /// Whether too few would be left after the answers so far: then only present findings count, and not those that
        /// have healed.
        again: bool,
    },
    /// Answers [`ControlFrame::Wedge`].
    Wedged(Wedged),
    /// Requests the result from an index on (`protocol.md` §7.7).
    Fetch(Fetch),
    /// Answers [`ControlFrame::Fetch`], on the stream for results.
    Fetched(Fetched),
    /// The sender's result is complete (`protocol.md` §9, STOP).
    Final {
        /// Its length and digest.
        result: Checkpoint,
        /// The report of the application.
        report: Bytes,
    },
    /// Requests the coordinator to end the session at once.
    End,
    /// Reports members that seem to have failed or stalled (`protocol.md` §6.1).
    Suspect {
        /// The view.
        view: ViewId,
        /// The members, with the reasons.
        findings: Findings,
        /// Whether the sender has wedged the view, and waits for the next one.
        wedged: bool,
    },
    /// An evicted node has the result nearly to its end, and links to all members: it requests to become a joiner.
    Rejoin {
        /// The present view, as it knows it.
        view: ViewId,
        /// Whether it has links to all its members, and lacks little of the result.
        ready: bool,
        /// It cannot keep up (`protocol.md` §7.9).
        slower: Option<Rates>,
    },
    /// The sender coordinates the group; of two such senders the one with the higher term does.
    Coordinates {
        /// The consensus library's term.
        term: u64,
    },
    /// A message between two voters.
    Consensus(ConsensusMessage),
    /// Requests a view without the sender from the coordinator.
    Leave {
        /// Whether it only stops, and will return.
        returns: bool,
    },
    /// The sender does not coordinate the group, or has stopped to do so.
    Resigned,
    /// A group that the receiver requested, or was in, is running: it may enter by [`ControlFrame::Join`].
    Running {
        /// The group's name.
        name: String,
        /// The node that created it.
        creator: NodeId,
        /// The durability of the group's result: with `Disk` every member needs a data directory.
        durability: Durability,
    },
    /// Requests admission from any node of the group (`protocol.md` §7).
    Join {
        /// The process's own number for its incarnation.
        run: u64,
        /// Whether it takes no place on the ring.
        observer: bool,
        /// The part of the result that the sender has: nothing, or the part that it remembers.
        result: Checkpoint,
        /// The highest feature level that the sender supports.
        level: u16,
    },
    /// Answers [`ControlFrame::Join`].
    Refer {
        /// The coordinator, which decides on joiners.
        coordinator: NodeId,
        /// Its addresses.
        addresses: Vec<SocketAddr>,
        /// The remaining time of the session's phase; zero if it has no end.
        left: Duration,
    },
    /// Answers [`ControlFrame::Wedge`] at once if the member is still syncing: `Wedged` follows.
    Wedging {
        /// The view that is frozen here.
        view: ViewId,
    },
    /// In place of entries of the control log that the sender does not keep: the state of the log after one of them.
    LogState {
        /// The last entry that it includes.
        index: LogIndex,
        /// The term of that entry, as in [`ControlFrame::Log`].
        term: u64,
        /// The encoded state (`docs/reference/wire.md`).
        state: Bytes,
    },
    /// No complete member answers the coordinator's [`ControlFrame::Wedge`].
    NoCompleteMember {
        /// The view.
        view: ViewId,
        /// Members that may have the whole result, and do not answer.
        missing: Vec<NodeId>,
        /// Members that returned without data.
        lost: Vec<NodeId>,
    },
    /// The group is closed: the sender has the whole control log, and serves its part of the final result.
    Ended,
    /// The sender's process takes no part in the group, and has no data of it.
    Absent,
    /// The receiver's result differs from the others': it has to stop (`protocol.md` §8). The coordinator has compared
    /// the answers to [`ControlFrame::Wedge`]; or the sender answers [`ControlFrame::Join`].
    Diverged {
        /// The present view.
        view: ViewId,
        /// A node that contradicts the receiver.
        node: NodeId,
        /// The checkpoint of that node.
        theirs: Checkpoint,
        /// The checkpoint that the receiver has reported.
        ours: Checkpoint,
    },
    /// Requests a [`ControlFrame::Echo`] at once: the sender measures the path.
    Probe {
        /// The sender's time in microseconds, opaque to the receiver.
        sent_us: u64,
    },
    /// Answers [`ControlFrame::Probe`].
    Echo {
        /// The time in the probe.
        sent_us: u64,
    },
    /// The coordinator asks all members to send less (`protocol.md` §7.10).
    SlowDown {
        /// The node that cannot keep up.
        node: NodeId,
        /// Bytes per second that all members together may send; zero once the time for this node has expired.
        bytes_per_second: u64,
    },
}

/// At which rates a node fetches and the result grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Bytes per second that the node fetches.
    pub fetched: u64,
    /// Bytes per second by which the result grows.
    pub grown: u64,
}

/// The findings of a member against others in one view, including those that have healed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Members that were silent for longer than the failure timeout.
    pub down: Vec<Rank>,
    /// Members that delayed this one for longer than the stall timeout.
    pub stalled: Vec<(Rank, Stall)>,
    /// In an answer to `Wedge`: members that were silent for longer than half of the failure timeout just before.
    pub quiet: Vec<Rank>,
}

/// How a member delays another one (`protocol.md` §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stall {
    /// (a) It has not confirmed the reporter's lane up to the reporter's cursor.
    Unconfirmed,
    /// (b) A slot of its lane is missing at the reporter's cursor, while later ones are known.
    Missing(Place),
    /// (c) A slot of its lane that the reporter has confirmed is not approved.
    Unapproved(Place),
    /// Against itself: its own sync of the slot at its cursor has not finished.
    Unsynced,
}

/// A member's last frame in a view (`protocol.md` §6.2): nothing of that view is sent, confirmed or approved after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wedged {
    /// The view.
    pub view: ViewId,
    /// The incarnation of the sender.
    pub incarnation: Incarnation,
    /// For every lane, its own included, the frontier of stored slots.
    pub frontiers: Vec<Round>,
    /// Whether it has the result up to the view's first index.
    pub complete: bool,
    /// The view's first index.
    pub first: Index,
    /// The digest up to the index before that; zero if it is unknown.
    pub digest: Digest,
    /// The slot that its result waits for.
    pub cursor: Place,
    /// Its findings against others in this view.
    pub findings: Findings,
}

/// Starts a transfer of the result, continues it with more credit, or ends it (`protocol.md` §7.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The number of the transfer. One that the receiver does not serve starts it; a transfer ends when another one of
    /// the same sender starts.
    pub number: u64,
    /// The first requested index, if this starts the transfer.
    pub from: Index,
    /// The last view before that index that the sender has; zero if it begins there, with the view in force.
    pub view: ViewId,
    /// Maximum bytes that the receiver may send in the whole transfer: of parts, and for each frame
    /// [`FETCH_PART_COST_BYTES`](crate::limits::FETCH_PART_COST_BYTES). The last part may exceed it. Zero ends the
    /// transfer.
    pub credit: u64,
    /// Only the result before this view is requested; zero for all of it.
    pub before: ViewId,
    /// The part of the first item that the sender has already.
    pub held: HeldPart,
}

/// A part that a node has fetched without its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldPart {
    /// Nothing.
    #[default]
    Nothing,
    /// The first bytes of the entry that begins with the wanted index.
    Entry {
        /// The length of its body.
        length: u64,
        /// Number of its bytes.
        offset: u64,
    },
    /// The first bytes of a snapshot.
    Snapshot {
        /// The last index that its state includes.
        index: Index,
        /// Its digest, as in [`Fetched::Snapshot`].
        digest: Digest,
        /// Number of its bytes.
        offset: u64,
    },
}

/// The rest of a transfer, if its source does not know it.
pub const AHEAD_UNKNOWN: u64 = u64::MAX;

/// A part of the result, by index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// Payloads from an index on, all of one origin with consecutive sequence numbers.
    Entry {
        /// The first payload's index.
        first_index: Index,
        /// The view that approved it.
        view: ViewId,
        /// The node that broadcast it.
        origin: NodeId,
        /// The incarnation of that node.
        incarnation: Incarnation,
        /// The sequence number of the first payload.
        first_seq: Seq,
        /// Number of payloads.
        count: u32,
        /// The length of the slot body.
        length: u64,
        /// The offset of the part.
        offset: u64,
        /// A part of the slot body, at most [`FETCH_PART_BYTES`](crate::limits::FETCH_PART_BYTES).
        part: Bytes,
    },
    /// Everything within the credit was sent, or the whole result of the sender.
    End {
        /// The length of its result.
        index: Index,
        /// The rest of this transfer, in bytes as they count for its credit; zero if it is over, [`AHEAD_UNKNOWN`] if
        /// the sender does not know.
        ahead: u64,
        /// The view that the sender has installed.
        view: ViewId,
        /// That view's first index; zero if the sender does not know it.
        first: Index,
        /// The digest up to the index before that; zero if it is unknown.
        digest: Digest,
    },
    /// The requested index is not retained.
    Truncated {
        /// The first retained index.
        first: Index,
    },
    /// The requested index is not retained, but a snapshot of the application's state is, with the entries after it.
    Snapshot {
        /// The last index that the state includes.
        index: Index,
        /// The digest of the base's bytes, then of the state's digest and length, each in little-endian order.
        digest: Digest,
        /// How many of its bytes stand for the [`ResultBase`](crate::ResultBase) of the result that follows it, and for
        /// the view in force at the index: the first ones. The others are the state.
        base_length: u64,
        /// Number of all bytes.
        length: u64,
        /// The offset of this part.
        offset: u64,
        /// The part, at most [`FETCH_PART_BYTES`](crate::limits::FETCH_PART_BYTES).
        part: Bytes,
    },
    /// A view that begins before the index that comes next.
    View(InstalledView),
}
