//! Log lines on stderr: stdout is for results.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal};

use clap::ColorChoice;
use miette::{IntoDiagnostic, Report};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::LogFormat;
use crate::output::{self, PRINTED, failure};
use crate::sink::LogLines;

/// The variable that selects log lines, in place of `--verbose`.
pub(crate) const LOG_VARIABLE: &str = "CLOUDY_LOG";

/// Starts logging by [`LOG_VARIABLE`] or, if it is unset or empty, by the count of `--verbose`.
pub(crate) fn start(verbose: u8, format: LogFormat, color: ColorChoice) -> Result<(), Report> {
    let chosen = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&chosen, verbose)?;
    let log = tracing_subscriber::fmt().with_writer(|| LogLines);
    match format {
        LogFormat::Text => log.with_env_filter(filter).with_ansi(has_color(color)).init(),
        LogFormat::Json => {
            // The filter does not apply to a command's output.
            let printed = format!("{PRINTED}=info").parse().into_diagnostic()?;
            log.with_env_filter(filter.add_directive(printed)).event_format(JsonLines).init();
            output::print_as_events();
        }
    }
    Ok(())
}

/// Each event is a line with a JSON object: timestamp, level, target, message, and the event's other fields.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        let mut line = Fields(json!({ "timestamp": time, "level": level, "target": target }));
        event.record(&mut line);
        writeln!(writer, "{}", line.0)
    }
}

/// The object of an event.
struct Fields(Value);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0[field.name()] = format!("{value:?}").into();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0[field.name()] = value.into();
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0[field.name()] = value.into();
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0[field.name()] = value.into();
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0[field.name()] = value.into();
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0[field.name()] = value.into();
    }
}

fn has_color(color: ColorChoice) -> bool {
    match color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // https://no-color.org: set, and not empty.
        ColorChoice::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
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
