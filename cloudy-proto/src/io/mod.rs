//! Inputs and outputs of the machine (the contract is at the top of the crate).

mod position;
mod status;

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::SessionPlan;
use crate::digest::Checkpoint;
use crate::id::{Incarnation, Index, LogIndex, NodeId, Seq, ViewId};
use crate::slot::Batch;
use crate::stored::{Record, SnapshotState, StoredEntry};
use crate::time::Time;
use crate::view::{InstalledView, View};
use crate::wire::{CommandError, ControlFrame, LaneFrame, Refusal, Stream, TallyFrame};

pub use position::Position;
pub use status::{
    CannotKeepUp, LeastRing, LeaveWait, MemberStatus, MissingVoters, NoCompleteMember, PendingSlot, Phase, SlowDownEnd,
    StaleDisk, Status, VotesLost, WaitCause, Waiting,
};

/// An input of the machine, the only way into it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A link to a peer is up: both sides have sent their hello. It replaces an earlier link, whose frames must not
    /// arrive any later.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// Its addresses.
        addresses: Vec<SocketAddr>,
        /// The name that it advertises.
        advertised: Option<String>,
    },
    /// The link to a peer is gone, with everything in flight on it.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// A frame arrived on a stream that [`Machine::admits`](crate::Machine::admits) allows to read.
    Frame {
        /// The sender, as the handshake proved.
        from: NodeId,
        /// The incarnation of the sender, from the stream's header.
        incarnation: Incarnation,
        /// The stream.
        stream: Stream,
        /// The frame.
        frame: Frame,
    },
    /// Bytes of an incomplete frame arrived on a lane stream. A driver reports them a few times for each heartbeat at
    /// most, and may leave them out for frames that arrive within that time.
    Arriving {
        /// The sender, as the handshake proved.
        from: NodeId,
        /// The stream.
        stream: Stream,
        /// Number of bytes, beside those reported before.
        bytes: u64,
    },
    /// Datagrams of a peer arrived after some time, with any content: [`Machine::quiet`](crate::Machine::quiet) names
    /// the peers for which that matters.
    Alive {
        /// The peer.
        peer: NodeId,
        /// A time before their arrival.
        since: Time,
    },
    /// Payloads to broadcast. Their sequence numbers continue those of the batch before.
    Broadcast(Batch),
    /// Payloads wait at the driver, without numbers, until [`Machine::takes_at_once`](crate::Machine::takes_at_once)
    /// accepts them, or no such payload waits any longer.
    Waits {
        /// The cost of the first of them; none if there is none.
        cost_bytes: Option<u64>,
    },
    /// A request of the application or the operator.
    Request(Request),
    /// `Disk`: all records up to this ticket are synced.
    Persisted {
        /// The ticket of the last such [`Output::Persist`].
        ticket: u64,
    },
    /// `Disk`: the answer to [`Output::ReadResult`].
    ResultRead {
        /// The peer that lacks the part.
        to: NodeId,
        /// What is stored from the wanted position on, beginning with it and without a gap; nothing if it is not stored
        /// yet. None if the disk does not give it.
        items: Option<Vec<ApprovedItem>>,
    },
    /// `Disk`: the answer to [`Output::ReadSnapshot`].
    SnapshotRead {
        /// The peer that lacks the snapshot.
        to: NodeId,
        /// The id of the state's parts.
        id: u64,
        /// The offset of the bytes.
        offset: u64,
        /// Bytes from there on. None or empty if the disk does not give them.
        part: Option<Bytes>,
    },
    /// The time of [`Machine::poll_timeout`](crate::Machine::poll_timeout) has come.
    Timeout,
}

/// A frame of a group, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// On a lane stream.
    Lane(LaneFrame),
    /// On a tally stream.
    Tally(TallyFrame),
    /// On a control stream.
    Control(ControlFrame),
}

