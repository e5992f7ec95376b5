//! What goes into the machine and what comes out (the contract is at the top of the crate).

mod status;

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::SessionPlan;
use crate::digest::Checkpoint;
use crate::id::{Incarnation, Index, LogIndex, NodeId, Seq, ViewId};
use crate::slot::Batch;
use crate::stored::{Record, StoredEntry};
use crate::time::Time;
use crate::view::{InstalledView, View};
use crate::wire::{CommandError, ControlFrame, LaneFrame, Refusal, Stream, TallyFrame};

pub use status::{
    CannotKeepUp, LeastRing, LeaveWait, MemberStatus, NoCompleteMember, PendingSlot, Phase, SlowDownEnd, StaleDisk,
    Status, VotesLost, WaitCause, Waiting,
};

/// The only way into the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A link to a peer is up: both sides said hello. Replaces an earlier link, whose frames must not come.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// Where it can be reached.
        addresses: Vec<SocketAddr>,
        /// The name that it advertises.
        advertised: Option<String>,
    },
    /// The link to a peer is gone, with all that was in flight on it.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// A frame arrived on a stream that [`Machine::admits`](crate::Machine::admits) lets be read.
    Frame {
        /// From whom, as the handshake proved.
        from: NodeId,
        /// The run of the sender's process, as the stream's header says.
        incarnation: Incarnation,
        /// On which stream.
        stream: Stream,
        /// What it says.
        frame: Frame,
    },
    /// Bytes of a frame that is not complete came on a lane stream. A driver reports them a few times for each heartbeat at
    /// most, and may leave them out for frames that arrive within that time.
    Arriving {
        /// From whom, as the handshake proved.
        from: NodeId,
        /// On which stream.
        stream: Stream,
        /// How many, beside those reported before.
        bytes: u64,
    },
    /// Datagrams of a peer have come since some time, whatever is in them: [`Machine::quiet`](crate::Machine::quiet) names those
    /// of which that matters.
    Alive {
        /// The peer.
        peer: NodeId,
        /// When one had not come yet.
        since: Time,
    },
    /// Payloads to broadcast. Their numbers continue those of the batch before.
    Broadcast(Batch),
    /// Payloads wait at the driver, without numbers, until [`Machine::takes_at_once`](crate::Machine::takes_at_once)
    /// accepts them, or no such payload waits any longer.
    Waits {
        /// The cost of the first of them; none if there is none.
        cost_bytes: Option<u64>,
    },
    /// Something that the application or the operator wants.
    Request(Request),
    /// `Disk`: what was given out up to this ticket is synced.
    Persisted {
        /// Of the last [`Output::Persist`] that is.
        ticket: u64,
    },
    /// `Disk`: the answer to [`Output::ReadResult`].
    ResultRead {
        /// For whom.
        to: NodeId,
        /// What is stored from the wanted position on, beginning with it and without a gap; nothing if it is not stored yet.
        /// None if the disk does not give it.
        items: Option<Vec<ApprovedItem>>,
    },
    /// The time that [`Machine::poll_timeout`](crate::Machine::poll_timeout) named has come.
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

/// What the application or the operator wants.
#[derive(Clone, Debug)]
pub enum Request {
    /// Creator: ask a node to become a member.
    Invite {
        /// Which.
        node: NodeId,
    },
    /// Creator: no longer wait for a node that was asked.
    Uninvite {
        /// Which.
        node: NodeId,
    },
    /// Creator: install view 1 with everybody who accepted.
    Create {
        /// The session to run, if the group is one.
        session: Option<SessionPlan>,
    },
    /// End the session now: by the creator at once, by a member by asking it.
    End,
    /// Leave the ring for good: the group goes on without this node, which learns of [`Event::Left`].
    Leave,
    /// The application's state after an index of its result: who comes later may begin with it, and what the result holds
    /// before it need not be kept. One that comes too late for that is passed over.
    Snapshot {
        /// The last index that the state knows.
        index: Index,
        /// Up to [`SNAPSHOT_BYTES_MAX`](crate::limits::SNAPSHOT_BYTES_MAX).
        state: Bytes,
    },
    /// What the application has to say of the final result; said once, after [`Event::Final`].
    Report(Bytes),
}

