//! One value of one node is altered, as by a fault of its memory or disk: the node reports it and stops, or the
//! alteration has no effect; no other node's result differs (`protocol.md` §6, §8). Without the rule that detects it,
//! it remains undetected.

use cloudy_proto::{OnFailure, RingKind, Rule, Rules, Time};
use cloudy_tests::invariants::Failure;
use cloudy_tests::scenario::Scenario;
use cloudy_tests::sim::corruption::{Corrupted, Corruption};
use cloudy_tests::sim::plan::{Fault, Newcomer, Plan, Who};
use cloudy_tests::sim::run::run;
use cloudy_tests::sim::stats::{Met, Stats};
use cloudy_tests::sim::world::World;

/// Enough payloads for a checkpoint of the digest (`protocol.md` §8), in a few slots.
const PAYLOADS: usize = 70_000;

fn view_of(world: &World, node: usize) -> u64 {
    world.judge.view_of(node).0.0
}

fn has(index: u64, nodes: &[usize]) -> impl Fn(&World) -> bool {
    move |world| nodes.iter().all(|&node| world.judge.index_of(node) == index)
}

/// Members that evict who fails; something of one node is altered.
fn altered(nodes: usize, home: usize, what: Corrupted, rules: Rules) -> Plan {
    let mut plan = Plan::calm(nodes, None);
    plan.parameters.on_failure = OnFailure::Evict;
    plan.corruption = Some(Corruption { home, what });
    Plan { rules, mutated: true, ..plan }
}

fn with_newcomer(plan: Plan, newcomer: Newcomer) -> Plan {
    let drift_ppm = vec![0; plan.nodes + 1];
    Plan { newcomers: vec![(1_500_000, newcomer)], drift_ppm, ..plan }
}

/// The node stops and says why; all others go on.
fn stops(story: &mut Scenario, node: usize) -> Result<(), Failure> {
    story.until("it has stopped", |world| world.nodes.get(node).is_some_and(|node| node.diverged))?;
    story.pass(1_000_000)?;
    let others = story.world.nodes.iter().enumerate().filter(|(at, _)| *at != node);
    assert!(others.into_iter().all(|(_, other)| other.alive && !other.diverged), "the others go on");
    Ok(())
}

/// With all rules on the story comes to its end; without the one that finds the corruption it does not.
fn is_found_by(rule: Rule, story: impl Fn(Rules) -> Result<(), Failure>) {
    is_not_found(&format!("{rule:?}"), Rules::all_but(rule), story);
}

/// The same, of two rules that both find it.
fn is_found_by_both(one: Rule, other: Rule, story: impl Fn(Rules) -> Result<(), Failure>) {
    is_not_found(&format!("{one:?} and {other:?}"), Rules::all_but_both(one, other), story);
}

fn is_not_found(off: &str, rules: Rules, story: impl Fn(Rules) -> Result<(), Failure>) {
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(rules).expect_err("nobody notices");
    println!("{off} off: {failure}");
}

/// A newcomer comes to three members, of which node 2 cannot read the entry that lets it in. They go on without node 2,
/// and so do the voters.
#[test]
fn a_member_that_cannot_decode_a_log_entry_stops_and_the_others_continue() {
    is_found_by(Rule::UnreadableLogStops, |rules| {
        let plan = with_newcomer(altered(3, 2, Corrupted::Command, rules), Newcomer::Member);
        let mut story = Scenario::begin(plan)?;
        story.until("all vote", |world| world.nodes[0].machine.status(Time(0)).voters.len() == 3)?;
        story.until("the newcomer is on the ring", |world| view_of(world, 0) == 2)?;
        stops(&mut story, 2)?;
        story.broadcasts(0, 5, 8)?;
        story.until("the others go on", has(5, &[0, 1, 3]))?;
        story.until("the voters go on without it", |world| {
            let voters = world.nodes[0].machine.status(Time(0)).voters;
            voters.len() == 3 && !voters.contains(&world.nodes[2].id)
        })?;
        // They have heard that they do.
        story.pass(200_000)?;
        story.suffers(Fault::Isolate { who: Who::Coordinator, outage_us: 5_000_000 })?;
        story.until("another one coordinates", |world| world.judge.coordinator().is_some_and(|node| node != 0))?;
        story.settles()
    });
}

