//! The tests of cloudy: the simulator, its checkers, and scenarios that read like stories.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod explore;
pub mod invariants;
pub mod scenario;
pub mod scripted;
pub mod sim;

#[cfg(doctest)]
mod book;
