//! Liveness: in a calm world every broadcast is approved, or the group has closed with one result at every node
//! (`protocol.md` P5, P6, §9, §11).

use cloudy_proto::{LeaveWait, NoCompleteMember, NodeId, Time, ViewId};

use super::Judge;
use crate::sim::plan::Plan;
use crate::sim::stats::Met;
use crate::sim::world::World;

impl Judge {
    /// A node has reported that no complete member of the latest view is left.
    #[must_use]
    pub fn nobody_complete(&self, node: usize) -> Option<&NoCompleteMember> {
        let said = self.nodes[node].nobody_complete.as_ref();
        said.filter(|said| self.view().is_some_and(|view| view.id == said.view))
    }
}

/// Nothing is left to happen.
#[must_use]
pub fn has_settled(world: &World) -> bool {
    unsettled(world).is_none()
}

/// The first thing that is still missing, and its node.
#[must_use]
pub fn unsettled(world: &World) -> Option<(usize, String)> {
    if !world.healed {
        return Some((Plan::CREATOR, "the faults continue".to_owned()));
    }
    match excuse(world) {
        None => {}
        Some(what) if !world.taken.contains(&what) => {
            return Some((Plan::CREATOR, format!("{what:?} without a cause in the plan")));
        }
        Some(Met::Stuck) => return (0..world.nodes.len()).find_map(|node| Some((node, not_told(world, node)?))),
        Some(_) => return unsaid(world),
    }
    if let Some(stays) = ended_by_leaving(world) {
        return Some(stays);
    }
    let ended = world.judge.view().is_some_and(|view| view.last);
    let ends = world.end_wanted || world.plan.session.is_some() || ended;
    if !ends && world.load_continues() {
        return Some((Plan::CREATOR, "the load continues".to_owned()));
    }
    let healthy = |node: usize| !world.nodes[node].diverged && !world.judge.is_tainted(node);
    let living = (0..world.nodes.len()).filter(|&node| world.nodes[node].alive && healthy(node));
    let missing = |node| {
        let rest =
            if ends { not_ended(world, node) } else { not_approved(world, node).or_else(|| not_left(world, node)) };
        let rest = rest.or_else(|| not_found_again(world, node)).or_else(|| undecided(world, node));
        rest.or_else(|| world.judge.lacks_views(node).filter(|_| world.reads(node)))
    };
    living.filter_map(|node| missing(node).map(|what| (node, what))).next()
}

/// Why a group may wait for ever: too many died.
#[must_use]
pub fn excuse(world: &World) -> Option<Met> {
    let alive = |place: usize| world.goes_on(place);
    // A group that is closed needs no coordinator, and the others learn of that from a node that knows.
    let closed = world.nodes.iter().any(|node| node.alive && node.machine.is_closed());
    // With an older disk a voter may vote on; a leader after so long has a majority.
    if !closed && world.judge.coordinator().is_none() && world.judge.is_stuck(alive) {
        return Some(Met::Stuck);
    }
    world.judge.is_lost(alive).then_some(Met::Lost)
}

/// A group has lost approved messages, and a node of it that has a coordinator has not reported that.
fn unsaid(world: &World) -> Option<(usize, String)> {
    let knows = |node: &usize| world.judge.nobody_complete(*node).is_some();
    let mut living = (0..world.nodes.len()).filter(|&node| {
        let state = &world.nodes[node];
        state.alive
            && !state.machine.is_closed()
            && !state.diverged
            && state.machine.status(Time(0)).coordinator.is_some()
    });
    let unsaid = living.find(|node| !knows(node))?;
    Some((unsaid, format!("nobody complete is left of {:?}, and it does not say so", world.judge.view())))
}

/// A node of a group that is stuck has not said so.
fn not_told(world: &World, node: usize) -> Option<String> {
    let state = &world.nodes[node];
    let done = state.machine.is_closed() || state.diverged || world.judge.final_of(node).is_some();
    if !state.alive || done || world.judge.knows_of_no_coordinator(node) {
        return None;
    }
    Some(format!("without a majority of the voters, and told: {:?}", state.machine.status(Time(0)).coordinator))
}

/// A node has a coordinator, and its last word was that it lost it.
fn not_found_again(world: &World, node: usize) -> Option<String> {
    let coordinator = world.nodes[node].machine.status(Time(0)).coordinator?;
    let mute = world.judge.said_lost(node) && !world.nodes[node].machine.is_closed();
    mute.then(|| format!("has {coordinator:?} back as coordinator and did not say so"))
}

