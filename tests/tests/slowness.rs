//! Slow is not dead: paths, disks and processes that are slow and healthy cost no node its place on the ring, and a
//! dead node is detected as fast as its path allows.

use std::time::Duration;

use cloudy_proto::limits::PAYLOAD_BYTES_MAX;
use cloudy_proto::{CatchUpPolicy, OnFailure};
use cloudy_tests::invariants::Failure;
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::narrow::Narrow;
use cloudy_tests::sim::plan::{Fault, Plan, Traffic, Who};
use cloudy_tests::sim::slowness::Spell;
use cloudy_tests::sim::stats::Met;
use cloudy_tests::sim::world::World;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// The time for which each healthy group is watched: 40 s, or an hour if `CLOUDY_WATCH_HOUR` is set.
fn watched_us() -> u64 {
    if std::env::var_os("CLOUDY_WATCH_HOUR").is_some() { 3_600 * SECOND } else { 40 * SECOND }
}

/// Members that evict who fails, and of which each broadcasts some messages a second.
fn busy(mut plan: Plan) -> Plan {
    plan.parameters.on_failure = OnFailure::Evict;
    plan.traffic = Traffic::steady(1_000 * MS);
    plan.heal_at_us = 2 * watched_us();
    plan
}

/// A path of this round trip, half of which varies: each way takes from a third to two thirds of the longest.
fn path(mut plan: Plan, round_trip_ms: u64) -> Plan {
    plan.network.latency_us = round_trip_ms * MS / 2;
    plan.network.jitter_us = round_trip_ms * MS / 4;
    plan
}

fn views(world: &World) -> Vec<u64> {
    let view = |node: &cloudy_tests::sim::node::Node| {
        node.machine.status(cloudy_proto::Time(0)).view.map_or(0, |view| view.id.0)
    };
    world.nodes.iter().map(view).collect()
}

/// No node is evicted while the group is watched, approvals continue, and the control log has a coordinator.
fn stays_whole(plan: Plan, what: &str) -> Result<(), Failure> {
    let nodes = plan.nodes;
    let mut story = Scenario::begin(plan)?;
    let watched_us = watched_us();
    let (mut approved, mut step) = (0, 0);
    while story.world.now_us < watched_us {
        story.pass(watched_us / 4)?;
        step += 1;
        assert_eq!(views(&story.world), vec![1; nodes], "{what}: a member was evicted in quarter {step}");
        let more = story.world.judge.approved();
        assert!(more > approved, "{what}: nothing was approved in quarter {step}, after {approved}");
        approved = more;
        assert!(story.world.judge.coordinator().is_some(), "{what}: nobody coordinates in quarter {step}");
    }
    Ok(())
}

#[test]
fn no_member_is_evicted_on_paths_of_up_to_400_ms() -> Result<(), Failure> {
    for round_trip_ms in [1, 10, 50, 100, 200, 260, 400] {
        stays_whole(path(busy(Plan::calm(4, None)), round_trip_ms), &format!("{round_trip_ms} ms"))?;
    }
    Ok(())
}

/// One message of the maximum size crosses the slow links of a member, whose driver reports the bytes that arrive or
/// does not. Returns the time that it takes, and whether all remain members.
fn the_largest_message_crosses(narrow: Narrow, reports_bytes: bool) -> Result<(u64, bool), Failure> {
    let mut plan = busy(Plan::calm(3, None));
    plan.network.encoded = false;
    plan.reports_bytes = reports_bytes;
    plan.traffic.quiet = vec![0, 1, 2];
    plan.heal_at_us = 400 * SECOND;
    let mut story = Scenario::begin(plan)?;
    (0..2).try_for_each(|b| story.suffers(Fault::Narrow { a: 2, b, narrow, for_us: 400 * SECOND }))?;
    story.broadcasts(0, 1, PAYLOAD_BYTES_MAX)?;
    let are_members = |world: &World| views(world) == vec![1; 3];
    story.until("the message is approved, or a member is evicted", |world| {
        (0..3).all(|node| world.judge.index_of(node) == 1) || !are_members(world)
    })?;
    Ok((story.world.now_us, are_members(&story.world)))
}

/// Bytes that arrive are signs of life and progress, also if heartbeats wait behind the whole message, and if they
/// overtake it after the 300 ms that a path of the library queues.
#[test]
fn no_member_is_evicted_while_the_largest_message_crosses_a_slow_link() -> Result<(), Failure> {
    for overtake_after_us in [None, Some(300 * MS)] {
        for bytes_per_second in [100_000, 200_000, 500_000, 1_700_000, 2_500_000] {
            let narrow = Narrow { bytes_per_second, queue_bytes: None, overtake_after_us };
            let (took_us, are_members) = the_largest_message_crosses(narrow, true)?;
            assert!(are_members, "{narrow:?}: a member was evicted");
            assert!(took_us * bytes_per_second / SECOND > 15 << 20, "it took its time: {took_us} us");
        }
    }
    Ok(())
}

