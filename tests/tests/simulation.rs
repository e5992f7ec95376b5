//! The machine of `cloudy-proto` in the simulator: seeds, and stories.

use std::time::Duration;

use cloudy_proto::{Durability, OnFailure, RingKind, SessionPlan, WaitCause};
use cloudy_tests::invariants::Failure;
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::campaign::campaign;
use cloudy_tests::sim::corruption::{Corrupted, Corruption};
use cloudy_tests::sim::plan::{Fault, Newcomer, Plan, Step, Who};
use cloudy_tests::sim::run::run;
use cloudy_tests::sim::stats::Met;
use cloudy_tests::sim::world::World;

/// Seeds of the usual test run; `cargo xtask simulate` runs any number.
const SEEDS: u64 = 2_000;

#[test]
fn every_seed_holds_every_promise_and_every_fault_happens() {
    let verdict = campaign(0, SEEDS, 2, |_| {});
    assert_eq!(verdict.complaint(), None);
    assert_eq!(verdict.stats.missing(), [], "never met, so nothing was shown about it");
    assert_eq!(verdict.runs, SEEDS);
    let excused = verdict.stats.count(Met::Stuck) + verdict.stats.count(Met::Lost);
    assert!(excused * 20 < SEEDS, "{excused} runs did not have to go on: too many to show that others do");
}

/// Seeds beyond the usual ones that have found faults: of the protocol, or of the simulator's judgement.
#[test]
fn seeds_that_have_found_faults_pass() {
    for seed in [
        30_003_968,
        30_006_921,
        40_002_564,
        40_005_040,
        60_006_412,
        60_007_316,
        60_009_790,
        60_012_405,
        80_001_333,
        80_019_121,
        700_004_156,
        710_002_753,
    ] {
        assert_eq!(run(Plan::of(seed), false).failure, None, "seed {seed}");
    }
}

