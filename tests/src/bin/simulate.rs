//! Runs the simulator for many seeds: `simulate --seeds N [--from S]`. For one seed it tells all that nodes put out.

use std::process::ExitCode;

use cloudy_tests::sim::campaign::campaign;
use cloudy_tests::sim::plan::Plan;
use cloudy_tests::sim::run::run;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (from, seeds) = match parse(&arguments) {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("error: {error}\nusage: simulate --seeds N [--from S]");
            return ExitCode::from(2);
        }
    };
    if seeds == 1 {
        run(Plan::of(from), true).story.iter().for_each(|line| eprintln!("{line}"));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let verdict = campaign(from, seeds, threads, |done| {
        if done % 100 == 0 {
            eprintln!("{done} of {seeds} seeds");
        }
    });
    println!("{} runs met:\n{}", verdict.runs, verdict.stats);
    if let Some(complaint) = verdict.complaint() {
        println!("FAILED {complaint}");
        return ExitCode::FAILURE;
    }
    println!("all passed");
    ExitCode::SUCCESS
}

fn parse(arguments: &[String]) -> Result<(u64, u64), String> {
    let (mut from, mut seeds) = (0, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a number", pair[0])) };
        let number = value.parse().map_err(|_| format!("{name} needs a whole number, not `{value}`"))?;
        match name.as_str() {
            "--from" => from = number,
            "--seeds" => seeds = Some(number),
            _ => return Err(format!("there is no option `{name}`")),
        }
    }
    Ok((from, seeds.ok_or("--seeds N is missing")?))
}
