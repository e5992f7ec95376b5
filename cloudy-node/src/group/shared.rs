//! The state that the driver shares with the users of a group.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_proto::wire::CommandError;
use cloudy_proto::{
    Approval, Checkpoint, Durability, Event, FinalOutcomes, GroupId, Incarnation, Index, InstalledView, LogIndex,
    NodeId, Parameters, Seq,
};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::group::GroupConfig;
use crate::group::approvals::Approvals;
use crate::group::expiring::Expiring;
use crate::group::feed::{EventLog, Feed};
use crate::group::outbox::Outbox;
use crate::group::saved::Saved;
use crate::health::{CloseReason, NodeFailure};
use crate::storage::{ResultReader, StateStore, StoreError};

/// The reason for which a group does not continue at this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The group is closed, and its result is final.
    #[error("the group is closed: its result is final")]
    Final,
    /// The creator was out of reach for longer than the coordinator timeout, before the group was created.
    #[error("node {} was creating the group, and it has been out of reach for too long; start it again and create a new group", .0.short())]
    CoordinatorLost(NodeId),
    /// The results of this node and of a member differ, and no majority of the members agrees with this node: memory or
    /// disk is corrupt on one side.
    #[error(transparent)]
    Diverged(Box<Divergence>),
    /// A committed entry of the group's control log does not decode at this node, so the node takes no part in the
    /// group and does not vote. The other members continue.
    #[error(
        "this node cannot read entry {index} of the group's control log ({error}), so it takes no part in the group; run the same version of cloudy on all members, then start this node again"
    )]
    UnreadableLog {
        /// The entry's position in the control log.
        index: LogIndex,
        /// The reason why the entry does not decode.
        error: CommandError,
    },
    /// This node was away for too long, or came too late: no node in reach retains the entries that it lacks. The other
    /// members continue.
    #[error(
        "the result before index {first} is not retained by any member, so this node cannot fetch the whole result; raise retain_bytes (on disk: retain_disk_bytes) at the members, or observe the group from that index on"
    )]
    Truncated {
        /// The first retained index.
        first: Index,
    },
    /// The group has forgotten this node's process, because too many processes started since it was evicted. The other
    /// members continue.
    #[error(
        "the group has forgotten this process, because too many processes started after its eviction; start the process again, and join again"
    )]
    Forgotten,
    /// This node's disk failed, so the node confirms nothing. The other members continue.
    #[error("this node's disk failed, so the node has left the group: {cause}")]
    DiskFailed {
        /// The cause, with the remedy.
        cause: StoreError,
    },
    /// This node's identity was revoked. The other members continue.
    #[error("this node's identity was revoked in its cluster, for good: the others continue without it")]
    Revoked,
    /// Another process with this node's identity was started first. The other members continue with that one.
    #[error(
        "another process has this node's identity, and this one, started later, has ended: stop one of the two, and give it a data directory and a node key of its own"
    )]
    SameIdentity,
    /// [`Group::suspend`](crate::Group::suspend) stopped the group here. It continues once the node is started again.
    #[error("this node has suspended the group; start the node again to continue")]
    Suspended,
    /// This node has left. The other members continue.
    #[error("this node has left the group")]
    Left,
    /// [`Node::forget_group`](crate::Node::forget_group) deleted the group here before this node had left it.
    #[error("this node has deleted its data of the group without leaving the group first")]
    Deleted,
    /// The group was closed here before its result was final here.
    #[error("the group was closed before its result was complete here")]
    Closed,
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed because of a defect, and the node stopped. The other members continue.
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
    /// The checkpoint of the other node.
    pub theirs: Checkpoint,
    /// The checkpoint of this node.
    pub ours: Checkpoint,
}

/// The timeout of [`Group::suspend`](crate::Group::suspend), and of [`Node::shutdown`](crate::Node::shutdown) for all groups
/// together.
pub const SUSPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// How a node departs from a group. A later one replaces those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Departs {
    /// It stops here, and continues when the node is started again.
    Suspends,
    /// The same, because the node is shut down.
    ShutsDown,
    /// It leaves for good.
    Leaves,
}

/// The state behind one lock, which is held briefly.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) outbox: Outbox,
    pub(crate) expiring: Expiring,
    pub(crate) feed: Feed,
    pub(crate) events: EventLog,
    pub(crate) progress: BTreeMap<NodeId, Index>,
    /// Own messages up to this number are in the result.
    pub(crate) approved: Seq,
    pub(crate) approvals: Approvals,
    /// How this node departs, if it does.
    pub(crate) departs: Option<Departs>,
    /// Own messages from this number on are in no result.
    pub(crate) rejected_from: Option<Seq>,
    /// The last index of the final result.
    pub(crate) final_index: Option<Index>,
    /// The newest snapshot here, and the last index that it covers.
    pub(crate) restored: Option<(Index, Saved)>,
    pub(crate) ended: Option<EndReason>,
    /// The outcomes of all broadcasts, once the result is final.
    pub(crate) final_outcomes: Option<FinalOutcomes>,
    /// Zero until the group lists this process.
    pub(crate) incarnation: Incarnation,
    /// Whether this node takes no place on the ring.
    pub(crate) only_watches: bool,
    /// The present window of this member.
    pub(crate) window_bytes: u64,
    pub(crate) payload_bytes_max: usize,
    pub(crate) durability: Durability,
    /// Whether the group is a session.
    pub(crate) is_session: bool,
    #[cfg(feature = "admin")]
    pub(crate) stats: crate::group::stats::Stats,
}

