//! Each rule that carries weight, switched off at every node: a checker must fail (`protocol.md` §11). With all rules on
//! the very same run passes.

use cloudy_proto::Rule;
use cloudy_tests::sim::plan::Plan;
use cloudy_tests::sim::run::{run, run_without};

/// Seeds within which a checker has to fail.
const SEEDS: u64 = 1_000;

fn explore(rule: Rule) -> String {
    for seed in 0..SEEDS {
        if let Some(failure) = run_without(rule, Plan::of(seed)).failure {
            assert_eq!(run(Plan::of(seed), false).failure, None);
            return format!("{rule:?}: seed {seed}: {failure}");
        }
    }
    format!("{rule:?}: NOT CAUGHT")
}

#[test]
fn all() {
    let rules = [
        Rule::WedgedConfirmsNothing,
        Rule::WedgedSendsNothing,
        Rule::WedgedBeforeAnswer,
        Rule::CutAtMinimum,
        Rule::SkippedRoundUnused,
        Rule::CursorWaitsForUnknown,
        Rule::EveryConfirmation,
        Rule::OwnerIsRecipient,
        Rule::NoSkipFromGap,
        Rule::ResumeRepeatsSkip,
        Rule::SkipIsStanding,
        Rule::CutIsHeld,
        Rule::FinalReachesCut,
        Rule::HoldFollowsCursor,
        Rule::HoldExemptsCursor,
        Rule::WaitingIsTold,
        Rule::Deduplicated,
    ];
    for rule in rules { println!("{}", explore(rule)); }
}
