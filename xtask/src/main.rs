//! The project's own chores, run as `cargo xtask COMMAND`; `cargo xtask help` lists them.
#![forbid(unsafe_code)]

mod chores;
mod instructions;
mod steps;
mod surface;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  test             everything that has to pass: doctests and tests, with a summary
  tidy             layering, sizes, forbidden words and paths, links, book pages
  verify [--full]  the read-only gate: fmt, clippy, tidy, test, doc; --full adds licences, sources,
                   duplicate versions and advisories (cargo-deny, installed if it is missing)
  fix              format and apply what clippy can repair
  simulate --seeds N [--from S] [--release]
                   run the simulator for seeds S to S + N - 1
  explore [--states N] [--release]
                   every order of events in groups of three, N states of each scenario at most
  instructions [--accept]
                   count the instructions of the protocol's hot paths by valgrind, and fail if they have risen;
                   --accept takes the counts found as those to expect
  surface [--accept]
                   compare the public surface of cloudy-node with cloudy-node/public-surface.txt; --accept takes it as it is
  fuzz             how to fuzz the decoders, and which targets there are
  help             this text
";

/// The requested chore.
#[derive(Debug, PartialEq, Eq)]
enum Chore {
    Test,
    Tidy,
    Verify { full: bool },
    Fix,
    Simulate { seeds: u64, from: u64, release: bool },
    Explore { states: Option<u64>, release: bool },
    Instructions { accept: bool },
    Surface { accept: bool },
    Fuzz,
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chore = match parse(&arguments) {
        Ok(chore) => chore,
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let root = root();
    match chore {
        Chore::Test => steps::run(&root, chores::test()),
        Chore::Tidy => chores::tidy(&root),
        Chore::Verify { full } => steps::run(&root, chores::verify(full)),
        Chore::Fix => steps::run(&root, chores::fix()),
        Chore::Simulate { seeds, from, release } => steps::run(&root, chores::simulate(seeds, from, release)),
        Chore::Explore { states, release } => steps::run(&root, chores::explore(states, release)),
        Chore::Instructions { accept } => steps::run(&root, chores::instructions(accept)),
        Chore::Surface { accept } => steps::run(&root, chores::surface(accept)),
        Chore::Fuzz => chores::fuzz(&root),
        Chore::Help => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
    }
}

/// The workspace's directory: cargo names this package's at run time, for `cargo xtask` and for tests alike.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    manifest.parent().map(PathBuf::from).unwrap_or_default()
}

fn parse(arguments: &[String]) -> Result<Chore, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => Ok(Chore::Test),
        ["tidy"] => Ok(Chore::Tidy),
        ["verify"] => Ok(Chore::Verify { full: false }),
        ["verify", "--full"] => Ok(Chore::Verify { full: true }),
        ["fix"] => Ok(Chore::Fix),
        ["simulate", options @ ..] => parse_simulate(options),
        ["explore", options @ ..] => parse_explore(options),
        ["instructions"] => Ok(Chore::Instructions { accept: false }),
        ["instructions", "--accept"] => Ok(Chore::Instructions { accept: true }),
        ["surface"] => Ok(Chore::Surface { accept: false }),
        ["surface", "--accept"] => Ok(Chore::Surface { accept: true }),
        ["fuzz"] => Ok(Chore::Fuzz),
        ["help" | "--help" | "-h"] => Ok(Chore::Help),
        [] => Err("a command is missing".into()),
        _ => Err(format!("`{}` is not a command", words.join(" "))),
    }
}

fn parse_simulate(options: &[&str]) -> Result<Chore, String> {
    let (mut seeds, mut from, mut release) = (None, 0, false);
    let mut rest = options.iter();
    while let Some(&option) = rest.next() {
        let mut number = || -> Result<u64, String> {
            let text = rest.next().ok_or(format!("{option} needs a number"))?;
            text.parse().map_err(|_| format!("{option} needs a whole number, not `{text}`"))
        };
        match option {
            "--seeds" => seeds = Some(number()?),
            "--from" => from = number()?,
            "--release" => release = true,
            _ => return Err(format!("simulate has no option `{option}`")),
        }
    }
    let seeds = seeds.ok_or("simulate needs --seeds N")?;
    Ok(Chore::Simulate { seeds, from, release })
}

fn parse_explore(options: &[&str]) -> Result<Chore, String> {
    let (mut states, mut release) = (None, false);
    let mut rest = options.iter();
    while let Some(&option) = rest.next() {
        match option {
            "--states" => {
                let text = rest.next().ok_or("--states needs a number")?;
                let number = text.parse().ok().filter(|number| *number > 0);
                states = Some(number.ok_or(format!("--states needs a number above zero, not `{text}`"))?);
            }
            "--release" => release = true,
            _ => return Err(format!("explore has no option `{option}`")),
        }
    }
    Ok(Chore::Explore { states, release })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Chore, String> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn commands_are_accepted_as_documented() {
        assert_eq!(parsed("test"), Ok(Chore::Test));
        assert_eq!(parsed("verify --full"), Ok(Chore::Verify { full: true }));
        assert_eq!(parsed("simulate --seeds 7"), Ok(Chore::Simulate { seeds: 7, from: 0, release: false }));
        assert_eq!(
            parsed("simulate --release --from 9 --seeds 1"),
            Ok(Chore::Simulate { seeds: 1, from: 9, release: true })
        );
        assert_eq!(parsed("instructions"), Ok(Chore::Instructions { accept: false }));
        assert_eq!(parsed("instructions --accept"), Ok(Chore::Instructions { accept: true }));
        assert_eq!(parsed("surface --accept"), Ok(Chore::Surface { accept: true }));
        assert_eq!(parsed("explore"), Ok(Chore::Explore { states: None, release: false }));
        assert_eq!(parsed("explore --states 9 --release"), Ok(Chore::Explore { states: Some(9), release: true }));
    }

    #[test]
    fn undocumented_arguments_are_rejected_with_the_reason() {
        for (line, word) in [
            ("", "missing"),
            ("tset", "tset"),
            ("verify --ful", "--ful"),
            ("simulate", "--seeds"),
            ("simulate --seeds", "number"),
            ("simulate --seeds many", "many"),
            ("simulate --seeds 1 --fast", "--fast"),
            ("explore --states", "number"),
            ("explore --states 0", "above zero"),
            ("explore --all", "--all"),
            ("instructions --acept", "--acept"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