/// It comes so late that it receives the state of the log, and cannot read that.
#[test]
fn a_newcomer_that_cannot_decode_the_log_snapshot_stops() {
    is_found_by(Rule::UnreadableLogStops, |rules| {
        let mut plan = with_newcomer(altered(3, 3, Corrupted::LogState, rules), Newcomer::Member);
        plan.log_entries_max = 2;
        // Without the rule it asks again and again.
        plan.heal_at_us = 5_000_000;
        let mut story = Scenario::begin(plan)?;
        stops(&mut story, 3)?;
        story.broadcasts(0, 5, 8)?;
        story.until("the others go on", has(5, &[0, 1, 2]))
    });
}

#[test]
fn a_member_with_a_differing_checkpoint_stops() {
    is_found_by(Rule::MembersCompare, |rules| {
        let mut plan = altered(3, 2, Corrupted::Slot, rules);
        (plan.parameters.slot_payloads_max, plan.parameters.slot_bytes_max) = (10_000, 1 << 20);
        plan.parameters.window_bytes = 1 << 24;
        plan.network.encoded = false;
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(0, PAYLOADS, 1)?;
        stops(&mut story, 2)
    });
}

/// A message is missing from its result, so it begins the next view at another index.
#[test]
fn a_member_that_begins_a_view_elsewhere_stops() {
    is_found_by(Rule::BeginningsCompare, |rules| {
        let mut story = Scenario::begin(altered(4, 2, Corrupted::ShortSlot, rules))?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", has(5, &[0, 1, 3]))?;
        // It does not come back, which would be another view.
        story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 100_000_000 })?;
        story.until("the next view", |world| view_of(world, 0) >= 2)?;
        story.until("it has stopped", |world| world.nodes[2].diverged)?;
        story.broadcasts(0, 5, 8)?;
        story.until("the others go on", has(10, &[0, 1]))
    });
}

/// One message differs on one disk, and in no node's memory: detected once its process is restarted.
#[test]
fn a_member_with_a_corrupt_disk_stops_after_its_restart() {
    is_found_by_both(Rule::MembersCompare, Rule::BeginningsCompare, |rules| {
        let mut plan = Plan::calm_on_disk(3);
        plan.corruption = Some(Corruption { home: 2, what: Corrupted::Stored });
        let mut story = Scenario::begin(Plan { rules, mutated: true, ..plan })?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", has(5, &[0, 1, 2]))?;
        story.pass(1_000_000)?;
        story.suffers(Fault::Restart { who: Who::Node(2), after_us: 50_000 })?;
        let latest = |world: &World| world.running(2).is_some_and(|place| place > 2 && world.nodes[place].diverged);
        story.until("it has stopped", latest)?;
        story.broadcasts(0, 5, 8)?;
        story.until("the others go on", has(10, &[0, 1]))
    });
}

#[test]
fn a_member_with_a_contradicting_answer_is_excluded_and_stops() {
    is_found_by(Rule::AnswersCompare, |rules| {
        let mut story = Scenario::begin(altered(4, 2, Corrupted::Answer, rules))?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", has(5, &[0, 1, 2, 3]))?;
        story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 3_000_000 })?;
        story.until("it has stopped", |world| world.nodes[2].diverged)?;
        story.broadcasts(0, 5, 8)?;
        story.until("the others go on", has(10, &[0, 1, 3]))
    });
}

