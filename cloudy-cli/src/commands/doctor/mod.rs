//! `cloudy doctor`: checks this machine and the paths to peers, and names a remedy for each fault.

mod machine;
mod peers;

use std::process::ExitCode;

use miette::Report;
use serde_json::json;

use crate::args::DoctorArgs;
use crate::keys::Trust;
use crate::output::{EXIT_EQUAL, print_soon};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Nothing to do.
    Fine,
    /// It works, and not as well as it could.
    Warning,
    /// A node does not work.
    Broken,
}

/// The result of one check.
#[derive(Clone, Debug)]
struct Finding {
    check: &'static str,
    level: Level,
    what: String,
    remedy: String,
}

impl Finding {
    fn fine(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Fine, what: what.into(), remedy: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, what: what.into(), remedy: remedy.into() }
    }

    fn broken(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Broken, what: what.into(), remedy: remedy.into() }
    }
}

/// Runs the command.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode, Report> {
    let mut findings = machine::limits();
    findings.extend(machine::buffers());
    if let Some(directory) = &args.data {
        findings.extend(machine::data(directory).await);
    }
    match Trust::open(&args.trust).await {
        Ok(trust) => {
            let what = match &trust {
                Trust::Keys(file) => format!("{} can be used", file.path().display()),
                Trust::Certificates(_) => "the certificate and its private key can be used".to_owned(),
            };
            findings.push(Finding::fine("key", what));
            findings.extend(peers::check(&args, &trust).await);
        }
        // Its text has the remedy.
        Err(error) => findings.push(Finding::broken("key", error.to_string(), "follow the text, then run this again")),
    }
    findings.extend(peers::clocks(&args).await);
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Fine);
    print_soon(&if args.json { json_of(&findings, worst) } else { text(&findings) }).await?;
    Ok(ExitCode::from(match worst {
        Level::Fine => EXIT_EQUAL,
        Level::Warning => 1,
        Level::Broken => 2,
    }))
}

/// Only what needs attention.
fn text(findings: &[Finding]) -> String {
    let mut bad: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Fine).collect();
    bad.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let line = |finding: &&Finding| {
        format!("{} {}: {}\n  remedy: {}\n", name(finding.level), finding.check, finding.what, finding.remedy)
    };
    bad.iter().map(line).collect()
}

fn json_of(findings: &[Finding], worst: Level) -> String {
    let findings = findings.iter().map(|finding| {
        json!({
            "check": finding.check,
            "level": name(finding.level),
            "what": finding.what,
            "remedy": (!finding.remedy.is_empty()).then_some(&finding.remedy),
        })
    });
    format!("{}\n", json!({ "level": name(worst), "findings": findings.collect::<Vec<_>>() }))
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Fine => "fine",
        Level::Warning => "warning",
        Level::Broken => "broken",
    }
}
