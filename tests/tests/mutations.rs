//! Each load-bearing rule, switched off at every node: a checker must fail (`protocol.md` §11). With all rules on the
//! very same run passes.

use core::time::Duration;
use std::collections::BTreeSet;

use bytes::BytesMut;
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::{
    Approval, ApprovedItem, Entry, Index, LeaveWait, OnFailure, Output, RingKind, Rule, Rules, Seq, Time,
};
use cloudy_tests::invariants::{Failure, REAL_TIME};
use cloudy_tests::scenario::Scenario;
use cloudy_tests::scripted::{
    asks_back, gives_up_its_vote, rejects_a_commit_of_entries_it_lacks, repeats_itself,
    reports_that_no_member_coordinates,
};
use cloudy_tests::sim::corruption::{Corrupted, Corruption};
use cloudy_tests::sim::plan::{Fault, Newcomer, Plan, Step, Who};
use cloudy_tests::sim::run::{run, run_without, run_without_both};
use cloudy_tests::sim::world::World;

/// Seeds within which a checker has to fail.
const SEEDS: u64 = 1_000;

fn is_caught(rule: Rule) {
    let caught = (0..SEEDS).find_map(|seed| run_without(rule, Plan::of(seed)).failure.map(|failure| (seed, failure)));
    let Some((seed, failure)) = caught else { panic!("{rule:?}: no checker notices within {SEEDS} seeds") };
    println!("{rule:?} off: seed {seed}: {failure}");
    assert_eq!(run(Plan::of(seed), false).failure, None, "the same seed with all rules on");
}

macro_rules! each_is_caught {
    ($($test:ident: $rule:ident,)*) => {
        $(
            #[test]
            fn $test() {
                is_caught(Rule::$rule);
            }
        )*

        /// A rule that no test here switches off does not compile.
        #[test]
        fn every_rule_has_its_test() {
            let tested = |rule: Rule| match rule {
                $(Rule::$rule => stringify!($test),)*
                Rule::FromIsLatest | Rule::CoordinatorIsCaughtUp => "a_late_proposal_takes_effect",
                Rule::SkipIsStanding => "skips_become_due_on_arrival_only",
                Rule::StoredFollowsSnapshot => "a_snapshot_is_kept_beyond_the_stored_result",
                Rule::LaggingSourceIsSkipped => "two_that_lack_the_same_entries_do_not_wait_for_each_other",
                Rule::ResumeSendsSkips => "a_resumed_stream_withholds_its_skips",
                Rule::SeekContinues => "a_node_without_a_coordinator_never_reports_it",
                Rule::ShorterLogRequestsBack => "a_node_with_a_shorter_log_does_not_request_entries_in_return",
                Rule::SnapshotHasItsView => "a_snapshot_carries_no_members",
                Rule::SnapshotIsSynced => "a_fetched_snapshot_is_used_before_it_is_synced",
                Rule::SnapshotIsVerified => "a_snapshot_with_another_byte_is_used",
                Rule::SnapshotHasLastNumbers => "a_joiner_starts_without_the_last_sequence_numbers",
                Rule::OneStays => "all_that_leave_wait_for_a_dead_member",
                // In `planned_stops.rs`.
                Rule::StopHandsOver => "a_coordinator_that_stops_hands_over_first",
                Rule::LastHandsOver => "the_last_that_leaves_ends_the_group_of_an_evicted_member",
                Rule::LeftIsLogged => "a_node_that_left_returns_to_the_ring",
                Rule::CloseIsReported => "a_node_that_knows_no_member_of_the_last_view_does_not_learn_of_the_end",
                Rule::LostVotesAreReported => "most_votes_are_lost_and_no_node_reports_it",
                Rule::ForgottenVoteIsGivenUp => "a_voter_that_forgot_keeps_its_consensus_id",
                Rule::LostLinkIsNoAnswer => "an_answer_from_before_a_link_was_lost_counts",
                Rule::AnswerIsInReach => "a_view_rests_on_a_member_that_is_gone",
                Rule::LeaverHasALeader => "a_leader_leaves_though_it_alone_knows_of_its_removal",
                Rule::EvictedLeaveFirst => "a_member_leaves_the_voters_before_one_that_was_evicted",
                Rule::ConsensusIsChecked => "a_voter_panics_at_a_message_that_the_library_treats_as_impossible",
                Rule::SleeperWaits => "a_coordinator_acts_on_messages_queued_during_its_stop",
                // In the unit tests of `cloudy-proto`.
                Rule::CloseFreesLeaver => {
                    "a_node_that_leaves_outside_the_last_view_does_not_wait_for_stopped_members"
                }
                Rule::ChangeKeepsMajority => "a_change_of_the_voters_leaves_too_few_that_answer",
                // In `corruption.rs`.
                Rule::MembersCompare => "a_member_with_a_differing_checkpoint_stops",
                Rule::ObserversCompare => "an_observer_with_a_differing_checkpoint_stops_alone",
                Rule::BeginningsCompare => "a_member_that_begins_a_view_elsewhere_stops",
                Rule::AnswersCompare => "a_member_with_a_contradicting_answer_is_excluded_and_stops",
                Rule::FinalsCompare => "an_observer_with_a_differing_final_result_stops_alone",
                Rule::UnreadableLogStops => "a_member_that_cannot_decode_a_log_entry_stops_and_the_others_continue",
                Rule::FinalIsStoredWhole => "a_fetched_final_result_lacks_its_final_marker",
            };
            assert_eq!(tested(Rule::CutAtMinimum), "a_cut_at_the_maximum");
        }
    };
}

