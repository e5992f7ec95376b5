//! What became of a broadcast, by its message id (`protocol.md` §2, *message id*): no table is kept for it.

use std::collections::BTreeMap;

use crate::id::{Incarnation, MessageId, NodeId, Seq};
use crate::io::Outcome;
use crate::machine::Machine;
use crate::rules::Rule;

/// The verdict on every broadcast of a group whose result is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalOutcomes {
    /// The last sequence number of each incarnation in the result.
    last_numbers: BTreeMap<(NodeId, Incarnation), Seq>,
    /// Each node's latest incarnation that the log lists.
    latest: BTreeMap<NodeId, Incarnation>,
}

impl FinalOutcomes {
    /// What became of a broadcast of any node. [`Outcome::Open`] only for an id that no node was given, as far as the
    /// log is known here.
    #[must_use]
    pub fn outcome(&self, id: MessageId) -> Outcome {
        let last = self.last_numbers.get(&(id.origin, id.incarnation)).copied().unwrap_or_default();
        match self.latest.get(&id.origin) {
            _ if is_approved(id, last) => Outcome::Approved,
            Some(latest) if is_listed(id, *latest) => Outcome::Rejected,
            _ => Outcome::Open,
        }
    }
}

impl Machine {
    /// The verdicts that hold for good once the result is final. None before that, and where the result here cannot
    /// tell: it diverged, or it begins after index 1 without the sequence numbers before that.
    #[must_use]
    pub fn final_outcomes(&self) -> Option<FinalOutcomes> {
        let is_known = self.closing.final_result().is_some()
            && !self.outputs.is_halted()
            && self.result.state().knows_all_numbers();
        is_known.then(|| FinalOutcomes {
            last_numbers: self.result.state().last_seqs().clone(),
            latest: self.log.state().latest_incarnations().collect(),
        })
    }

    /// What became of a broadcast of any node, as far as the log and the result here say. [`Outcome::Approved`] and
    /// [`Outcome::Rejected`] are for good.
    #[must_use]
    pub fn outcome(&self, id: MessageId) -> Outcome {
        if self.outputs.is_halted() {
            return Outcome::Open;
        }
        if is_approved(id, self.result.state().last_seq(id.origin, id.incarnation)) {
            return Outcome::Approved;
        }
        let is_over = self.closing.final_result().is_some() || (self.is_over(id) && self.reaches_view());
        let may_reject = self.names_a_broadcast(id) && self.result.state().knows_all_numbers();
        if may_reject && is_over { Outcome::Rejected } else { Outcome::Open }
    }

    /// The log has listed the incarnation. Only then was the id given out, and only then can it be in no result.
    fn names_a_broadcast(&self, id: MessageId) -> bool {
        let is_listed = self.log.state().incarnation(id.origin).is_some_and(|latest| is_listed(id, latest));
        is_listed || !self.identity.rules.holds(Rule::RejectedIsListed)
    }

    /// The log lists a newer incarnation of the origin, or that the origin has left, and the view in force does not list
    /// this one: no later view can.
    fn is_over(&self, id: MessageId) -> bool {
        let is_superseded = self.log.state().incarnation(id.origin).is_some_and(|latest| latest > id.incarnation)
            || self.log.state().has_left(id.origin);
        let on_ring = self.log.state().view().is_some_and(|view| view.rank_of_run(id.origin, id.incarnation).is_some());
        is_superseded && (!on_ring || !self.identity.rules.holds(Rule::RejectedIsOffRing))
    }

    /// The result reaches the first index of the view in force: at a complete member, and at a node that fetched as far.
    fn reaches_view(&self) -> bool {
        let member = self.plane.place();
        let is_complete = member.is_some_and(|member| member.complete);
        let is_fetched = self.catch_up.fetching.as_ref().is_some_and(|fetching| fetching.reaches);
        is_complete || is_fetched || !self.identity.rules.holds(Rule::RejectedIsReached)
    }
}

fn is_approved(id: MessageId, last: Seq) -> bool {
    id.seq > Seq(0) && id.seq <= last
}

/// A node's incarnations grow: every one up to its latest was listed, or never will be. Sequence numbers begin at 1.
fn is_listed(id: MessageId, latest: Incarnation) -> bool {
    id.seq > Seq(0) && id.incarnation > Incarnation(0) && id.incarnation <= latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Parameters;
    use crate::io::{Input, Request};
    use crate::machine::tests::{alone, drain};

    #[test]
    fn sequence_number_zero_is_never_rejected() {
        let mut machine = alone(Parameters::default());
        machine.handle(machine.timers.now(), Input::Request(Request::End));
        drain(&mut machine);
        let id = |seq| MessageId { origin: machine.identity.me, incarnation: machine.incarnation(), seq: Seq(seq) };
        let outcomes = machine.final_outcomes().expect("the result is final");
        assert_eq!((machine.outcome(id(1)), outcomes.outcome(id(1))), (Outcome::Rejected, Outcome::Rejected));
        assert_eq!((machine.outcome(id(0)), outcomes.outcome(id(0))), (Outcome::Open, Outcome::Open));
    }
}
