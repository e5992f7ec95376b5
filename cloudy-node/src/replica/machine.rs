//! The interface of an application: a deterministic state, its commands and its snapshots.

use std::io::{self, Read, Write};

use cloudy_proto::{Index, MessageId, NodeId, ViewId};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state that commands change, the same at every member: all apply the same commands in the same order.
///
/// Each method must depend on nothing but the state and its arguments: no clock, no random numbers, no iteration over a
/// `HashMap`. Members compare digests of their snapshots, so equal states must write equal snapshots.
///
/// ```
/// use std::io::{self, Read, Write};
///
/// use cloudy_node::{Applied, StateMachine};
///
/// /// Adds numbers up; the response is the sum.
/// struct Counter(u64);
///
/// impl StateMachine for Counter {
///     type Command = u64;
///     type Response = u64;
///
///     fn apply(&mut self, _at: Applied, add: u64) -> u64 {
///         self.0 = self.0.wrapping_add(add);
///         self.0
///     }
///
///     fn snapshot(&self, to: &mut dyn Write) -> io::Result<()> {
///         to.write_all(&self.0.to_le_bytes())
///     }
///
///     fn restore(from: &mut dyn Read) -> io::Result<Self> {
///         let mut bytes = [0; 8];
///         from.read_exact(&mut bytes)?;
///         Ok(Self(u64::from_le_bytes(bytes)))
///     }
/// }
/// ```
pub trait StateMachine: Sized + Send + Sync + 'static {
    /// The type of submitted commands, encoded with [postcard](https://postcard.jamesmunns.com/wire-format). All
    /// members must use the same type: a member whose type does not decode a command skips it
    /// ([`ReplicaStatus::skipped`](crate::ReplicaStatus::skipped)).
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// The response to the member that submitted a command. It is not sent to other members.
    type Response: Send + 'static;

    /// Applies the next command. It runs on a thread where it may block; how a slow `apply` acts on the group is described
    /// at [`Replica`](crate::Replica).
    fn apply(&mut self, at: Applied, command: Self::Command) -> Self::Response;

    /// Another view is in force from an index on. All replicas get every view once, between the same two commands, also
    /// after a restart and after a snapshot.
    fn members_changed(&mut self, change: &MembersChanged) {
        let _ = change;
    }

    /// Writes the whole state, of any size with `Disk`. Commands wait meanwhile; approvals and reads do not. With `Disk` a
    /// write may wait for the disk, so write piece by piece and hold no copy of the whole.
    ///
    /// # Errors
    /// The state was not written; the replica continues without a new snapshot and reports it
    /// ([`ReplicaStatus::snapshot_error`](crate::ReplicaStatus::snapshot_error)).
    fn snapshot(&self, to: &mut dyn Write) -> io::Result<()>;

    /// Makes a state from a snapshot: one of this member, of its earlier process, or of another member. With `Disk` it is
    /// read from the disk piece by piece. All of it must be read.
    ///
    /// # Errors
    /// The bytes are no snapshot of this application; the replica stops with
    /// [`ReplicaError::Restore`](crate::ReplicaError::Restore).
    fn restore(from: &mut dyn Read) -> io::Result<Self>;
}

/// The position of a command in the group's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Its index: it rises with each command, also across restarts.
    pub index: Index,
    /// Its id, unique in the group; [`MessageId::origin`] is the node that submitted it.
    pub id: MessageId,
}

/// Which nodes became members and which stopped being members.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembersChanged {
    /// The view that the members make up.
    pub view: ViewId,
    /// The view is in force from this index on, before the command that has it. Several views can begin at one index.
    pub first: Index,
    /// All members, by node id.
    pub members: Vec<NodeId>,
    /// The members that the view before did not have.
    pub joined: Vec<NodeId>,
    /// The former members that the view does not have: they left, or were evicted and may return.
    pub left: Vec<NodeId>,
}