#[test]
fn a_member_is_evicted_if_arriving_bytes_of_a_large_message_are_not_reported() -> Result<(), Failure> {
    let narrow = Narrow { bytes_per_second: 200_000, queue_bytes: None, overtake_after_us: None };
    assert!(!the_largest_message_crosses(narrow, false)?.1, "nothing shows that the member is alive");
    Ok(())
}

/// If a round trip is long, so is the time until members of the first view have linked to each other.
#[test]
fn no_member_is_evicted_for_links_that_come_up_late() -> Result<(), Failure> {
    let mut plan = path(busy(Plan::calm(4, None)), 300);
    plan.network.notice_us = 1_200 * MS;
    stays_whole(plan, "late links")
}

/// Members die one after another, a plain one and a coordinator, and no living one is evicted with them.
#[test]
fn deaths_on_paths_of_up_to_400_ms_evict_the_dead_alone() -> Result<(), Failure> {
    for round_trip_ms in [1, 260, 400] {
        let plan = path(busy(Plan::calm(5, None)), round_trip_ms);
        let mut story = Scenario::begin(plan)?;
        for (who, left) in [(Who::Node(4), 4), (Who::Coordinator, 3)] {
            story.pass(10 * SECOND)?;
            story.suffers(Fault::Kill { who })?;
            let members = |world: &World| world.judge.view().map_or(0, |view| view.members());
            story.until("the next view", |world| members(world) < left + 1)?;
            story.pass(5 * SECOND)?;
            assert_eq!(members(&story.world), left, "{round_trip_ms} ms, {who:?} died");
        }
        let approved = story.world.judge.approved();
        story.pass(10 * SECOND)?;
        assert!(story.world.judge.approved() > approved, "{round_trip_ms} ms: those who are left go on");
    }
    Ok(())
}

#[test]
fn no_member_is_evicted_for_unequal_delays() -> Result<(), Failure> {
    let mut plan = busy(Plan::calm(4, None));
    for (from, to, ms) in [(0, 1, 120), (1, 2, 120), (2, 0, 60), (3, 0, 120), (0, 3, 30), (1, 3, 90)] {
        plan.slowness.delays.push((from, to, ms * MS));
    }
    stays_whole(plan, "unequal delays")
}

