//! Broadcasts that expire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloudy_proto::MessageId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{BroadcastError, Group};
use crate::group::Receipt;

/// The wait of a payload whose time the clock cannot represent.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);

/// A payload that waits for a slot. It is withdrawn with this.
struct Place<'a> {
    group: &'a Group,
    ticket: u64,
    sent: oneshot::Receiver<MessageId>,
}

impl Place<'_> {
    /// Withdraws the payload. False if it has a slot, or was withdrawn before.
    fn withdraw(&self) -> bool {
        let withdrawn = self.group.shared.lock().expiring.withdraw(self.ticket);
        if withdrawn {
            self.group.shared.room.notify_waiters();
            // The machine does not wait for it any longer.
            self.group.mailbox.wake();
        }
        withdrawn
    }

    /// The id of the message, once it is sent; none if it was withdrawn.
    async fn sent(&mut self, expires_at: Instant) -> Option<MessageId> {
        match tokio::time::timeout_at(expires_at, &mut self.sent).await {
            Ok(sent) => sent.ok(),
            Err(_) if self.withdraw() => None,
            // The driver has taken it at the same moment, and answers.
            Err(_) => (&mut self.sent).await.ok(),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.withdraw();
        self.sent.close();
        if let Ok(id) = self.sent.try_recv() {
            self.group.shared.lock().approvals.release(id.seq);
        }
    }
}

impl Group {
    /// Broadcasts a payload that expires: if the group does not accept it within `expires_after`, it is withdrawn, and is
    /// and will be in no result.
    ///
    /// The payload waits outside the outbox and without a sequence number, until the outbox is empty and the group accepts
    /// a message at once. So the call returns once the message is sent. From then on it is like any other broadcast: its
    /// receipt may remain without an outcome for longer than `expires_after`, and the message may still be approved.
    ///
    /// Messages of a node enter the result in the order of its calls: a [`Group::broadcast`] that is called later waits
    /// until this payload is sent or expired, and [`Group::try_broadcast`] returns [`BroadcastError::OutboxFull`]
    /// meanwhile.
    ///
    /// Cancel safe: if the future is dropped, a payload that has not been sent is withdrawn.
    ///
    /// ```no_run
    /// # async fn example(group: &cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use cloudy_node::BroadcastError;
    ///
    /// match group.broadcast_within("pay 5 to bob", Duration::from_secs(2)).await {
    ///     Ok(receipt) => println!("approved at {}", receipt.await?.index),
    ///     Err(BroadcastError::Expired { .. }) => println!("bob is not paid, for certain: try again later"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BroadcastError::Expired`], or the errors of [`Group::broadcast`], also if the node begins to leave meanwhile.
    /// After each of them the payload is and will be in no result.
    pub async fn broadcast_within(
        &self,
        payload: impl AsRef<[u8]>,
        expires_after: Duration,
    ) -> Result<Receipt, BroadcastError> {
        self.broadcast_within_noting(payload.as_ref(), expires_after, |_| {}).await
    }

    /// The same, with a function that gets the id before the message can be approved.
    pub(crate) async fn broadcast_within_noting(
        &self,
        payload: &[u8],
        expires_after: Duration,
        note: impl FnOnce(MessageId) + Send + 'static,
    ) -> Result<Receipt, BroadcastError> {
        let payload = Bytes::copy_from_slice(payload);
        let (reply, sent) = oneshot::channel();
        let now = Instant::now();
        let expires_at = now.checked_add(expires_after).unwrap_or(now + FOREVER);
        let mut place = {
            let mut state = self.shared.lock();
            self.accepts(&state, payload.len())?;
            let on_id = Box::new(|id| {
                note(id);
                reply.send(id).is_ok()
            });
            Place { group: self, ticket: state.expiring.push(payload, expires_at, on_id), sent }
        };
        self.mailbox.wake();
        let receipt = place.sent(expires_at).await.map(|id| Receipt::new(Arc::clone(&self.shared), id));
        receipt.ok_or_else(|| {
            let reason = self.accepts(&self.shared.lock(), 0).err();
            reason.unwrap_or(BroadcastError::Expired { waited: expires_after })
        })
    }
}