/// An observer is given another byte than the members have. It finds that at the next view's first index.
#[test]
fn an_observer_with_a_differing_checkpoint_stops_alone() {
    is_found_by(Rule::ObserversCompare, |rules| {
        let plan = with_newcomer(altered(3, 3, Corrupted::Fetched, rules), Newcomer::Observer);
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", |world| world.nodes.len() == 4 && has(5, &[0, 1, 2, 3])(world))?;
        story.suffers(Fault::Isolate { who: Who::Node(2), outage_us: 3_000_000 })?;
        story.until("the next view", |world| view_of(world, 0) >= 2)?;
        story.broadcasts(0, 5, 8)?;
        stops(&mut story, 3)
    });
}

/// The same, and the group ends before there is another checkpoint.
#[test]
fn an_observer_with_a_differing_final_result_stops_alone() {
    is_found_by(Rule::FinalsCompare, |rules| {
        let plan = with_newcomer(altered(3, 3, Corrupted::Fetched, rules), Newcomer::Observer);
        let mut story = Scenario::begin(plan)?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", |world| world.nodes.len() == 4 && has(5, &[0, 1, 2, 3])(world))?;
        story.ends()?;
        story.until("it has stopped", |world| world.nodes[3].diverged)?;
        assert_eq!(story.world.judge.final_of(3), None, "it calls no result final that is another");
        Ok(())
    });
}

/// Members find at STOP any difference since the last checkpoint, as soon as the others have reported.
#[test]
fn a_member_with_a_differing_final_result_reports_it() {
    is_found_by(Rule::FinalsCompare, |rules| {
        let mut story = Scenario::begin(altered(3, 2, Corrupted::Slot, rules))?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", has(5, &[0, 1, 2]))?;
        story.ends()?;
        story.until("it has stopped", |world| world.nodes[2].diverged)
    });
}

/// The log of one member ends the lanes of view 1 earlier than the others' does: control state is corrupt, and it shows in
/// the result.
#[test]
fn a_member_with_another_cut_in_its_log_stops() {
    is_found_by(Rule::BeginningsCompare, |rules| {
        let mut story = Scenario::begin(altered(4, 2, Corrupted::Cut, rules))?;
        // Confirmed and not approved when node 3 is gone: the cut takes it.
        story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 100_000_000 })?;
        (0..3).try_for_each(|node| story.broadcasts(node, 5, 8))?;
        story.until("it has stopped", |world| world.nodes[2].diverged)?;
        story.until("the others have it all", has(15, &[0, 1]))
    });
}

/// If no slot is forwarded and nothing is fetched, a slot that one node received with another content is in no other
/// result. A node that stops takes its vote with it, so the others may have to wait.
#[test]
fn a_corrupted_slot_of_one_node_reaches_no_other() {
    let stays = |plan: &Plan| {
        let fetches = plan.evicts() || plan.restarts() > 0 || !plan.newcomers.is_empty();
        !fetches && plan.parameters.ring != RingKind::Relay
    };
    let mut stopped = 0;
    for mut plan in (0..600).map(Plan::of).filter(stays) {
        let home = plan.seed as usize % plan.homes();
        let what = if plan.seed.is_multiple_of(2) { Corrupted::Slot } else { Corrupted::ShortSlot };
        plan.corruption = Some(Corruption { home, what });
        let seed = plan.seed;
        let outcome = run(plan, false);
        let unsafe_at = outcome.failure.filter(|failure| failure.rule != "a calm world settles");
        assert_eq!(unsafe_at, None, "seed {seed}");
        stopped += outcome.stats.count(Met::Corrupted);
    }
    assert!(stopped > 10, "{stopped} nodes have found that their results differ");
}

