//! `cloudy bench`: the rate of groups on this machine, and the rate of the bare transport below them.
//!
//! ```text
//!   commands/bench.rs ─► runs (pairs, medians) ─► conduct (one run) ─► nodes ═╦═ a process, node.rs: member.rs
//!                                                                             ╚═ the same:           baseline/
//! ```
//!
//! [`failover`] uses the same nodes: they serve until they are killed.
//!
//! A node receives [`orders`](orders::Order) and reports its progress. Times are microseconds since the Unix epoch: all
//! nodes are on one machine, so its clock is their common one.

pub(crate) mod baseline;
pub(crate) mod conduct;
pub(crate) mod failover;
pub(crate) mod html;
pub(crate) mod key;
pub(crate) mod latency;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod member;
pub(crate) mod meter;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod orders;
pub(crate) mod report;
pub(crate) mod row;
pub(crate) mod runs;
pub(crate) mod spec;
pub(crate) mod targets;
pub(crate) mod timeline;
pub(crate) mod timer;
