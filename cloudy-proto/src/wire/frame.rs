//! What is said, on which kind of stream (`protocol.md` §4).
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

/// Which stream of a link a frame travels on. Nothing relies on the order between two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Frames about groups that need not exist yet: [`NodeFrame`]. Its header names no group (all zero).
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
    /// Parts of the result and of snapshots for a node that fetches: [`ControlFrame::Fetched`] only. It is a stream of its
    /// own so that no other frame waits behind them.
    Result,
}

impl Stream {
    /// The view that the stream belongs to, if it belongs to one.
    #[must_use]
    pub fn view(self) -> Option<ViewId> {
        match self {
            Self::Node | Self::Control | Self::Result => None,
            Self::Tally { view } | Self::Lane { view, .. } => Some(view),
        }
    }
}

/// What each stream opens with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// The versions that the sender speaks.
    pub versions: WireVersions,
    /// The group.
    pub group: GroupId,
    /// The run of the sender's process; zero while none is assigned.
    pub incarnation: Incarnation,
    /// What the stream carries.
    pub stream: Stream,
}

/// What a lane stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneFrame {
    /// A message slot.
    Slot(Slot),
    /// The rounds from `prev`, the round after the lane's previous message slot, up to `frontier` are skips.
    Skip {
        /// The round after the lane's previous message slot.
        prev: Round,
        /// The first round that this says nothing of.
        frontier: Round,
    },
}

/// Whether a node that is refused should ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// It is too early, or something else that passes: the same question may be answered otherwise later.
    NotYet,
    /// The answer stays the same.
    Final,
    /// The group has stopped for good: a node that waits for it waits in vain.
    Gone,
}

/// What the node stream carries: what does not belong to an existing group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeFrame {
    /// First on every link, from both sides: only then is the link up.
    Hello {
        /// Where the sender can be reached.
        addresses: Vec<SocketAddr>,
        /// The sender's process: another process with the same identity has another number, and one that was started
        /// later, by its own clock, a higher one.
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
        /// In words.
        reason: String,
        /// Whether asking again can help.
        refusal: Refusal,
    },
    /// Asks the receiver to let the sender read along in a group.
    Observe {
        /// The group's name.
        name: String,
    },
    /// Identities that no node may link to; the receiver passes on what it did not know.
    Revoked {
        /// The sender's operator revoked them; otherwise the sender was told.
        own: bool,
        /// The identities.
        nodes: Vec<NodeId>,
    },
    /// The sender's certificate under another cluster key, for the same public key as the link's own: it vouches for the
    /// link once the former key is no longer accepted. X.509, DER.
    Certificate(Bytes),
    /// Another process with the receiver's identity has linked to the sender. A receiver that runs answers by
    /// [`NodeFrame::Present`]; of the two processes the one with the higher number ends (`protocol.md` §4).
    SameIdentity {
        /// The other process.
        process: u64,
        /// Where it was last heard from.
        address: SocketAddr,
    },
    /// Answers [`NodeFrame::SameIdentity`].
    Present,
    /// Where the sender is linked to another member of a group of the receiver's: that one is not where the group's view
    /// says. A hint: the handshake decides who is there.
    Located {
        /// The member.
        node: NodeId,
        /// Where the sender hears it from.
        address: SocketAddr,
    },
    /// What the sender has under a group's name; answered if the sender opens a group of that name.
    Named(Box<NameReport>),
}