/// A request of the application or the operator.
#[derive(Clone, Debug)]
pub enum Request {
    /// Creator: ask a node to become a member.
    Invite {
        /// The node.
        node: NodeId,
    },
    /// Creator: no longer wait for a node that was asked.
    Uninvite {
        /// The node.
        node: NodeId,
    },
    /// Creator: install view 1 with the nodes that accepted.
    Create {
        /// The plan of the session, if the group is one.
        session: Option<SessionPlan>,
    },
    /// End the session now: the creator ends it at once, a member requests that from the creator.
    End,
    /// Leave the ring for good: the group continues without this node, which receives [`Event::Left`].
    Leave,
    /// Stop and return later: the group continues without this node and without a timeout, and this node receives
    /// [`Event::Suspended`]. It keeps its place where the ring would be too small without it: the caller limits the wait.
    Suspend,
    /// The application's state after an index of its result: late joiners may start from it, and the result before it
    /// need not be kept. One that comes too late is ignored.
    Snapshot {
        /// The last index that the state includes.
        index: Index,
        /// The state. Parts, with `Disk` only, must be synced before, and the driver keeps them until the outputs of
        /// this input are carried out; afterwards those are needed that [`Record::Snapshot`] names.
        state: SnapshotState,
    },
    /// The application's report on the final result; it counts once, after [`Event::Final`].
    Report(Bytes),
}

/// An output of the machine; outputs are carried out in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a frame to a peer whose link is up.
    Send {
        /// The peer.
        to: NodeId,
        /// The stream, which its first frame opens.
        stream: Stream,
        /// The frame.
        frame: Frame,
    },
    /// Close the link to a peer that broke the protocol; it may be dialled again.
    CloseLink {
        /// The peer.
        peer: NodeId,
        /// The reason.
        reason: String,
    },
    /// Close the link to a peer that has been silent for longer than the failure timeout, and dial it again: a fresh
    /// link comes up as soon as both directions work, which a silent one detects late or never.
    Redial {
        /// The peer.
        peer: NodeId,
    },
    /// `Disk`: store these records, in order and all or none, after all earlier ones, and input [`Input::Persisted`]
    /// once they are synced. Until then nothing that was sent to others depends on them.
    Persist {
        /// Rises by one each time.
        ticket: u64,
        /// The records; empty if the ticket only has to follow earlier ones.
        records: Vec<Record>,
    },
    /// `Disk`: read a part of the stored result, as far as it is synced, and input [`Input::ResultRead`]: always, once,
    /// after any time. At most one for each peer is in progress.
    ReadResult {
        /// The peer that lacks the part.
        to: NodeId,
        /// Beginning here.
        from: Position,
        /// Maximum bytes of slot bodies, one entry at least.
        bytes_max: usize,
    },
    /// `Disk`: read bytes of a state that is stored in parts, and input [`Input::SnapshotRead`]: always, once, after
    /// any time. At most one for each peer is in progress.
    ReadSnapshot {
        /// The peer that lacks the snapshot.
        to: NodeId,
        /// The id of the state's parts.
        id: u64,
        /// Beginning here.
        offset: u64,
        /// Maximum number of bytes, one at least.
        bytes_max: usize,
    },
    /// Own messages have entered the own result; it precedes their [`Output::Deliver`].
    Approved(Approval),
    /// The result begins here for the application, with a state of another member's application, or of an earlier
    /// incarnation: the next delivered entry follows that index.
    Restore {
        /// The last index that the state includes.
        index: Index,
        /// The state. Its parts are synced.
        state: SnapshotState,
        /// The view in force at that index: members that an application knows with the state.
        view: Option<InstalledView>,
    },
    /// The result continues after an index: entries before it, or after a restored state, are on the disk and are not
    /// delivered again.
    Resumed {
        /// The index.
        after: Index,
        /// The view in force at that index.
        view: Option<InstalledView>,
    },
    /// The result has grown: messages, and views at their places, in one order at all nodes.
    Deliver(ApprovedItem),
    /// An event for users or applications.
    Event(Event),
}

/// The items of the result, in order: the same items in the same order at every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovedItem {
    /// Approved payloads, all of one origin with consecutive indexes and numbers.
    Batch(Entry),
    /// A view comes into force: what follows was approved in it. It has no index: it stands before its first one.
    View(InstalledView),
}

impl ApprovedItem {
    /// Its cost in memory while it is kept, in bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        match self {
            Self::Batch(entry) => entry.kept_bytes(),
            Self::View(view) => view.kept_bytes(),
        }
    }

    /// The first index that it has, or that it stands before.
    #[must_use]
    pub fn first_index(&self) -> Index {
        match self {
            Self::Batch(entry) => entry.first_index,
            Self::View(view) => view.first,
        }
    }

    /// The entry, if it is one.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Batch(entry) => Some(entry),
            Self::View(_) => None,
        }
    }

    /// It comes before a position.
    #[must_use]
    pub fn is_before(&self, position: Position) -> bool {
        match self {
            Self::Batch(entry) => entry.last_index() < position.next,
            Self::View(view) if position.begins_late() => view.first <= position.next,
            Self::View(view) => view.id() <= position.view,
        }
    }
}

