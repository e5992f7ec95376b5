//! Warnings for times without a unit that are shorter than a second: seconds may have been meant.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::duration;

/// The value names of the options whose numbers without a unit are microseconds.
const TIMES: [&str; 6] = ["TIME", "SEND", "GRACE", "WHO@TIME", "WHO@FROM..TO", "WHO,…/WHO,…@FROM..TO"];
/// Numbers without a unit from this one on are at least a second, in microseconds.
const SECOND_US: u64 = 1_000_000;

/// One warning for each such time.
pub(super) fn warnings(command: &Command, matches: &ArgMatches) -> Vec<String> {
    // The supervisor of a supervised slave has the same arguments, and has given the warnings.
    if matches.try_contains_id("at").unwrap_or_default() {
        return Vec::new();
    }
    let mut warnings: Vec<String> = command.get_arguments().flat_map(|arg| of(arg, matches)).collect();
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        warnings.extend(self::warnings(command, matches));
    }
    warnings
}

fn of(arg: &Arg, matches: &ArgMatches) -> Vec<String> {
    let id = arg.get_id().as_str();
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    // An argument of another kind may share no id with one of these, and a wrong id would be a panic.
    if !TIMES.contains(&name) || matches.value_source(id) != Some(ValueSource::CommandLine) {
        return Vec::new();
    }
    let option = arg.get_long().map_or_else(|| name.to_owned(), |long| format!("--{long}"));
    let values = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
    values.flat_map(|value| short_times(&value)).map(|text| warning(&option, &text)).collect()
}

/// The numbers without a unit that mean less than a second, in `2`, `slave2@500` or `slave3@1s..1500`.
fn short_times(value: &str) -> Vec<String> {
    let times = value.rsplit('@').next().unwrap_or(value);
    let short = |text: &&str| text.parse::<u64>().is_ok_and(|number| number > 0 && number < SECOND_US);
    times.split("..").filter(short).map(str::to_owned).collect()
}

fn warning(option: &str, text: &str) -> String {
    let meant = duration::parse(text).map(duration::show).unwrap_or_default();
    format!(
        "warning: {text} of {option} has no unit, so it is {meant}: a number without a unit counts microseconds; write for example 2s or 500ms"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::args::Cli;

    fn warnings(line: &str) -> Vec<String> {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(line.split_whitespace()).expect(line);
        super::warnings(&command, &matches)
    }

    #[test]
    fn short_times_without_a_unit_are_warned_of() {
        for (line, expected) in [
            (
                "cloudy master h 1 2 1 0",
                &["2 of SEND has no unit, so it is 2us", "1 of GRACE has no unit, so it is 1us"][..],
            ),
            ("cloudy master h 1 999999 1s", &["999999 of SEND"]),
            ("cloudy master h 1 --discovery-timeout 5", &["5 of --discovery-timeout has no unit, so it is 5us"]),
            ("cloudy demo --send 2 --latency 20", &["2 of --send", "20 of --latency"]),
            ("cloudy demo --kill 2@500 --pause 1@700..2s", &["500 of --kill", "700 of --pause"]),
            ("cloudy bench --duration 3", &["3 of --duration"]),
            ("cloudy bench soak --duration 3", &["3 of --duration"]),
        ] {
            let found = warnings(line);
            assert_eq!(found.len(), expected.len(), "{line}: {found:?}");
            assert!(
                expected.iter().all(|part| found.iter().any(|warning| warning.contains(part))),
                "{line}: {found:?}"
            );
        }
    }

    #[test]
    fn other_times_are_not_warned_of() {
        for line in [
            "cloudy master h 1 2000000 1000000 0",
            "cloudy master h 1 2us 1ms",
            "cloudy master h 1 0 0",
            "cloudy slave h 1 --latency 20 --at 127.0.0.1:1",
            "cloudy master h 1 --send-for 2 --wait-for 1",
            "cloudy demo --nodes 2 --seed 3 --rate 5",
            "cloudy demo",
            "cloudy bench",
        ] {
            assert_eq!(warnings(line), Vec::<String>::new(), "{line}");
        }
    }
}
