//! Processes agree on one sequence of messages, over QUIC, without a broker.
//!
//! A program embeds a [`Node`]. Nodes that hold one [`ClusterKey`] form groups, and each member of a [`Group`] reads
//! the same messages in the same order: total order broadcast. A message counts once every member of the group's view
//! has confirmed it, so its [`Receipt`] proves more than sending. Members may crash, rejoin, join and leave while the
//! group runs.
//!
//! # Example
//!
//! Two nodes in one process. In practice each is in a process of its own, and the key comes from a file
//! ([`key_file::load_or_create`]).
//!
//! ```
//! use cloudy_node::{ApprovedItem, ClusterKey, GroupConfig, Index, Node, Payloads};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = ClusterKey::generate()?;
//! let alice = Node::builder().cluster_key(&key).start().await?;
//! let bob = Node::builder().cluster_key(&key).start().await?;
//!
//! // Alice creates a group of two, and Bob joins it: neither has to be first.
//! let address = alice.local_addr();
//! let joining = tokio::spawn(async move { bob.join_group_at("chat", address).await });
//! let at_alice = alice.create_group("chat", 2, GroupConfig::default()).await?;
//! let at_bob = joining.await??;
//!
//! // A broadcast gives a receipt, and the receipt an approval.
//! let approval = at_alice.broadcast("hello").await?.await?;
//! assert_eq!((approval.index, approval.confirmed.len()), (Index(1), 2));
//!
//! // Every member reads the same result, from any index on.
//! let mut approved = at_bob.approved_from(Index(1));
//! while let Some(item) = approved.next_batch().await.transpose()? {
//!     if let ApprovedItem::Batch(entry) = item {
//!         let texts: Vec<_> = Payloads::of(entry.batch.body).collect();
//!         assert_eq!(texts, ["hello"]);
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Main types
//!
//! | type | what it is for |
//! |---|---|
//! | [`Node`], [`NodeBuilder`] | one endpoint and one identity, for any number of groups: start, create, join, observe, shut down |
//! | [`Group`] | a group at this node: broadcast, leave, ask for [`Status`] and [`Outcome`] |
//! | [`Receipt`], [`Approval`] | the future of one broadcast, and what it resolves to |
//! | [`Approved`], [`Events`] | the result and what happens in the group, as streams |
//! | [`TypedGroup`] | messages of a type in place of bytes |
//! | [`Replica`], [`StateMachine`] | a replicated state machine: commands with responses, linearizable reads, snapshots |
//! | [`GroupConfig`], [`Parameters`], [`EndpointLimits`] | what a group agrees on, and what a node keeps and admits |
//! | [`ClusterKey`], [`ClusterKeys`], [`Identity`] | who belongs to the cluster |
//! | [`DataDir`] | groups on disk, which survive the death of all processes at once |
//!
//! Modules: [`data`] inspects, verifies and exports data directories, [`discovery`] finds nodes by multicast or names,
//! [`key_file`] keeps cluster keys in files, [`session`] is an
//! application on the library that measures and compares what its members read.
//!
//! # Waits, errors and cancellation
//!
//! Methods that wait for other nodes return a [`Wait`], whose deadline the caller sets. Each async method documents
//! whether it is cancel safe, and `docs/reference/cancel-safety.md` lists them all. When a node closes for any reason,
//! a panic of one of its tasks included, every handle reports that reason ([`EndReason`], [`CloseReason`]).
//!
//! # Feature flags
//!
//! - `admin` (off by default): module `admin`, an HTTP endpoint with health, status, metrics and a live page.
//! - `fault` (off by default): module `fault` with a lossy socket, an in-memory network with paused time and a failing disk,
//!   to test an application under faults.
//!
//! # Where to go next
//!
//! The project's `docs` folder has a tutorial (`tutorial/first-group.md`), the guarantees and what is not guaranteed
//! (`reference/guarantees.md`), how to run nodes and change keys (`how-to/operating.md`), how to test an application
//! (`how-to/testing-your-app.md`), and the protocol (`reference/protocol.md`). `cloudy-node/examples` has small programs.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(unnameable_types)]