/// Messages that entered the result together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The node that broadcast it.
    pub origin: NodeId,
    /// The incarnation of that node.
    pub incarnation: Incarnation,
    /// The payloads.
    pub batch: Batch,
}

/// Cost of a retained entry beside its payloads: its place in a queue that may have as much capacity again, and the
/// overhead of sharing and allocating its body.
const ENTRY_COST_BYTES: u64 = 2 * (size_of::<Entry>() + size_of::<u64>()) as u64 + 80;

impl Entry {
    /// Its cost in memory while it is retained, in bytes: at least its allocations.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.batch.body.len() as u64 + ENTRY_COST_BYTES
    }

    /// A stored entry with its payloads.
    #[must_use]
    pub fn of_stored(entry: &StoredEntry, batch: Batch) -> Self {
        let StoredEntry { first_index, view, origin, incarnation, .. } = *entry;
        Self { first_index, view, origin, incarnation, batch }
    }

    /// The part of it from an index on; it must contain the index.
    #[must_use]
    pub fn beginning_at(self, from: Index) -> Self {
        match from.0.saturating_sub(self.first_index.0) {
            0 => self,
            leave_out => Self { first_index: from, batch: self.batch.without_first(leave_out as u32), ..self },
        }
    }

    /// The last payload's index.
    #[must_use]
    pub fn last_index(&self) -> Index {
        Index(self.first_index.0 + u64::from(self.batch.count) - 1)
    }
}

/// The approval of consecutive own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The sequence number of the first message.
    pub first_seq: Seq,
    /// Number of messages.
    pub count: u32,
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The members that had confirmed when it entered the result, each with the time from its sending. A member is
    /// missing if a view change made its confirmation unnecessary.
    pub confirmed: Vec<(NodeId, Duration)>,
}

/// The outcome of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the result, for good.
    Approved,
    /// It is in no result, for good: its incarnation, or the group, is over.
    Rejected,
    /// It may still be approved.
    Open,
}