each_is_caught! {
    a_wedged_member_confirms: WedgedConfirmsNothing,
    a_wedged_member_sends: WedgedSendsNothing,
    answers_without_wedging: WedgedBeforeAnswer,
    a_cut_at_the_maximum: CutAtMinimum,
    a_skipped_round_is_reused: SkippedRoundUnused,
    the_cursor_passes_an_unknown_slot: CursorWaitsForUnknown,
    one_confirmation_too_few: EveryConfirmation,
    the_owner_is_no_recipient: OwnerIsRecipient,
    a_skip_is_inferred_from_a_gap: NoSkipFromGap,
    a_skip_is_accepted_before_the_slots_that_precede_it: KnownSkipIsChained,
    a_link_resumes_without_the_latest_skip: ResumeRepeatsSkip,
    a_forwarded_lane_does_not_resume: ForwardedIsResumed,
    a_cut_is_applied_without_all_its_slots: CutIsHeld,
    a_final_result_is_short: FinalReachesCut,
    the_hold_does_not_follow_the_cursor: HoldFollowsCursor,
    the_hold_does_not_exempt_the_first_slot: HoldExemptsFirst,
    a_waiting_member_is_not_reported: WaitingIsReported,
    a_fetched_message_enters_the_result_again: Deduplicated,
    numbers_are_counted_by_origin_only: NumbersAreOfAnIncarnation,
    messages_outside_a_cut_return_to_the_tail_of_the_outbox: PutBackAtHead,
    a_view_follows_though_no_survivor_has_the_result: SurvivorIsComplete,
    an_unsynced_slot_is_confirmed: ConfirmIsSynced,
    an_answer_names_unsynced_frontiers: AnswerIsSynced,
    a_fetched_result_counts_before_it_is_synced: CompleteIsSynced,
    a_vote_leaves_before_it_is_synced: VoteIsSynced,
    a_sync_releases_later_consensus_state: TicketIsOfItsState,
    a_node_that_skips_a_view_is_complete_in_the_next: SkippedViewIsIncomplete,
    a_stale_disk_decides_a_cut: RunningFixTheCut,
    a_stale_disk_applies_a_cut_that_it_did_not_answer_for: DiskKnowsItsAnswer,
    a_restarted_member_is_active_again: RestartedIsWedged,
    an_ended_incarnation_in_memory_counts_as_a_survivor: StaleMemberIsVoid,
    a_snapshot_claims_an_index_beyond_its_state: SnapshotIsOfItsIndex,
    a_node_that_catches_up_reads_no_views: ViewsAreServed,
    a_disk_holds_no_views: ViewsAreStored,
    a_truncated_result_has_sequence_numbers_of_later_entries: BaseHasLastNumbers,
    a_member_lacks_an_entry_that_a_disk_deleted: DeletesWhatAllHold,
    an_incarnation_comes_from_a_clock_that_was_set_back: IncarnationIsNamedByLog,
    a_restarted_process_sends_messages_of_an_earlier_incarnation: RestartedSendsNothingOld,
    an_id_is_rejected_before_its_incarnation_is_listed: RejectedIsListed,
    an_id_is_rejected_that_is_on_the_ring: RejectedIsOffRing,
    a_result_that_is_behind_rejects_what_it_lacks: RejectedIsReached,
    a_creator_forgets_the_only_vote: VotersLogIsKept,
}

