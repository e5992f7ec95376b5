//! The handle of a group at a node.

mod expiring;
mod flush;
mod leave;
mod ready;
mod suspend;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::{Durability, GroupId, Incarnation, Index, MessageId, NodeId, Outcome, Position, Request, Status};
use tokio::sync::oneshot;

pub use flush::FlushError;
pub use leave::{LEAVE_TIMEOUT, LeaveError, LeaveLimits};
pub use ready::ReadyError;
pub use suspend::SuspendError;

use crate::driver::{Command, Mailbox};
use crate::group::expiring::Turn;
use crate::group::feed::Cursor;
use crate::group::saved::Saved;
use crate::group::shared::{Shared, State, wait_until};
use crate::group::{Approved, EndReason, Events, Receipt};

/// The reason for which a broadcast was not accepted. Nothing was sent, and no sequence number was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// Only from [`Group::try_broadcast`]: the outbox is full, or a [`Group::broadcast_within`] waits.
    #[error(
        "the outbox is full: other members confirm more slowly than this one broadcasts; await broadcast() instead, or raise outbox_bytes_max"
    )]
    OutboxFull,
    /// The payload is larger than the group allows.
    #[error("the payload has {bytes} bytes, and the group allows at most {bytes_max}: split it")]
    TooLarge {
        /// The size of the payload.
        bytes: usize,
        /// The group's maximum.
        bytes_max: usize,
    },
    /// Only from [`Group::broadcast_within`]: the group did not accept the payload in time. It is and will be in no result.
    #[error(
        "the payload expired after {waited:?} and is in no result: the group did not accept it in time (Group::status names the nodes that it waits for); broadcast it again"
    )]
    Expired {
        /// The time after which it expired.
        waited: Duration,
    },
    /// [`Group::leave`] or [`Group::suspend`] was called, or the node is shut down, and would not wait for this broadcast.
    #[error("this node is leaving or suspending the group, so it broadcasts nothing else; broadcast before that")]
    Leaving,
    /// Only from [`Group::try_broadcast`]: the group does not list this process yet, for example after a restart, so a
    /// message would have no id.
    #[error("the group does not list this process yet, so a message would have no id; await broadcast() instead")]
    NotListed,
    /// This node has no place on the ring: it is an observer, or created the group without being a member.
    #[error(
        "this node has no place on the ring and broadcasts nothing; join the group, or create it with creator_is_member"
    )]
    Observes,
    /// The group does not continue at this node.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// A group at this node. Clones are handles to the same group.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Mailbox,
}

