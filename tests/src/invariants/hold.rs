//! The number of slots that a member confirms ahead of its cursor is bounded, and the slot at its cursor is always
//! confirmed (`protocol.md` §3.2, rule 4).

use cloudy_proto::slot::Slot;
use cloudy_proto::{Machine, Parameters, Phase, Time};

use super::lanes::Lanes;
use super::{Broken, Failure, Judge};
use crate::sim::stats::{Met, Stats};

/// The state of the member after its step.
struct MemberState<'a> {
    node: usize,
    /// Its node, if that has a disk.
    home: Option<usize>,
    rank: usize,
    machine: &'a Machine,
    /// By rank: the last payload in its result.
    delivered: &'a [u64],
    /// By rank: the node.
    ring: &'a [usize],
}

/// Checks both bounds of the hold.
fn check(
    member: &MemberState<'_>,
    parameters: &Parameters,
    lanes: &Lanes,
    linked: impl Fn(usize) -> bool,
    stats: &mut Stats,
) -> Result<(), Broken> {
    let mut ahead_bytes = 0;
    let mut largest = 0;
    let mut held_back = None;
    for lane in (0..member.ring.len()).filter(|&lane| lane != member.rank) {
        let confirmed = lanes.confirmed_by(member.node, lane);
        for slot in lanes.slots_after(lane, member.delivered[lane]).take_while(|slot| slot.round.0 < confirmed) {
            ahead_bytes += slot.batch.cost_bytes();
            largest = largest.max(slot.batch.cost_bytes());
        }
        let received = lanes.messages_received_by(member.node, lane);
        let confirmable = member.home.map_or(received, |home| received.min(lanes.synced_by(home, lane)));
        if confirmable > confirmed && linked(member.ring[lane]) {
            let first = lanes.slots_after(lane, member.delivered[lane]).find(|slot| slot.round.0 >= confirmed);
            held_back =
                held_back.min(first.map(|slot| (slot.round.0, lane))).or(first.map(|slot| (slot.round.0, lane)));
        }
    }
    // The first slot is let in over the bound (§3.2, rule 4), and then perhaps one of another lane that came later and is
    // before it: one of each lane at most.
    if ahead_bytes > parameters.hold_bytes() + (member.ring.len() as u64 - 1) * largest {
        let what = format!("{ahead_bytes} bytes, hold {}, largest slot {largest}", parameters.hold_bytes());
        return Err(("what is confirmed ahead of the cursor is bounded", what));
    }
    let Some(place) = held_back else { return Ok(()) };
    stats.met(Met::HoldBit);
    if at_cursor(member, lanes, place) {
        return Err(("the slot at the cursor is confirmed", format!("round {} of lane {}", place.0, place.1)));
    }
    Ok(())
}

/// Every slot before a place is in the member's result or known to be skipped.
fn at_cursor(member: &MemberState<'_>, lanes: &Lanes, place: (u64, usize)) -> bool {
    let status = member.machine.status(Time(0));
    if status.pending_slots > 0 && lanes.slots_after(member.rank, member.delivered[member.rank]).next().is_none() {
        // An own slot that was not sent yet: its place is not visible from outside.
        return false;
    }
    status.members.iter().enumerate().all(|(lane, seen)| {
        let frontier = (seen.frontier, lane);
        let open = lanes.slots_after(lane, member.delivered[lane]).next().map(|slot| (slot.round.0, lane));
        // A slot that a joiner sends again is in the result already, and still the cursor waits for its approval.
        let again = |slot: &Slot| (slot.round.0, lane) < place && slot.round.0 >= seen.approved;
        let waits = lane != member.rank && lanes.slots_after(lane, 0).any(again);
        frontier >= place && open.is_none_or(|open| open >= place) && !waits
    })
}

impl Judge {
    /// Checks a node after its outputs were taken.
    ///
    /// # Errors
    /// If it holds back a slot that it must confirm, or confirmed more than it may hold.
    pub fn after_step(
        &self,
        node: usize,
        machine: &Machine,
        linked: impl Fn(usize) -> bool,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let Some(log) = self.views.get(self.nodes[node].view).filter(|log| !log.view.last) else { return Ok(()) };
        let Some(rank) = log.rank_of(node) else { return Ok(()) };
        // The cursor of an incomplete member stands still, and cannot be seen from outside. It cannot be seen either
        // when a coordinator wedges itself while no other is there, or when the link goes down before the answer.
        let ends = machine.status(Time(0)).phase >= Phase::Stop;
        let may_wedge = self.nodes[node].may_wedge == log.view.id;
        let wedges_unseen = may_wedge && self.views_change;
        let passive = self.nodes[node].joined || ends || wedges_unseen;
        if passive || log.wedges.is_frozen(node) || self.is_tainted(node) {
            return Ok(());
        }
        let delivered = self.ghost.through_at(self.nodes[node].index, &log.ring);
        let home = self.disks.as_ref().map(|_| self.home_of[node]);
        let member = MemberState { node, home, rank, machine, delivered: &delivered, ring: &log.ring };
        check(&member, &log.view.parameters, &log.lanes, linked, stats)
            .map_err(|(rule, what)| self.failure(rule, node, what))
    }
}