/// Two coordinators may each have a next view put into the log: the first sleeps from its proposal on. Either of two rules
/// keeps the second's out: it learns of the first before it begins, or the log passes it over. Without both, two views
/// follow one.
#[test]
fn a_late_proposal_takes_effect() {
    let sleeps = (Step::Install, 0, Fault::Slow { who: Who::Coordinator, for_us: 1_500_000 });
    let plan = |seed| {
        let mut plan = Plan::of(seed);
        plan.at_steps.insert(0, sleeps);
        plan.heal_at_us += 1_000_000;
        plan.reports_bytes = false;
        plan
    };
    let (from, caught_up) = (Rule::FromIsLatest, Rule::CoordinatorIsCaughtUp);
    let mut evicting = (1_500..1_500 + SEEDS).filter(|&seed| plan(seed).evicts() && plan(seed).nodes > 3);
    // If another checker detects one of the two, the seed shows nothing about the pair.
    let alone = |seed| [from, caught_up].into_iter().all(|rule| run_without(rule, plan(seed)).failure.is_none());
    let both = |seed| run_without_both(from, caught_up, plan(seed)).failure.map(|failure| (seed, failure));
    let caught = evicting.find_map(|seed| both(seed).filter(|_| alone(seed)));
    let Some((seed, failure)) = caught else { panic!("no checker notices within {SEEDS} seeds") };
    println!("both off: seed {seed}: {failure}");
    assert_eq!(run(plan(seed), false).failure, None, "the same seed with all rules on");
}

/// A checker fails with a rule off within this number of plans, and with all rules on that plan passes. Some plans
/// depend on exact times, so resumed groups do not wait for late members.
fn is_caught_in(rule: Rule, plans: impl Iterator<Item = Plan>) {
    let mut plans = plans.map(|mut plan| {
        plan.parameters.resume_timeout = Duration::ZERO;
        plan
    });
    let caught = plans.find_map(|plan| Some((plan.clone(), run_without(rule, plan).failure?)));
    let Some((plan, failure)) = caught else { panic!("{rule:?}: no checker notices within {SEEDS} seeds") };
    println!("{rule:?} off: seed {}: {failure}", plan.seed);
    assert_eq!(run(plan, false).failure, None, "the same with all rules on");
}

/// An application's first snapshot may be of an index before which the disk has let its result go.
#[test]
fn a_snapshot_is_kept_beyond_the_stored_result() {
    let plan = |seed| {
        let mut plan = Plan::of(seed);
        plan.snapshot_every = Some(7);
        plan.retain_disk_bytes = Some(0);
        plan.faults.push((plan.heal_at_us / 3, Fault::PowerCut { within_us: 150_000 }));
        plan.faults.push((plan.heal_at_us * 2 / 3, Fault::PowerCut { within_us: 150_000 }));
        plan
    };
    is_caught_in(Rule::StoredFollowsSnapshot, (0..2 * SEEDS).map(plan).filter(|plan| plan.on_disk() && plan.evicts()));
}

