//! One group, as its users see it.

mod flush;
mod leave;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cloudy_proto::{GroupId, Incarnation, Index, MessageId, NodeId, Outcome, Request, Status};
use tokio::sync::oneshot;

pub use flush::FlushError;
pub use leave::{LEAVE_TIMEOUT, LeaveError};

use crate::driver::{Command, Mailbox};
use crate::group::shared::{Shared, wait_until};
use crate::group::{Approved, EndReason, Events, Receipt};

/// A broadcast that was not taken; nothing was sent, and no number was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// Only from [`Group::try_broadcast`]: the bound on waiting payloads is reached.
    #[error(
        "the outbox is full: other members confirm more slowly than this one broadcasts; await broadcast() instead, or raise outbox_bytes_max"
    )]
    OutboxFull,
    /// The payload is larger than the group allows.
    #[error("a payload of {bytes} bytes; the group allows at most {bytes_max}: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The group's bound.
        bytes_max: usize,
    },
    /// [`Group::leave`] was called: what is broadcast after it would not be waited for.
    #[error("this node leaves the group, and broadcasts nothing more; broadcast before leave()")]
    Leaving,
    /// Only from [`Group::try_broadcast`]: the group does not list this process yet, after a restart for example, so a
    /// message would have no id.
    #[error("the group does not list this process yet, so a message would have no id; await broadcast() instead")]
    NotListed,
    /// This node has no place on the ring: it observes the group, or founded it without one.
    #[error(
        "this node has no place on the ring and broadcasts nothing; join the group, or found it with founder_is_member"
    )]
    Observes,
    /// The group does not go on at this node.
    #[error(transparent)]
    Ended(#[from] EndReason),
}

/// A group at this node. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Mailbox,
}

