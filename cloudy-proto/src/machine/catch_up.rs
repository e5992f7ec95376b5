//! Transfers of the result: to this node, and from it to others (`protocol.md` §7.7).

use crate::machine::fetch::Fetching;
use crate::machine::serve::Transfers;

/// Transfers of the result to this node and from it.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The missing part of the result.
    pub(super) fetching: Option<Fetching>,
    pub(super) transfers: Transfers,
}

impl CatchUp {
    /// `run` distinguishes the numbers of transfers from those of an earlier process.
    pub(super) fn new(run: u64) -> Self {
        Self { fetching: None, transfers: Transfers::new(run) }
    }
}