/// It shows only where a node on disk begins with another's snapshot.
#[test]
fn a_fetched_snapshot_is_used_before_it_is_synced() {
    let begins_late = |plan: &Plan| plan.snapshot_every.is_some() && plan.on_disk() && plan.evicts();
    is_caught_in(Rule::SnapshotIsSynced, (0..4 * SEEDS).map(Plan::of).filter(begins_late));
}

/// Any node may be the one that begins with another's snapshot: of the newcomers, or one that was evicted.
#[test]
fn a_snapshot_with_another_byte_is_used() {
    let with_corruption = |seed| {
        let mut plan = Plan::of(seed);
        let newcomer = plan.newcomers.iter().position(|(_, newcomer)| *newcomer == Newcomer::Member);
        let home = newcomer.map_or(seed as usize % plan.nodes, |at| plan.nodes + at);
        plan.corruption = Some(Corruption { home, what: Corrupted::Snapshot });
        plan
    };
    let begins_late = |plan: &Plan| plan.snapshot_every.is_some() && plan.evicts();
    let plans = (0..4 * SEEDS).map(with_corruption).filter(begins_late);
    is_caught_in(Rule::SnapshotIsVerified, plans);
}

/// It shows only where a node begins with another's snapshot, and its origin's numbers come again.
#[test]
fn a_joiner_starts_without_the_last_sequence_numbers() {
    let begins_late = |plan: &Plan| plan.snapshot_every.is_some() && plan.evicts() && plan.session.is_none();
    is_caught_in(Rule::SnapshotHasLastNumbers, (0..8 * SEEDS).map(Plan::of).filter(begins_late));
}

/// It shows only where a node begins with another's snapshot.
#[test]
fn a_snapshot_carries_no_members() {
    let begins_late = |plan: &Plan| plan.snapshot_every.is_some() && plan.evicts();
    is_caught_in(Rule::SnapshotHasItsView, (0..SEEDS).map(Plan::of).filter(begins_late));
}

/// Two join at the same time a group that retains less than they miss.
#[test]
fn two_that_lack_the_same_entries_do_not_wait_for_each_other() {
    let plan = |seed| {
        let mut plan = Plan::of(seed);
        plan.newcomers = vec![(plan.heal_at_us / 2, Newcomer::Member); 2];
        plan.drift_ppm = vec![0; plan.nodes + 2];
        plan.retain_bytes = 300;
        plan.snapshot_every = None;
        plan
    };
    is_caught_in(Rule::LaggingSourceIsSkipped, (0..SEEDS).map(plan).filter(|plan| plan.session.is_none()));
}

/// A skip that was told and lost with its link is missed by those for whose messages the skipper does not wait.
/// With heartbeats off nothing else tells it.
#[test]
fn a_resumed_stream_withholds_its_skips() {
    let plan = |seed: u64| {
        let mut plan = Plan::of(seed);
        plan.parameters.ring = RingKind::Pipelined;
        plan.parameters.heartbeat = Duration::from_secs(60);
        plan.parameters.failure_timeout = Duration::from_secs(600);
        plan.network.lost_per_mille = 60;
        let busy = seed as usize % plan.nodes;
        plan.traffic.quiet = (0..plan.nodes).filter(|&node| node != busy).collect();
        plan
    };
    let waiting = (0..SEEDS).map(plan).filter(|plan| !plan.evicts() && plan.session.is_none());
    is_caught_in(Rule::ResumeSendsSkips, waiting);
}

/// With one view, a full outbox is emptied only by a slot at or above the highest round taken, which lifts the lane past
/// it; so the standing condition of §3.3 comes true on arrival only, and the rule shows in nothing.
#[test]
fn skips_become_due_on_arrival_only() {
    for seed in 0..120 {
        let mut off = Plan::of(seed);
        off.rules = Rules::all_but(Rule::SkipIsStanding);
        assert_eq!(run(off, true).trace, run(Plan::of(seed), true).trace, "seed {seed}");
    }
}

