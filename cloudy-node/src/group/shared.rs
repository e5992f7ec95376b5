//! What the driver and the group's users share.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use cloudy_proto::wire::CommandError;
use cloudy_proto::{
    Approval, Checkpoint, Durability, Entry, Event, FinalOutcomes, GroupId, Incarnation, Index, LogIndex, NodeId,
    Parameters, Seq,
};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::group::GroupConfig;
use crate::group::approvals::Approvals;
use crate::group::feed::{EventLog, Feed};
use crate::group::outbox::Outbox;
use crate::health::{CloseReason, NodeFailure};
use crate::storage::{ResultReader, StoreError};

/// Why a group does not go on at this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// Its last view has ended: the result is final.
    #[error("the group has ended: its result is final")]
    Final,
    /// The founder was out of reach for longer than the coordinator timeout, and the group was not founded yet.
    #[error("node {} was founding the group, and it has been out of reach for too long; start it again and found a new group", .0.short())]
    CoordinatorLost(NodeId),
    /// The result here and a member's differ, and no majority of the members agrees with this node: one of the two is
    /// corrupt.
    #[error(transparent)]
    Diverged(Box<Divergence>),
    /// A committed entry of the group's control log does not decode at this node, so it takes no part in the group and does
    /// not vote any longer. The others continue.
    #[error(
        "this node cannot read entry {index} of the group's control log ({error}), so it takes no part in the group any longer; run the same version of cloudy on all members, then start this node again"
    )]
    UnreadableLog {
        /// The position in the control log.
        index: LogIndex,
        /// Why the entry does not decode.
        error: CommandError,
    },
    /// This node was away for too long, or came too late: what it misses is retained by nobody in reach. The others go
    /// on.
    #[error(
        "the result before index {first} is no longer retained by any member, so this node cannot have the whole of it; raise retain_bytes (on disk: retain_disk_bytes; of slaves: `--retain`) at the members, or observe the group from that index on"
    )]
    Truncated {
        /// The first index that is retained.
        first: Index,
    },
    /// So many processes have started in the group since this node was evicted that it cannot come back in the same
    /// process. The others continue.
    #[error(
        "so many processes have started in the group since this node was evicted that the group does not remember this one; start the process again, and join again"
    )]
    Forgotten,
    /// This node's disk failed, so it confirms nothing. The others go on.
    #[error("this node's disk failed, and it is out of the group: {cause}")]
    DiskFailed {
        /// What is wrong, and what to do.
        cause: StoreError,
    },
    /// This node is shut out of its cluster: the others go on.
    #[error("this node's identity was revoked in its cluster, for good: the others go on without it")]
    Revoked,
    /// Another process has this node's identity, and was started first: the others go on with that one.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// This node has left: the others go on.
    #[error("this node has left the group")]
    Left,
    /// [`Node::forget_group`](crate::Node::forget_group) deleted the group here, before this node had left it.
    #[error("this node has deleted what it held of the group, without leaving it first")]
    Deleted,
    /// The group was closed before the result was final here.
    #[error("the group was closed before its result was complete here")]
    Closed,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed by a defect, and the node stopped: the others go on.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
}

impl From<CloseReason> for EndReason {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

/// Two results that differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the result here differs from the one of node {}: up to index {} the digest is {} here, up to index {} it is {} there; memory or disk is corrupt on one of the two, so keep the logs of both and check the machines before this node joins again",
    .node.short(), .ours.index, .ours.digest, .theirs.index, .theirs.digest
)]
#[non_exhaustive]
pub struct Divergence {
    /// The other node.
    pub node: NodeId,
    /// What that node has: its digest up to an index.
    pub theirs: Checkpoint,
    /// What this node has.
    pub ours: Checkpoint,
}

/// State behind one short lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) outbox: Outbox,
    pub(crate) feed: Feed,
    pub(crate) events: EventLog,
    pub(crate) progress: BTreeMap<NodeId, Index>,
    /// Own payloads up to here are in the result.
    pub(crate) approved: Seq,
    pub(crate) approvals: Approvals,
    /// [`Group::leave`](crate::Group::leave) was called.
    pub(crate) leaving: bool,
    /// Own payloads from here on are in no result.
    pub(crate) rejected_from: Option<Seq>,
    /// The result ends here.
    pub(crate) final_index: Option<Index>,
    /// The snapshot that the result begins with here, and the last index that it knows.
    pub(crate) restored: Option<(Index, Bytes)>,
    pub(crate) ended: Option<EndReason>,
    /// What became of every broadcast, once the result is final.
    pub(crate) final_outcomes: Option<FinalOutcomes>,
    /// Zero until the group lists this process.
    pub(crate) incarnation: Incarnation,
    /// This node takes no place on the ring.
    pub(crate) only_watches: bool,
    /// The member's window at this moment.
    pub(crate) window_bytes: u64,
    pub(crate) payload_bytes_max: usize,
    pub(crate) durability: Durability,
    /// The group is a session.
    pub(crate) is_session: bool,
}

