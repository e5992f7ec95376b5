//! The machine of `cloudy-proto` in the simulator: seeds, and stories.

use std::time::Duration;

use cloudy_proto::{Durability, OnFailure, Parameters, RingKind, SessionPlan};
use cloudy_tests::invariants::Failure;
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::campaign::campaign;
use cloudy_tests::sim::plan::{Fault, Plan, Who};
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
    Plan::calm(members, Some(SessionPlan { send, grace, stop: Duration::from_millis(200), seed: 1 }))
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

#[test]
fn a_session_outlives_its_master() -> Result<(), Failure> {
    // In SEND, GRACE and STOP, and before it would close the group.
    for kill_at_us in [600_000, 1_050_000, 1_101_000, 1_103_000, 1_104_000] {
        let mut story = Scenario::begin(plan_of_a_session(3))?;
        story.broadcasts(1, 5, 8)?;
        story.broadcasts(3, 5, 8)?;
        story.pass(kill_at_us)?;
        story.suffers(Fault::Kill { who: Who::Node(Plan::FOUNDER) })?;
        story.settles()?;
        assert_eq!(story.world.judge.approved(), 10, "killed after {kill_at_us} us");
        assert_eq!(story.world.judge.survivors().len(), 3, "killed after {kill_at_us} us");
        assert!(story.world.now_us < 3_000_000, "killed after {kill_at_us} us: an election costs half a second");
    }
    Ok(())
}

#[test]
fn five_lose_one_coordinator_after_another_and_the_last_two_go_on() -> Result<(), Failure> {
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
fn three_members_and_their_watching_founder_lose_any_one_at_any_time_and_go_on() -> Result<(), Failure> {
    // Where two members are left the founder votes with them, also once it voted and was let go.
    let mut plan = plan_of_a_session(3);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.session = plan.session.map(|session| SessionPlan { send: Duration::from_secs(60), ..session });
    let mut story = Scenario::begin(plan)?;
    for lost in [1, 2, 3, 1, 2, 3] {
        let vote = |world: &World, who: &[usize]| {
            let voters = world.nodes[Plan::FOUNDER].machine.status(cloudy_proto::Time(0)).voters;
            voters.len() == 3 && who.iter().all(|&node| voters.contains(&world.nodes[node].id))
        };
        story.until("the members vote", |world| vote(world, &[1, 2, 3]))?;
        story.suffers(Fault::Isolate { who: Who::Node(lost), outage_us: 3_000_000 })?;
        let others: Vec<usize> = (1..=3).filter(|&node| node != lost).collect();
        let (view, approved) = (view_of(&story.world, Plan::FOUNDER), story.world.judge.approved());
        others.iter().try_for_each(|&node| story.broadcasts(node, 5, 8))?;
        story.until("the others go on", |world| {
            others.iter().all(|&node| world.judge.index_of(node) == approved + 10)
        })?;
        let at = story.world.now_us;
        let living = [Plan::FOUNDER, others[0], others[1]];
        story.until("all who are left vote", |world| vote(world, &living))?;
        assert!(story.world.now_us - at < 500_000, "long before it is back");
        story.until("it is back", |world| view_of(world, Plan::FOUNDER) == view + 2)?;
    }
    Ok(())
}

fn view_of(world: &World, node: usize) -> u64 {
    world.nodes[node].machine.status(cloudy_proto::Time(0)).view.map_or(0, |view| view.id.0)
}

#[test]
fn a_live_member_that_is_cut_off_at_stop_fetches_what_it_misses() -> Result<(), Failure> {
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
        plan.parameters =
            Parameters { ring: RingKind::Token, heartbeat: hour, failure_timeout: 3 * hour, ..plan.parameters };
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(sender, 3, 8)?;
        story.settles()?;
        assert_eq!(story.world.judge.approved(), 3);
    }
    Ok(())
}

fn plan_on_disk(members: usize) -> Plan {
    let mut plan = Plan::calm(members, None);
    plan.parameters.durability = Durability::Disk;
    plan.parameters.on_failure = OnFailure::Evict;
    plan.disk.sync_us = 3_000;
    plan
}

/// By node: its latest process.
fn running(story: &Scenario) -> Vec<usize> {
    (0..story.world.latest.len()).filter_map(|home| story.world.running(home)).collect()
}

#[test]
fn a_power_cut_loses_nothing_that_was_approved() -> Result<(), Failure> {
    for members in [1, 2, 3, 5] {
        let mut story = Scenario::begin(plan_on_disk(members))?;
        for cut in 1..=3_u64 {
            let processes = running(&story);
            for &process in &processes {
                story.broadcasts(process, 5, 8)?;
            }
            let approved = cut * 5 * members as u64;
            story.until("all have all", |world| processes.iter().all(|&at| world.judge.index_of(at) == approved))?;
            story.suffers(Fault::PowerCut { within_us: 300_000 })?;
            assert_eq!(running(&story), [], "nobody is left");
            story.until("all are back with all", |world| {
                let back = |home| world.running(home).filter(|&at| world.judge.view_of(at).1);
                (0..members).all(|home| back(home).is_some_and(|at| world.judge.index_of(at) == approved))
            })?;
        }
    }
    Ok(())
}

