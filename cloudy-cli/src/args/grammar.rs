//! The common parts of every command's grammar: a variable for each option, short and long help.

use clap::{Arg, Command};

/// Options that have no variable: `--cluster-key` has one of its own with other rules.
const WITHOUT_VARIABLE: [&str; 3] = ["cluster-key", "no-huge-pages", "verbose"];

/// Completes a command and all commands below it.
pub(super) fn complete(command: Command) -> Command {
    shorten(command).mut_args(complete_arg).mut_subcommands(complete)
}

/// All variables of options of a command and the commands below it.
pub(super) fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

fn complete_arg(arg: Arg) -> Arg {
    let arg = with_variable(arg);
    match arg.get_help().map(ToString::to_string) {
        Some(help) => {
            let short = help.split_once(". ").map_or(help.as_str(), |(first, _)| first).to_owned();
            arg.help(short).long_help(help)
        }
        None => arg,
    }
}

/// `--some-option` has the variable `CLOUDY_SOME_OPTION`.
fn with_variable(arg: Arg) -> Arg {
    let Some(long) = arg.get_long() else { return arg };
    if arg.is_hide_set() || WITHOUT_VARIABLE.contains(&long) || arg.get_env().is_some() {
        return arg.hide_env_values(true);
    }
    let is_flag = !arg.get_action().takes_values();
    // The grammar lives as long as the process.
    let name: &'static str = variable(long).leak();
    let arg = arg.env(name).hide_env(true);
    // `1`, `yes` and `on` switch a flag on too.
    if is_flag { arg.value_parser(clap::builder::BoolishValueParser::new()) } else { arg }
}

pub(super) fn variable(long: &str) -> String {
    format!("CLOUDY_{}", long.to_ascii_uppercase().replace('-', "_"))
}

/// `-h` has the examples, `--help` all of the text behind the options.
fn shorten(command: Command) -> Command {
    let Some(text) = command.get_after_help().map(ToString::to_string) else { return command };
    let short = text.split_once("\n\n").map_or(text.as_str(), |(first, _)| first).to_owned();
    command.after_help(format!("{short}\n\n--help has more.")).after_long_help(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{Command, CommandFactory};

    use crate::args::Cli;

    fn all(command: &Command) -> Vec<&Command> {
        std::iter::once(command).chain(command.get_subcommands().flat_map(all)).collect()
    }

    #[test]
    fn one_option_has_one_meaning_in_all_commands() {
        let grammar = Cli::grammar();
        let mut kinds: BTreeMap<String, (String, String)> = BTreeMap::new();
        for command in all(&grammar) {
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let long = arg.get_long().unwrap_or_default().to_owned();
                let kind = format!("{:?} {:?}", arg.get_value_names(), arg.get_action());
                let first = kinds.entry(long.clone()).or_insert((kind.clone(), command.get_name().to_owned()));
                assert_eq!(first.0, kind, "--{long} of {} and of {}", first.1, command.get_name());
            }
        }
        assert!(kinds.len() > 50, "{}", kinds.len());
    }

    #[test]
    fn every_visible_option_has_a_variable() {
        let grammar = Cli::grammar();
        for command in all(&grammar) {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(long) = arg.get_long().filter(|long| !super::WITHOUT_VARIABLE.contains(long)) else {
                    continue;
                };
                let variable = arg.get_env().unwrap_or_else(|| panic!("--{long} of {}", command.get_name()));
                assert!(variable.to_string_lossy().starts_with("CLOUDY_"), "--{long}");
            }
        }
        assert!(super::variables(&grammar).iter().any(|name| name == "CLOUDY_LOST_TIMEOUT"));
    }

    #[test]
    fn short_help_has_a_sentence_for_each_option_and_long_help_has_all() {
        let help = |name: &str, long: bool| {
            let mut grammar = Cli::grammar();
            grammar.build();
            let command = grammar.find_subcommand_mut(name).expect(name);
            if long { command.render_long_help().to_string() } else { command.render_help().to_string() }
        };
        for name in ["slave", "master", "join", "tail", "demo"] {
            let (short, long) = (help(name, false), help(name, true));
            assert!(short.contains("Examples:") && long.contains("Exit status:"), "{short}");
            assert!(!short.contains("Exit status:") && 2 * short.len() < long.len() * 2, "{short}");
        }
        let (short, long) = (help("slave", false), help("slave", true));
        assert!(!short.contains("A slave that misses more") && long.contains("A slave that misses more"), "{short}");
        // The derived grammar is the one that is completed.
        assert_eq!(all(&Cli::command()).len(), all(&Cli::grammar()).len());
    }
}