/// What a control stream carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlFrame {
    /// The creator asks the receiver to become a member.
    Invite {
        /// The group's name.
        name: String,
        /// Where the group keeps its result: with `Disk` every member needs a data directory.
        durability: Durability,
    },
    /// Answers [`ControlFrame::Invite`].
    Accept {
        /// The process's own name for its run.
        run: u64,
    },
    /// Answers [`ControlFrame::Invite`].
    Refuse {
        /// In words.
        reason: String,
        /// Whether asking again can help.
        refusal: Refusal,
    },
    /// Asks for the log from an entry on; of the coordinator also for those that are yet to come.
    Follow {
        /// The first entry wanted.
        next: LogIndex,
        /// The sender's name in the consensus library; zero while it has none.
        voter: ConsensusId,
        /// The highest feature level that the sender supports.
        level: u16,
    },
    /// Committed entries of the control log, consecutive.
    Log {
        /// The first one's position.
        first: LogIndex,
        /// Encoded [`Command`](crate::Command)s.
        entries: Vec<Bytes>,
        /// The term of the last one, by which a voter knows that its own is committed; zero if that is not known.
        term: u64,
    },
    /// The sender's links to all other members of a view are up.
    Ready {
        /// The view.
        view: ViewId,
    },
    /// Asks a member to freeze a view (`protocol.md` §6.2).
    Wedge {
        /// The view.
        view: ViewId,
        /// No view is to follow the next: STOP.
        last: bool,
        /// Too few would be left after the answers so far: what is found at this moment counts, and not what has healed.
        again: bool,
    },
    /// Answers [`ControlFrame::Wedge`].
    Wedged(Wedged),
    /// Asks for the result from an index on (`protocol.md` §7.7).
    Fetch(Fetch),
    /// Answers [`ControlFrame::Fetch`], on the stream for results.
    Fetched(Fetched),
    /// The sender's result is complete (`protocol.md` §9, STOP).
    Final {
        /// Its length and digest.
        result: Checkpoint,
        /// What the application has to say of it.
        report: Bytes,
    },
    /// Asks the coordinator to end the session now.
    End,
    /// Reports members that seem to have failed or to stall (`protocol.md` §6.1).
    Suspect {
        /// The view.
        view: ViewId,
        /// Who, and why.
        findings: Findings,
        /// The sender has wedged the view, and waits for the next.
        wedged: bool,
    },
    /// A node that was evicted has the result nearly to its end, and links to all members: it would be a joiner.
    Rejoin {
        /// The view in force, as it knows.
        view: ViewId,
        /// It has links to all its members, and little of the result is missing.
        ready: bool,
        /// It cannot keep up (`protocol.md` §7.9).
        slower: Option<Rates>,
    },
    /// The sender coordinates the group; of two who say so the one with the higher term does.
    Coordinates {
        /// The consensus library's term.
        term: u64,
    },
    /// Between two voters.
    Consensus(ConsensusMessage),
    /// Asks the coordinator for a view without the sender.
    Leave,
    /// The sender does not coordinate the group, or not.
    Resigned,
    /// A group goes on that the receiver asked for, or was in: it may come by [`ControlFrame::Join`].
    Running {
        /// The group's name.
        name: String,
        /// The node that created it.
        creator: NodeId,
        /// Where the group keeps its result: with `Disk` every member needs a data directory.
        durability: Durability,
    },
    /// Asks any node of the group to be let in (`protocol.md` §7).
    Join {
        /// The process's own name for its run.
        run: u64,
        /// It takes no place on the ring.
        observer: bool,
        /// What the sender has of the result: nothing, or as far as it remembers.
        result: Checkpoint,
        /// The highest feature level that the sender supports.
        level: u16,
    },
    /// Answers [`ControlFrame::Join`].
    Refer {
        /// The coordinator: it decides on joiners.
        coordinator: NodeId,
        /// Where it can be reached.
        addresses: Vec<SocketAddr>,
        /// What is left of the session's phase; zero where nothing ends it.
        left: Duration,
    },
    /// Answers [`ControlFrame::Wedge`] at once where the member still syncs what it has: `Wedged` follows.
    Wedging {
        /// The view that is frozen here.
        view: ViewId,
    },
    /// In place of entries of the control log that the sender does not keep: what the log up to one comes to.
    LogState {
        /// The last entry that it stands for.
        index: LogIndex,
        /// The term of that one, as in [`ControlFrame::Log`].
        term: u64,
        /// What they come to (`docs/reference/wire.md`).
        state: Bytes,
    },
    /// The coordinator waits in vain for an answer to [`ControlFrame::Wedge`] of a member that is complete.
    NoCompleteMember {
        /// The view.
        view: ViewId,
        /// Members that may have the whole result, and give no answer.
        missing: Vec<NodeId>,
        /// Members that are back without what they held.
        lost: Vec<NodeId>,
    },
    /// The group is closed: the sender has the whole control log, and gives what it has of the final result.
    Ended,
    /// The sender's process takes no part in the group, and has nothing of it.
    Absent,
    /// The receiver's result differs from the others': it has to stop (`protocol.md` §8). The coordinator has compared the
    /// answers to [`ControlFrame::Wedge`]; or the sender answers [`ControlFrame::Join`].
    Diverged {
        /// The view in force.
        view: ViewId,
        /// A node that contradicts the receiver.
        node: NodeId,
        /// What that node has.
        theirs: Checkpoint,
        /// What the receiver said that it has.
        ours: Checkpoint,
    },
    /// Asks for an [`ControlFrame::Echo`] at once: the sender measures the path.
    Probe {
        /// The sender's time, in microseconds; the receiver makes nothing of it.
        sent_us: u64,
    },
    /// Answers [`ControlFrame::Probe`].
    Echo {
        /// What the probe named.
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

/// What a member has found against others in one view, also what has healed since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Members that were silent for longer than the failure timeout.
    pub down: Vec<Rank>,
    /// Members that held this one up for longer than the stall timeout.
    pub stalled: Vec<(Rank, Stall)>,
    /// In an answer to `Wedge`: members that were silent for longer than half of the failure timeout just before.
    pub quiet: Vec<Rank>,
}