#[test]
fn a_node_without_a_coordinator_never_reports_it() {
    assert!(reports_that_no_member_coordinates(Rules::default()));
    assert!(!reports_that_no_member_coordinates(Rules::all_but(Rule::SeekContinues)));
}

#[test]
fn a_voter_panics_at_a_message_that_the_library_treats_as_impossible() {
    assert!(rejects_a_commit_of_entries_it_lacks(Rules::default()));
    let unchecked =
        std::panic::catch_unwind(|| rejects_a_commit_of_entries_it_lacks(Rules::all_but(Rule::ConsensusIsChecked)));
    assert!(unchecked.is_err(), "the library stops the process");
}

#[test]
fn a_node_with_a_shorter_log_does_not_request_entries_in_return() {
    assert!(asks_back(Rules::default()));
    assert!(!asks_back(Rules::all_but(Rule::ShorterLogRequestsBack)));
}

#[test]
fn a_voter_that_forgot_keeps_its_consensus_id() {
    assert!(gives_up_its_vote(Rules::default()));
    assert!(!gives_up_its_vote(Rules::all_but(Rule::ForgottenVoteIsGivenUp)));
}

/// A coordinator that was paused as a view is installed takes a living voter out while a member has died, whose link it has
/// seen go.
#[test]
fn an_answer_from_before_a_link_was_lost_counts() {
    let plan = |seed: u64| {
        let mut plan = Plan::of(seed);
        let node = |number: u64| Who::Node((number % plan.nodes as u64) as usize);
        let (dies, is_cut_off) = (node(seed), node(seed + 1));
        let pause = Fault::Slow { who: Who::Coordinator, for_us: 30_000 };
        plan.at_steps.insert(0, (Step::Install, seed / 7 % 10 * 2_000, pause));
        plan.at_steps.insert(0, (Step::Install, seed / 3 % 10 * 3_000, Fault::Kill { who: dies }));
        plan.faults.push((plan.heal_at_us / 3, Fault::Isolate { who: is_cut_off, outage_us: 300_000 }));
        plan
    };
    let evicting = (3_500..3_500 + SEEDS).map(plan).filter(|plan| plan.evicts() && plan.nodes > 2);
    is_caught_in(Rule::LostLinkIsNoAnswer, evicting);
}

/// A coordinator that is stopped while members answer `Wedge` evicts itself, for its slow disk, in favour of a member that has
/// died since.
#[test]
fn a_coordinator_acts_on_messages_queued_during_its_stop() {
    let plan = |seed: u64| {
        let mut plan = Plan::of(seed);
        plan.parameters.timeout_max = Duration::ZERO;
        plan.disk = Plan::of(80_019_121).disk;
        let dies = Who::Node((seed % plan.nodes as u64) as usize);
        plan.at_steps.insert(0, (Step::Wedge, 250_000, Fault::Kill { who: dies }));
        plan.at_steps.insert(0, (Step::Wedge, 4_000, Fault::Slow { who: Who::Coordinator, for_us: 400_000 }));
        plan
    };
    let two = (0..SEEDS).map(plan).filter(|plan| plan.evicts() && plan.nodes == 2);
    is_caught_in(Rule::SleeperWaits, two.chain([Plan::of(60_009_790)]));
}

/// Of three members one is evicted and dies before the coordinator hears of its death: it votes no more than is needed.
#[test]
fn a_member_leaves_the_voters_before_one_that_was_evicted() {
    let mut plan = Plan::of(9_006_072);
    plan.parameters.timeout_max = Duration::ZERO;
    plan.reports_bytes = false;
    is_caught_in(Rule::EvictedLeaveFirst, [plan].into_iter());
}

/// The only member that has answered `Wedge` dies while others start again with their disks.
#[test]
fn a_view_rests_on_a_member_that_is_gone() {
    let mut plan = Plan::of(1_161);
    plan.parameters.timeout_max = Duration::ZERO;
    is_caught_in(Rule::AnswerIsInReach, [plan].into_iter());
}