#[test]
fn no_member_is_evicted_for_a_slow_disk() -> Result<(), Failure> {
    for sync_ms in [400, 800, 3_000] {
        for home in [Some(0), Some(2), None] {
            let mut plan = busy(Plan::calm_on_disk(4));
            plan.slowness.syncs.push(Spell { home, since_us: 5 * SECOND, takes_us: sync_ms * MS });
            stays_whole(plan, &format!("syncs of {sync_ms} ms at {home:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn no_member_is_evicted_for_a_slow_process() -> Result<(), Failure> {
    for home in [Some(0), Some(2), None] {
        let mut plan = busy(Plan::calm(4, None));
        for (since_s, ms) in [(0, 60), (5, 60), (15, 80), (25, 200)] {
            plan.slowness.rests.push(Spell { home, since_us: since_s * SECOND, takes_us: ms * MS });
        }
        stays_whole(plan, &format!("a process that rests at {home:?}"))?;
    }
    Ok(())
}

/// With `timeout_max` at zero timeouts are fixed, and slow members are evicted.
#[test]
fn fixed_timeouts_evict_slow_members() -> Result<(), Failure> {
    let mut disk = busy(Plan::calm_on_disk(4));
    disk.slowness.syncs.push(Spell { home: Some(2), since_us: 5 * SECOND, takes_us: 3 * SECOND });
    let mut process = busy(Plan::calm(4, None));
    process.slowness.rests.push(Spell { home: Some(2), since_us: 5 * SECOND, takes_us: 600 * MS });
    for (mut plan, what) in [(disk, "disk"), (process, "process")] {
        plan.parameters.timeout_max = Duration::ZERO;
        let mut story = Scenario::begin(plan)?;
        story.until(what, |world| world.judge.view().is_some_and(|view| view.id.0 > 1))?;
    }
    Ok(())
}

/// Coordinators stand still one after the other, each for ten seconds, also while all processes are slow: another node
/// coordinates soon, however often that happens, and approvals continue once all run again.
#[test]
fn coordinators_that_stand_still_in_turn_cost_seconds() -> Result<(), Failure> {
    for (rest_ms, limit_ms) in [(0, 1_000), (200, 8_000)] {
        let mut plan = busy(Plan::calm(5, None));
        plan.parameters.on_failure = OnFailure::Wait;
        plan.heal_at_us = 400 * SECOND;
        plan.slowness.rests.push(Spell { home: None, since_us: SECOND, takes_us: rest_ms * MS });
        let mut story = Scenario::begin(plan)?;
        story.pass(10 * SECOND)?;
        for turn in 1..=6 {
            let paused = story.world.judge.coordinator();
            story.suffers(Fault::Slow { who: Who::Coordinator, for_us: 10 * SECOND })?;
            let since_us = story.world.now_us;
            story.until("another node coordinates", |world| {
                world.judge.coordinator() != paused || world.now_us > since_us + limit_ms * MS
            })?;
            let took_ms = (story.world.now_us - since_us) / MS;
            assert!(took_ms < limit_ms, "rest {rest_ms} ms, turn {turn}: {took_ms} ms");
            // The next one stands still as soon as this one runs again.
            story.pass((10_000 - took_ms) * MS + 300 * MS)?;
        }
        let approved = story.world.judge.approved();
        story.pass(20 * SECOND)?;
        assert!(story.world.judge.approved() > approved, "approvals continue");
    }
    Ok(())
}

const SLOW_PATH_PAYLOAD_BYTES: u64 = 4_000;

/// Three members, of which two broadcast about 250 kB a second, and the third comes back over links of 100 kB a second.
fn returns_over_a_slow_path(catch_up: CatchUpPolicy, slow_down_max: Duration) -> Result<(Scenario, u64), Failure> {
    let mut plan = Plan::calm(3, None);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.parameters.catch_up = catch_up;
    plan.parameters.slow_down_bytes_min = 20_000;
    plan.parameters.slow_down_max = slow_down_max;
    // On a simulated link heartbeats wait behind slots: no more of these are in flight than it carries in a third of a second.
    plan.parameters.window_bytes = 16 << 10;
    plan.traffic = Traffic {
        burst_max: 3,
        gap_us: 128 * MS,
        payloads_max: u64::MAX,
        payload_bytes_min: SLOW_PATH_PAYLOAD_BYTES,
        payload_bytes_max: SLOW_PATH_PAYLOAD_BYTES,
        large_per_mille: 0,
        quiet: vec![2],
    };
    plan.heal_at_us = 300 * SECOND;
    let mut story = Scenario::begin(plan)?;
    story.pass(SECOND)?;
    let narrow = Narrow { bytes_per_second: 100_000, queue_bytes: None, overtake_after_us: None };
    (0..2).try_for_each(|b| story.suffers(Fault::Narrow { a: 2, b, narrow, for_us: 300 * SECOND }))?;
    story.suffers(Fault::Isolate { who: Who::Node(2), outage_us: 3 * SECOND })?;
    story.pass(4 * SECOND)?;
    let approved = story.world.judge.approved();
    Ok((story, approved))
}

fn is_on_ring(world: &World, node: usize) -> bool {
    world.judge.view().is_some_and(|view| view.ring.iter().any(|member| member.node == world.nodes[node].id))
}

#[test]
fn a_node_whose_path_carries_less_than_the_load_remains_a_learner_where_the_group_does_not_wait() -> Result<(), Failure>
{
    let (mut story, approved) = returns_over_a_slow_path(CatchUpPolicy::Wait, Duration::from_secs(60))?;
    story.pass(25 * SECOND)?;
    assert!(!is_on_ring(&story.world, 2));
    let rate = (story.world.judge.approved() - approved) * SLOW_PATH_PAYLOAD_BYTES / 25;
    assert!(rate > 200_000, "the others go on at their rate, {rate} bytes a second");
    Ok(())
}

/// A node whose path carries hardly anything slows the group down for a bounded time, and never to a standstill.
#[test]
fn a_hopeless_path_slows_a_group_down_for_a_bounded_time() -> Result<(), Failure> {
    let (mut story, _) = returns_over_a_slow_path(CatchUpPolicy::SlowDown, Duration::from_secs(20))?;
    let narrow = Narrow { bytes_per_second: 4_000, queue_bytes: None, overtake_after_us: None };
    (0..2).try_for_each(|b| story.suffers(Fault::Narrow { a: 2, b, narrow, for_us: 300 * SECOND }))?;
    story.until("the group slows down", |world| world.stats.count(Met::SlowedDown) > 0)?;
    let approved = story.world.judge.approved();
    story.pass(12 * SECOND)?;
    let rate = (story.world.judge.approved() - approved) * SLOW_PATH_PAYLOAD_BYTES / 12;
    assert!((15_000..=25_000).contains(&rate), "20 kB a second, in spite of the path: {rate}");
    story.until("its time expires", |world| world.stats.count(Met::SlowDownExpired) > 0)?;
    assert!(!is_on_ring(&story.world, 2));
    let approved = story.world.judge.approved();
    story.pass(10 * SECOND)?;
    let rate = (story.world.judge.approved() - approved) * SLOW_PATH_PAYLOAD_BYTES / 10;
    assert!(rate > 200_000, "the others send as before, {rate} bytes a second");
    Ok(())
}