#[cfg(feature = "admin")]
pub mod admin;
mod cluster_key;
mod cluster_keys;
pub mod data;
pub mod discovery;
mod driver;
mod endpoint;
mod error;
#[cfg(feature = "fault")]
pub mod fault;
mod files;
mod group;
mod handle;
mod health;
#[cfg(feature = "admin")]
mod histogram;
mod identity;
pub mod key_file;
mod link;
mod link_error;
mod node;
mod open;
pub mod recipes;
mod repeats;
mod replica;
pub mod session;
mod storage;
mod tls;
mod typed;
mod versions;
mod wait;

pub use cloudy_proto::slot::{Batch, Payloads, payload_slices};
pub use cloudy_proto::wire::{CommandError, Refusal, WIRE_VERSION, WireVersions};
pub use cloudy_proto::{
    AloneError, CannotKeepUp, CatchUpPolicy, Checkpoint, Digest, Durability, Entry, Event, GroupId, Incarnation, Index,
    InstalledView, LeastRing, LeaveWait, LogIndex, MemberStatus, MessageId, MissingVoters, NoCompleteMember, NodeId,
    OnFailure, Origin, Outcome, Parameters, ParametersError, ParseNodeIdError, PendingSlot, Phase, Rank, RingKind,
    RingMember, Seq, SessionPlan, SlowDownEnd, StaleDisk, Status, StoredError, View, ViewId, VotesLost, WaitCause,
    Waiting,
};
pub use cluster_key::{
    CLUSTER_KEY_BYTES, CLUSTER_KEY_PREFIX, ClusterKey, GenerateClusterKeyError, ParseClusterKeyError,
};
pub use cluster_keys::{AcceptedAs, ClusterKeys, ParseClusterKeysError, RevokedFullError, RotateError};
pub use driver::CreationEvent;
pub use endpoint::{BindError, Congestion, EndpointLimits, LimitsError, OpenError, bind};
pub use error::{CreateGroupError, ForgetError, JoinError, RevokeError, SetKeysError};
pub use group::{
    Approval, Approved, ApprovedError, ApprovedItem, Divergence, EndReason, Events, EventsError, GroupConfig, Receipt,
    ReceiptError, SUSPEND_TIMEOUT,
};
pub use handle::{BroadcastError, FlushError, Group, LEAVE_TIMEOUT, LeaveError, LeaveLimits, ReadyError, SuspendError};
pub use health::{CloseReason, NodeFailure};
pub use identity::pem::PemError;
pub use identity::{
    CHAIN_CERTIFICATES_MAX, CertificateError, Identity, IdentityError, NodeKey, NodeKeyError, SERVER_NAME, node_id_of,
};
pub use link::{GROUPS_MAX, Traffic};
pub use link_error::{ConnectError, LinkFailure, Words};
pub use node::{Joining, Lookup, LookupError, Node, NodeBuilder, PendingGroup, StartError};
pub use replica::{
    Applied, MembersChanged, ReadError, Replica, ReplicaConfig, ReplicaError, ReplicaStatus, SNAPSHOT_EVERY_BYTES,
    StateDivergence, StateMachine, SubmitError, UnknownOutcome,
};
pub use storage::{DataDir, DataDirError, OpenStoreError, ReadGroupError, StoreError, Table};
pub use tls::TlsError;
pub use typed::{DecodeError, TypedApproved, TypedBroadcastError, TypedGroup, TypedItem};
pub use versions::{DATA_FORMAT_VERSION, data_formats, wire_versions};
pub use wait::{Answer, Awaited, TimedOut, WAIT_TIMEOUT, Wait};

pub use open::{NotOpened, OpenEvent, OpenGroup, OpenGroupError, SeedAnswer, SettingDifference};

/// Items for the project's own benches and tests. They are not part of the API, and change without notice.
#[doc(hidden)]
pub mod internals {
    pub use crate::endpoint::{
        EndpointSocket, PeerIdError, UNI_STREAMS_MAX, client_config, handshake, open, peer_id, server_config,
    };
    pub use crate::storage::STORE_CACHE_BYTES;
    pub use crate::tls::client_config as tls_client_config;
}
