//! Every order of events in a group of three, within bounds.

use cloudy_proto::{RingKind, Rule};
use cloudy_tests::explore::{Scenario, explore};

#[test]
fn try_it() {
    let p = RingKind::Pipelined;
    let rules = [
        Rule::WedgedConfirmsNothing, Rule::WedgedSendsNothing, Rule::WedgedBeforeAnswer, Rule::CutAtMinimum,
        Rule::SkippedRoundUnused, Rule::CursorWaitsForUnknown, Rule::EveryConfirmation, Rule::OwnerIsRecipient,
        Rule::ResumeRepeatsSkip, Rule::CutIsHeld, Rule::PutBackAtHead, Rule::WaitingIsTold, Rule::NoSkipFromGap, Rule::Deduplicated, Rule::SurvivorIsComplete];
    for rule in rules {
    for scenario in [
        Scenario::new("two", p).broadcasts([1, 1, 0]),
        Scenario::new("one leave", p).broadcasts([0, 1, 0]).leaves(2).within(100_000),
        Scenario::new("own leave", p).broadcasts([0, 0, 1]).leaves(2).within(120_000),
        Scenario::new("two of one, leave", p).broadcasts([0, 2, 0]).leaves(2).within(400_000).window(1),
        Scenario::new("cut", p).broadcasts([0, 1, 0]).cuts(1).within(50_000),
        Scenario::new("token", RingKind::Token).broadcasts([0, 1, 1]).timers([1,1,1]).within(50_000),
        Scenario::new("crash leave", p).broadcasts([0, 0, 1]).crash_of(&[2]).leaves(1).within(300_000),
        Scenario::new("crash spell", p).broadcasts([0, 0, 1]).crash_of(&[2]).spells([1,0,0]).within(300_000),
        Scenario::new("spell", p).broadcasts([0, 1, 0]).spells([2,0,0]).within(300_000),
    ] {
        let begun = std::time::Instant::now();
        let report = explore(&scenario.clone().without(rule));
        if let Some(c) = &report.counterexample { println!("{rule:?} {} {:?} {} choices {:?} {} {:.300}", scenario.name, report.states, c.choices.len(), begun.elapsed(), c.broken.rule, c.broken.what); break; }
        else { println!("{rule:?} {} not {:?} {:?}", scenario.name, report.states, begun.elapsed()) }
    }
    }
}
#[test]
fn base() {
    let p = RingKind::Pipelined;
    for scenario in [
        Scenario::new("two of one, leave", p).broadcasts([0, 2, 0]).leaves(2).within(600_000).window(1),
        Scenario::new("crash", p).broadcasts([0, 1, 0]).crash_of(&[0,1,2]).within(300_000),
        Scenario::new("crash 2 spell 0", p).broadcasts([0, 0, 1]).crash_of(&[2]).spells([1,0,0]).within(600_000),
        Scenario::new("crash 0 spell 1", p).broadcasts([0, 1, 0]).crash_of(&[0]).spells([0,1,1]).within(600_000),
        Scenario::new("crash leave", p).broadcasts([0, 0, 1]).crash_of(&[2]).leaves(1).within(600_000),
        Scenario::new("crash coord leave", p).broadcasts([0, 1, 0]).crash_of(&[0]).leaves(2).within(600_000),
        Scenario{consensus_is_free:true,..Scenario::new("free consensus leave",p)}.broadcasts([0, 1, 0]).leaves(2).within(600_000),
        Scenario::new("cut leave", p).cuts(1).leaves(2).within(600_000),
        Scenario::new("spell", p).broadcasts([0, 1, 0]).spells([1,0,0]).within(600_000),
        Scenario::new("token leave", RingKind::Token).broadcasts([0, 1, 1]).leaves(2).within(600_000),
    ] {
        let begun = std::time::Instant::now();
        let report = explore(&scenario);
        if let Some(c) = &report.counterexample { println!("{c}"); }
        println!("{} {:?} {:?}", scenario.name, report, begun.elapsed());
    }
}
