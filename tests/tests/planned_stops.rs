//! A member announces that it stops and returns later: the others wait for no timeout (`protocol.md` §6.8).

use cloudy_proto::{OnFailure, Rule, Rules};
use cloudy_tests::invariants::Failure;
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::plan::{Fault, Plan, Traffic, Who};
use cloudy_tests::sim::stats::Met;
use cloudy_tests::sim::world::World;

const MS: u64 = 1_000;
const STEP_US: u64 = 5 * MS;

/// Members that evict others, each of which broadcasts a hundred times a second.
fn busy(mut plan: Plan) -> Plan {
    plan.parameters.on_failure = OnFailure::Evict;
    plan.traffic = Traffic::steady(20 * MS);
    plan.heal_at_us = 600_000 * MS;
    plan
}

fn members(world: &World) -> usize {
    world.judge.view().map_or(0, |view| view.members())
}

/// The longest times without an approval and without a coordinator.
#[derive(Debug, Default)]
struct Gaps {
    approvals_us: u64,
    coordinator_us: u64,
}

/// The processes of the nodes.
fn processes(world: &World) -> Vec<Option<usize>> {
    (0..world.latest.len()).map(|home| world.running(home)).collect()
}

/// Whether all nodes run and are active members.
fn are_all_back(world: &World) -> bool {
    let is_active = |place: Option<usize>| place.is_some_and(|at| world.judge.view_of(at).1);
    processes(world).into_iter().all(is_active) && members(world) == world.latest.len()
}

/// Runs until the processes of some nodes are others than before, and all members are back.
fn watch(story: &mut Scenario, before: &[Option<usize>]) -> Result<Gaps, Failure> {
    let mut gaps = Gaps::default();
    let (mut approved, mut since_us) = (story.world.judge.approved(), story.world.now_us);
    let mut led_at_us = since_us;
    while processes(&story.world) == before || !are_all_back(&story.world) {
        story.pass(STEP_US)?;
        let now_us = story.world.now_us;
        if story.world.judge.approved() > approved {
            (approved, since_us) = (story.world.judge.approved(), now_us);
        }
        if story.world.judge.coordinator().is_some() {
            led_at_us = now_us;
        }
        gaps.approvals_us = gaps.approvals_us.max(now_us - since_us);
        gaps.coordinator_us = gaps.coordinator_us.max(now_us - led_at_us);
        assert!(now_us < 60_000 * MS, "the members are not back: {}", members(&story.world));
    }
    Ok(gaps)
}

/// A member of four stops in an orderly way for 300 ms, or is killed for the same time.
fn gaps(plan: Plan, who: Who, is_planned: bool) -> Result<Gaps, Failure> {
    let mut story = Scenario::begin(busy(plan))?;
    story.pass(2_000 * MS)?;
    let place = match who {
        Who::Node(home) => story.world.running(home),
        Who::Coordinator => story.world.judge.coordinator(),
    };
    let node = story.world.nodes[place.expect("it runs")].home;
    let (after_us, before) = (300 * MS, processes(&story.world));
    story.suffers(match is_planned {
        true => Fault::Suspend { node, after_us, announced: false },
        false => Fault::Restart { who: Who::Node(node), after_us },
    })?;
    watch(&mut story, &before)
}

#[test]
fn a_member_that_announces_its_stop_costs_the_others_no_timeout() -> Result<(), Failure> {
    for who in [Who::Node(2), Who::Coordinator] {
        for plan in [Plan::calm(4, None), Plan::calm_on_disk(4)] {
            let planned = gaps(plan.clone(), who, true)?;
            assert!(planned.approvals_us <= 80 * MS, "{who:?}: {planned:?}");
            assert!(planned.coordinator_us <= 80 * MS, "{who:?}: {planned:?}");
            let killed = gaps(plan, who, false)?;
            assert!(killed.approvals_us > 3 * planned.approvals_us, "{who:?}: {killed:?} and {planned:?}");
        }
    }
    Ok(())
}

#[test]
fn a_coordinator_that_stops_hands_over_first() -> Result<(), Failure> {
    let without = |rules: Rules| {
        let mut plan = Plan::calm_on_disk(4);
        plan.rules = rules;
        gaps(plan, Who::Coordinator, true).map(|gaps| gaps.coordinator_us)
    };
    let (with, without) = (without(Rules::default())?, without(Rules::all_but(Rule::StopHandsOver))?);
    assert!(with <= 80 * MS && without > 200 * MS, "{with} and {without} us without a coordinator");
    Ok(())
}

#[test]
fn a_rolling_restart_evicts_no_member() -> Result<(), Failure> {
    let mut story = Scenario::begin(busy(Plan::calm_on_disk(3)))?;
    story.pass(2_000 * MS)?;
    for node in 0..3 {
        let before = processes(&story.world);
        story.suffers(Fault::Suspend { node, after_us: 300 * MS, announced: false })?;
        let gaps = watch(&mut story, &before)?;
        assert!(gaps.approvals_us.max(gaps.coordinator_us) <= 80 * MS, "node {node}: {gaps:?}");
    }
    assert_eq!(story.world.stats.count(Met::Suspended), 3);
    assert_eq!(story.world.stats.count(Met::Blamed), 0);
    Ok(())
}

#[test]
fn members_that_all_stop_at_once_return_from_their_disks() -> Result<(), Failure> {
    let mut story = Scenario::begin(busy(Plan::calm_on_disk(3)))?;
    story.pass(1_000 * MS)?;
    let before = processes(&story.world);
    (0..3).try_for_each(|node| story.suffers(Fault::Suspend { node, after_us: 300 * MS, announced: false }))?;
    let are_others = |world: &World| processes(world).iter().zip(&before).all(|(now, before)| now != before);
    story.until("all are back", |world| are_others(world) && are_all_back(world))?;
    let approved = story.world.judge.approved();
    story.until("approvals continue", |world| world.judge.approved() > approved)
}
