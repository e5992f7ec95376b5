//! Stories of processes that die and come back, with their disks or without.

use core::time::Duration;

use cloudy_proto::{Durability, OnFailure, Parameters, SessionPlan, Time, ViewId};
use cloudy_tests::invariants::{Failure, excuse};
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::plan::{Fault, Plan, Step, Who};
use cloudy_tests::sim::stats::Met;
use cloudy_tests::sim::world::World;

/// By node: its latest process.
fn running(story: &Scenario) -> Vec<usize> {
    (0..story.world.latest.len()).filter_map(|home| story.world.running(home)).collect()
}

#[test]
fn a_power_cut_loses_nothing_that_was_approved() -> Result<(), Failure> {
    for members in [1, 2, 3, 5] {
        let mut story = Scenario::begin(Plan::calm_on_disk(members))?;
        for cut in 1..=3_u64 {
            let processes = running(&story);
            for &process in &processes {
                story.broadcasts(process, 5, 8)?;
            }
            let approved = cut * 5 * members as u64;
            story.until("all have all", |world| processes.iter().all(|&at| world.judge.index_of(at) == approved))?;
            story.suffers(Fault::PowerCut { within_us: 300_000 })?;
            assert!(running(&story).is_empty(), "nobody is left");
            story.until("all are back with all", |world| {
                let back = |home| world.running(home).filter(|&at| world.judge.view_of(at).1);
                (0..members).all(|home| back(home).is_some_and(|at| world.judge.index_of(at) == approved))
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_node_absent_beyond_memory_retention_recovers_from_the_disk_of_another() -> Result<(), Failure> {
    let mut plan = Plan::calm_on_disk(3);
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
    assert!(story.world.stats.count(Met::KilledReading) > 0, "a read was in progress");
    assert!(story.world.stats.count(Met::ServedFromDisk) > 0);
    story.settles()
}

#[test]
fn messages_on_no_disk_are_lost_in_a_power_cut_and_the_group_continues() -> Result<(), Failure> {
    let mut plan = Plan::calm_on_disk(3);
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
fn a_process_without_stored_state_joins_anew_and_sends_no_message_of_its_earlier_incarnation() -> Result<(), Failure> {
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

/// A session on disk with the members 1 and 2, created by node 0. Member 2 has stored view 1, and member 1 is down.
fn without_member_1(stores_view: bool, kills_anybody: bool) -> Result<Scenario, Failure> {
    let mut plan = Plan::calm(2, Some(SessionPlan::new(Duration::from_secs(5), Duration::ZERO, Duration::ZERO)));
    (plan.parameters.durability, plan.parameters.on_failure) = (Durability::Disk, OnFailure::Evict);
    (plan.disk.sync_us, plan.kills_anybody) = (3_000, kills_anybody);
    if !stores_view {
        let hangs = Fault::SlowDisk { who: Who::Node(1), for_us: 10_000_000 };
        plan.at_steps.push((Step::Created, 0, hangs));
    }
    let mut story = Scenario { world: World::new(plan, false) };
    story.until("member 2 has stored view 1", |world| {
        let stored = |home: usize| world.judge.is_complete_on_disk(world.nodes[home].id, ViewId(1));
        world.judge.is_created() && stored(2) && (!stores_view || world.nodes[1].app.open)
    })?;
    story.suffers(Fault::Restart { who: Who::Node(1), after_us: 500_000 })?;
    story.suffers(Fault::SlowDisk { who: Who::Node(1), for_us: 0 })?;
    assert_eq!(story.world.running(1), None, "member 1 is down");
    Ok(story)
}

#[test]
fn a_member_that_died_before_it_stored_view_1_does_not_count_as_one_that_has_it() -> Result<(), Failure> {
    let loses_disk = Fault::LoseDisk { who: Who::Node(2), after_us: 50_000 };
    let lost = |story: &Scenario| story.world.stats.count(Met::DiskLost) > 0;
    // Its disk is lost only once the group can do without it: member 1 has joined again, in another view.
    let mut spared = without_member_1(false, false)?;
    spared.suffers(loses_disk)?;
    spared.until("the disk is lost", |world| world.stats.count(Met::DiskLost) > 0)?;
    assert!(spared.world.judge.view().is_some_and(|view| view.id > ViewId(1)), "{:?}", spared.world.judge.view());
    spared.settles()?;
    // A plan that kills any node loses the group, and is the cause of that.
    let mut taken = without_member_1(false, true)?;
    taken.suffers(loses_disk)?;
    assert!(lost(&taken) && taken.world.taken.contains(&Met::Lost));
    // Where member 1 has stored view 1, the same fault excuses no loss, and nothing is lost.
    for kills_anybody in [false, true] {
        let mut kept = without_member_1(true, kills_anybody)?;
        kept.suffers(loses_disk)?;
        assert!(lost(&kept) && !kept.world.taken.contains(&Met::Lost), "{:?}", kept.world.taken);
        kept.settles()?;
    }
    Ok(())
}

/// Three members on disk are killed at once. Two return at once, and the third one after a time or never. Returns the
/// ring's size in the view after that, and the time until it is installed.
fn resumed(resume_timeout: Duration, third_after_us: Option<u64>) -> Result<(usize, u64), Failure> {
    let mut plan = Plan::calm_on_disk(3);
    plan.parameters.resume_timeout = resume_timeout;
    let mut story = Scenario::begin(plan)?;
    (0..3).try_for_each(|node| story.broadcasts(node, 5, 8))?;
    story.until("all have all", |world| (0..3).all(|node| world.judge.index_of(node) == 15))?;
    story.until("all vote", |world| world.nodes[0].machine.status(Time(0)).voters.len() == 3)?;
    story.pass(200_000)?;
    for node in 0..2 {
        story.suffers(Fault::Restart { who: Who::Node(node), after_us: 10_000 })?;
    }
    story.suffers(match third_after_us {
        Some(after_us) => Fault::Restart { who: Who::Node(2), after_us },
        None => Fault::Kill { who: Who::Node(2) },
    })?;
    let killed_us = story.world.now_us;
    story.until("the group continues", |world| world.judge.view().is_some_and(|view| view.id > ViewId(1)))?;
    let members = story.world.judge.view().map_or(0, |view| view.members());
    let took_us = story.world.now_us - killed_us;
    story.settles()?;
    Ok((members, took_us))
}

#[test]
fn a_resumed_group_waits_a_bounded_time_for_members_that_start_later() -> Result<(), Failure> {
    let timeout = Parameters::default().resume_timeout;
    for after_us in [2_000_000, 4_000_000] {
        assert_eq!(resumed(timeout, Some(after_us))?.0, 3, "it is back after {after_us} us, and keeps its place");
    }
    let (members, took_us) = resumed(timeout, None)?;
    assert_eq!(members, 2, "a member that is gone is evicted");
    assert!((5_000_000..7_000_000).contains(&took_us), "within the timeout and an election: {took_us} us");
    // Without the wait the group continues at once, and the third member has to join again.
    let (members, took_us) = resumed(Duration::ZERO, Some(2_000_000))?;
    assert!(members == 2 && took_us < 2_000_000, "{members} members after {took_us} us");
    Ok(())
}

/// A group with a member that kept running does not resume: it continues without the others after the usual timeouts.
#[test]
fn a_member_that_runs_on_does_not_wait_for_restarted_ones_as_a_resumed_group_does() -> Result<(), Failure> {
    let mut story = Scenario::begin(Plan::calm_on_disk(4))?;
    story.until("all vote", |world| world.nodes[0].machine.status(Time(0)).voters.len() == 3)?;
    story.pass(200_000)?;
    story.suffers(Fault::Restart { who: Who::Node(3), after_us: 10_000 })?;
    story.suffers(Fault::Restart { who: Who::Node(2), after_us: 3_000_000 })?;
    let killed_us = story.world.now_us;
    story.until("the group continues", |world| world.judge.view().is_some_and(|view| view.id > ViewId(1)))?;
    let took_us = story.world.now_us - killed_us;
    assert!(took_us < 2_000_000, "{took_us} us");
    story.settles()
}

/// Payloads of a kilobyte.
const FETCHED: usize = 500;
/// The time for a part of the result: a joiner is not complete for that long.
const FETCH_US: u64 = 2_000_000;

#[test]
fn a_group_without_a_complete_member_reports_it_and_continues_once_a_disk_returns() -> Result<(), Failure> {
    for durability in [Durability::Memory, Durability::Disk] {
        let mut plan = Plan::calm(3, None);
        (plan.creator_is_member, plan.network.latency_us, plan.network.result_us) = (false, 20_000, FETCH_US);
        (plan.parameters.durability, plan.parameters.on_failure) = (durability, OnFailure::Evict);
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(1, FETCHED, 1_000)?;
        story.until("all have all", |world| (1..3).all(|node| world.judge.index_of(node) == FETCHED as u64))?;
        // It comes back with nothing, and has hardly begun to fetch when the only other member dies.
        story.suffers(Fault::LoseDisk { who: Who::Node(2), after_us: 10_000 })?;
        story.until("it is on the ring, and all vote", |world| {
            let back = world.running(2).is_some_and(|at| world.judge.view_of(at).1);
            let voters = world.nodes[Plan::CREATOR].machine.status(cloudy_proto::Time(0)).voters;
            back && voters.len() == 3 && voters.contains(&world.nodes[2].id)
        })?;
        let (joiner, lost) = (running(&story)[2], story.world.nodes[1].id);
        assert!(!story.world.judge.has_all(joiner), "{durability:?}: it is not complete");
        story.suffers(Fault::Restart { who: Who::Node(1), after_us: 6_000_000 })?;
        for node in [Plan::CREATOR, joiner] {
            story.until("it says who is missing", |world| world.judge.nobody_complete(node).is_some())?;
            let said = story.world.judge.nobody_complete(node).cloned();
            assert!(said.is_some_and(|said| said.missing == [lost] && said.lost.is_empty()), "{durability:?}");
        }
        if durability == Durability::Memory {
            // It is back in another run.
            story.until("it says what is lost", |world| {
                [Plan::CREATOR, joiner].iter().all(|&node| {
                    world.judge.nobody_complete(node).is_some_and(|said| said.missing.is_empty() && said.lost == [lost])
                })
            })?;
            story.pass(5_000_000)?;
            assert_eq!(story.world.judge.approved(), FETCHED as u64, "nobody starts again from nothing");
        } else {
            story.until("all are back with all", |world| {
                let back = |home| world.running(home).filter(|&at| world.judge.view_of(at).1);
                (1..3).all(|home| back(home).is_some_and(|at| world.judge.index_of(at) == FETCHED as u64))
            })?;
            story.broadcasts(running(&story)[1], 5, 8)?;
            story.settles()?;
            assert_eq!(story.world.judge.approved(), FETCHED as u64 + 5);
        }
    }
    Ok(())
}

#[test]
fn a_node_that_lags_beyond_the_kept_log_gets_the_log_snapshot() -> Result<(), Failure> {
    for durability in [Durability::Memory, Durability::Disk] {
        let mut plan = Plan::calm(4, None);
        (plan.parameters.durability, plan.parameters.on_failure) = (durability, OnFailure::Evict);
        plan.log_entries_max = 4;
        let mut story = Scenario::begin(plan)?;
        story.pass(1_000_000)?;
        let skipped = story.world.stats.count(Met::LogSkipped);
        // While it is away others are evicted and come back: a dozen of entries.
        story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 9_000_000 })?;
        for away in [1, 2] {
            story.pass(1_000_000)?;
            story.suffers(Fault::Isolate { who: Who::Node(away), outage_us: 1_000_000 })?;
            story.pass(2_000_000)?;
            story.broadcasts(0, 5, 8)?;
        }
        story.until("it is back, with all", |world| {
            world.running(3).is_some_and(|at| world.judge.view_of(at).1 && world.judge.index_of(at) == 10)
        })?;
        assert!(story.world.stats.count(Met::LogSkipped) > skipped, "{durability:?}");
        // The log that all nodes keep by then begins later than the log of any of them.
        story.suffers(Fault::PowerCut { within_us: 500_000 })?;
        if durability == Durability::Disk {
            story.until("all are back with all", |world| {
                let back = |home| world.running(home).filter(|&at| world.judge.view_of(at).1);
                (0..4).all(|home| back(home).is_some_and(|at| world.judge.index_of(at) == 10))
            })?;
            story.broadcasts(running(&story)[3], 5, 8)?;
            story.settles()?;
            assert_eq!(story.world.judge.approved(), 15);
        }
    }
    Ok(())
}

/// The creator's disk syncs slowly: the members have the first view before the creator has stored that it applied it.
#[test]
fn a_creator_that_dies_while_it_creates_finishes_that_when_it_is_back() -> Result<(), Failure> {
    for (creator_is_member, seed) in
        [true, false].into_iter().flat_map(|member| (0..40).map(move |seed| (member, seed)))
    {
        let mut plan = Plan::calm_on_disk(3);
        (plan.seed, plan.creator_is_member, plan.disk.sync_us) = (seed, creator_is_member, 20_000);
        let mut story = Scenario { world: World::new(plan, false) };
        story.until("the creator has the first view", |world| world.judge.view().is_some())?;
        story.suffers(Fault::Restart { who: Who::Node(Plan::CREATOR), after_us: 100_000 })?;
        assert_eq!(story.world.running(Plan::CREATOR), None, "it need not wait for anything");
        story.until("all are back", |world| {
            let active = |home| world.running(home).is_some_and(|at| world.judge.view_of(at).1);
            (usize::from(!creator_is_member)..3).all(active)
        })?;
        assert_eq!(story.world.stats.count(Met::RestartedInMemory), 0, "seed {seed}: it forgot the group");
        let approved = story.world.judge.approved();
        story.broadcasts(1, 3, 8)?;
        story.settles()?;
        assert_eq!((story.world.judge.approved(), excuse(&story.world)), (approved + 3, None), "seed {seed}");
    }
    Ok(())
}

/// A result that it fetched could be incomplete when the group is closed, and it would wait for the rest.
#[test]
fn a_creator_without_a_place_on_the_ring_fetches_no_result_after_a_restart() -> Result<(), Failure> {
    let mut plan = Plan::calm_on_disk(3);
    plan.creator_is_member = false;
    let members: Vec<usize> = plan.members().collect();
    let mut story = Scenario::begin(plan)?;
    story.suffers(Fault::Restart { who: Who::Node(Plan::CREATOR), after_us: 100_000 })?;
    for round in 1..=2_u64 {
        for &member in &members {
            story.broadcasts(member, 5, 8)?;
        }
        let approved = round * 5 * members.len() as u64;
        story.until("the members have all, and the creator is back with the view", |world| {
            let creator = world.running(Plan::CREATOR);
            members.iter().all(|&at| world.judge.index_of(at) == approved)
                && creator.is_some_and(|at| world.nodes[at].machine.status(Time(0)).view.is_some())
        })?;
    }
    let creator = story.world.running(Plan::CREATOR).expect("it is back");
    story.ends()?;
    story.until("the creator knows the end", |world| world.nodes[creator].machine.is_closed())?;
    assert_eq!(story.world.judge.index_of(creator), 0);
    story.settles()
}

/// One of two members of a session is left, and the log says that it votes alone and the master does no more. It ends
/// before its disk has synced the news, so its disk needs the master's vote: the master dies only once the news is known
/// again.
#[test]
fn a_kill_waits_until_a_restarted_node_knows_the_voters() -> Result<(), Failure> {
    let mut forgot = 0;
    for sync_us in [1_000, 3_000, 9_000, 20_000] {
        let (send, grace) = (Duration::from_secs(4), Duration::from_millis(100));
        let mut plan = Plan::calm(2, Some(SessionPlan::new(send, grace, Duration::from_millis(200)).seed(1)));
        (plan.parameters.durability, plan.parameters.on_failure) = (Durability::Disk, OnFailure::Evict);
        (plan.disk.sync_us, plan.kills_anybody) = (sync_us, false);
        let mut story = Scenario::begin(plan)?;
        let votes = |world: &World| {
            let place = world.running(1)?;
            Some(world.nodes[place].machine.status(Time(0)).voters.len())
        };
        story.until("all vote", |world| votes(world) == Some(3))?;
        story.suffers(Fault::Kill { who: Who::Node(2) })?;
        story.until("one votes", |world| votes(world) == Some(1))?;
        story.suffers(Fault::Restart { who: Who::Node(1), after_us: 100_000 })?;
        story.suffers(Fault::Kill { who: Who::Node(Plan::CREATOR) })?;
        story.until("the member is back", |world| world.running(1).is_some())?;
        forgot += u32::from(votes(&story.world) == Some(2));
        story.until("the master dies", |world| world.running(Plan::CREATOR).is_none())?;
        story.settles()?;
        assert_eq!(excuse(&story.world), None, "syncs of {sync_us} us");
    }
    assert!(forgot > 0, "no disk has forgotten the news");
    Ok(())
}