/// One group at one node, as its users see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    pub(crate) me: NodeId,
    pub(crate) founder: NodeId,
    /// This node reads along, and is no member.
    pub(crate) observes: bool,
    /// `Disk`: where the whole result is.
    stored: OnceLock<ResultReader>,
    state: Mutex<State>,
    /// The result, the receipts or the end moved.
    pub(crate) moved: Arc<Notify>,
    /// The outbox has room again, or is drained.
    pub(crate) room: Notify,
    /// An event was added.
    pub(crate) happened: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(id: GroupId, name: String, me: NodeId, founder: NodeId, config: &GroupConfig) -> Self {
        let parameters = &config.parameters;
        Self {
            id,
            name,
            me,
            founder,
            observes: false,
            stored: OnceLock::new(),
            state: Mutex::new(State {
                outbox: outbox(parameters, config.outbox_bytes_max),
                feed: Feed::new(config.retain_bytes),
                events: EventLog::default(),
                progress: BTreeMap::new(),
                approved: Seq(0),
                approvals: Approvals::default(),
                leaving: false,
                rejected_from: None,
                final_index: None,
                restored: None,
                ended: None,
                final_outcomes: None,
                incarnation: Incarnation(0),
                only_watches: false,
                window_bytes: 0,
                payload_bytes_max: parameters.payload_bytes_max as usize,
                durability: parameters.durability,
                is_session: parameters.session,
            }),
            moved: Arc::default(),
            room: Notify::new(),
            happened: Arc::default(),
        }
    }

    /// `Disk`: readers find there what memory does not keep.
    pub(crate) fn read_from(&self, reader: ResultReader) {
        // A group has one place.
        let _ = self.stored.set(reader);
    }

    pub(crate) fn stored(&self) -> Option<&ResultReader> {
        self.stored.get()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves every field readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view's parameters are known: an outbox that nobody has used yet takes its slots' sizes from them.
    pub(crate) fn adopt(&self, parameters: &Parameters, outbox_bytes_max: usize) {
        let mut state = self.lock();
        state.payload_bytes_max = parameters.payload_bytes_max as usize;
        state.durability = parameters.durability;
        state.is_session = parameters.session;
        if state.outbox.last() == Seq(0) {
            state.outbox = outbox(parameters, outbox_bytes_max);
        }
    }

    /// Nothing is broadcast, and the node leaves once all that was is approved. The driver has to be woken.
    pub(crate) fn begin_leaving(&self) {
        self.lock().leaving = true;
        self.room.notify_waiters();
    }

    pub(crate) fn end(&self, reason: EndReason) {
        self.lock().ended.get_or_insert(reason);
        self.moved.notify_waiters();
        self.room.notify_waiters();
        self.happened.notify_waiters();
    }

    /// Returns once the group does not continue here: why.
    pub(crate) async fn ended(&self) -> EndReason {
        wait_until(&self.happened, || self.lock().ended.clone()).await
    }
}

impl State {
    /// The application wants to leave, and all that it broadcast is approved.
    pub(crate) fn may_leave(&self) -> bool {
        self.leaving && self.approved >= self.outbox.last()
    }

    pub(crate) fn restore(&mut self, index: Index, snapshot: Bytes) {
        self.feed.begin_after(index);
        self.restored = Some((index, snapshot));
    }

    pub(crate) fn deliver(&mut self, entry: Entry) {
        self.feed.push(entry);
    }

    pub(crate) fn approve(&mut self, approval: Approval) {
        self.approved = Seq(approval.first_seq.0 + u64::from(approval.count) - 1);
        self.approvals.push(approval);
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        match event {
            Event::Progress { node, index } => {
                self.progress.insert(*node, *index);
                return;
            }
            Event::ViewInstalled { view, .. } => self.feed.push_view(view.clone()),
            Event::Final { result } => {
                self.final_index = Some(result.index);
                self.rejected_from.get_or_insert(self.approved.next());
            }
            Event::Rejected { from } => self.rejected_from = Some(*from),
            // For the node, not for its users.
            Event::Referred { .. } => return,
            _ => {}
        }
        self.events.push(event.clone());
    }

    /// An item was read that ends the final result.
    pub(crate) fn is_final_at(&self, next: Index) -> bool {
        self.final_index.is_some_and(|last| next > last)
    }
}

fn outbox(parameters: &Parameters, bytes_max: usize) -> Outbox {
    Outbox::new(parameters.slot_bytes_max as usize, parameters.slot_payloads_max, bytes_max)
}

/// Waits until there is an answer; it is looked for again after each notification.
pub(crate) async fn wait_until<T>(notify: &Notify, mut answer: impl FnMut() -> Option<T>) -> T {
    loop {
        let notified = notify.notified();
        tokio::pin!(notified);
        // Registered before the answer is looked for, so that nothing is missed in between.
        notified.as_mut().enable();
        if let Some(answer) = answer() {
            return answer;
        }
        notified.await;
    }
}

/// A wait for notifications, for futures and streams that are polled. It allocates only where it has to wait.
#[derive(Debug, Default)]
pub(crate) struct Listener(Option<Pin<Box<OwnedNotified>>>);

impl Listener {
    /// Ready once there is an answer; it is looked for again after each notification.
    pub(crate) fn poll<T>(
        &mut self,
        notify: &Arc<Notify>,
        context: &mut Context<'_>,
        mut answer: impl FnMut() -> Option<T>,
    ) -> Poll<T> {
        if let Some(answer) = answer() {
            self.0 = None;
            return Poll::Ready(answer);
        }
        loop {
            let notified = self.0.get_or_insert_with(|| Box::pin(Arc::clone(notify).notified_owned()));
            // Registered before the answer is looked for again, so that nothing is missed in between.
            let is_notified = notified.as_mut().poll(context).is_ready();
            if is_notified {
                self.0 = None;
            }
            if let Some(answer) = answer() {
                self.0 = None;
                return Poll::Ready(answer);
            }
            if !is_notified {
                return Poll::Pending;
            }
        }
    }
}
