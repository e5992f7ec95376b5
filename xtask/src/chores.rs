//! The chores as lists of steps.

use std::path::Path;
use std::process::ExitCode;

use crate::steps::{Outcome, Step, cargo_output, has_cargo};
use crate::{instructions, surface, tidy};

/// The folder of the fuzz targets, a separate workspace because cargo-fuzz needs a nightly compiler.
const FUZZ_DIR: &str = "tests/fuzz";

/// Doctests and all tests. The tests come last, so that their runner's closing lines stand at the end.
pub(crate) fn test() -> Vec<Step> {
    // A snapshot that differs fails the test and leaves no file behind.
    let step = |name, arguments: &[&str]| Step::cargo(name, arguments).env("INSTA_UPDATE", "no");
    if has_cargo("nextest") {
        vec![
            step("doctests", &["test", "--workspace", "--all-features", "--no-fail-fast", "--doc"]),
            step("tests", &["nextest", "run", "--workspace", "--all-features", "--no-fail-fast"]),
        ]
    } else {
        vec![step("tests", &["test", "--workspace", "--all-features", "--no-fail-fast"])]
    }
}

/// The read-only gate.
pub(crate) fn verify(full: bool) -> Vec<Step> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    let doc = ["doc", "--workspace", "--all-features", "--no-deps"];
    let mut steps = vec![
        Step::cargo("fmt", &["fmt", "--all", "--check"]),
        Step::cargo("clippy", &clippy),
        Step::check("tidy", tidy_step),
        Step::cargo("doc", &doc).env("RUSTDOCFLAGS", "-D warnings"),
    ];
    if full {
        if !has_cargo("deny") {
            steps.push(Step::cargo("install deny", &["install", "--locked", "cargo-deny"]));
        }
        steps.push(Step::cargo("deny", &["deny", "check", "licenses", "bans", "sources"]));
        steps.push(Step::check("advisories", advisories));
    }
    steps.extend(test());
    steps
}

/// Repairs everything that tools can repair.
pub(crate) fn fix() -> Vec<Step> {
    let clippy =
        ["clippy", "--fix", "--allow-dirty", "--allow-staged", "--workspace", "--all-targets", "--all-features"];
    vec![Step::cargo("clippy", &clippy), Step::cargo("fmt", &["fmt", "--all"])]
}

/// The public surface of the library.
pub(crate) fn surface(accept: bool) -> Vec<Step> {
    vec![Step::check("surface", if accept { surface::accept } else { surface::check })]
}

/// The simulator, for `seeds` seeds from `from` on.
pub(crate) fn simulate(seeds: u64, from: u64, release: bool) -> Vec<Step> {
    let (seeds, from) = (seeds.to_string(), from.to_string());
    let mut arguments = vec!["run", "--package", "cloudy-tests", "--bin", "simulate"];
    if release {
        arguments.push("--release");
    }
    arguments.extend(["--", "--seeds", &seeds, "--from", &from]);
    vec![Step::cargo("simulate", &arguments)]
}

/// The explorer, with at most so many states of each scenario, or as many as in the tests.
pub(crate) fn explore(states: Option<u64>, release: bool) -> Vec<Step> {
    let states = states.map(|states| states.to_string());
    let mut arguments = vec!["run", "--package", "cloudy-tests", "--bin", "explore"];
    if release {
        arguments.push("--release");
    }
    arguments.push("--");
    if let Some(states) = &states {
        arguments.extend(["--states", states.as_str()]);
    }
    vec![Step::cargo("explore", &arguments)]
}

/// The instructions of the protocol's hot paths.
pub(crate) fn instructions(accept: bool) -> Vec<Step> {
    let work = if accept { instructions::accept } else { instructions::check };
    vec![Step::check("instructions", work)]
}

/// Prints how to fuzz, and the targets there are.
pub(crate) fn fuzz(root: &Path) -> ExitCode {
    let targets = fuzz_targets(&root.join(FUZZ_DIR).join("fuzz_targets"));
    println!("The corpus runs with the tests. To look for more, with a nightly compiler:\n");
    println!("  cargo install --locked cargo-fuzz");
    println!("  cargo +nightly fuzz run --fuzz-dir {FUZZ_DIR} TARGET\n");
    if targets.is_empty() {
        eprintln!("error: no target in {FUZZ_DIR}/fuzz_targets");
        return ExitCode::FAILURE;
    }
    println!("Targets: {}", targets.join(", "));
    ExitCode::SUCCESS
}

fn fuzz_targets(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

/// Prints every violation; status 1 if there is one.
pub(crate) fn tidy(root: &Path) -> ExitCode {
    if tidy_step(root) == Outcome::Passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tidy_step(root: &Path) -> Outcome {
    let (files, violations) = match tidy::check(root) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: cannot read the project: {error}");
            return Outcome::Failed;
        }
    };
    for violation in &violations {
        println!("{violation}");
    }
    println!("tidy: {files} files, {} violations", violations.len());
    if violations.is_empty() { Outcome::Passed } else { Outcome::Failed }
}

/// Known weaknesses of dependencies. Their database is fetched; without a network that is said, not passed over.
fn advisories(root: &Path) -> Outcome {
    println!("\n== advisories: cargo deny check advisories");
    let Some(output) = cargo_output(root, &["deny", "check", "advisories"]) else {
        return Outcome::Failed;
    };
    let report = String::from_utf8_lossy(&output.stderr);
    eprint!("{report}");
    judge_advisories(output.status.success(), &report)
}

fn judge_advisories(success: bool, report: &str) -> Outcome {
    if success {
        Outcome::Passed
    } else if report.contains("failed to fetch advisory database")
        || report.contains("failed to load advisory database")
    {
        Outcome::NotChecked("the advisory database could not be reached")
    } else {
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unreachable_database_excuses_the_advisories() {
        assert_eq!(judge_advisories(true, ""), Outcome::Passed);
        assert_eq!(judge_advisories(false, "error[vulnerability]: RUSTSEC-2099-0001"), Outcome::Failed);
        let unreachable = judge_advisories(false, "[ERROR] failed to fetch advisory database");
        assert!(matches!(unreachable, Outcome::NotChecked(_)));
    }

    #[test]
    fn fuzz_targets_are_the_rust_files_by_name() {
        let folder = crate::root().join("xtask/src");
        assert!(fuzz_targets(&folder).starts_with(&["chores".into(), "main".into(), "steps".into()]));
        assert!(fuzz_targets(Path::new("no-such-folder")).is_empty());
    }
}
