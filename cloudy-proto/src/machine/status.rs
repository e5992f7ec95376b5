//! The status of a group at this node, and the outcome of a broadcast (`protocol.md` §2, *message id*).

use core::time::Duration;
use std::collections::BTreeMap;

use crate::command::VoterRole;
use crate::id::{Incarnation, MessageId, NodeId, Rank, Seq};
use crate::io::{LeastRing, LeaveWait, MemberStatus, Outcome, PendingSlot, Status, VotesLost, WaitCause, Waiting};
use crate::machine::closing::Closing;
use crate::machine::control_log::ControlLog;
use crate::machine::coordinating::Coordinating;
use crate::machine::coordinator::{missing_voters, votes_lost};
use crate::machine::data_plane::DataPlane;
use crate::machine::fetching::Fetches;
use crate::machine::identity::Identity;
use crate::machine::leave::absent;
use crate::machine::peers::Peers;
use crate::machine::storage::Storage;
use crate::machine::timeouts::Timeouts;
use crate::machine::tracking::CoordinatorTracking;
use crate::member::Member;
use crate::result_log::ResultLog;
use crate::rules::Rule;
use crate::session::{Session, phase_of};
use crate::time::Time;
use crate::view::RingMember;

/// Maximum of entries of the pending table in a status.
const PENDING_NAMED: usize = 16;

/// This node's knowledge of its group at one time. It changes nothing.
pub(super) struct StatusView<'a> {
    pub(super) identity: &'a Identity,
    pub(super) log: &'a ControlLog,
    pub(super) coordinating: Option<&'a Coordinating>,
    pub(super) tracking: &'a CoordinatorTracking,
    pub(super) peers: &'a Peers,
    pub(super) plane: &'a DataPlane,
    pub(super) result: &'a ResultLog,
    pub(super) storage: &'a Storage,
    pub(super) session: Option<&'a Session>,
    pub(super) fetches: &'a Fetches,
    pub(super) closing: &'a Closing,
    /// Whether the machine has stopped for good.
    pub(super) is_halted: bool,
    pub(super) now: Time,
}

