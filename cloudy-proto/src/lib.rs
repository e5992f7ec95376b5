//! The cloudy protocol as state machines without I/O.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod id;

pub use id::{GroupId, Incarnation, Index, LogIndex, MessageId, NodeId, Rank, Round, Seq, ViewId};
