//! Embed cloudy: nodes, groups, approved messages over QUIC.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod cluster_key;
pub mod cluster_keys;
pub mod discovery;
mod driver;
pub mod endpoint;
mod error;
#[cfg(feature = "fault")]
pub mod fault;
mod files;
mod group;
mod handle;
mod health;
pub mod identity;
pub mod key_file;
mod link;
mod link_error;
mod node;
mod repeats;
mod replica;
pub mod session;
pub mod storage;
pub mod tls;
mod typed;
mod wait;

pub use cloudy_proto::slot::{Payloads, payload_slices};
pub use cloudy_proto::wire::CommandError;
pub use cloudy_proto::{
    CannotKeepUp, Checkpoint, Digest, Durability, Entry, Event, GroupId, Incarnation, Index, LeastRing, LeaveWait,
    LogIndex, MemberStatus, MessageId, NobodyComplete, NodeId, OlderDisk, OnFailure, Outcome, Parameters,
    ParametersError, ParseNodeIdError, PendingSlot, Phase, Rank, RingKind, Seq, SessionPlan, Status, View, ViewId,
    VotesLost, WaitCause, Waiting,
};
pub use cluster_key::ClusterKey;
pub use cluster_keys::ClusterKeys;
pub use driver::FoundingEvent;
pub use error::{ForgetError, FoundError, JoinError, RevokeError, SetKeysError};
pub use group::{
    Approval, Approved, ApprovedError, ApprovedItem, ApprovedStream, Divergence, EndReason, Events, EventsError,
    GroupConfig, Receipt, ReceiptError,
};
pub use handle::{BroadcastError, FlushError, Group, LEAVE_TIMEOUT, LeaveError};
pub use health::{CloseReason, NodeFailure};
pub use identity::Identity;
pub use link::{GROUPS_MAX, Traffic};
pub use link_error::{ConnectError, LinkFailure, Words};
pub use node::{Founding, Joining, Lookup, LookupError, Node, NodeBuilder, StartError};
pub use replica::{AppliedMessage, ReplicateError, SNAPSHOT_EVERY_BYTES, StateMachine};
pub use typed::{DecodeError, TypedApproved, TypedBroadcastError, TypedGroup, TypedItem};
pub use wait::{Answer, Awaited, TimedOut, WAIT_TIMEOUT, Wait};