#[test]
fn a_seed_replays_to_the_last_byte() {
    for seed in 0..60 {
        let (first, second) = (run(Plan::of(seed), true), run(Plan::of(seed), true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(Plan::of(0), true).trace, run(Plan::of(1), true).trace, "the trace sees something");
}

fn plan_of_a_session(members: usize) -> Plan {
    let (send, grace) = (Duration::from_secs(1), Duration::from_millis(100));
    Plan::calm(members, Some(SessionPlan::new(send, grace, Duration::from_millis(200)).seed(1)))
}

#[test]
fn a_dead_member_stalls_approvals_until_stop_and_the_survivors_end_on_time() -> Result<(), Failure> {
    let mut story = Scenario::begin(plan_of_a_session(3))?;
    story.broadcasts(1, 5, 8)?;
    story.until("all have the first five", |world| (1..4).all(|node| world.judge.index_of(node) == 5))?;
    story.suffers(Fault::Kill { who: Who::Node(3) })?;
    story.broadcasts(2, 5, 8)?;
    story.pass(500_000)?;
    assert_eq!(story.world.judge.approved(), 5, "a member that is gone confirms nothing");
    story.settles()?;
    assert_eq!(story.world.judge.approved(), 10, "both survivors hold the rest, so the cut takes it");
    assert_eq!(story.world.judge.survivors(), [1, 2]);
    assert!(story.world.now_us < 1_500_000, "SEND, GRACE, the wait for the silent, and little more");
    Ok(())
}

/// One of two members is cut off, and the other dies when the view is proposed that lists it alone. The first one and the
/// master are a majority of the voters.
#[test]
fn a_group_without_a_complete_member_reports_it_and_waits() {
    let mut plan = plan_of_a_session(2);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.session = plan.session.map(|session| session.send(Duration::from_secs(60)));
    plan.faults = vec![(2_000_000, Fault::Isolate { who: Who::Node(2), outage_us: 3_000_000 })];
    plan.at_steps = vec![(Step::Install, 1_500, Fault::Kill { who: Who::Node(1) })];
    plan.heal_at_us = 6_000_000;
    let outcome = run(plan, false);
    assert_eq!(outcome.failure, None);
    let met = [Met::Lost, Met::Stuck, Met::NobodyCompleteSaid].map(|what| outcome.stats.count(what));
    assert_eq!(met, [1, 0, 2], "the master and the member that was cut off say it");
}

#[test]
fn a_session_outlives_its_master() -> Result<(), Failure> {
    // In SEND, GRACE and STOP, and before it would close the group.
    for kill_at_us in [600_000, 1_050_000, 1_101_000, 1_103_000, 1_104_000] {
        let mut story = Scenario::begin(plan_of_a_session(3))?;
        story.broadcasts(1, 5, 8)?;
        story.broadcasts(3, 5, 8)?;
        story.pass(kill_at_us)?;
        story.suffers(Fault::Kill { who: Who::Node(Plan::CREATOR) })?;
        story.settles()?;
        assert_eq!(story.world.judge.approved(), 10, "killed after {kill_at_us} us");
        assert_eq!(story.world.judge.survivors().len(), 3, "killed after {kill_at_us} us");
        assert!(story.world.now_us < 3_000_000, "killed after {kill_at_us} us: an election costs half a second");
    }
    Ok(())
}

#[test]
fn five_lose_one_coordinator_after_another_and_the_last_two_continue() -> Result<(), Failure> {
    let mut plan = Plan::calm(5, None);
    plan.parameters.on_failure = OnFailure::Evict;
    let mut story = Scenario::begin(plan)?;
    for killed in 1..=3 {
        story.pass(2_000_000)?;
        story.suffers(Fault::Kill { who: Who::Coordinator })?;
        let living: Vec<usize> = (0..5).filter(|&node| story.world.nodes[node].alive).collect();
        assert_eq!(living.len(), 5 - killed);
        for &node in &living {
            story.broadcasts(node, 5, 8)?;
        }
        let approved = story.world.judge.approved() + 5 * living.len() as u64;
        story.until("all of it is approved", |world| {
            living.iter().all(|&node| world.judge.index_of(node) == approved)
        })?;
    }
    Ok(())
}

#[test]
fn three_members_and_their_watching_creator_lose_any_one_at_any_time_and_continue() -> Result<(), Failure> {
    // If two members are left the creator votes with them, also if it voted before and was removed.
    let mut plan = plan_of_a_session(3);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.session = plan.session.map(|session| session.send(Duration::from_secs(60)));
    let mut story = Scenario::begin(plan)?;
    for lost in [1, 2, 3, 1, 2, 3] {
        let vote = |world: &World, who: &[usize]| {
            let voters = world.nodes[Plan::CREATOR].machine.status(cloudy_proto::Time(0)).voters;
            voters.len() == 3 && who.iter().all(|&node| voters.contains(&world.nodes[node].id))
        };
        story.until("the members vote", |world| vote(world, &[1, 2, 3]))?;
        story.suffers(Fault::Isolate { who: Who::Node(lost), outage_us: 3_000_000 })?;
        let others: Vec<usize> = (1..=3).filter(|&node| node != lost).collect();
        let (view, approved) = (view_of(&story.world, Plan::CREATOR), story.world.judge.approved());
        others.iter().try_for_each(|&node| story.broadcasts(node, 5, 8))?;
        story.until("the others go on", |world| {
            others.iter().all(|&node| world.judge.index_of(node) == approved + 10)
        })?;
        let at = story.world.now_us;
        let living = [Plan::CREATOR, others[0], others[1]];
        story.until("all who are left vote", |world| vote(world, &living))?;
        assert!(story.world.now_us - at < 500_000, "long before it is back");
        story.until("it is back", |world| view_of(world, Plan::CREATOR) == view + 2)?;
    }
    Ok(())
}

fn view_of(world: &World, node: usize) -> u64 {
    world.nodes[node].machine.status(cloudy_proto::Time(0)).view.map_or(0, |view| view.id.0)
}

#[test]
fn a_live_member_partitioned_at_stop_fetches_its_missing_entries() -> Result<(), Failure> {
    let mut story = Scenario::begin(plan_of_a_session(3))?;
    story.pass(950_000)?;
    story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 700_000 })?;
    story.broadcasts(1, 5, 8)?;
    story.settles()?;
    assert!(!story.world.judge.survivors().contains(&3));
    assert_eq!((story.world.judge.index_of(3), story.world.judge.approved()), (5, 5));
    Ok(())
}