/// How a member holds another up (`protocol.md` §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stall {
    /// (a) It has not confirmed the reporter's lane, as far as the reporter's cursor has come.
    Unconfirmed,
    /// (b) A slot of its lane is missing at the reporter's cursor, while later ones are known.
    Missing(Place),
    /// (c) A slot of its lane that the reporter has confirmed is not approved.
    Unapproved(Place),
    /// Against itself: its own sync of the slot at its cursor has not returned.
    Unsynced,
}

/// A member's last word in a view (`protocol.md` §6.2): nothing of that view is sent, confirmed or approved after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wedged {
    /// The view.
    pub view: ViewId,
    /// The run of the sender's process.
    pub incarnation: Incarnation,
    /// For every lane, its own included, what it holds stored.
    pub frontiers: Vec<Round>,
    /// It has the result up to the view's first index.
    pub complete: bool,
    /// The view's first index.
    pub first: Index,
    /// The digest up to the index before that; zero if it is not known.
    pub digest: Digest,
    /// Where its result waits.
    pub cursor: Place,
    /// What it has found against others in this view.
    pub findings: Findings,
}

/// Starts a transfer of the result, continues it with more credit, or ends it (`protocol.md` §7.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The transfer: the number of one that the receiver does not serve starts it; a transfer ends when another one of the
    /// same sender starts.
    pub number: u64,
    /// The first index wanted, if this starts the transfer.
    pub from: Index,
    /// The last view before that index that the sender has; zero if it begins there, with the view in force.
    pub view: ViewId,
    /// How many bytes the receiver may send in the whole transfer: of parts, and for each frame
    /// [`FETCH_PART_COST_BYTES`](crate::limits::FETCH_PART_COST_BYTES). The last part may exceed it. Zero ends the transfer.
    pub credit: u64,
    /// Only what the result holds before this view is wanted; zero if everything is.
    pub before: ViewId,
    /// What the sender has already of what comes first.
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
        /// How many of its bytes.
        offset: u64,
    },
    /// The first bytes of a snapshot.
    Snapshot {
        /// The last index that its state knows.
        index: Index,
        /// Of all its bytes.
        digest: Digest,
        /// How many of its bytes.
        offset: u64,
    },
}

/// What a transfer has yet to bring, where its source does not know.
pub const AHEAD_UNKNOWN: u64 = u64::MAX;

/// A part of the result, by index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// Payloads from an index on, all of one origin with consecutive numbers.
    Entry {
        /// The first payload's index.
        first_index: Index,
        /// The view that approved it.
        view: ViewId,
        /// The node that broadcast it.
        origin: NodeId,
        /// In which run.
        incarnation: Incarnation,
        /// The first payload's number.
        first_seq: Seq,
        /// How many payloads.
        count: u32,
        /// The length of the slot body.
        length: u64,
        /// Where in it the part begins.
        offset: u64,
        /// A part of the slot body, of [`FETCH_PART_BYTES`](crate::limits::FETCH_PART_BYTES) at most.
        part: Bytes,
    },
    /// All that the credit allows was sent, or all that there is; the sender's result reaches up to here.
    End {
        /// The length of its result.
        index: Index,
        /// What this transfer has yet to bring, in bytes as they count towards its credit; zero if it is over,
        /// [`AHEAD_UNKNOWN`] if the sender does not know.
        ahead: u64,
        /// The view that the sender has installed.
        view: ViewId,
        /// That view's first index; zero if the sender does not know it.
        first: Index,
        /// The digest up to the index before that; zero if it is not known.
        digest: Digest,
    },
    /// The wanted index is no longer retained.
    Truncated {
        /// The first that is.
        first: Index,
    },
    /// The wanted index is no longer retained, but a snapshot of the application's state, and what follows it.
    Snapshot {
        /// The last index that the state knows.
        index: Index,
        /// Of all its bytes.
        digest: Digest,
        /// How many of its bytes stand for the [`ResultBase`](crate::ResultBase) of the result that follows it, and for the view
        /// in force at the index: the first ones. The others are the state.
        base_length: u64,
        /// How many bytes it has.
        length: u64,
        /// Where this part begins.
        offset: u64,
        /// The part, of [`FETCH_PART_BYTES`](crate::limits::FETCH_PART_BYTES) at most.
        part: Bytes,
    },
    /// A view that begins before the index that comes next.
    View(InstalledView),
}
