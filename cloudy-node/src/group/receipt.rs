//! What a broadcast gives back: the promise of an answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_proto::{Durability, Index, MessageId, NodeId, ViewId};

use crate::group::approvals::Found;
use crate::group::shared::{EndReason, Listener, Shared, wait_until};

/// A broadcast that is in the result of every member that is, or later becomes, up to date (`protocol.md` P5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Approval {
    /// Its name.
    pub id: MessageId,
    /// Its place in the result.
    pub index: Index,
    /// The view that approved it.
    pub view: ViewId,
    /// Where every member of that view had it before it confirmed it.
    pub durability: Durability,
    /// The members that confirmed it before it entered the result here, and how long after it was sent. Empty where a view change
    /// approved it, or where the receipt was awaited after a thousand slots were approved later.
    pub confirmed: Vec<(NodeId, Duration)>,
}

/// A broadcast that got no approval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// It is in no result and never will be: the group's last view ended without it.
    #[error("message {} is rejected: the group ended before all members confirmed it; it is in no result", .0.seq)]
    Rejected(MessageId),
    /// It may be in the result or not: this node cannot tell.
    #[error("the outcome of message {} is unknown: {reason}", .id.seq)]
    Unknown {
        /// Its name, to ask for it elsewhere.
        id: MessageId,
        /// Why this node cannot tell.
        reason: EndReason,
    },
    /// It was not known in time whether it will be approved; it still may be.
    #[error(
        "whether message {} is approved was not known within {waited:?}; it may still be: ask Group::outcome for it",
        .id.seq
    )]
    Late {
        /// Its name, to ask for it later, here or at any other member.
        id: MessageId,
        /// How long was waited.
        waited: Duration,
    },
    /// It is approved, and this node does not know its index: it was away then, and continued from a snapshot of the
    /// application's state that knows the message.
    #[error("message {} is approved; its index is not known here, since this node continued from a snapshot", .0.seq)]
    ApprovedLongAgo(MessageId),
}

/// The answer to a broadcast: a future that resolves once the broadcast is approved or never will be.
///
/// It is cancel safe: polls of `&mut receipt` can be given up and begun again. Dropping it withdraws nothing.
///
/// ```no_run
/// # async fn example(group: &cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use cloudy_node::ReceiptError;
///
/// let receipt = group.broadcast("pay 5 to bob").await?;
/// match receipt.timeout(Duration::from_secs(1)).await {
///     Ok(approval) => println!("approved at index {}", approval.index),
///     Err(ReceiptError::Late { id, .. }) => println!("not known yet; ask Group::outcome({id:?}) later"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a receipt says whether the broadcast was approved; drop it to not wait"]
pub struct Receipt {
    shared: Arc<Shared>,
    id: MessageId,
    listener: Listener,
}

impl Receipt {
    pub(crate) fn new(shared: Arc<Shared>, id: MessageId) -> Self {
        Self { shared, id, listener: Listener::default() }
    }

    /// The broadcast's name in the group: the one that it has in the result.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Waits for the answer for this long at most. The receipt stays: it may be awaited again. Cancel safe.
    ///
    /// # Errors
    /// As for awaiting it, or [`ReceiptError::Late`]: the broadcast is not withdrawn, and may still be approved.
    pub async fn timeout(&self, limit: Duration) -> Result<Approval, ReceiptError> {
        let answer = wait_until(&self.shared.moved, || answer(&self.shared, self.id));
        let late = |_| ReceiptError::Late { id: self.id, waited: limit };
        tokio::time::timeout(limit, answer).await.map_err(late)?
    }
}

/// The answer, if there is one already.
fn answer(shared: &Shared, id: MessageId) -> Option<Result<Approval, ReceiptError>> {
    let state = shared.lock();
    if id.seq <= state.approved {
        let found = state.approvals.find(id.seq);
        return Some(found.map_or(Err(ReceiptError::ApprovedLongAgo(id)), |Found { index, view, confirmed }| {
            Ok(Approval { id, index, view, durability: state.durability, confirmed })
        }));
    }
    if state.rejected_from.is_some_and(|from| id.seq >= from) {
        return Some(Err(ReceiptError::Rejected(id)));
    }
    match &state.ended {
        // What was broadcast after the end was never handed to the machine.
        Some(EndReason::Final) => Some(Err(ReceiptError::Rejected(id))),
        Some(reason) => Some(Err(ReceiptError::Unknown { id, reason: reason.clone() })),
        None => None,
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.shared.lock().approvals.release(self.id.seq);
    }
}

impl Future for Receipt {
    type Output = Result<Approval, ReceiptError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, listener, id } = &mut *self;
        listener.poll(&shared.moved, context, || answer(shared, *id))
    }
}
