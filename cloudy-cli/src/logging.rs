//! Log lines on stderr: stdout is for results.

use std::ffi::OsString;
use std::io::{self, IsTerminal};

use miette::Report;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::output::failure;
use crate::sink::LogLines;

/// The variable that selects log lines, in place of `--verbose`.
pub(crate) const LOG_VARIABLE: &str = "CLOUDY_LOG";

/// Starts logging by [`LOG_VARIABLE`] or, if it is unset or empty, by the count of `--verbose`.
pub(crate) fn start(verbose: u8) -> Result<(), Report> {
    let chosen = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&chosen, verbose)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogLines)
        .with_ansi(io::stderr().is_terminal())
        .init();
    Ok(())
}

/// The arguments that make another process log as much as this one; it inherits [`LOG_VARIABLE`].
pub(crate) fn arguments() -> Option<OsString> {
    let flag = [(Level::TRACE, "-vvv"), (Level::DEBUG, "-vv"), (Level::INFO, "-v")];
    let level = LevelFilter::current();
    flag.iter().find(|(least, _)| level >= *least).map(|(_, flag)| flag.into())
}

/// The environment of a process that is expected to see failures: it logs only errors, unless more was requested.
pub(crate) fn errors_only() -> Option<(&'static str, &'static str)> {
    let asked = std::env::var_os(LOG_VARIABLE).is_some_and(|chosen| !chosen.is_empty());
    (!asked && arguments().is_none()).then_some((LOG_VARIABLE, "error"))
}

fn filter(chosen: &str, verbose: u8) -> Result<EnvFilter, Report> {
    if chosen.is_empty() {
        let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
        // cloudy logs the warnings of libraries that matter to a user in its own words.
        let below = if verbose == 0 { "error" } else { "warn" };
        return Ok(EnvFilter::new(format!("{below},cloudy={level},cloudy_node={level},cloudy_proto={level}")));
    }
    EnvFilter::try_new(chosen).map_err(|error| {
        failure(
            format_args!("{LOG_VARIABLE} is `{chosen}`, which is not a log filter ({error})"),
            "set it for example to debug, or to warn,cloudy_node=trace",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_before_the_flag() {
        assert_eq!(filter("quinn=trace", 3).expect("a filter").to_string(), "quinn=trace");
        assert!(filter("", 0).expect("a filter").to_string().contains("cloudy_node=warn"));
        let default = |verbose| filter("", verbose).expect("a filter").to_string();
        assert!(default(0).split(',').any(|part| part == "error") && default(1).split(',').any(|part| part == "warn"));
        assert!(filter("", 200).expect("a filter").to_string().contains("cloudy_node=trace"));
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let report = filter("cloudy=loud", 0).expect_err("no such level");
        assert!(report.to_string().starts_with("CLOUDY_LOG is `cloudy=loud`"), "{report}");
        assert!(report.help().is_some());
    }
}
