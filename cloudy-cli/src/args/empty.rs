//! Arguments that are given as empty texts, as by a variable of a script that is not set: no argument means anything then.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// Refuses empty arguments on the command line. An environment variable that is set to nothing counts as not set.
///
/// # Errors
/// Names the first one.
pub(super) fn refuse(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let empty = command.get_arguments().find(|arg| is_empty(arg, matches)).map(ToString::to_string);
    if let Some(name) = empty {
        let problem = format!("the value of '{name}' is empty; is a variable of your script not set?");
        return Err(command.error(ErrorKind::InvalidValue, problem));
    }
    match matches.subcommand() {
        Some((name, matches)) => command.find_subcommand_mut(name).map_or(Ok(()), |command| refuse(command, matches)),
        None => Ok(()),
    }
}

fn is_empty(arg: &Arg, matches: &ArgMatches) -> bool {
    let id = arg.get_id().as_str();
    let is_given =
        matches.try_contains_id(id).unwrap_or_default() && matches.value_source(id) == Some(ValueSource::CommandLine);
    is_given && matches.get_raw(id).into_iter().flatten().any(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::args::Cli;

    fn problem(line: &[&str]) -> Option<String> {
        let parsed = Cli::parse_with_warnings(line.iter().map(OsString::from));
        parsed.err().map(|error| error.to_string())
    }

    #[test]
    fn empty_arguments_are_refused_by_name() {
        for (line, name) in [
            (&["cloudy", "slave", "", "10502"][..], "<HOST>"),
            (&["cloudy", "slave", "h", ""], "<PORT>"),
            (&["cloudy", "slave", "h", "1", "--session", ""], "--session <NAME>"),
            (&["cloudy", "slave", "h", "1", "--data", ""], "--data <DIR>"),
            (&["cloudy", "slave", "h", "1", "--result", ""], "--result <FILE>"),
            (&["cloudy", "slave", "h", "1", "--cluster-key="], "--cluster-key <FILE>"),
            (&["cloudy", "master", "h", "1", "--slave", ""], "--slave <HOST:PORT>"),
            (&["cloudy", "master", "h", "1", "--slave", "a:1", "--slave", ""], "--slave <HOST:PORT>"),
            (&["cloudy", "tail", "", "--group", "g"], "[HOST:PORT]"),
            (&["cloudy", "tail", "h:1", "--group", ""], "--group <NAME>"),
            (&["cloudy", "key", "rotate", ""], "<FILE>"),
            (&["cloudy", "man", ""], "[COMMAND]..."),
            (&["cloudy", "demo", "--result-dir", ""], "--result-dir <DIR>"),
            (&["cloudy", "bench", "--html", ""], "--html <FILE>"),
        ] {
            let problem = problem(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(problem.contains(name), "{line:?}: {problem}");
        }
        for line in [&["cloudy", "slave", "h", "1"][..], &["cloudy", "demo"], &["cloudy", "key", "show"]] {
            assert_eq!(problem(line), None, "{line:?}");
        }
    }
}