#[test]
fn a_waiting_sender_gets_an_idle_turn_long_before_the_next_heartbeat() -> Result<(), Failure> {
    for sender in 0..3 {
        let hour = Duration::from_secs(3_600);
        let mut plan = Plan::calm(3, None);
        plan.parameters = plan.parameters.ring(RingKind::Token).heartbeat(hour).failure_timeout(3 * hour);
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(sender, 3, 8)?;
        story.settles()?;
        assert_eq!(story.world.judge.approved(), 3);
    }
    Ok(())
}

#[test]
fn a_returning_node_finds_the_newcomers_that_replaced_all_its_peers() -> Result<(), Failure> {
    let mut plan = Plan::calm(2, None);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.newcomers = vec![(2_000_000, Newcomer::Member), (2_000_000, Newcomer::Member)];
    plan.drift_ppm = vec![0; 4];
    let mut story = Scenario::begin(plan)?;
    let back = |world: &World, home: usize| world.running(home).is_some_and(|at| world.judge.view_of(at).1);
    story.pass(1_000_000)?;
    story.suffers(Fault::Partition { side: 1 << 1, bridge: None, outage_us: 9_000_000 })?;
    story.until("both newcomers vote", |world| {
        let voters = world.nodes[Plan::CREATOR].machine.status(cloudy_proto::Time(0)).voters;
        let votes = |home: usize| {
            world.running(home).is_some_and(|at| back(world, home) && voters.contains(&world.nodes[at].id))
        };
        voters.len() == 3 && votes(2) && votes(3)
    })?;
    // They have heard that they do.
    story.pass(200_000)?;
    story.suffers(Fault::Kill { who: Who::Node(Plan::CREATOR) })?;
    story.until("the newcomers go on", |world| world.judge.view().is_some_and(|view| view.members() == 2))?;
    story.until("it is back", |world| world.judge.view().is_some_and(|view| view.members() == 3))?;
    story.broadcasts(1, 5, 8)?;
    story.settles()?;
    assert_eq!(story.world.judge.approved(), 5);
    Ok(())
}

#[test]
fn a_stalling_relay_continues_without_relaying_and_drops_no_member() -> Result<(), Failure> {
    let mut plan = Plan::calm(4, None);
    (plan.parameters.durability, plan.parameters.on_failure) = (Durability::Disk, OnFailure::Evict);
    plan.disk.sync_us = 3_000;
    plan.parameters.ring = RingKind::Relay;
    let sync_us = plan.parameters.sync_timeout.as_micros() as u64;
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    story.broadcasts(0, 5, 8)?;
    story.until("all have all", |world| (0..4).all(|node| world.judge.index_of(node) == 5))?;
    story.suffers(Fault::SlowDisk { who: Who::Node(2), for_us: sync_us * 3 / 2 })?;
    (0..4).try_for_each(|node| story.broadcasts(node, 5, 8))?;
    story.until("another view", |world| (0..4).all(|node| view_of(world, node) == 2))?;
    let view = story.world.nodes[0].machine.status(cloudy_proto::Time(0)).view.expect("it is a member");
    assert_eq!((view.parameters.ring, view.members()), (RingKind::Pipelined, 4));
    story.settles()?;
    assert_eq!(story.world.judge.approved(), 25);
    Ok(())
}