impl StatusView<'_> {
    /// The present state of the group.
    pub(super) fn status(&self) -> Status {
        let now = self.now;
        let view = self.log.state().view().cloned();
        let members =
            view.as_ref().map(|view| view.ring.iter().map(|member| self.member_status(member.node)).collect());
        let member = self.plane.member();
        Status {
            rank: view.as_ref().and_then(|view| view.rank_of_run(self.identity.me, self.identity.incarnation)),
            view,
            level: self.log.level(),
            coordinator: self.has_coordinator().then_some(self.tracking.node()),
            coordinator_silent_for: self.coordinator_silence(),
            voters: self.voters(),
            phase: phase_of(
                self.session,
                self.log.state().view().is_some(),
                self.closing.is_stopping(),
                self.closing.is_final(),
            ),
            index: self.result.state().index(),
            checkpoint: self.result.state().latest_checkpoint(),
            durability: self.identity.durability,
            snapshot: self.storage.snapshot.as_ref().map(|snapshot| snapshot.index),
            members: members.unwrap_or_default(),
            pending: member.map(|member| pending(member, now)).unwrap_or_default(),
            pending_slots: member.map_or(0, |member| member.unapproved().count()),
            outbox_payloads: self.plane.outbox().payloads(),
            window_bytes: member.map_or(0, Member::window_bytes),
            confirmations_given: self.plane.confirmations_given(),
            waits_for: member.and_then(|member| self.waits_for(member)),
            leaving: self.leave_wait(),
            votes_lost: self.tracking.is_loss_reported().then(|| self.votes_lost()).flatten(),
            missing_voters: missing_voters(self.identity, self.log, self.peers, self.tracking, self.now),
        }
    }

    fn voters(&self) -> Vec<NodeId> {
        let voters = self.log.state().electors().filter(|(.., role)| *role == VoterRole::Voter);
        voters.map(|(_, node, _)| node).collect()
    }

    fn member_status(&self, node: NodeId) -> MemberStatus {
        let heard = self.peers.heartbeat(node).map(|heartbeat| heartbeat.index).unwrap_or_default();
        let index = if node == self.identity.me { self.result.state().index() } else { heard };
        let member = self.plane.member();
        let rank = member.and_then(|member| member.view.rank_of(node));
        let at = |read: fn(&Member, Rank) -> u64| member.zip(rank).map_or(0, |(member, rank)| read(member, rank));
        MemberStatus {
            node,
            linked: node == self.identity.me || self.peers.is_linked(node),
            alive: self.timeouts().seems_alive(node),
            ready: self.log.state().view().zip(self.coordinating).is_some_and(|(view, it)| it.has_ready(node, view.id)),
            frontier: at(|member, rank| member.marks(rank).frontier.0),
            approved: at(|member, rank| member.marks(rank).approved.0),
            confirmed: at(|member, rank| member.marks(rank).confirmed.0),
            index,
        }
    }

    fn coordinator_silence(&self) -> Option<Duration> {
        let node = self.tracking.node();
        if self.coordinating.is_some() || self.log.state().is_closed() {
            return None;
        }
        let heard_at = self.peers.answered_at(node);
        let silence = heard_at.map(|at| self.now.since(at));
        match self.tracking.lost_for(self.now) {
            Some(lost) => Some(silence.map_or(lost, |silence| silence.max(lost))),
            None => silence.filter(|silence| *silence > self.timeouts().probed_silence_max(node)),
        }
    }

    /// The condition that this node waits for, if it is leaving.
    fn leave_wait(&self) -> Option<LeaveWait> {
        let view = self
            .log
            .state()
            .view()
            .filter(|_| self.closing.departure().is_wanted() && !self.closing.departure().is_finished())?;
        if !self.has_coordinator() {
            return Some(LeaveWait::CoordinatorOutOfReach);
        }
        if view.rank_of(self.identity.me).is_none() {
            return Some(if self.log.lists_voter_of(self.identity.me) { LeaveWait::Vote } else { LeaveWait::Log });
        }
        // Only the coordinator knows the other nodes that leave.
        let leaves = |member: &RingMember| member.node == self.identity.me || self.is_leaving(member.node);
        let none_stays = view.ring.iter().all(leaves);
        let evicted: Vec<NodeId> = absent(self.log, view).collect();
        let (members, ring_min) = (view.members(), view.parameters.ring_min);
        Some(match none_stays && !evicted.is_empty() {
            true => LeaveWait::Heir { evicted, silent_for: self.closing.departure().without_heir_for(self.now) },
            false if !none_stays && members <= usize::from(ring_min) => LeaveWait::LeastRing { members, ring_min },
            false => LeaveWait::View,
        })
    }

    fn waits_for(&self, member: &Member) -> Option<Waiting> {
        let index = self.result.state().index().next();
        let waits =
            member.waits_at().map(|(rank, cause, since)| (member.view.member(rank).node, cause, self.now.since(since)));
        let Some((missing, least_ring)) = self.least_ring(member) else {
            let (node, cause, age) = waits?;
            return Some(Waiting { index, node, cause, age, least_ring: None });
        };
        // Without a message that waits, the next one will.
        let (_, cause, age) = waits.unwrap_or((missing, WaitCause::Confirmation, Duration::ZERO));
        Some(Waiting { index, node: missing, cause, age, least_ring: Some(least_ring) })
    }

    /// The slot that the result waits for, if that has to be reported: not while only this node can use its own turn.
    pub(super) fn reported_wait(&self) -> Option<Waiting> {
        let waiting = self.plane.member().and_then(|member| self.waits_for(member))?;
        let says = waiting.node != self.identity.me || waiting.cause == WaitCause::OwnDisk;
        says.then_some(waiting)
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        self.coordinating.is_some_and(|coordinating| coordinating.is_leaving(node))
    }

    fn has_coordinator(&self) -> bool {
        self.coordinating.is_some() || self.tracking.linked(self.identity.me, self.peers).is_some()
    }

    /// The lost votes, if most voters returned without theirs: no node can coordinate the group.
    fn votes_lost(&self) -> Option<VotesLost> {
        votes_lost(self.identity, self.log, self.has_coordinator())
    }

    fn timeouts(&self) -> Timeouts<'_> {
        Timeouts::new(self.identity, self.log, self.peers, self.storage, self.now)
    }

    /// The least ring size, with the first missing member, if that prevents the end of a view change.
    fn least_ring(&self, member: &Member) -> Option<(NodeId, LeastRing)> {
        let ring =
            member.view.ring.iter().filter(|_| member.is_wedged() && !member.view.last).map(|member| member.node);
        let (reached, missing): (Vec<NodeId>, Vec<NodeId>) =
            ring.partition(|node| *node == self.identity.me || self.peers.is_linked(*node));
        let least_ring = LeastRing { in_reach: reached.len(), ring_min: member.view.parameters.ring_min };
        let node = *missing.first()?;
        (least_ring.in_reach < usize::from(least_ring.ring_min)).then_some((node, least_ring))
    }
}

fn pending(member: &Member, now: Time) -> Vec<PendingSlot> {
    let named = member.unapproved().take(PENDING_NAMED);
    named
        .map(|record| PendingSlot {
            first_seq: record.first_seq,
            count: record.count,
            waits_for: record.waits_for(&member.view),
            age: now.since(record.sent_at),
        })
        .collect::<Vec<_>>()
}

/// The text for logs.
impl core::fmt::Display for Waiting {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (node, age_ms) = (self.node.short(), self.age.as_millis());
        write!(f, "index {} waits for ", self.index)?;
        match self.cause {
            WaitCause::Slot => write!(f, "a message or skip of node {node}")?,
            WaitCause::Approval => write!(f, "the approval of node {node}")?,
            WaitCause::Confirmation => write!(f, "the confirmation of node {node}")?,
            WaitCause::OwnDisk => f.write_str("this node's own disk")?,
        }
        write!(f, ", {age_ms} ms")?;
        match self.least_ring {
            Some(LeastRing { in_reach, ring_min }) => {
                write!(
                    f,
                    "; {in_reach} members are in reach and ring_min is {ring_min}, so the group waits until more are back"
                )
            }
            None => Ok(()),
        }
    }
}