impl Group {
    /// Its id: fresh at each founding.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.shared.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// It does not go on at this node; readers say why ([`EndReason`]).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended.is_some()
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.shared.me
    }

    /// The node that founded it and keeps its control log.
    #[must_use]
    pub fn founder(&self) -> NodeId {
        self.shared.founder
    }

    /// Broadcasts a payload, as soon as the outbox has room and the group lists this process. The order of calls is the
    /// order in the result.
    ///
    /// A process that was started again ([`Node::resumed_groups`](crate::Node::resumed_groups)) is listed once it reaches
    /// the group's coordinator.
    ///
    /// It waits for as long as it takes: a full outbox is the group's back-pressure, and no error of this node. Until it
    /// returns, nothing was sent and no sequence number was used, so it is cancel safe: `tokio::time::timeout` around it is
    /// its deadline. [`Group::status`] names whom the outbox waits for (`pending`, `coordinator`).
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
    /// The payload is too large, this node has no place on the ring, or the group has ended: nothing was sent.
    pub async fn broadcast(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, BroadcastError> {
        let payload = payload.as_ref();
        loop {
            match self.try_broadcast(payload) {
                Err(BroadcastError::OutboxFull | BroadcastError::NotListed) => self.room().await,
                answer => return answer,
            }
        }
    }

    /// Broadcasts a payload if the outbox has room.
    ///
    /// # Errors
    /// The outbox is full, the group does not list this process yet, the payload is too large, this node has no place on the
    /// ring, or the group has ended: nothing was sent.
    pub fn try_broadcast(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, BroadcastError> {
        let payload = payload.as_ref();
        let mut state = self.shared.lock();
        if let Some(reason) = &state.ended {
            return Err(reason.clone().into());
        }
        if state.final_index.is_some() {
            return Err(EndReason::Final.into());
        }
        if state.leaving {
            return Err(BroadcastError::Leaving);
        }
        if self.shared.observes || state.only_watches {
            return Err(BroadcastError::Observes);
        }
        if payload.len() > state.payload_bytes_max {
            return Err(BroadcastError::TooLarge { bytes: payload.len(), bytes_max: state.payload_bytes_max });
        }
        if state.incarnation == Incarnation(0) {
            return Err(BroadcastError::NotListed);
        }
        if state.outbox.is_full() {
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

    /// Waits until the outbox has room and the group lists this process, or this node cannot broadcast: the group has
    /// ended, or this node has no place on the ring. It takes nothing, so it is cancel safe: bound it as
    /// [`Group::broadcast`].
    pub async fn room(&self) {
        wait_until(&self.shared.room, || {
            let state = self.shared.lock();
            let takes_payload = state.incarnation > Incarnation(0) && !state.outbox.is_full();
            let watches = self.shared.observes || state.only_watches;
            let never = watches || state.leaving || state.ended.is_some() || state.final_index.is_some();
            (takes_payload || never).then_some(())
        })
        .await;
    }

    /// Waits until fewer own payloads than this wait for a slot, or the group has ended. It takes nothing.
    /// Cancel safe: bound it as [`Group::broadcast`].
    pub async fn outbox_below(&self, payloads: u64) {
        wait_until(&self.shared.room, || {
            let state = self.shared.lock();
            (state.outbox.waiting() < payloads || state.ended.is_some() || state.final_index.is_some()).then_some(())
        })
        .await;
    }

    /// Bytes of own slots that this node allows itself outside its own result at this moment: it adapts to the path
    /// (`protocol.md` §5). Zero while it is no member.
    #[must_use]
    pub fn window_bytes(&self) -> u64 {
        self.shared.lock().window_bytes
    }

    /// Own payloads that have no slot yet.
    #[must_use]
    pub fn outbox_payloads(&self) -> u64 {
        self.shared.lock().outbox.waiting()
    }

    /// Reads the result from an index on; 1 is the first. In a `Disk` group all that is stored can be read; else what
    /// memory retains.
    #[must_use]
    pub fn approved_from(&self, index: Index) -> Approved {
        Approved::new(Arc::clone(&self.shared), index)
    }

    /// What happened in the group, from its first event on. The newest 4,096 events are kept: a reader that comes after
    /// more than these begins with [`EventsError::Missed`](crate::EventsError::Missed).
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

    /// Founder: how far each member's result is, as its latest heartbeat said.
    #[must_use]
    pub fn progress(&self) -> BTreeMap<NodeId, Index> {
        self.shared.lock().progress.clone()
    }

    /// What became of a broadcast, of this node or any other, as far as this member or observer knows; also of earlier runs
    /// and of evicted nodes. `Approved` and `Rejected` are for good. [`Outcome::Open`] may become either: ask again, here or
    /// at another member (`protocol.md` §2). An id of an incarnation that the group never listed, or with
    /// sequence number 0, is never rejected. Which sequence numbers an incarnation gave out only that process knows: one above
    /// its last message in the result is rejected once its incarnation, or the group, is over. An observer that reads from a
    /// later index than 1 rejects nothing.
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
    /// The group does not go on at this node, and its result is not final here.
    pub async fn outcome(&self, id: MessageId) -> Result<Outcome, EndReason> {
        let (reply, answer) = oneshot::channel();
        if self.shared.lock().ended.is_none() {
            self.mailbox.send(Command::Outcome { group: self.shared.id, id, reply }).await;
            if let Ok(outcome) = answer.await {
                return Ok(outcome);
            }
            // The driver has let go of the group: the end says why.
            self.shared.ended().await;
        }
        let state = self.shared.lock();
        match &state.final_outcomes {
            Some(outcomes) => Ok(outcomes.outcome(id)),
            None => Err(state.ended.clone().unwrap_or(EndReason::ShutDown)),
        }
    }

    /// The state of the group at this moment; stops nothing. None after the node was shut down.
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

    /// Founder: ends the group now, by a last view change that fixes one result for all. Member: asks the founder to.
    pub fn end(&self) {
        self.request(Request::End);
    }

    /// Says something of the final result to the founder, at most 4 KiB of it; once, after
    /// [`Event::Final`](cloudy_proto::Event::Final).
    pub fn report(&self, report: Bytes) {
        self.request(Request::Report(report));
    }

    pub(crate) fn request(&self, request: Request) {
        self.mailbox.post(Command::Request { group: self.shared.id, request });
    }
}