#[test]
fn a_relay_continues_without_a_member_and_with_it_again() -> Result<(), Failure> {
    let mut plan = Plan::calm(4, None);
    (plan.parameters.ring, plan.parameters.on_failure) = (RingKind::Relay, OnFailure::Evict);
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    story.suffers(Fault::Isolate { who: Who::Node(2), outage_us: 1_500_000 })?;
    (0..4).try_for_each(|node| story.broadcasts(node, 5, 8))?;
    story.until("the others go on", |world| [0, 1, 3].iter().all(|&node| world.judge.index_of(node) == 15))?;
    assert_eq!(view_of(&story.world, 0), 2);
    story.until("it is back", |world| (0..4).all(|node| view_of(world, node) == 3))?;
    let view = story.world.nodes[0].machine.status(cloudy_proto::Time(0)).view.expect("it is a member");
    assert_eq!((view.parameters.ring, view.members()), (RingKind::Relay, 4));
    story.settles()?;
    assert_eq!(story.world.judge.approved(), 20);
    Ok(())
}

#[test]
fn a_wait_for_a_slow_disk_names_it_at_its_node_and_that_node_at_the_sender() -> Result<(), Failure> {
    let mut plan = Plan::calm_on_disk(3);
    plan.parameters.on_failure = OnFailure::Wait;
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    story.suffers(Fault::SlowDisk { who: Who::Node(1), for_us: 3_000_000 })?;
    story.broadcasts(0, 1, 8)?;
    story.pass(300_000)?;
    let waits = |node: usize| {
        let node = &story.world.nodes[node];
        let waiting = node.machine.status(node.clock.at(story.world.now_us)).waits_for;
        waiting.map(|waiting| (story.world.judge.home_of(waiting.node), waiting.cause))
    };
    let expected = [(1, WaitCause::Confirmation), (1, WaitCause::OwnDisk), (0, WaitCause::Approval)];
    assert_eq!([0, 1, 2].map(waits), expected.map(Some));
    story.settles()
}

/// Enough payloads for a checkpoint of the digest (`protocol.md` §8), in a few slots.
const PAYLOADS: usize = 70_000;

fn plan_with_corruption(members: usize) -> Plan {
    let mut plan = Plan::calm(members, None);
    plan.parameters.slot_payloads_max = 10_000;
    plan.parameters.slot_bytes_max = 1 << 20;
    plan.parameters.window_bytes = 1 << 24;
    plan.network.encoded = false;
    plan.corruption = Some(Corruption { home: members - 1, what: Corrupted::Slot });
    plan
}

#[test]
fn a_corrupted_result_stops_the_minority_and_the_majority_continues() -> Result<(), Failure> {
    let mut story = Scenario::begin(plan_with_corruption(3))?;
    story.broadcasts(0, PAYLOADS, 1)?;
    story.until("the corrupted member stops", |world| world.nodes[2].diverged)?;
    story.pass(1_000_000)?;
    assert!((0..2).all(|node| !story.world.nodes[node].diverged), "two of three agree");
    story.broadcasts(1, 10, 8)?;
    story.pass(100_000)?;
    story.ends()?;
    story.settles()?;
    assert_eq!(story.world.judge.approved(), PAYLOADS as u64 + 10);
    assert!(!story.world.judge.survivors().contains(&2));
    Ok(())
}

#[test]
fn without_a_majority_all_stop() -> Result<(), Failure> {
    // The node that compares first must not take its own digest with it.
    for latency_us in [500, 10_000, 20_000, 30_000, 45_000] {
        let mut plan = plan_with_corruption(2);
        plan.network.latency_us = latency_us;
        plan.drift_ppm = vec![0, 30_000];
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(0, PAYLOADS, 1)?;
        story.until("both stop", |world| world.nodes.iter().all(|node| node.diverged))?;
    }
    Ok(())
}
