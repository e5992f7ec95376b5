//! Runs the simulator for many seeds: `simulate --seeds N [--from S] [--transcripts FILE]`. For one seed it prints all
//! outputs of all nodes. With `--transcripts` it checks nothing and writes one line for each seed: a digest of every input
//! and output of every machine, equal in builds that behave the same.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cloudy_tests::sim::campaign::campaign;
use cloudy_tests::sim::plan::Plan;
use cloudy_tests::sim::run::run;
use cloudy_tests::sim::transcript;

const USAGE: &str = "usage: simulate --seeds N [--from S] [--transcripts FILE]";

/// The command line.
#[derive(Default)]
struct Arguments {
    from: u64,
    seeds: u64,
    transcripts: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Arguments { from, seeds, transcripts } = match parse(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(path) = transcripts {
        return write_transcripts(&path, transcript::transcripts(from, seeds, threads));
    }
    if seeds == 1 {
        run(Plan::of(from), true).story.iter().for_each(|line| eprintln!("{line}"));
    }
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

fn write_transcripts(path: &Path, lines: Vec<String>) -> ExitCode {
    match std::fs::write(path, lines.join("\n") + "\n") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let (mut parsed, mut seeds) = (Arguments::default(), None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let number = || value.parse().map_err(|_| format!("{name} needs a whole number, not `{value}`"));
        match name.as_str() {
            "--from" => parsed.from = number()?,
            "--seeds" => seeds = Some(number()?),
            "--transcripts" => parsed.transcripts = Some(PathBuf::from(value)),
            _ => return Err(format!("there is no option `{name}`")),
        }
    }
    parsed.seeds = seeds.ok_or("--seeds N is missing")?;
    Ok(parsed)
}