/// Of two voters one proposes that the other leaves, and its process restarts with a disk that does not have that. The
/// other one leads then, applies its own removal and ends. All power fails soon after a view was installed.
#[test]
fn a_leader_leaves_though_it_alone_knows_of_its_removal() {
    let plan = |after_us| {
        let mut plan = Plan::of(23_243);
        plan.at_steps.insert(0, (Step::Install, after_us, Fault::PowerCut { within_us: 1_000 }));
        plan.at_steps.insert(0, (Step::Install, 0, Fault::Slow { who: Who::Coordinator, for_us: 1 }));
        plan
    };
    is_caught_in(Rule::LeaverHasALeader, (2_000..6_000).step_by(3).map(plan));
}

/// It was cut off when the group closed, and fetched; then the power fails, and no other node is there to inform it.
#[test]
fn a_fetched_final_result_lacks_its_final_marker() {
    let story = |rules| -> Result<(), Failure> {
        let mut story = Scenario::begin(Plan { rules, ..Plan::calm_on_disk(3) })?;
        story.pass(1_000_000)?;
        (0..3).try_for_each(|node| story.broadcasts(node, 5, 8))?;
        story.until("all have all", |world| (0..3).all(|node| world.judge.index_of(node) == 15))?;
        story.suffers(Fault::Isolate { who: Who::Node(2), outage_us: 2_000_000 })?;
        story.broadcasts(1, 5, 8)?;
        story.ends()?;
        let ended = |world: &World, home| world.running(home).is_some_and(|at| world.judge.final_of(at).is_some());
        story.until("all have the final result", |world| (0..3).all(|home| ended(world, home)))?;
        story.pass(100_000)?;
        for home in [0, 1] {
            story.suffers(Fault::Restart { who: Who::Node(home), after_us: 1_000_000_000 })?;
        }
        story.suffers(Fault::Restart { who: Who::Node(2), after_us: 50_000 })?;
        story.until("it knows that it has all", |world| ended(world, 2))
    };
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(Rules::all_but(Rule::FinalIsStoredWhole)).expect_err("it does not know");
    println!("FinalIsStoredWhole off: {failure}");
}

/// No rule alone breaks real-time order: a member that has confirmed a message has skipped the rounds before it. So the
/// machine that breaks it is made up: it gives out a message at the index of one that was approved before its broadcast.
#[test]
fn a_later_broadcast_precedes_an_earlier_one() -> Result<(), Failure> {
    let mut story = Scenario::begin(Plan::calm(3, None))?;
    story.broadcasts(0, 1, 8)?;
    story.until("one node knows it", |world| world.judge.approved() == 1)?;
    story.broadcasts(1, 1, 8)?;
    let mut world = story.world;
    let index = Index(1);
    let status = world.nodes[1].machine.status(Time(0));
    let view = status.view.expect("a member has a view");
    let incarnation = world.nodes[1].machine.incarnation();
    let batch = |payload: &[u8]| {
        let mut body = BytesMut::new();
        push_payload(&mut body, payload);
        Batch { first_seq: Seq(1), count: 1, body: body.freeze() }
    };
    let entry =
        Entry { first_index: index, view: view.id, origin: world.nodes[1].id, incarnation, batch: batch(&[1; 8]) };
    let approval = Approval { first_seq: Seq(1), count: 1, first_index: index, view: view.id, confirmed: Vec::new() };
    for (node, output) in [(2, Output::Deliver(ApprovedItem::Batch(entry))), (1, Output::Approved(approval))] {
        let told = world.judge.outputs(node, &[output], &mut world.stats);
        assert_eq!(told.map_err(|failure| failure.rule), Err(REAL_TIME));
    }
    Ok(())
}

/// The smallest case, scripted.
#[test]
fn a_repeated_message_enters_the_result_once() {
    assert_eq!(repeats_itself(Rules::default()), [1, 2, 3]);
    assert_eq!(repeats_itself(Rules::all_but(Rule::Deduplicated)), [1, 2, 1, 2, 3], "the rule is what keeps it out");
}