impl Group {
    /// The id of the group, unique for each creation.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.shared.id
    }

    /// The name of the group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether the group is closed at this node. A reader returns the reason ([`EndReason`]).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended.is_some()
    }

    /// The id of this node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.me
    }

    /// Where the members keep the result.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.shared.lock().durability
    }

    /// The node that created the group.
    #[must_use]
    pub fn creator(&self) -> NodeId {
        self.shared.creator
    }

    /// Broadcasts a payload, as soon as the outbox has capacity and the group lists this process. The messages of a
    /// node enter the result in the order of its calls.
    ///
    /// A restarted process ([`Node::resumed_groups`](crate::Node::resumed_groups)) is listed once it reaches the
    /// group's coordinator.
    ///
    /// It has no timeout: a full outbox is back-pressure of the group. Cancel safe: until it returns, nothing is sent
    /// and no sequence number is used, so `tokio::time::timeout` sets a deadline. [`Group::status`] names the nodes
    /// that the outbox waits for (`pending`, `coordinator`).
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// match tokio::time::timeout(Duration::from_secs(5), group.broadcast("hello")).await {
    ///     Ok(sent) => println!("sent as {:?}", sent?.id()),
    ///     Err(_) => println!("nothing was sent; it waits for {:?}", group.status().await.map(|status| status.pending)),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The payload is too large, this node has no place on the ring, or the group is closed here. Nothing was sent.
    pub async fn broadcast(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, BroadcastError> {
        let (payload, mut turn) = (payload.as_ref(), Turn::default());
        loop {
            match self.try_broadcast_in(payload, &mut turn) {
                Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => self.room_in(turn).await,
                answer => return answer,
            }
        }
    }

    /// Broadcasts a payload if the outbox has capacity.
    ///
    /// # Errors
    /// The outbox is full, the group does not list this process yet, the payload is too large, this node has no place
    /// on the ring, or the group is closed here. Nothing was sent.
    pub fn try_broadcast(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, BroadcastError> {
        self.try_broadcast_in(payload.as_ref(), &mut Turn::default())
    }

    /// Broadcasts a payload if the outbox has capacity and no earlier payload waits that expires.
    pub(crate) fn try_broadcast_in(&self, payload: &[u8], turn: &mut Turn) -> Result<Receipt, BroadcastError> {
        let mut state = self.shared.lock();
        self.accepts(&state, payload.len())?;
        if state.incarnation == Incarnation(0) {
            return Err(BroadcastError::NotListed);
        }
        if state.outbox.is_full() || state.expiring.delays(turn) {
            return Err(BroadcastError::OutboxFull);
        }
        let wake = state.outbox.is_empty();
        let seq = state.outbox.push(payload);
        state.approvals.expect(seq);
        let id = MessageId { origin: self.shared.me, incarnation: state.incarnation, seq };
        drop(state);
        if wake {
            self.mailbox.wake();
        }
        Ok(Receipt::new(Arc::clone(&self.shared), id))
    }

    /// The reason for which this node never broadcasts a payload of this size.
    fn accepts(&self, state: &State, bytes: usize) -> Result<(), BroadcastError> {
        if let Some(reason) = &state.ended {
            return Err(reason.clone().into());
        }
        if state.final_index.is_some() {
            return Err(EndReason::Final.into());
        }
        if state.departs.is_some() {
            return Err(BroadcastError::Leaving);
        }
        if self.shared.observes || state.only_watches {
            return Err(BroadcastError::Observes);
        }
        let bytes_max = state.payload_bytes_max;
        if bytes > bytes_max { Err(BroadcastError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    /// Waits until the outbox has capacity and the group lists this process. Also returns if this node cannot
    /// broadcast, because the group is closed here or this node has no place on the ring. It reserves nothing.
    /// Cancel safe; it has no timeout, like [`Group::broadcast`].
    pub async fn capacity(&self) {
        self.room_in(Turn::default()).await;
    }

    pub(crate) async fn room_in(&self, mut turn: Turn) {
        wait_until(&self.shared.room, || {
            let state = self.shared.lock();
            let takes_payload =
                state.incarnation > Incarnation(0) && !state.outbox.is_full() && !state.expiring.delays(&mut turn);
            let watches = self.shared.observes || state.only_watches;
            let never = watches || state.departs.is_some() || state.ended.is_some() || state.final_index.is_some();
            (takes_payload || never).then_some(())
        })
        .await;
    }

    /// Waits until fewer than `payloads` own payloads wait for a slot, or the group is closed here. It reserves
    /// nothing. Cancel safe; it has no timeout, like [`Group::broadcast`].
    pub async fn outbox_below(&self, payloads: u64) {
        wait_until(&self.shared.room, || {
            let state = self.shared.lock();
            (state.outbox.waiting() < payloads || state.ended.is_some() || state.final_index.is_some()).then_some(())
        })
        .await;
    }

    /// The window of this node in bytes: the maximum of own slots that are not in its result. It adapts to the path
    /// (`protocol.md` §5). Zero if this node is not a member.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.shared.lock().window_bytes
    }

    /// Number of own payloads without a slot.
    #[must_use]
    pub fn outbox_payloads(&self) -> u64 {
        self.shared.lock().outbox.waiting()
    }

    /// Reads the result from an index on; 1 is the first. A `Disk` group has the stored result, a `Memory` group the
    /// part that is retained in memory.
    #[must_use]
    pub fn approved_from(&self, index: Index) -> Approved {
        Approved::new(Arc::clone(&self.shared), Cursor::beginning_at(index))
    }

    /// Reads the result after the items that a reader has: every view that follows its view, too.
    pub(crate) fn approved_after(&self, position: Position) -> Approved {
        Approved::new(Arc::clone(&self.shared), Cursor::continuing_at(position))
    }

    /// Reads the events of the group, from the first one on. The newest 4,096 events are kept; if older ones were
    /// dropped, the reader starts with [`EventsError::Missed`](crate::EventsError::Missed).
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), cloudy_node::EventsError> {
    /// use cloudy_node::Event;
    ///
    /// let mut events = group.events();
    /// while let Some(event) = events.next().await.transpose()? {
    ///     match event {
    ///         Event::ViewInstalled { view, .. } => println!("view {} has {} members", view.id, view.members()),
    ///         Event::Final { result } => println!("the result ends at {}", result.index),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(Arc::clone(&self.shared))
    }

    /// The last index of each member's result, from its latest heartbeat. Complete at the coordinator.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<NodeId, Index> {
        self.shared.lock().progress.clone()
    }

    /// The outcome of a broadcast of any node, as far as this member or observer knows it; also for earlier
    /// incarnations and evicted nodes. `Approved` and `Rejected` are final. [`Outcome::Open`] may become either: query
    /// it again, here or at another member (`protocol.md` §2).
    ///
    /// An id is never rejected if the group never listed its incarnation, or if its sequence number is 0. A sequence
    /// number above the last one of its incarnation in the result is rejected once that incarnation, or the group, has
    /// ended. An observer that reads from a later index than 1 rejects nothing.
    ///
    /// Cancel safe.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group, id: cloudy_node::MessageId) -> Result<(), cloudy_node::EndReason> {
    /// use cloudy_node::Outcome;
    ///
    /// match group.outcome(id).await? {
    ///     Outcome::Approved => println!("it is in the result"),
    ///     Outcome::Rejected => println!("it is in no result, and never will be"),
    ///     Outcome::Open => println!("ask again"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The group does not continue at this node, and its result is not final here.
    pub async fn outcome(&self, id: MessageId) -> Result<Outcome, EndReason> {
        let (reply, answer) = oneshot::channel();
        if self.shared.lock().ended.is_none() {
            self.mailbox.send(Command::Outcome { group: self.shared.id, id, reply }).await;
            if let Ok(outcome) = answer.await {
                return Ok(outcome);
            }
            // The driver has dropped the group, so the reason is set.
            self.shared.ended().await;
        }
        let state = self.shared.lock();
        match &state.final_outcomes {
            Some(outcomes) => Ok(outcomes.outcome(id)),
            None => Err(state.ended.clone().unwrap_or(EndReason::ShutDown)),
        }
    }

    /// The present state of the group. None after the node was shut down.
    ///
    /// Cancel safe.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) {
    /// if let Some(status) = group.status().await {
    ///     println!("{} messages; the group waits for {:?}", status.index, status.waits_for);
    /// }
    /// # }
    /// ```
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Command::Status { group: self.shared.id, reply }).await;
        answer.await.ok()
    }

    /// Closes the group for all members: a last view change fixes one final result. The coordinator carries it out.
    pub fn end(&self) {
        self.request(Request::End);
    }

    /// Reports on the final result to the group, with at most 4 KiB. It has an effect once, after
    /// [`Event::Final`](cloudy_proto::Event::Final).
    pub fn report(&self, report: Bytes) {
        self.request(Request::Report(report));
    }

    /// Hands over the application's state after an index.
    pub(crate) fn save(&self, index: Index, saved: Saved) {
        self.mailbox.post(Command::Saved { group: self.shared.id, index, saved });
    }

    pub(crate) fn request(&self, request: Request) {
        self.mailbox.post(Command::Request { group: self.shared.id, request });
    }
}
