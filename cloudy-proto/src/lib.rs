//! The cloudy protocol as state machines without I/O.
//!
//! One contract drives everything (`protocol.md` is what it implements):
//!
//! ```text
//!   machine.handle(now, input)            the only way in
//!   while let Some(output) = machine.poll_output() { … }
//!   machine.poll_timeout()                when to call handle(Timeout) at the latest
//! ```
//!
//! The machine reads no clock and no randomness: equal inputs give equal outputs, byte for byte.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod catch_up;
mod command;
mod config;
mod control;
mod delivery;
mod digest;
mod due;
mod id;
mod io;
mod lane;
pub mod limits;
mod machine;
mod member;
mod outbox;
mod outputs;
mod path;
mod pending;
mod read_back;
mod records;
mod recovery;
mod result_log;
mod ring;
mod rules;
mod session;
pub mod slot;
mod stored;
mod throttle;
mod time;
mod view;
mod view_change;
mod walk;
pub mod wire;
mod words;

pub use catch_up::{Part, Retained};
pub use command::{Command, Dropped, InstallView, SessionPlan, VoterRole};
pub use config::{CatchUpPolicy, Durability, OnFailure, Parameters, ParametersError, RingKind};
pub use digest::{Checkpoint, Digest, ResultBase, ResultDigest};
pub use id::{
    ConsensusId, GroupId, Incarnation, Index, LogIndex, MessageId, NodeId, ParseNodeIdError, Rank, Round, Seq, ViewId,
};
pub use io::{
    Admission, Approval, ApprovedItem, CannotKeepUp, Entry, Event, Frame, Input, LeastRing, LeaveWait, MemberStatus,
    MissingVoters, NoCompleteMember, Outcome, Output, PendingSlot, Phase, Position, Request, SlowDownEnd, StaleDisk,
    Status, VotesLost, WaitCause, Waiting,
};
pub use limits::ServeLimits;
pub use machine::{FinalOutcomes, Machine, MachineConfig, Role};
pub use read_back::{Stored, StoredError};
pub use recovery::{AloneError, StoredState};
pub use rules::{Rule, Rules};
pub use stored::{
    LogBase, Record, SnapshotState, StateParts, StoredBase, StoredBody, StoredEntry, StoredSnapshot, Vote,
};
pub use time::Time;
pub use view::{InstalledView, Origin, Place, RingMember, View};
pub use words::{harmless, is_advertisable};