/// An observer serves no other node: with any further faults, its altered value is in no other result and no other log.
#[test]
fn a_corrupted_observer_reaches_no_other() {
    let (mut stopped, mut runs) = (0, 0);
    for mut plan in (0..2_000).map(Plan::of) {
        let observer = plan.newcomers.iter().position(|(_, newcomer)| *newcomer == Newcomer::Observer);
        let Some(at) = observer else { continue };
        let what = if plan.seed.is_multiple_of(2) { Corrupted::Fetched } else { Corrupted::LogState };
        plan.corruption = Some(Corruption { home: plan.nodes + at, what });
        let seed = plan.seed;
        let outcome = run(plan, false);
        let unsafe_at = outcome.failure.filter(|failure| failure.rule != "a calm world settles");
        assert_eq!(unsafe_at, None, "seed {seed}, {what:?}");
        stopped += outcome.stats.count(Met::Corrupted);
        runs += 1;
    }
    assert!(stopped > 5, "{stopped} observers of {runs} have found that something of theirs is altered");
}

/// Plans of the usual test run; the environment variable `CLOUDY_CORRUPTION_PLANS` sets another number.
const PLANS: u64 = 140;
/// The seed of the first plan.
const PLANS_FROM: u64 = 40;

/// The value to alter in the run of a plan, by its seed: records on a member's disk, the result that a learner or an
/// observer fetches, the control log or its state at any node, or a member's answer to `Wedge`. None if the plan has no
/// such node.
fn corruption_of(plan: &Plan) -> Option<Corruption> {
    let newcomers = |wanted: Newcomer| {
        let newcomers = plan.newcomers.iter().enumerate().filter(move |(_, (_, newcomer))| *newcomer == wanted);
        newcomers.map(|(at, _)| plan.nodes + at).collect::<Vec<usize>>()
    };
    let members: Vec<usize> = plan.members().collect();
    let (what, homes) = match plan.seed % 7 {
        0 => (Corrupted::Stored, members.into_iter().filter(|_| plan.on_disk()).collect()),
        1 => (Corrupted::Fetched, members.into_iter().chain(newcomers(Newcomer::Member)).collect()),
        2 => (Corrupted::Fetched, newcomers(Newcomer::Observer)),
        3 => (Corrupted::Command, (0..plan.homes()).collect()),
        4 => (Corrupted::LogState, (0..plan.homes()).collect()),
        5 => (Corrupted::Cut, (0..plan.homes()).collect()),
        _ => (Corrupted::Answer, members),
    };
    let home = *homes.get((plan.seed / 7) as usize % homes.len().max(1))?;
    Some(Corruption { home, what })
}

/// With any further faults, an altered value is in no result and no log but those of its node, and of nodes that
/// received a part of the result or of the log from it.
#[test]
fn an_altered_value_stays_at_its_node_and_those_that_fetched_from_it() {
    let plans = std::env::var("CLOUDY_CORRUPTION_PLANS").ok().and_then(|plans| plans.parse().ok()).unwrap_or(PLANS);
    let mut stats = Stats::default();
    let mut stopped = [Met::CommandAltered, Met::LogStateAltered, Met::AnswerAltered].map(|altered| (altered, 0));
    for mut plan in (PLANS_FROM..PLANS_FROM + plans).map(Plan::of) {
        plan.corruption = corruption_of(&plan);
        let (seed, Some(corruption)) = (plan.seed, plan.corruption) else { continue };
        let outcome = run(plan, false);
        let unsafe_at = outcome.failure.filter(|failure| failure.rule != "a calm world settles");
        assert_eq!(unsafe_at, None, "seed {seed}, {corruption:?}");
        let of_kind = stopped.iter_mut().filter(|(altered, _)| *altered == corruption.what.met());
        of_kind.for_each(|(_, count)| *count += outcome.stats.count(Met::Corrupted));
        stats.merge(&outcome.stats);
    }
    for required in [Met::FetchedAltered, Met::StoredAltered, Met::AlteredPassedOn] {
        assert!(stats.count(required) > 0, "{required:?} never happened:\n{stats}");
    }
    for (altered, nodes) in stopped {
        assert!(nodes > 0, "{altered:?}: no node has found that, altered {} times", stats.count(altered));
    }
}
