//! The machine and program of a bench: figures are only valid for them.

use std::process::Command;

use serde::Serialize;

use crate::progress::Progress;

/// The text for unknown values.
const UNKNOWN: &str = "unknown";

/// The machine and the program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Conditions {
    pub(crate) version: &'static str,
    /// `release` or `debug`.
    pub(crate) build: &'static str,
    /// The commit of the work tree in which the program was built; `+` after it if that has changes.
    pub(crate) commit: String,
    /// The command line.
    pub(crate) flags: String,
    pub(crate) machine: Machine,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
}

impl Conditions {
    /// The machine of this process; warns if its figures are not representative.
    pub(crate) fn here(progress: &Progress) -> Self {
        if cfg!(debug_assertions) {
            progress.line("warning: figures of a debug build are not representative; build with --release");
        }
        let flags: Vec<String> = std::env::args().skip(1).collect();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            commit: commit().unwrap_or_else(|| UNKNOWN.to_owned()),
            flags: flags.join(" "),
            machine: Machine {
                cpu: cpu_model().unwrap_or_else(|| UNKNOWN.to_owned()),
                cores: std::thread::available_parallelism().map_or(1, usize::from),
                kernel: kernel().unwrap_or_else(|| std::env::consts::OS.to_owned()),
            },
        }
    }

    /// Two lines for a reader.
    pub(crate) fn lines(&self) -> String {
        let Self { version, build, commit, flags, machine: Machine { cpu, cores, kernel } } = self;
        format!("{cpu}, {cores} cores, {kernel}\ncloudy {version} ({build}), commit {commit}: {flags}\n")
    }
}

fn cpu_model() -> Option<String> {
    model_of(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn model_of(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kernel() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(format!("Linux {}", release.trim()))
}

/// From the folder of the program, and not the current one, which may be in another work tree.
fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(program.parent()?).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"]).filter(|head| !head.is_empty())?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { head + "+" } else { head })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_its_name() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU @ 3.0GHz\nmodel name\t: other\n";
        assert_eq!(model_of(cpuinfo).as_deref(), Some("Fast CPU @ 3.0GHz"));
        assert_eq!(model_of("processor\t: 0\n"), None);
    }
}