/// An event of a group.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An invited node will become a member.
    Accepted {
        /// The node.
        node: NodeId,
    },
    /// An invited node refused; or a node of the group refuses this one.
    Refused {
        /// The node.
        node: NodeId,
        /// The reason.
        reason: String,
        /// Whether another request can succeed.
        refusal: Refusal,
    },
    /// A view is in force.
    ViewInstalled {
        /// The view.
        view: Arc<View>,
        /// The index of its first message.
        first: Index,
        /// Whether this node is a member of it.
        active: bool,
    },
    /// Creator: every member has reported its links to all others up.
    AllReady,
    /// SEND has begun: broadcast. After [`Event::Stop`] it reports that SEND had begun, and there is nothing to
    /// broadcast.
    Send {
        /// The periods and the seed.
        plan: SessionPlan,
        /// This node's stream of the seed; none for an observer, and for a node that is not on the ring yet, which
        /// receives another event once it is.
        stream: Option<u64>,
    },
    /// SEND is over: broadcast nothing else.
    Grace,
    /// STOP has begun: a last view change fixes the cut.
    Stop,
    /// A member did not answer, and is not in the next view.
    Silent {
        /// The node.
        node: NodeId,
    },
    /// A member answered, but others reported it as failed or stalled, and it is not in the next view.
    Blamed {
        /// The node.
        node: NodeId,
    },
    /// The result has waited for a member, or for this node's own disk, for this time: reported after a quarter of a
    /// second, and again whenever it has doubled.
    Waits(Waiting),
    /// No node in reach knows how the present view ends: the group has stopped (`protocol.md` P7). Reported once no
    /// complete member has answered for the coordinator timeout, and again if other members are missing. It is over
    /// with the next [`Event::ViewInstalled`].
    NoCompleteMember(NoCompleteMember),
    /// Most voters returned without their votes: the group has stopped for good, or, on disk, until they return with
    /// their data directories. Reported once no coordinator has been in reach for the coordinator timeout.
    VotesLost(VotesLost),
    /// This node's disk is older than its messages to others: a copy of it was restored. It continues like a node that
    /// lost its disk.
    StaleDisk(StaleDisk),
    /// A member has left by itself, and is not in the next view.
    Left {
        /// The node.
        node: NodeId,
    },
    /// A member has announced that it stops and will return, and is not in the next view.
    Suspended {
        /// The node.
        node: NodeId,
    },
    /// The control log has forgotten this node's incarnation, because too many processes started after its eviction or
    /// request to join: this process cannot join the ring. A restarted process can.
    Forgotten,
    /// This node is not in the present view. It follows the result, and returns as soon as it reaches all members.
    Evicted {
        /// The view.
        view: ViewId,
    },
    /// This node joins a running group, and received its coordinator: a link to it is wanted.
    Referred {
        /// The coordinator.
        node: NodeId,
        /// Its addresses.
        addresses: Vec<SocketAddr>,
    },
    /// No node in reach retains the result from the needed index on: this node cannot follow it.
    Truncated {
        /// The first retained index.
        first: Index,
    },
    /// The result is complete and will not grow.
    Final {
        /// Its length and digest.
        result: Checkpoint,
    },
    /// The group is closed, and no node in reach has served the missing part of its final result for some time. This
    /// node continues to request it: it is over with [`Event::Final`].
    FinalResultMissing {
        /// The nodes that should have it.
        sources: Vec<NodeId>,
    },
    /// Own messages from a sequence number on are in no result, for good.
    Rejected {
        /// The first sequence number.
        from: Seq,
    },
    /// A member's result is complete.
    Reported {
        /// The member.
        node: NodeId,
        /// Its length and digest.
        result: Checkpoint,
        /// The report of its application.
        report: Bytes,
    },
    /// Another node coordinates the group, as far as this one knows.
    Coordinator {
        /// The coordinator.
        node: NodeId,
    },
    /// No coordinator has been in reach for too long: no view changes here, and nothing that needs a view change is
    /// approved, until [`Event::Coordinator`].
    CoordinatorLost {
        /// The last one.
        node: NodeId,
    },
    /// The group is closed: every member has reported, or the timeout has passed. A node that lacks a part of the final
    /// result fetches that first.
    Closed,
    /// The result here and a member's differ, and no majority agrees with this node: it stops (`protocol.md` §8).
    Diverged {
        /// The member.
        node: NodeId,
        /// Its digest at an index.
        theirs: Checkpoint,
        /// The digest here: at the same index, or at another one that both have as the end of the result before one
        /// view.
        ours: Checkpoint,
    },
    /// A committed entry of the control log, or the state that replaces entries, does not decode here: a newer version
    /// wrote it, or memory is corrupt. This node stops: it takes no part in the group and does not vote. The others
    /// continue.
    UnreadableLog {
        /// The first position that this node cannot apply.
        index: LogIndex,
        /// The reason why it does not decode.
        error: CommandError,
    },
    /// This node is not on the ring, and the result grows at least as fast as this node fetches it. It continues as a
    /// learner, and joins the ring once it is near the end of the result. Reported every 5 s while it lasts.
    CannotKeepUp(CannotKeepUp),
    /// This member sends less, because a node cannot keep up and the group's parameters require that
    /// ([`CatchUpPolicy::SlowDown`](crate::CatchUpPolicy::SlowDown)).
    SlowDown {
        /// The node.
        node: NodeId,
        /// Bytes per second that all members together may send.
        bytes_per_second: u64,
    },
    /// This member sends as much as before again.
    SlowDownEnded {
        /// The node for which the group slowed down.
        node: NodeId,
        /// Why it does not any longer.
        end: SlowDownEnd,
    },
    /// Progress of a member, from its heartbeat.
    Progress {
        /// The member.
        node: NodeId,
        /// The length of its result.
        index: Index,
    },
}

/// The treatment of a stream that a peer has opened (`protocol.md` §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Read it.
    Read,
    /// Its view is not installed yet: leave it unread, and call again after the next [`Event::ViewInstalled`].
    Wait,
    /// Its view is over: stop it.
    Stop,
    /// The sender may not open it, or its incarnation is not the ring's: close the link.
    Refuse,
}
