//! Transfers of the result: what this node fetches, and what it gives to others (`protocol.md` §7.7).

use crate::machine::fetch::Fetching;
use crate::machine::serve::Transfers;

/// Transfers of the result to this node and from it.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// What is missing here.
    pub(super) fetching: Option<Fetching>,
    pub(super) transfers: Transfers,
}

impl CatchUp {
    /// `run` keeps the numbers of transfers apart from those of an earlier process.
    pub(super) fn new(run: u64) -> Self {
        Self { fetching: None, transfers: Transfers::new(run) }
    }
}
