//! Every order of events in a group of three, within bounds; and that a rule which is off shows.

use cloudy_proto::{RingKind, Rule};
use cloudy_tests::explore::{Scenario, explore, scenario};
use cloudy_tests::invariants::{ONE_SEQUENCE, REAL_TIME};

/// States below which a scenario would not be worth its name.
const STATES_MIN: usize = 40;

#[test]
fn no_order_of_events_breaks_a_promise() {
    for scenario in scenario::all() {
        let report = explore(&scenario);
        if let Some(counterexample) = &report.counterexample {
            panic!("{}: {counterexample}", scenario.name);
        }
        println!("{}: {report:?}", scenario.name);
        assert!(report.states > STATES_MIN, "{}: {report:?}", scenario.name);
        assert!(!report.complete || report.ends > 0, "{}: somewhere everything has happened", scenario.name);
        assert!(scenario.settles_max == 0 || !report.complete || report.settled > 0, "{}", scenario.name);
    }
}

/// States within which each rule that is off shows.
const FOUND_WITHIN: usize = 60_000;

/// With the rule off, exactly this promise breaks; with all rules on, none does in as many states.
fn is_found(rule: Rule, scenario: &Scenario, promise: &str) {
    let report = explore(&scenario.clone().without(rule));
    let honest = explore(&scenario.clone().within(report.states.max(STATES_MIN)));
    assert!(honest.counterexample.is_none(), "with all rules on: {:?}", honest.counterexample);
    let Some(counterexample) = report.counterexample else { panic!("{rule:?} off shows in nothing: {report:?}") };
    println!("{rule:?} off, after {} states: {counterexample}", report.states);
    assert!(report.states <= FOUND_WITHIN, "{rule:?} off shows only after {} states", report.states);
    assert_eq!(counterexample.broken.rule, promise, "{rule:?} off");
    assert!(!counterexample.choices.is_empty() && counterexample.story.len() == counterexample.choices.len());
}

fn pipelined() -> Scenario {
    Scenario::new("a rule is off", RingKind::Pipelined)
}

const FROZEN: &str = "a wedged member sends nothing of its view";

#[test]
fn a_wedged_member_confirms() {
    let scenario = pipelined().at_once([0, 0, 1]).crash_of(&[2]).spells([1, 0, 0]);
    is_found(Rule::WedgedConfirmsNothing, &scenario, FROZEN);
}

#[test]
fn a_wedged_member_sends() {
    is_found(Rule::WedgedSendsNothing, &pipelined().broadcasts([0, 1, 0]).leaves(2), FROZEN);
}

#[test]
fn answers_without_wedging() {
    is_found(Rule::WedgedBeforeAnswer, &pipelined().broadcasts([0, 1, 0]).leaves(2), FROZEN);
}

#[test]
fn a_cut_at_the_maximum() {
    let scenario = pipelined().at_once([0, 0, 1]).crash_of(&[2]).leaves(1);
    is_found(Rule::CutAtMinimum, &scenario, "a calm group settles");
}

#[test]
fn a_cut_is_applied_without_all_its_slots() {
    let scenario = pipelined().at_once([1, 1, 0]).leaves(2);
    is_found(Rule::CutIsHeld, &scenario, ONE_SEQUENCE);
}

#[test]
fn a_skipped_round_is_reused() {
    let scenario = pipelined().broadcasts([1, 1, 0]);
    is_found(Rule::SkippedRoundUnused, &scenario, "the machine's own assertions hold");
}

#[test]
fn the_cursor_passes_an_unknown_slot() {
    is_found(Rule::CursorWaitsForUnknown, &pipelined().broadcasts([1, 1, 0]), "all results are prefixes of one");
}

/// No rule alone breaks this: a member that has confirmed a message has skipped the rounds before it. So the test reverses
/// results.
#[test]
fn a_later_broadcast_precedes_an_earlier_one() {
    let scenario = pipelined().approved([0, 1, 0]).broadcasts([1, 0, 0]);
    let report = explore(&scenario.clone().reversed());
    assert_eq!(report.counterexample.map(|found| found.broken.rule), Some(REAL_TIME));
    let honest = explore(&scenario);
    assert!(honest.complete && honest.counterexample.is_none(), "{honest:?}");
}

#[test]
fn one_confirmation_too_few() {
    let scenario = pipelined().broadcasts([0, 1, 0]);
    is_found(Rule::EveryConfirmation, &scenario, "every member has confirmed an approval");
}

#[test]
fn messages_outside_a_cut_return_to_the_tail_of_the_outbox() {
    let scenario = pipelined().broadcasts([0, 2, 0]).window(1).leaves(2);
    is_found(Rule::PutBackAtHead, &scenario, "an origin's payloads enter once and in its order");
}

#[test]
fn a_final_result_is_short() {
    is_found(Rule::FinalReachesCut, &pipelined().at_once([0, 1, 0]).ends(), ONE_SEQUENCE);
}
