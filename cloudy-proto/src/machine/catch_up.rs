//! Transfers of the result: to this node, and from it to others (`protocol.md` §7.7).

use crate::machine::fetching::Fetches;
use crate::machine::serve::Transfers;

/// Transfers of the result to this node and from it.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub(super) fetches: Fetches,
    pub(super) transfers: Transfers,
}

impl CatchUp {
    /// `run` distinguishes the numbers of transfers from those of an earlier process.
    pub(super) fn new(run: u64) -> Self {
        Self { fetches: Fetches::new(run), transfers: Transfers::default() }
    }
}