/// What the machine wants done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a frame to a peer whose link is up.
    Send {
        /// The peer.
        to: NodeId,
        /// On which stream, opened at its first frame.
        stream: Stream,
        /// What to say.
        frame: Frame,
    },
    /// Close the link to a peer that broke the protocol; it may be dialled again.
    CloseLink {
        /// The peer.
        peer: NodeId,
        /// In words.
        reason: String,
    },
    /// Close the link to a peer that has been silent for longer than the failure timeout, and dial it again: a fresh link
    /// comes up as soon as both directions carry, which a silent one takes long to notice, and may never.
    Redial {
        /// The peer.
        peer: NodeId,
    },
    /// `Disk`: store these, in order and all or none, after all that was given out before, and say
    /// [`Input::Persisted`] once they are synced. Nothing that others are told builds on them until then.
    Persist {
        /// Rises by one each time.
        ticket: u64,
        /// What to store; nothing if the ticket is only to come after those before.
        records: Vec<Record>,
    },
    /// `Disk`: read a part of the stored result, whatever of it is synced, and say [`Input::ResultRead`]: always, once,
    /// and in any time. At most one for each peer is in progress.
    ReadResult {
        /// For whom.
        to: NodeId,
        /// Beginning here.
        from: Position,
        /// At most so many bytes of slot bodies, one entry at least.
        bytes_max: usize,
    },
    /// Own payloads have entered the own result; comes before their [`Output::Deliver`].
    Approved(Approval),
    /// The result begins here for the application, with a state that another member's application said, or an earlier
    /// run's: what is delivered next follows that index.
    Restore {
        /// The last index that the state knows.
        index: Index,
        /// The state.
        state: Bytes,
        /// The view in force at that index: members that an application knows with the state.
        view: Option<InstalledView>,
    },
    /// The result goes on after an index: what comes before, or follows a state that was restored, is on the disk, and is
    /// not given out again.
    Resumed {
        /// The index.
        after: Index,
        /// The view in force at that index.
        view: Option<InstalledView>,
    },
    /// The result has grown: messages, and views at their places, in one order at all nodes.
    Deliver(ApprovedItem),
    /// Something happened that users or applications may want to know.
    Event(Event),
}

/// What the result is made of, in order: the same items in the same order at every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovedItem {
    /// Approved payloads, all of one origin with consecutive indexes and numbers.
    Batch(Entry),
    /// A view comes into force: what follows was approved in it. It has no index: it stands before its first one.
    View(InstalledView),
}

impl ApprovedItem {
    /// What it costs in memory while it is kept, in bytes.
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

/// A place between two items of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The index of the next message.
    pub next: Index,
    /// The last view before it. Zero with a later index than 1: what is read begins there, with the view in force.
    pub view: ViewId,
}

impl Position {
    /// What is read begins at an index: if that is not the first one, with the view that is in force there.
    #[must_use]
    pub fn beginning_at(next: Index) -> Self {
        Self { next: next.max(Index(1)), view: ViewId(0) }
    }

    /// It begins in the middle of the result.
    #[must_use]
    pub fn begins_late(self) -> bool {
        self.view == ViewId(0) && self.next > Index(1)
    }

    /// Passes an item that comes next.
    pub fn pass(&mut self, item: &ApprovedItem) {
        match item {
            ApprovedItem::Batch(entry) => *self = Self { next: entry.last_index().next(), view: entry.view },
            ApprovedItem::View(view) => self.view = view.id(),
        }
    }

