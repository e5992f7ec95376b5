//! Runs commands one after another, continues after a failure, and reports the outcome of each at the end.

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

/// One line of the summary.
pub(crate) struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    Command(Command),
    Check(fn(&Path) -> Outcome),
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// Could not be tried, for the reason given; it does not fail the run.
    NotChecked(&'static str),
}

impl Step {
    /// A step that runs `cargo` with `arguments` and passes if its status is 0.
    pub(crate) fn cargo(name: &'static str, arguments: &[&str]) -> Self {
        let mut command = cargo();
        command.args(arguments);
        Self { name, work: Work::Command(command) }
    }

    /// A step that is a function of the workspace's directory.
    pub(crate) fn check(name: &'static str, check: fn(&Path) -> Outcome) -> Self {
        Self { name, work: Work::Check(check) }
    }

    /// Sets a variable for the step's command.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        if let Work::Command(command) = &mut self.work {
            command.env(name, value);
        }
        self
    }

    fn run(self, root: &Path) -> Outcome {
        match self.work {
            Work::Check(check) => check(root),
            Work::Command(mut command) => {
                println!("\n== {}: {}", self.name, shown(&command));
                match command.current_dir(root).status() {
                    Ok(status) if status.success() => Outcome::Passed,
                    Ok(_) => Outcome::Failed,
                    Err(error) => {
                        eprintln!("error: cannot start {}: {error}", shown(&command));
                        Outcome::Failed
                    }
                }
            }
        }
    }
}

/// The cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `cargo` with `arguments` and returns its output; `None` if it could not be started.
pub(crate) fn cargo_output(root: &Path, arguments: &[&str]) -> Option<Output> {
    cargo().args(arguments).current_dir(root).output().ok()
}

/// True if `cargo SUBCOMMAND` is installed.
pub(crate) fn has_cargo(subcommand: &str) -> bool {
    cargo_output(Path::new("."), &[subcommand, "--version"]).is_some_and(|output| output.status.success())
}

/// Runs all steps and prints a line for each; the status is that of the whole.
pub(crate) fn run(root: &Path, steps: Vec<Step>) -> ExitCode {
    let mut lines = Vec::new();
    for step in steps {
        let name = step.name;
        let started = Instant::now();
        let outcome = step.run(root);
        lines.push((name, outcome, started.elapsed()));
    }
    println!("\n{}", summary(&lines));
    if lines.iter().any(|(_, outcome, _)| *outcome == Outcome::Failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn summary(lines: &[(&str, Outcome, Duration)]) -> String {
    let row = |(name, outcome, took): &(&str, Outcome, Duration)| {
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Passed => format!("{name:<12} passed       {seconds:>6.1} s"),
            Outcome::Failed => format!("{name:<12} FAILED       {seconds:>6.1} s"),
            Outcome::NotChecked(why) => format!("{name:<12} NOT CHECKED  {seconds:>6.1} s  {why}"),
        }
    };
    lines.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn shown(command: &Command) -> String {
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once("cargo".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_run_and_the_later_steps_still_run() {
        let root = std::env::temp_dir();
        let steps = || vec![Step::check("first", |_| Outcome::Failed), Step::cargo("later", &["--version"])];
        assert_eq!(run(&root, steps()), ExitCode::FAILURE);
        assert_eq!(run(&root, steps().split_off(1)), ExitCode::SUCCESS);
    }

    #[test]
    fn a_command_with_a_bad_status_fails() {
        assert_eq!(Step::cargo("bad", &["no-such-command"]).run(&std::env::temp_dir()), Outcome::Failed);
    }

    #[test]
    fn a_skipped_check_is_reported_and_does_not_fail() {
        let step = Step::check("advisories", |_| Outcome::NotChecked("no network"));
        assert_eq!(run(Path::new("."), vec![step]), ExitCode::SUCCESS);
        let text = summary(&[("advisories", Outcome::NotChecked("no network"), Duration::ZERO)]);
        assert!(text.contains("NOT CHECKED") && text.contains("no network"), "{text}");
    }
}