/// A group at a node: the part that users and the driver share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    pub(crate) me: NodeId,
    pub(crate) creator: NodeId,
    /// Whether this node is an observer.
    pub(crate) observes: bool,
    /// `Disk`: the reader of the stored result.
    stored: OnceLock<ResultReader>,
    /// `Disk`: the application's states.
    states: OnceLock<StateStore>,
    state: Mutex<State>,
    /// Notified when the result, a receipt or the close changes.
    pub(crate) moved: Arc<Notify>,
    /// Notified when the outbox has capacity, or is drained.
    pub(crate) room: Notify,
    /// Notified when an event is added.
    pub(crate) happened: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(id: GroupId, name: String, me: NodeId, creator: NodeId, config: &GroupConfig) -> Self {
        let parameters = &config.parameters;
        Self {
            id,
            name,
            me,
            creator,
            observes: false,
            stored: OnceLock::new(),
            states: OnceLock::new(),
            state: Mutex::new(State {
                outbox: outbox(parameters, config.outbox_bytes_max),
                expiring: Expiring::default(),
                feed: Feed::new(config.retain_bytes),
                events: EventLog::default(),
                progress: BTreeMap::new(),
                approved: Seq(0),
                approvals: Approvals::default(),
                departs: None,
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
                #[cfg(feature = "admin")]
                stats: crate::group::stats::Stats::default(),
            }),
            moved: Arc::default(),
            room: Notify::new(),
            happened: Arc::default(),
        }
    }

    /// `Disk`: sets the reader for entries that memory does not retain, and the application's states.
    pub(crate) fn read_from(&self, reader: ResultReader, states: StateStore) {
        // A group is stored in one place only.
        let _ = self.stored.set(reader);
        let _ = self.states.set(states);
    }

    pub(crate) fn states(&self) -> Option<&StateStore> {
        self.states.get()
    }

    pub(crate) fn stored(&self) -> Option<&ResultReader> {
        self.stored.get()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves every field valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adopts the parameters of the view: an outbox that is still unused takes the sizes of its slots from them.
    pub(crate) fn adopt(&self, parameters: &Parameters, outbox_bytes_max: usize) {
        let mut state = self.lock();
        state.payload_bytes_max = parameters.payload_bytes_max as usize;
        state.durability = parameters.durability;
        state.is_session = parameters.session;
        if state.outbox.last() == Seq(0) {
            state.outbox = outbox(parameters, outbox_bytes_max);
        }
    }

    /// Stops broadcasts: the node departs once its broadcasts are approved. The caller wakes the driver.
    pub(crate) fn depart(&self, how: Departs) {
        let mut state = self.lock();
        state.departs = state.departs.max(Some(how));
        state.expiring.clear();
        drop(state);
        self.room.notify_waiters();
    }

    pub(crate) fn end(&self, reason: EndReason) {
        let mut state = self.lock();
        state.ended.get_or_insert(reason);
        state.expiring.clear();
        drop(state);
        self.moved.notify_waiters();
        self.room.notify_waiters();
        self.happened.notify_waiters();
    }

    /// Returns the reason once the group does not continue here.
    pub(crate) async fn ended(&self) -> EndReason {
        wait_until(&self.happened, || self.lock().ended.clone()).await
    }
}

impl State {
    /// How the node departs at this moment: once all its broadcasts are approved.
    pub(crate) fn may_depart(&self) -> Option<Departs> {
        self.departs.filter(|_| self.approved >= self.outbox.last())
    }

    pub(crate) fn restore(&mut self, index: Index, snapshot: Option<Saved>, view: Option<InstalledView>) {
        self.feed.begin_after(index, view);
        self.restored = snapshot.map(|snapshot| (index, snapshot));
    }

    /// This node's application took a snapshot.
    pub(crate) fn saved(&mut self, index: Index, snapshot: Saved) {
        self.restored = Some((index, snapshot));
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
            Event::Final { result } => {
                self.final_index = Some(result.index);
                self.expiring.clear();
                self.rejected_from.get_or_insert(self.approved.next());
            }
            Event::Rejected { from } => self.rejected_from = Some(*from),
            // The event is for the node, not for users.
            Event::Referred { .. } => return,
            _ => {}
        }
        self.events.push(event.clone());
    }

    /// Whether the final result ends before index `next`.
    pub(crate) fn is_final_at(&self, next: Index) -> bool {
        self.final_index.is_some_and(|last| next > last)
    }
}

fn outbox(parameters: &Parameters, bytes_max: usize) -> Outbox {
    Outbox::new(parameters.slot_bytes_max as usize, parameters.slot_payloads_max, bytes_max)
}

/// Waits until `answer` returns a value. It is called again after each notification.
pub(crate) async fn wait_until<T>(notify: &Notify, mut answer: impl FnMut() -> Option<T>) -> T {
    loop {
        let notified = notify.notified();
        tokio::pin!(notified);
        // Registered before the call, so that no notification is missed in between.
        notified.as_mut().enable();
        if let Some(answer) = answer() {
            return answer;
        }
        notified.await;
    }
}

/// A wait for notifications, for futures and streams. It allocates only if it has to wait.
#[derive(Debug, Default)]
pub(crate) struct Listener(Option<Pin<Box<OwnedNotified>>>);

impl Listener {
    /// Ready once `answer` returns a value. It is called again after each notification.
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
            // Registered before the second call, so that no notification is missed in between.
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
