//! Messages of one type in place of payloads, encoded with [postcard](https://postcard.jamesmunns.com/wire-format).

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cloudy_proto::slot::Payloads;
use cloudy_proto::{Index, InstalledView, NodeId};
use futures_core::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::group::{Approved, ApprovedError, ApprovedItem, Receipt};
use crate::handle::{BroadcastError, Group};

/// A message that was not taken; nothing was sent, and no number was used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedBroadcastError {
    /// The message has no encoding: see what its `Serialize` does.
    #[error("the message cannot be encoded: {0}")]
    Encode(postcard::Error),
    /// The group did not take the payload.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
}

/// An approved payload that is not a message of the type. Every member finds the same, so all can pass over it alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Its bytes stand for no message.
    #[error(
        "a payload that is not a message of this type: {0}; do all members run the same version of the application?"
    )]
    Malformed(postcard::Error),
    /// Bytes are left over behind the message.
    #[error("a payload with {0} bytes after its message; do all members run the same version of the application?")]
    Trailing(usize),
    /// The first byte, which is the tag of a [`Replica`](crate::Replica) payload, has no meaning.
    #[error("a payload of the unknown kind {0}; do all members run the same version of cloudy?")]
    Tag(u8),
}

/// A group whose payloads are messages of one type. All members have to use the same type.
#[derive(Debug)]
pub struct TypedGroup<T> {
    group: Group,
    messages: PhantomData<fn(T) -> T>,
}

impl<T> Clone for TypedGroup<T> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), messages: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> TypedGroup<T> {
    /// The same group, with typed messages.
    #[must_use]
    pub fn new(group: Group) -> Self {
        Self { group, messages: PhantomData }
    }

    /// The group beneath, for all that is not about messages.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// As [`Group::broadcast`].
    ///
    /// Cancel safe: until it returns, nothing was sent.
    ///
    /// ```no_run
    /// # async fn example(group: cloudy_node::Group) -> Result<(), Box<dyn std::error::Error>> {
    /// use cloudy_node::{Index, TypedGroup, TypedItem};
    ///
    /// let orders: TypedGroup<(String, u32)> = TypedGroup::new(group);
    /// orders.broadcast(&("apples".to_owned(), 3)).await?.await?;
    /// let mut approved = orders.approved_from(Index(1));
    /// while let Some(item) = approved.next().await.transpose()? {
    ///     if let TypedItem::Message { index, message, .. } = item {
    ///         println!("{index}: {:?}", message?);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The message cannot be encoded or is too large, or the group has ended: nothing was sent.
    pub async fn broadcast(&self, message: &T) -> Result<Receipt, TypedBroadcastError> {
        let payload = postcard::to_stdvec(message).map_err(TypedBroadcastError::Encode)?;
        Ok(self.group.broadcast(payload).await?)
    }

    /// As [`Group::broadcast_within`], and as cancel safe.
    ///
    /// # Errors
    /// As [`TypedGroup::broadcast`], or the message expired: it is and will be in no result.
    pub async fn broadcast_within(&self, message: &T, expires_after: Duration) -> Result<Receipt, TypedBroadcastError> {
        let payload = postcard::to_stdvec(message).map_err(TypedBroadcastError::Encode)?;
        Ok(self.group.broadcast_within(payload, expires_after).await?)
    }

    /// As [`Group::try_broadcast`].
    ///
    /// # Errors
    /// As [`TypedGroup::broadcast`], or the outbox is full: nothing was sent.
    pub fn try_broadcast(&self, message: &T) -> Result<Receipt, TypedBroadcastError> {
        let payload = postcard::to_stdvec(message).map_err(TypedBroadcastError::Encode)?;
        Ok(self.group.try_broadcast(payload)?)
    }

    /// Reads the result from an index on; 1 is the first.
    #[must_use]
    pub fn approved_from(&self, index: Index) -> TypedApproved<T> {
        TypedApproved { approved: self.group.approved_from(index), batch: None, messages: PhantomData }
    }
}

/// An item of a typed result, in order.
#[derive(Clone, Debug)]
pub enum TypedItem<T> {
    /// An approved message.
    Message {
        /// Its place in the result.
        index: Index,
        /// The node that broadcast it.
        origin: NodeId,
        /// The message, unless it is not of this type.
        message: Result<T, DecodeError>,
    },
    /// A view came into force: what follows was approved in it.
    View(InstalledView),
}

/// A reader of a typed result, from an index on.
#[derive(Debug)]
pub struct TypedApproved<T> {
    approved: Approved,
    batch: Option<Batch>,
    messages: PhantomData<fn() -> T>,
}

/// Payloads that were read and not given out yet.
#[derive(Debug)]
struct Batch {
    index: Index,
    origin: NodeId,
    payloads: Payloads,
}

impl<T: DeserializeOwned> TypedApproved<T> {
    /// The next message or view change; ends as [`Approved::next_batch`] does. The same as the next item of the stream.
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Approved::next_batch`]; after [`ApprovedError::Lagged`] reading continues at the index that it names.
    pub async fn next(&mut self) -> Option<Result<TypedItem<T>, ApprovedError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<TypedItem<T>, ApprovedError>>> {
        loop {
            if let Some(item) = self.next_of_batch() {
                return Poll::Ready(Some(Ok(item)));
            }
            match ready!(Pin::new(&mut self.approved).poll_next(context)) {
                Some(Ok(ApprovedItem::Batch(entry))) => {
                    let payloads = Payloads::of(entry.batch.body);
                    self.batch = Some(Batch { index: entry.first_index, origin: entry.origin, payloads });
                }
                Some(Ok(ApprovedItem::View(view))) => return Poll::Ready(Some(Ok(TypedItem::View(view)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn next_of_batch(&mut self) -> Option<TypedItem<T>> {
        let batch = self.batch.as_mut()?;
        let payload = batch.payloads.next()?;
        let index = batch.index;
        batch.index = index.next();
        Some(TypedItem::Message { index, origin: batch.origin, message: decode(&payload) })
    }
}

impl<T: DeserializeOwned> Stream for TypedApproved<T> {
    type Item = Result<TypedItem<T>, ApprovedError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_item(context)
    }
}

pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(DecodeError::Trailing(rest.len())),
        Err(error) => Err(DecodeError::Malformed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_message_and_nothing_else() {
        let payload = postcard::to_stdvec(&(300u32, "x")).unwrap();
        assert_eq!(decode::<(u32, String)>(&payload), Ok((300, "x".to_owned())));
        assert_eq!(decode::<u32>(&payload), Err(DecodeError::Trailing(2)));
        let cut = decode::<(u32, String)>(&payload[..3]);
        assert_eq!(cut, Err(DecodeError::Malformed(postcard::Error::DeserializeUnexpectedEnd)));
    }
}