#[test]
fn who_was_away_for_longer_than_memory_goes_back_comes_back_by_anothers_disk() -> Result<(), Failure> {
    let mut plan = plan_on_disk(3);
    plan.retain_bytes = 1;
    plan.disk.sync_us = 20_000;
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    // Cut off, started again from its own disk, and without one; each time the disk that it is given from is read when
    // the power goes.
    for fault in [
        Fault::Isolate { who: Who::Node(2), outage_us: 3_000_000 },
        Fault::Restart { who: Who::Node(2), after_us: 3_000_000 },
        Fault::LoseDisk { who: Who::Node(2), after_us: 3_000_000 },
    ] {
        story.suffers(fault)?;
        story.pass(2_000_000)?;
        let senders: Vec<usize> = (0..2).filter_map(|home| story.world.running(home)).collect();
        senders.into_iter().try_for_each(|sender| story.broadcasts(sender, 20, 50))?;
        let (approved, read) = (story.world.judge.approved() + 40, story.world.stats.count(Met::ResultRead));
        story.until("the others have it", |world| {
            (0..2).all(|home| world.running(home).is_some_and(|at| world.judge.index_of(at) == approved))
        })?;
        let back = |world: &World| world.running(2).is_some_and(|at| world.judge.index_of(at) == approved);
        story.until("it asks", |world| world.stats.count(Met::ResultRead) > read)?;
        story.suffers(Fault::PowerCut { within_us: 50_000 })?;
        story.until("it has all", back)?;
    }
    assert!(story.world.stats.count(Met::KilledReading) > 0, "a read was under way");
    assert!(story.world.stats.count(Met::ServedFromDisk) > 0);
    story.settles()
}

#[test]
fn what_no_disk_had_is_gone_with_the_power_and_the_group_goes_on() -> Result<(), Failure> {
    let mut plan = plan_on_disk(3);
    plan.disk.sync_us = 0;
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    for node in 0..3 {
        story.suffers(Fault::SlowDisk { who: Who::Node(node), for_us: 60_000_000 })?;
        story.broadcasts(node, 5, 8)?;
    }
    story.pass(100_000)?;
    assert_eq!(story.world.judge.approved(), 0, "nothing is approved that no disk has");
    story.suffers(Fault::PowerCut { within_us: 0 })?;
    (0..3).try_for_each(|node| story.suffers(Fault::SlowDisk { who: Who::Node(node), for_us: 0 }))?;
    story.until("all are back", |world| {
        (0..3).all(|home| world.running(home).is_some_and(|at| world.judge.view_of(at).1))
    })?;
    story.broadcasts(running(&story)[0], 5, 8)?;
    story.settles()?;
    assert!((5..=20).contains(&story.world.judge.approved()), "a disk may have begun to write");
    Ok(())
}

#[test]
fn a_process_that_kept_nothing_joins_anew_and_sends_nothing_of_its_earlier_run() -> Result<(), Failure> {
    let mut plan = Plan::calm(3, None);
    plan.parameters.on_failure = OnFailure::Evict;
    let mut story = Scenario::begin(plan)?;
    story.pass(1_000_000)?;
    (0..3).try_for_each(|node| story.broadcasts(node, 5, 8))?;
    story.until("all have all", |world| (0..3).all(|node| world.judge.index_of(node) == 15))?;
    story.suffers(Fault::Isolate { who: Who::Node(1), outage_us: 100_000 })?;
    story.broadcasts(1, 5, 8)?;
    story.suffers(Fault::Restart { who: Who::Node(1), after_us: 50_000 })?;
    story.until("it is back", |world| world.running(1).is_some_and(|at| world.judge.view_of(at).1))?;
    story.broadcasts(running(&story)[1], 5, 8)?;
    story.settles()?;
    assert_eq!(story.world.judge.approved(), 20, "what nobody else had went with the process");
    Ok(())
}

/// Enough payloads for a checkpoint of the digest (`protocol.md` §8), in a few slots.
const PAYLOADS: usize = 70_000;

fn plan_with_corruption(members: usize) -> Plan {
    let mut plan = Plan::calm(members, None);
    plan.parameters.slot_payloads_max = 10_000;
    plan.parameters.slot_bytes_max = 1 << 20;
    plan.parameters.window_bytes = 1 << 24;
    plan.network.encoded = false;
    plan.network.corrupt_towards = Some(members - 1);
    plan
}

#[test]
fn a_corrupted_result_stops_the_minority_and_the_majority_goes_on() -> Result<(), Failure> {
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
    // Whoever compares first must not take its own digest with it.
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