/// Members that fail are evicted, and nothing is on disk.
fn evicting(nodes: usize, rules: Rules) -> Plan {
    let mut plan = Plan { rules, mutated: true, ..Plan::calm(nodes, None) };
    plan.parameters.on_failure = OnFailure::Evict;
    plan
}

fn ring_of(world: &World, home: usize) -> Vec<usize> {
    let status = world.running(home).map(|place| world.nodes[place].machine.status(Time(0)));
    let ring = status.and_then(|status| status.view).map(|view| view.ring.clone()).unwrap_or_default();
    ring.iter().map(|member| world.judge.home_of(member.node)).collect()
}

/// One of two members is cut off and evicted; the other leaves, and the network heals.
#[test]
fn the_last_that_leaves_ends_the_group_of_an_evicted_member() {
    let story = |rules| -> Result<(), Failure> {
        let mut story = Scenario::begin(evicting(2, rules))?;
        story.broadcasts(0, 5, 8)?;
        story.until("both have all", |world| (0..2).all(|node| world.judge.index_of(node) == 5))?;
        story.suffers(Fault::Isolate { who: Who::Node(1), outage_us: 4_000_000 })?;
        story.until("the other is evicted", |world| ring_of(world, 0) == [0])?;
        story.broadcasts(0, 5, 8)?;
        story.leaves(0)?;
        story.pass(1_000_000)?;
        let waits = story.world.nodes[0].machine.status(Time(0)).leaving;
        assert!(matches!(waits, Some(LeaveWait::Heir { .. })) || !rules_hold(rules), "{waits:?}");
        story.until("it has left", |world| world.nodes[0].left)?;
        story.until("the other is the ring", |world| ring_of(world, 1) == [1] && world.judge.index_of(1) == 10)?;
        story.broadcasts(1, 5, 8)?;
        story.settles()
    };
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(Rules::all_but(Rule::LastHandsOver)).expect_err("the group ends");
    println!("LastHandsOver off: {failure}");
}

/// One of three members dies and is evicted; the others leave at once.
#[test]
fn all_that_leave_wait_for_a_dead_member() {
    let story = |rules| -> Result<(), Failure> {
        let mut story = Scenario::begin(evicting(3, rules))?;
        story.broadcasts(0, 5, 8)?;
        story.until("all have all", |world| (0..3).all(|node| world.judge.index_of(node) == 5))?;
        story.suffers(Fault::Kill { who: Who::Node(2) })?;
        story.until("it is evicted", |world| ring_of(world, 0) == [0, 1])?;
        story.leaves(0)?;
        story.leaves(1)?;
        story.until("one has left", |world| world.nodes[..2].iter().any(|node| node.left))?;
        story.until("the other is the ring", |world| (0..2).any(|node| ring_of(world, node) == [node]))
    };
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(Rules::all_but(Rule::OneStays)).expect_err("both wait");
    println!("OneStays off: {failure}");
}

fn rules_hold(rules: Rules) -> bool {
    format!("{rules:?}") == format!("{:?}", Rules::default())
}

/// A member is evicted, is about to come back, and leaves: it is gone, and the coordinator takes it in.
#[test]
fn a_node_that_left_returns_to_the_ring() {
    let story = |rules, after_us| -> Result<(), Failure> {
        let mut story = Scenario::begin(evicting(4, rules))?;
        // It is let back 250 ms after its eviction: somewhen about then it leaves.
        story.suffers(Fault::Isolate { who: Who::Node(3), outage_us: 800_000 })?;
        story.until("it is evicted", |world| ring_of(world, 0) == [0, 1, 2])?;
        story.pass(after_us)?;
        story.leaves(3)?;
        story.until("it has left", |world| world.nodes[3].left)?;
        story.pass(1_000_000)
    };
    let times = || (200_000..400_000).step_by(500);
    let caught = times().find_map(|at| Some((at, story(Rules::all_but(Rule::LeftIsLogged), at).err()?)));
    let Some((at, failure)) = caught else { panic!("LeftIsLogged: no checker notices") };
    println!("LeftIsLogged off: after {at} us: {failure}");
    assert_eq!(story(Rules::default(), at), Ok(()));
}

