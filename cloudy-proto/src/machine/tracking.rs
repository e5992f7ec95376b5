//! Which node coordinates the group, as far as this node knows (`protocol.md` §6.1).

use core::time::Duration;

use crate::id::NodeId;
use crate::io::NoCompleteMember;
use crate::machine::control_log::ControlLog;
use crate::machine::peers::Peers;
use crate::time::Time;

/// The latest known coordinator and its term, and the time from which no coordinator is in reach.
#[derive(Debug)]
pub(super) struct CoordinatorTracking {
    node: NodeId,
    term: u64,
    /// Whether the node has resigned, and no other one is known to coordinate.
    resigned: bool,
    /// The latest claim of a node that the log does not list yet.
    claim: Option<(u64, NodeId)>,
    lost_since: Option<Time>,
    /// Whether the application knows that no coordinator is in reach.
    loss_reported: bool,
    /// The last report of a view that no complete member can end.
    incomplete_reported: Option<NoCompleteMember>,
}

/// The effect of a claim to coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A later coordinator is known, or another one of the same term.
    Outdated,
    /// This coordinator is known already.
    Known,
    /// Another node coordinates, or the same one in a later term.
    New,
}

impl CoordinatorTracking {
    /// A node that is likely to coordinate, in a term that is not known.
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            term: 0,
            resigned: false,
            claim: None,
            lost_since: None,
            loss_reported: false,
            incomplete_reported: None,
        }
    }

    /// The latest known coordinator.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether its term is known, and not only its id from a configuration or an invitation.
    pub(super) fn knows_term(&self) -> bool {
        self.term > 0
    }

    /// Whether the coordinator is another node and has not resigned.
    pub(super) fn is_elsewhere(&self, me: NodeId) -> bool {
        self.node != me && !self.resigned
    }

    /// The coordinator, if it is another node and linked.
    pub(super) fn linked(&self, me: NodeId, peers: &Peers) -> Option<NodeId> {
        Some(self.node).filter(|node| self.is_elsewhere(me) && peers.is_linked(*node))
    }

    /// Whether a node is in the log or coordinates: a coordinator has listed this node, or invited it.
    pub(super) fn is_known(&self, node: NodeId, log: &ControlLog) -> bool {
        log.lists(node) || node == self.node
    }

    /// Notes that this node coordinates in a term.
    pub(super) fn on_lead(&mut self, me: NodeId, term: u64) {
        (self.node, self.term) = (me, term);
        (self.resigned, self.loss_reported) = (false, false);
    }

    /// Handles a claim to coordinate of a node of the group. An outdated claim changes nothing.
    pub(super) fn on_claim(&mut self, from: NodeId, term: u64) -> Claim {
        let is_known = (term, from) == (self.term, self.node);
        if term < self.term || (term == self.term && !is_known && term > 0) {
            return Claim::Outdated;
        }
        (self.node, self.term, self.resigned) = (from, term, false);
        if is_known { Claim::Known } else { Claim::New }
    }

    /// Keeps a claim to coordinate of a node that may be a stranger: the one with the highest term.
    pub(super) fn keep_claim(&mut self, from: NodeId, term: u64) {
        self.claim = self.claim.max(Some((term, from)));
    }

    /// The claim that was kept, once its node turns out to be of the group.
    pub(super) fn take_claim(&mut self, is_of_group: impl Fn(NodeId) -> bool) -> Option<(u64, NodeId)> {
        self.claim.take_if(|(_, node)| is_of_group(*node))
    }

    /// With no coordinator in reach, this node relies on the one whose claim was kept.
    pub(super) fn claimant(&self) -> Option<NodeId> {
        self.claim.filter(|_| self.lost_since.is_some()).map(|(_, node)| node)
    }

    /// Notes that a node does not coordinate. True if it was the known coordinator.
    pub(super) fn on_resign(&mut self, from: NodeId) -> bool {
        let is_coordinator = from == self.node;
        self.resigned |= is_coordinator;
        is_coordinator
    }

    /// Notes that no coordinator is in reach. True if one was so far.
    pub(super) fn on_lost(&mut self, now: Time) -> bool {
        let was_in_reach = self.lost_since.is_none();
        self.lost_since.get_or_insert(now);
        was_in_reach
    }

    /// Notes that a coordinator is in reach. True if the application was notified that none is.
    pub(super) fn on_found(&mut self) -> bool {
        self.lost_since = None;
        core::mem::take(&mut self.loss_reported)
    }

    /// Notes that the application learns of another coordinator, and so of the end of the loss.
    pub(super) fn on_new_reported(&mut self) {
        self.loss_reported = false;
    }

    /// Notes that the group is closed and needs no coordinator.
    pub(super) fn on_closed(&mut self) {
        self.lost_since = None;
    }

    /// The time for which no coordinator has been in reach; none if one is.
    pub(super) fn lost_for(&self, now: Time) -> Option<Duration> {
        self.lost_since.map(|since| now.since(since))
    }

    /// Notes that the loss is reported to the application. True the first time.
    pub(super) fn report_loss(&mut self) -> bool {
        !core::mem::replace(&mut self.loss_reported, true)
    }

    /// Notes that no complete member can end the present view. True if the application does not know of it.
    pub(super) fn report_incomplete(&mut self, incomplete: &NoCompleteMember) -> bool {
        let is_new = self.incomplete_reported.as_ref() != Some(incomplete);
        if is_new {
            self.incomplete_reported = Some(incomplete.clone());
        }
        is_new
    }

    pub(super) fn is_loss_reported(&self) -> bool {
        self.loss_reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId([1; 32]);
    const ONE: NodeId = NodeId([2; 32]);
    const OTHER: NodeId = NodeId([3; 32]);

    #[test]
    fn a_claim_counts_in_a_later_term_only() {
        let mut tracking = CoordinatorTracking::new(ONE);
        assert_eq!(tracking.on_claim(OTHER, 2), Claim::New);
        assert_eq!(tracking.on_claim(OTHER, 2), Claim::Known);
        assert_eq!(tracking.on_claim(ONE, 2), Claim::Outdated, "a term has one coordinator");
        assert_eq!(tracking.on_claim(ONE, 1), Claim::Outdated);
        assert_eq!((tracking.node(), tracking.on_claim(ONE, 3)), (OTHER, Claim::New));
    }

    #[test]
    fn a_coordinator_that_resigned_is_none_until_it_claims_again() {
        let mut tracking = CoordinatorTracking::new(ONE);
        tracking.on_claim(ONE, 1);
        assert!(!tracking.on_resign(OTHER) && tracking.is_elsewhere(ME), "another node does not coordinate");
        assert!(tracking.on_resign(ONE) && !tracking.is_elsewhere(ME));
        assert_eq!((tracking.on_claim(ONE, 1), tracking.is_elsewhere(ME)), (Claim::Known, true));
        tracking.on_lead(ME, 2);
        assert!(!tracking.is_elsewhere(ME), "this node coordinates itself");
    }

    #[test]
    fn the_claim_of_a_stranger_is_used_only_while_no_coordinator_is_in_reach() {
        let mut tracking = CoordinatorTracking::new(ONE);
        tracking.keep_claim(OTHER, 3);
        tracking.keep_claim(ONE, 2);
        assert_eq!(tracking.claimant(), None);
        assert!(tracking.on_lost(Time(5)) && !tracking.on_lost(Time(6)));
        assert_eq!(tracking.claimant(), Some(OTHER), "the highest term");
        assert_eq!(tracking.take_claim(|_| false), None);
        assert_eq!(tracking.take_claim(|node| node == OTHER), Some((3, OTHER)));
        assert_eq!(tracking.claimant(), None);
    }

    #[test]
    fn a_loss_is_reported_once_and_its_end_too() {
        let mut tracking = CoordinatorTracking::new(ONE);
        tracking.on_lost(Time(5));
        assert_eq!(tracking.lost_for(Time(8)), Some(Duration::from_micros(3)));
        assert!(tracking.report_loss() && !tracking.report_loss() && tracking.is_loss_reported());
        assert!(tracking.on_found() && !tracking.on_found());
        assert_eq!(tracking.lost_for(Time(8)), None);
    }
}
