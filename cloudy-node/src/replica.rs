//! An application's state as the result makes it: applied message by message, kept as snapshots (`protocol.md` §7).

use bytes::Bytes;
use cloudy_proto::limits::SNAPSHOT_BYTES_MAX;
use cloudy_proto::slot::payload_slices;
use cloudy_proto::{Entry, Index, MessageId, Seq};

use crate::group::{ApprovedError, ApprovedItem, EndReason};
use crate::handle::Group;
use crate::storage::ReadGroupError;

/// A state that approved messages make: the same at every member, for all apply the same messages in the same order.
///
/// With it a group of any age needs bounded room: what came before a snapshot is not kept, neither in memory nor on disk,
/// and who joins late, or starts again, begins with one.
pub trait StateMachine: Send {
    /// The next approved message. What it does must depend on nothing but the state and the message.
    fn apply(&mut self, message: AppliedMessage<'_>);

    /// The whole state, in at most [`SNAPSHOT_BYTES_MAX`] bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes the state that a snapshot holds, whatever it was before: another member's, or an earlier run's.
    ///
    /// # Errors
    /// It is no snapshot of this application, in words; the group is not followed any further.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}

/// An approved message, as it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppliedMessage<'a> {
    /// Its place in the result.
    pub index: Index,
    /// Its name.
    pub id: MessageId,
    /// What it says.
    pub payload: &'a [u8],
}

/// Why a state does not follow its group. It is as the last applied message left it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The group ended at this node before its result was final.
    #[error(transparent)]
    Ended(#[from] EndReason),
    /// The state was applied more slowly than the result grew.
    #[error(
        "the result before index {resume_from} is no longer retained here, and the state has not got so far: raise retain_bytes (on disk: retain_disk_bytes), or apply faster"
    )]
    Lagged {
        /// The first index that is retained.
        resume_from: Index,
    },
    /// What is to be applied next is on the disk, and cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadGroupError),
    /// A snapshot cannot be used.
    #[error(
        "the snapshot at index {index} is none of this application: {reason}; do all members run the same version?"
    )]
    Restore {
        /// The last index that it knows.
        index: Index,
        /// What the application says.
        reason: String,
    },
    /// The state has outgrown its snapshots.
    #[error(
        "a snapshot of {bytes} bytes is larger than {SNAPSHOT_BYTES_MAX}: keep the bulk in a store of the application's own, and what names it in the snapshot"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Bytes of applied payloads between two snapshots, unless the application chooses another number.
pub const SNAPSHOT_EVERY_BYTES: u64 = 16 << 20;

impl Group {
    /// Applies the result to a state until it is final, from the newest snapshot that there is on, and takes a snapshot
    /// after every so many bytes of payload ([`SNAPSHOT_EVERY_BYTES`] is a choice for most; well below
    /// [`retain_bytes`](crate::GroupConfig::retain_bytes)). The state must be fresh, or have been given to this method
    /// for the same group last.
    ///
    /// Not cancel safe: dropped, it leaves the state somewhere in the result. Begin again with a fresh one.
    ///
    /// ```no_run
    /// # async fn example(group: cloudy_node::Group) -> Result<(), cloudy_node::ReplicateError> {
    /// use cloudy_node::{AppliedMessage, SNAPSHOT_EVERY_BYTES, StateMachine};
    ///
    /// /// Counts the messages.
    /// struct Counter(u64);
    ///
    /// impl StateMachine for Counter {
    ///     fn apply(&mut self, _message: AppliedMessage<'_>) {
    ///         self.0 += 1;
    ///     }
    ///
    ///     fn snapshot(&self) -> Vec<u8> {
    ///         self.0.to_le_bytes().to_vec()
    ///     }
    ///
    ///     fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
    ///         self.0 = u64::from_le_bytes(snapshot.try_into().map_err(|_| "it has no eight bytes")?);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut counter = Counter(0);
    /// group.replicate(&mut counter, SNAPSHOT_EVERY_BYTES).await?;
    /// println!("the final result has {} messages", counter.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The state does not follow the group: see [`ReplicateError`].
    pub async fn replicate(
        &self,
        state: &mut impl StateMachine,
        snapshot_every_bytes: u64,
    ) -> Result<(), ReplicateError> {
        let mut known = self.restore_into(state, Index(0))?;
        let mut approved = self.approved_from(known.next());
        let mut unsaved_bytes = 0;
        while let Some(item) = approved.next_batch().await {
            match item {
                Ok(ApprovedItem::Batch(entry)) => {
                    known = entry.last_index();
                    unsaved_bytes += entry.batch.body.len() as u64;
                    apply(state, &entry);
                }
                Ok(ApprovedItem::View(_)) => {}
                Err(ApprovedError::Lagged { resume_from }) => {
                    // Unless a snapshot says what is missing, nothing does.
                    known = self.restore_into(state, known)?;
                    if known.next() < resume_from {
                        return Err(ReplicateError::Lagged { resume_from });
                    }
                    approved = self.approved_from(known.next());
                }
                Err(ApprovedError::Unreadable { cause, .. }) => return Err(cause.into()),
                Err(ApprovedError::Ended(reason)) => return Err(reason.into()),
            }
            if unsaved_bytes >= snapshot_every_bytes {
                unsaved_bytes = 0;
                self.save(known, state)?;
            }
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    /// Takes the newest snapshot over, if it goes further than what the state knows.
    fn restore_into(&self, state: &mut impl StateMachine, known: Index) -> Result<Index, ReplicateError> {
        let restored = self.shared.lock().restored.clone();
        match restored {
            Some((index, snapshot)) if index > known => {
                state.restore(&snapshot).map_err(|reason| ReplicateError::Restore { index, reason })?;
                Ok(index)
            }
            _ => Ok(known),
        }
    }

    fn save(&self, index: Index, state: &impl StateMachine) -> Result<(), ReplicateError> {
        let snapshot = state.snapshot();
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(ReplicateError::TooLarge { bytes: snapshot.len() });
        }
        self.request(cloudy_proto::Request::Snapshot { index, state: Bytes::from(snapshot) });
        Ok(())
    }
}

fn apply(state: &mut impl StateMachine, entry: &Entry) {
    for (at, payload) in payload_slices(&entry.batch.body).enumerate() {
        let at = at as u64;
        let id =
            MessageId { origin: entry.origin, incarnation: entry.incarnation, seq: Seq(entry.batch.first_seq.0 + at) };
        state.apply(AppliedMessage { index: Index(entry.first_index.0 + at), id, payload });
    }
}
