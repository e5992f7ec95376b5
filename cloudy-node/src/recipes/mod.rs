//! Building blocks of distributed services, on [`Replica`](crate::Replica).
//!
//! Each recipe uses a group of its own. Its members must all run the same recipe.
//!
//! # Agreed time
//!
//! Leases, and lifetimes of entries, end by a time that all members agree on: each command carries the wall clock of the
//! node that submitted it, and the agreed time is the latest of these. Nothing reads a clock while it applies a command. So
//! leases are as exact as the clocks of the members: a clock that is ahead shortens the leases that are held when its member
//! submits a command, and later leases last until the other clocks have passed the agreed time. This endangers no data that
//! is protected by a fencing token.

mod barrier;
mod calls;
mod clock;
mod counter;
mod election;
mod locks;
mod map;
mod open_calls;
mod queue;
mod snapshot;
mod table;

pub use barrier::{BarrierError, Barriers};
pub use calls::{Call, CallError, Calls, Replies};
pub use counter::Counters;
pub use election::{Election, Leader, Leadership};
pub use locks::{LockError, LockGuard, Locks};
pub use map::{Conflict, Entry, Map, Transaction};
pub use open_calls::{CALL_BYTES_MAX, CallAnswer, CallRequest, OPEN_CALLS_MAX};
pub use queue::{Claim, ClaimError, Queue};
