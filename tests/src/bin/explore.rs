//! Explores every scenario: `explore [--states N]`, N is the maximum number of states of each.

use std::process::ExitCode;
use std::time::Instant;

use cloudy_tests::explore::{explore, scenario};

/// Ends from which a calm group must settle, of each scenario.
const SETTLES_MAX: usize = 5_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let states_max = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--states", number] if number.parse::<usize>().is_ok_and(|number| number > 0) => number.parse().ok(),
        _ => {
            eprintln!("error: the only option is --states N, a number above zero");
            return ExitCode::from(2);
        }
    };
    println!(
        "| scenario | choices in a row | states | transitions | states of a node | time |\n|---|---|---|---|---|---|"
    );
    for mut scenario in scenario::all() {
        scenario.states_max = states_max.unwrap_or(scenario.states_max);
        scenario.settles_max = if scenario.settles_max == 0 { 0 } else { SETTLES_MAX };
        let begun = Instant::now();
        let report = explore(&scenario);
        if let Some(counterexample) = report.counterexample {
            println!("FAILED {}: {counterexample}", scenario.name);
            return ExitCode::FAILURE;
        }
        let bound = if report.complete { format!("all, {}", report.depth) } else { format!("{}", report.depth) };
        let seconds = begun.elapsed().as_secs_f64();
        let (name, states, transitions, locals) = (scenario.name, report.states, report.transitions, report.locals);
        println!("| {name} | {bound} | {states} | {transitions} | {locals} | {seconds:.1} s |");
    }
    ExitCode::SUCCESS
}