    /// Entries that follow it without a gap, with the views that begin among them and right after them. None if one of those is not among the
    /// known ones, which are in order.
    #[must_use]
    pub fn with_views(self, entries: Vec<Entry>, views: &[InstalledView]) -> Option<Vec<ApprovedItem>> {
        let mut items = Vec::with_capacity(entries.len() + 1);
        let mut next = self.next;
        let known = |id: ViewId| views.binary_search_by_key(&id, InstalledView::id).ok().map(|at| &views[at]);
        if entries.is_empty() && self.begins_late() {
            return Some(items);
        }
        let mut last = match entries.first() {
            // The view in force comes first.
            Some(first) if self.begins_late() => ViewId(first.view.0.checked_sub(1)?),
            _ => self.view,
        };
        for entry in entries {
            while last < entry.view {
                last = last.next();
                items.push(ApprovedItem::View(known(last)?.clone()));
            }
            next = entry.last_index().next();
            items.push(ApprovedItem::Batch(entry));
        }
        while let Some(view) = known(last.next()).filter(|view| view.first == next) {
            last = view.id();
            items.push(ApprovedItem::View(view.clone()));
        }
        Some(items)
    }
}

/// Payloads that entered the result together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The node that broadcast it.
    pub origin: NodeId,
    /// In which run of its process.
    pub incarnation: Incarnation,
    /// The payloads.
    pub batch: Batch,
}

/// What a kept entry costs beside its payloads: its place in a queue that may have as much room again, and what sharing
/// and allocating its body takes.
const ENTRY_COST_BYTES: u64 = 2 * (size_of::<Entry>() + size_of::<u64>()) as u64 + 80;

impl Entry {
    /// What it costs in memory while it is kept, in bytes: at least what is allocated for it.
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

    /// The part of it from an index on, which it holds.
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

/// The approval of consecutive own payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The first payload's number.
    pub first_seq: Seq,
    /// How many payloads.
    pub count: u32,
    /// The first payload's index.
    pub first_index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// The members that had confirmed when it entered the result, and how long after it was sent. A member is missing whose
    /// confirmation was not counted because a view change took its place.
    pub confirmed: Vec<(NodeId, Duration)>,
}

