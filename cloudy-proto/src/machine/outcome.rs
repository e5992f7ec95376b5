//! What became of a broadcast, by its name (`protocol.md` §2, *message id*): no table is kept for it.

use std::collections::BTreeMap;

use crate::id::{Incarnation, MessageId, NodeId, Seq};
use crate::io::Outcome;
use crate::machine::Machine;

impl Machine {
    /// The last number of each run in the result: what answers for every broadcast once the result is final.
    #[must_use]
    pub fn last_numbers(&self) -> BTreeMap<(NodeId, Incarnation), Seq> {
        self.delivery.result.last_seqs().clone()
    }

    /// What became of a broadcast of any node, as far as the log and the result here say.
    #[must_use]
    pub fn outcome(&self, id: MessageId) -> Outcome {
        if id.seq <= self.delivery.result.last_seq(id.origin, id.incarnation) {
            return Outcome::Approved;
        }
        let superseded = self.state.incarnation(id.origin).is_some_and(|latest| latest > id.incarnation);
        let on_ring = self.state.view().is_some_and(|view| view.rank_of_run(id.origin, id.incarnation).is_some());
        // Only a complete member's result reaches the latest view's first index for certain.
        let reaches = self.member.as_ref().is_some_and(|member| member.complete);
        let over = self.final_result.is_some() || (superseded && !on_ring && reaches);
        if over { Outcome::Rejected } else { Outcome::Open }
    }
}