/// No node asked for the group's close, and it closed with a member that neither left nor wanted to. 12/ The
/// coordinator knows that no member stays; its word is valid for all.
fn ended_by_leaving(world: &World) -> Option<(usize, String)> {
    let wanted = world.end_wanted || world.plan.session.is_some();
    world.judge.view().filter(|view| view.last && !wanted)?;
    let mut members = (0..world.latest.len()).filter(|&home| world.plan.is_member(home));
    let stays = members.find_map(|home| {
        let place = world.latest[home]?;
        let mut runs = world.nodes.iter().filter(|node| node.home == home);
        let wanted_to_leave = runs.any(|node| node.app.leaves.is_some());
        (world.judge.was_on_ring(place) && !wanted_to_leave).then_some(place)
    });
    stays.map(|place| (place, "the group ended because others left".to_owned()))
}

/// A node that wants to leave is still there, though others could go on without it.
fn not_left(world: &World, node: usize) -> Option<String> {
    let waits = |node: usize| world.nodes[node].machine.status(Time(0)).leaving;
    let is_gone = |id: &NodeId| world.running(world.judge.home_of(*id)).is_none();
    // The coordinator knows that nobody stays; its word is good for all.
    let without_heir = (0..world.nodes.len())
        .filter(|&other| world.nodes[other].alive)
        .any(|other| matches!(waits(other), Some(LeaveWait::Heir { evicted, .. }) if evicted.iter().all(is_gone)));
    (world.nodes[node].app.leaves.is_some() && !without_heir).then(|| format!("wants to leave: {:?}", waits(node)))
}

/// A broadcast on which a node that has the whole result has no verdict. Once the group has its last view, only a final
/// result counts for one.
fn undecided(world: &World, node: usize) -> Option<String> {
    let up_to_date = world.judge.index_of(node) == world.judge.approved() && world.reads(node);
    let ends = world.judge.view().is_some_and(|view| view.last);
    let has_result = up_to_date && (!ends || world.judge.final_of(node).is_some());
    has_result.then(|| world.judge.undecided(node, &world.nodes[node].machine)).flatten()
}

/// The reason why a node of a closing group is not done.
fn not_ended(world: &World, node: usize) -> Option<String> {
    let came_late = node >= world.plan.nodes;
    if came_late && !world.has_view(node) {
        // The group ended before it was let in.
        return None;
    }
    let member = world.plan.is_member(world.nodes[node].home);
    let survivors = world.judge.survivors();
    // A member that was dropped, or came late, has no source if all nodes with the whole result crashed before they
    // served it.
    let alive = |place: usize| world.nodes[place].alive;
    let serves = |&survivor: &usize| {
        let goes_on = world.judge.goes_on(survivor, &alive);
        goes_on && (world.judge.keeps_final(survivor, &alive) || world.judge.has_all(survivor))
    };
    let orphaned = !survivors.is_empty() && !survivors.iter().any(serves);
    if member && !orphaned && world.judge.final_of(node).is_none() {
        return Some(format!("no final result at index {}", world.judge.index_of(node)));
    }
    // No node has it: the node reports that, and continues to ask.
    let said = orphaned && world.nodes[node].misses_final;
    (!world.nodes[node].closed && !said).then(|| "the group is not closed".to_owned())
}

/// The own payloads of a node, or the part of the result, that are missing at a node of a group that continues.
fn not_approved(world: &World, node: usize) -> Option<String> {
    let state = &world.nodes[node];
    if !world.plan.is_member(state.home) {
        return None;
    }
    if world.judge.view().is_none() {
        return Some("no view".to_owned());
    }
    let first_run = state.home == node;
    if (world.plan.evicts() || !first_run)
        && world.judge.view_of(node) != (world.judge.view().map_or(ViewId(0), |view| view.id), true)
    {
        return Some(format!("not back: {:?}", world.judge.view_of(node)));
    }
    if state.machine.last_approved().0 != state.app.broadcast {
        let (approved, broadcast) = (state.machine.last_approved(), state.app.broadcast);
        return Some(format!("{approved} of {broadcast} own payloads approved"));
    }
    let (index, approved) = (world.judge.index_of(node), world.judge.approved());
    if index != approved {
        return Some(format!("its result has {index} of {approved}"));
    }
    let status = state.machine.status(state.clock.at(world.now_us));
    let left = (status.outbox_payloads, status.pending_slots, state.app.queue.len());
    (left != (0, 0, 0)).then(|| format!("outbox, pending slots, queue: {left:?}"))
}
