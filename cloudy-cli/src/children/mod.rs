//! Processes that run this program again: how they are started, controlled and followed, and how each knows its parent.
//!
//! ```text
//!   parent                                              child
//!   Child::start ─► Child::follow ─ orders ─► stdin  ─► parent::obey, parent::orders
//!                        ▲                              │
//!                        └───── news ◄─ stdout, stderr ◄┘ parent::say
//! ```
//!
//! Orders and answers are a JSON object on a line each; which ones there are is the matter of those who use them. A child's
//! stdin is open for as long as the parent wants the child: closed, it tells the child that the parent is gone or done.

mod child;
mod follow;
pub(crate) mod parent;
pub(crate) mod supervisor;

pub(crate) use child::{Child, Reads, Signal};
pub(crate) use follow::{Control, Ending, News};