/// What became of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the result, for good.
    Approved,
    /// It is in no result and never will be: its run is over, or the group is.
    Rejected,
    /// It may still be approved.
    Open,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// An invited node will become a member.
    Accepted {
        /// Which.
        node: NodeId,
    },
    /// An invited node will not; or a node of the group does not take this one.
    Refused {
        /// Which.
        node: NodeId,
        /// In words.
        reason: String,
        /// Whether asking again can help.
        refusal: Refusal,
    },
    /// A view is in force.
    ViewInstalled {
        /// Which.
        view: Arc<View>,
        /// The index of its first message.
        first: Index,
        /// This node is a member of it.
        active: bool,
    },
    /// Creator: every member has reported its links to all others up.
    AllReady,
    /// SEND has begun: broadcast. After [`Event::Stop`] it says that SEND had begun, and there is nothing to broadcast.
    Send {
        /// The periods and the seed.
        plan: SessionPlan,
        /// Which of the seed's streams is this node's; none for an observer, and for a node that is not on the ring yet,
        /// which is told again once it is.
        stream: Option<u64>,
    },
    /// SEND is over: broadcast nothing more.
    Grace,
    /// STOP has begun: a last view change fixes the cut.
    Stop,
    /// A member gave no answer, and is not in the next view.
    Silent {
        /// Which.
        node: NodeId,
    },
    /// A member answered, but others found it down or held up by it, and it is not in the next view.
    Blamed {
        /// Which.
        node: NodeId,
    },
    /// The result has waited for a member, or for this node's own disk, for this long: reported at a quarter of a second,
    /// and again whenever that has doubled.
    Waits(Waiting),
    /// Nobody is left who could say how the view in force ends: the group has stopped (`protocol.md` P7). Said once no
    /// complete member has answered for the coordinator timeout, and again when it is others who are missing. It is over
    /// with the next [`Event::ViewInstalled`].
    NoCompleteMember(NoCompleteMember),
    /// Most voters are back without their votes: the group has stopped for good, or, on disk, until they are back with their
    /// data directories. Said once no coordinator has been in reach for the coordinator timeout.
    VotesLost(VotesLost),
    /// This node's disk is older than what the node has told others: somebody put back a copy of it. It goes on as one
    /// that has lost its disk.
    StaleDisk(StaleDisk),
    /// A member has left by itself, and is not in the next view.
    Left {
        /// Which.
        node: NodeId,
    },
    /// So many processes have started in the group since this node was evicted, or asked to join, that the control log does
    /// not remember its incarnation: this process cannot join the ring. A process that is started again can.
    Forgotten,
    /// This node is not in the view in force. It follows the result, and comes back as soon as it reaches all
    /// members.
    Evicted {
        /// The view.
        view: ViewId,
    },
    /// This node comes into a running group, and was told who coordinates it: a link to it is wanted.
    Referred {
        /// Who.
        node: NodeId,
        /// Where it can be reached.
        addresses: Vec<SocketAddr>,
    },
    /// The result is needed from an index on that nobody in reach retains: this node cannot follow it.
    Truncated {
        /// The first index that is retained.
        first: Index,
    },
    /// The result is complete and will not grow.
    Final {
        /// Its length and digest.
        result: Checkpoint,
    },
    /// The group is closed, and for some time nobody in reach has given what is missing here of its final result. This node
    /// goes on asking: it is over with [`Event::Final`].
    FinalResultMissing {
        /// The nodes that should have it.
        sources: Vec<NodeId>,
    },
    /// Own payloads from a number on are in no result, and never will be.
    Rejected {
        /// The first of them.
        from: Seq,
    },
    /// A member's result is complete.
    Reported {
        /// Whose.
        node: NodeId,
        /// Its length and digest.
        result: Checkpoint,
        /// What its application says of it.
        report: Bytes,
    },
    /// Another node coordinates the group from here on, as far as this one knows.
    Coordinator {
        /// The coordinator.
        node: NodeId,
    },
    /// No coordinator has been in reach for too long: no view changes from here, and nothing that needs one is approved,
    /// until [`Event::Coordinator`].
    CoordinatorLost {
        /// The last one.
        node: NodeId,
    },
    /// The group is over: everybody has reported, or the time for it is up. A node that misses a part of the final result
    /// fetches that first.
    Closed,
    /// The result here and a member's differ, and no majority agrees with this node: it stops (`protocol.md` §8).
    Diverged {
        /// The member.
        node: NodeId,
        /// Its digest at an index.
        theirs: Checkpoint,
        /// The digest here: at the same index, or at another one that both take for the end of the result before one view.
        ours: Checkpoint,
    },
    /// A committed entry of the control log, or the state that replaces entries, does not decode here: a newer version
    /// wrote it, or memory is corrupt. This node stops: it takes no part in the group and does not vote any longer. The
    /// others continue.
    UnreadableLog {
        /// The first position that this node cannot apply.
        index: LogIndex,
        /// Why it does not decode.
        error: CommandError,
    },
    /// This node is not on the ring, and the result grows at least as fast as this node fetches it. It goes on as a learner,
    /// and joins the ring once it is near the end of the result. Reported every 5 s while that is so.
    CannotKeepUp(CannotKeepUp),
    /// This member sends less, because a node cannot keep up and the group's parameters say so
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
        /// Whose.
        node: NodeId,
        /// The length of its result.
        index: Index,
    },
}

/// What to do with a stream that a peer has opened (`protocol.md` §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Read it.
    Read,
    /// Its view is not installed yet: leave it unread, and ask again after the next [`Event::ViewInstalled`].
    Wait,
    /// Its view is over: stop it.
    Stop,
    /// It is not the sender's to open, or its run is not the ring's: close the link.
    Refuse,
}