/// The outcomes of all broadcasts of a group whose result is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalOutcomes {
    /// The last sequence number of each incarnation in the result.
    last_numbers: BTreeMap<(NodeId, Incarnation), Seq>,
    /// Each node's latest incarnation that the log lists.
    latest: BTreeMap<NodeId, Incarnation>,
}

impl FinalOutcomes {
    /// The outcome of a broadcast of any node. [`Outcome::Open`] only for an id that no node was given, as far as the
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

impl StatusView<'_> {
    /// The outcomes for good once the result is final.
    pub(super) fn final_outcomes(&self) -> Option<FinalOutcomes> {
        let is_known =
            self.closing.final_result().is_some() && !self.is_halted && self.result.state().knows_all_numbers();
        is_known.then(|| FinalOutcomes {
            last_numbers: self.result.state().last_seqs().clone(),
            latest: self.log.state().latest_incarnations().collect(),
        })
    }

    /// The outcome of a broadcast of any node, as far as the log and the result are known here.
    pub(super) fn outcome(&self, id: MessageId) -> Outcome {
        if self.is_halted {
            return Outcome::Open;
        }
        if is_approved(id, self.result.state().last_seq(id.origin, id.incarnation)) {
            return Outcome::Approved;
        }
        let is_over = self.closing.final_result().is_some() || (self.is_over(id) && self.reaches_view());
        let may_reject = self.names_a_broadcast(id) && self.result.state().knows_all_numbers();
        if may_reject && is_over { Outcome::Rejected } else { Outcome::Open }
    }

    /// Whether the log has listed the incarnation. Only then was the id given out, and only then can it be in no
    /// result.
    fn names_a_broadcast(&self, id: MessageId) -> bool {
        let is_listed = self.log.state().incarnation(id.origin).is_some_and(|latest| is_listed(id, latest));
        is_listed || !self.identity.rules.holds(Rule::RejectedIsListed)
    }

    /// Whether the log lists a newer incarnation of the origin, or that the origin has left, and the present view does
    /// not list this one: no later view can.
    fn is_over(&self, id: MessageId) -> bool {
        let is_superseded = self.log.state().incarnation(id.origin).is_some_and(|latest| latest > id.incarnation)
            || self.log.state().has_left(id.origin);
        let on_ring = self.log.state().view().is_some_and(|view| view.rank_of_run(id.origin, id.incarnation).is_some());
        is_superseded && (!on_ring || !self.identity.rules.holds(Rule::RejectedIsOffRing))
    }

    /// Whether the result reaches the first index of the present view: at a complete member, and at a node that fetched
    /// up to there.
    fn reaches_view(&self) -> bool {
        let member = self.plane.place();
        let is_complete = member.is_some_and(Member::is_complete);
        let is_fetched = self.fetches.reaches_view();
        is_complete || is_fetched || !self.identity.rules.holds(Rule::RejectedIsReached)
    }
}

fn is_approved(id: MessageId, last: Seq) -> bool {
    id.seq > Seq(0) && id.seq <= last
}

/// Whether an incarnation was listed. A node's incarnations grow: every one up to its latest was listed, or never will
/// be. Sequence numbers begin at 1.
fn is_listed(id: MessageId, latest: Incarnation) -> bool {
    id.seq > Seq(0) && id.incarnation > Incarnation(0) && id.incarnation <= latest
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    use crate::config::{Durability, Parameters};
    use crate::id::Seq;
    use crate::io::{Event, Input, Output, Request};
    use crate::machine::tests::{alone, drain};
    use crate::slot::{Batch, push_payload};

    #[test]
    fn a_wait_for_the_own_disk_names_the_own_disk() {
        let mut machine = alone(Parameters { durability: Durability::Disk, ..Parameters::default() });
        let mut body = BytesMut::new();
        push_payload(&mut body, b"x");
        machine.handle(Time(0), Input::Broadcast(Batch { first_seq: Seq(1), count: 1, body: body.freeze() }));
        drain(&mut machine);
        let mut said = Vec::new();
        while machine.timers.now() < Time(400_000) {
            machine.handle(machine.poll_timeout().expect("heartbeats"), Input::Timeout);
            said.extend(drain(&mut machine).into_iter().filter_map(|output| match output {
                Output::Event(Event::Waits(waiting)) => Some(waiting),
                _ => None,
            }));
        }
        let [waiting] = said[..] else { panic!("once in 400 ms: {said:?}") };
        assert_eq!((waiting.node, waiting.cause), (machine.identity.me, WaitCause::OwnDisk));
        assert!(waiting.to_string().starts_with("index 1 waits for this node's own disk, 2"), "{waiting}");
    }

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