/// All that a member knew leave while it is cut off, and the group is closed by one that came later.
#[test]
fn a_node_that_knows_no_member_of_the_last_view_does_not_learn_of_the_end() {
    let story = |rules| -> Result<(), Failure> {
        let mut plan = evicting(3, rules);
        plan.newcomers = vec![(2_000_000, Newcomer::Member)];
        plan.drift_ppm.push(0);
        let mut story = Scenario::begin(plan)?;
        story.suffers(Fault::Partition { side: 0b100, bridge: None, outage_us: 20_000_000 })?;
        story.until("the newcomer is on the ring", |world| ring_of(world, 0) == [0, 1, 3])?;
        story.broadcasts(0, 5, 8)?;
        story.leaves(0)?;
        story.leaves(1)?;
        story.until("the newcomer is alone", |world| ring_of(world, 3) == [3])?;
        story.ended_by(3)?;
        story.until("the group is closed", |world| world.running(3).is_some_and(|place| world.nodes[place].closed))?;
        story.until("the first learns it, with the result", |world| {
            world.nodes[2].closed && world.judge.final_of(2).is_some()
        })
    };
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(Rules::all_but(Rule::CloseIsReported)).expect_err("it does not learn it");
    println!("CloseIsReported off: {failure}");
}

/// Two of three voters in memory are started again at once.
#[test]
fn most_votes_are_lost_and_no_node_reports_it() {
    let story = |rules| -> Result<(), Failure> {
        let mut story = Scenario::begin(evicting(3, rules))?;
        let all_vote = |world: &World| world.nodes[0].machine.status(Time(0)).voters.len() == 3;
        story.until("all vote", all_vote)?;
        for home in [1, 2] {
            story.suffers(Fault::Restart { who: Who::Node(home), after_us: 10_000 })?;
        }
        story.until("that is said", |world| {
            let lost = world.nodes[0].machine.status(Time(0)).votes_lost;
            lost.is_some_and(|lost| (lost.lost.len(), lost.voters) == (2, 3))
        })
    };
    assert_eq!(story(Rules::default()), Ok(()));
    let failure = story(Rules::all_but(Rule::LostVotesAreReported)).expect_err("no node reports the loss");
    println!("LostVotesAreReported off: {failure}");
}

/// `docs/reference/rules.md` has one row for each rule, and each row names a test that exists.
#[test]
fn the_page_of_rules_has_a_row_for_each_rule() {
    let declared = include_str!("../../cloudy-proto/src/rules.rs");
    let declared = declared.split_once("pub enum Rule {").and_then(|(_, after)| after.split_once("\n}"));
    let (variants, _) = declared.expect("the rules are an enum");
    let variants = variants.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("///"));
    let declared: BTreeSet<&str> = variants.map(|line| line.trim_end_matches(',')).collect();
    let sources = concat!(
        include_str!("mutations.rs"),
        include_str!("corruption.rs"),
        include_str!("planned_stops.rs"),
        include_str!("../../cloudy-proto/src/control/voters.rs"),
        include_str!("../../cloudy-proto/src/machine/leave.rs"),
    );
    let mut listed = BTreeSet::new();
    for row in include_str!("../../docs/reference/rules.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = |cell: &'static str| cell.trim_start_matches('`').split('`').next();
        let (rule, test) = (name(cells[1]).expect("a rule"), name(cells[4]).expect("a test"));
        assert!(listed.insert(rule), "{rule} has two rows");
        let declares = [format!("fn {test}("), format!(" {test}: {rule},")];
        assert!(declares.iter().any(|text| sources.contains(text)), "{rule}: no test {test}");
    }
    assert_eq!(listed, declared);
}
