//! Processes that run this program again: how they are started, controlled and followed, and how each knows its parent.
//!
//! ```text
//!   parent                                              child
//!   Child::start ─► Child::follow ─ orders ─► stdin  ─► parent::obey, parent::orders
//!                        ▲                              │
//!                        └───── news ◄─ stdout, stderr ◄┘ parent::say
//! ```
//!
//! Orders and reports are JSON objects, each on a line; the users of this module define them. A child's stdin stays
//! open while the parent needs the child: when it is closed, the parent is gone or finished.

mod child;
mod follow;
pub(crate) mod parent;
pub(crate) mod supervisor;

pub(crate) use child::{Child, Reads, Signal};
pub(crate) use follow::{Control, Ending, News};
