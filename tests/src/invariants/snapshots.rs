//! The states of applications, and their snapshots: one state at one index, from every source (`protocol.md` §7).

use cloudy_proto::Approval;

use super::{Failure, Judge};
use crate::sim::state::State;

impl Judge {
    /// Checks that an application's state is the one that the messages up to its index make.
    ///
    /// # Errors
    /// It is another.
    pub fn is_state(&self, rule: &'static str, node: usize, state: State) -> Result<(), Failure> {
        let made = self.ghost.state_at(state.index);
        if made == Some(state) || self.is_tainted(node) {
            return Ok(());
        }
        Err(self.failure(rule, node, format!("{state:?}, and the messages make {made:?}")))
    }

    /// The state that the messages up to an index make; none beyond them.
    #[must_use]
    pub fn state_at(&self, index: u64) -> Option<State> {
        self.ghost.state_at(index)
    }

    /// A node's result continues for its application after an index.
    ///
    /// # Errors
    /// It went further before.
    pub(super) fn goes_on_after(&mut self, node: usize, index: u64) -> Result<(), Failure> {
        let before = self.nodes[node].index;
        if index < before {
            let what = format!("index {index} after {before}");
            return Err(self.failure("a snapshot takes nobody back", node, what));
        }
        (self.nodes[node].index, self.nodes[node].restored_to) = (index, index);
        if !self.is_tainted(node) {
            self.ghost.is_known(index);
        }
        Ok(())
    }

    /// The part of an approval that is not in its application's snapshot must equal the entry.
    pub(super) fn beyond_snapshot(&self, node: usize, approval: &Approval) -> Option<Approval> {
        let known = (self.nodes[node].restored_to + 1).saturating_sub(approval.first_index.0);
        let known = u32::try_from(known).ok().filter(|known| *known < approval.count)?;
        let mut approval = approval.clone();
        approval.first_seq.0 += u64::from(known);
        approval.first_index.0 += u64::from(known);
        approval.count -= known;
        Some(approval)
    }
}
