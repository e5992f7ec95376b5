//! Receipts: the futures that broadcasts return.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cloudy_proto::{Durability, Index, MessageId, NodeId, ViewId};

use crate::group::approvals::Found;
use crate::group::shared::{EndReason, Listener, Shared, wait_until};

/// The approval of a broadcast: the message is in the result of every member that is, or later becomes, up to date
/// (`protocol.md` P5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Approval {
    /// The id of the message.
    pub id: MessageId,
    /// The index of the message in the result.
    pub index: Index,
    /// The view in which it was approved.
    pub view: ViewId,
    /// The place where each member of that view stored the message before it confirmed it.
    pub durability: Durability,
    /// The members that confirmed the message before it entered the result here, each with the time from its sending.
    /// Empty if a view change approved it, or if a thousand later slots were approved before the receipt was awaited.
    pub confirmed: Vec<(NodeId, Duration)>,
}

/// The reason for which a receipt holds no approval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// The message is in no result, for good: the group's last view closed without it.
    #[error("message {} is rejected: the group ended before all members confirmed it; it is in no result", .0.seq)]
    Rejected(MessageId),
    /// This node cannot determine whether the message is in the result.
    #[error("the outcome of message {} is unknown: {reason}", .id.seq)]
    Unknown {
        /// The id of the message, for a query at another member.
        id: MessageId,
        /// The reason why this node cannot determine it.
        reason: EndReason,
    },
    /// The timeout passed before the outcome was known. The message may still be approved.
    #[error(
        "message {} has no known outcome after {waited:?}; it may still be approved: query Group::outcome later",
        .id.seq
    )]
    Late {
        /// The id of the message, for a later query at any member.
        id: MessageId,
        /// The timeout.
        waited: Duration,
    },
    /// The message is approved, and this node does not know its index: it was absent, and continued from a snapshot that
    /// includes the message.
    #[error("message {} is approved; its index is not known here, because this node continued from a snapshot", .0.seq)]
    ApprovedLongAgo(MessageId),
}

/// The receipt of a broadcast: a future that resolves once the message is approved or rejected.
///
/// Cancel safe: a `&mut receipt` can be polled again later. Dropping the receipt does not withdraw the broadcast.
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
#[must_use = "a receipt reports whether the broadcast was approved; drop it to not wait"]
pub struct Receipt {
    shared: Arc<Shared>,
    id: MessageId,
    listener: Listener,
}

impl Receipt {
    pub(crate) fn new(shared: Arc<Shared>, id: MessageId) -> Self {
        Self { shared, id, listener: Listener::default() }
    }

    /// The id of the message, the same in every result.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Waits for the outcome for at most this time. The receipt can be awaited again. Cancel safe.
    ///
    /// # Errors
    /// The errors of the receipt itself, or [`ReceiptError::Late`]: the broadcast is not withdrawn, and may still be
    /// approved.
    pub async fn timeout(&self, limit: Duration) -> Result<Approval, ReceiptError> {
        let answer = wait_until(&self.shared.moved, || answer(&self.shared, self.id));
        let late = |_| ReceiptError::Late { id: self.id, waited: limit };
        tokio::time::timeout(limit, answer).await.map_err(late)?
    }
}

/// The outcome, if it is known.
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
        // The machine never received broadcasts after the close.
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
