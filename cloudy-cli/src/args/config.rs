//! Options from a file: `--config cloudy.toml`. An option on the command line and its variable come before it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::de::{DeTable, DeValue};

use super::address::subcommand_at;

/// The option that names the file.
const CONFIG: &str = "config";

/// An option of the file.
struct Entry {
    /// The command of its table; None for all commands that have the option.
    command: Option<String>,
    option: String,
    values: Vec<String>,
    line: usize,
}

/// The options of a file that count in one command line.
#[derive(Default)]
pub(super) struct Settings {
    path: PathBuf,
    used: Vec<Entry>,
}

/// Adds the options of the file to a command line, if it names one: those that it does not give itself, and that no
/// variable gives.
///
/// # Errors
/// The file cannot be read, or has something that is no option: by its line.
pub(super) fn extend(
    command: &mut Command,
    arguments: Vec<OsString>,
) -> Result<(Vec<OsString>, Settings), clap::Error> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(&arguments);
    // Help and versions need no file.
    let Ok(matches) = matches else { return Ok((arguments, Settings::default())) };
    let Some((path, (name, given))) = file(&matches).zip(matches.subcommand()) else {
        return Ok((arguments, Settings::default()));
    };
    let entries = read(&path, command)
        .map_err(|problem| command.error(ErrorKind::ValueValidation, format!("{}: {problem}", path.display())))?;
    let (Some(at), Some(sub)) = (subcommand_at(command, &arguments), command.find_subcommand(name)) else {
        return Ok((arguments, Settings::default()));
    };
    let (mut arguments, mut used) = (arguments, Vec::<Entry>::new());
    for entry in entries {
        let is_meant = entry.command.as_deref().is_none_or(|command| command == name);
        let arg = option(command, &entry.option).or_else(|| option(sub, &entry.option));
        if is_meant && arg.is_some_and(|arg| !is_given(sub, arg, given)) {
            // A table of one command comes before what is for all.
            used.retain(|other| other.option != entry.option);
            used.push(entry);
        }
    }
    let added = used.iter().flat_map(|entry| {
        let is_flag = option(command, &entry.option)
            .or_else(|| option(sub, &entry.option))
            .is_some_and(|arg| !arg.get_action().takes_values());
        entry.values.iter().filter_map(move |value| match (is_flag, value.as_str()) {
            (true, "true") => Some(format!("--{}", entry.option)),
            (true, _) => None,
            (false, value) => Some(format!("--{}={value}", entry.option)),
        })
    });
    let added: Vec<OsString> = added.map(OsString::from).collect();
    arguments.splice(at + 1..at + 1, added);
    Ok((arguments, Settings { path, used }))
}

impl Settings {
    /// Names the line of the file, if the wrong value is from there.
    pub(super) fn explain(&self, command: &mut Command, error: clap::Error) -> clap::Error {
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let (Some(arg), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
            return error;
        };
        let wrong = |entry: &&Entry| {
            arg.split(' ').next() == Some(&format!("--{}", entry.option)) && entry.values.contains(&value)
        };
        let Some(entry) = self.used.iter().find(wrong) else { return error };
        let words = error.to_string();
        let first = words.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        command.error(error.kind(), format!("{}: line {}: {first}", self.path.display(), entry.line))
    }
}

/// The file of a command line; an empty variable names none.
fn file(matches: &ArgMatches) -> Option<PathBuf> {
    let of = |matches: &ArgMatches| matches.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned();
    let path = matches.subcommand().and_then(|(_, matches)| of(matches)).or_else(|| of(matches));
    path.filter(|path| !path.as_os_str().is_empty())
}

fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name) && !arg.is_hide_set() && name != CONFIG)
}

/// Whether the command line or a variable gives this option, or another one that it cannot be given with.
fn is_given(command: &Command, arg: &Arg, given: &ArgMatches) -> bool {
    let explicit = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let is_known = given.try_contains_id(id).unwrap_or_default();
        is_known && matches!(given.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let excludes = |other: &Arg| {
        let has = |one: &Arg, other: &Arg| {
            command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        (has(other, arg) || has(arg, other)) && explicit(other)
    };
    explicit(arg) || command.get_arguments().filter(|other| other.get_id() != arg.get_id()).any(excludes)
}

fn read(path: &Path, command: &Command) -> Result<Vec<Entry>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the file ({error})"))?;
    let line_of = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        format!("line {line}: {}", error.message().trim())
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(key.span().start);
        match value.get_ref() {
            DeValue::Table(table) => {
                let name = key.get_ref().as_ref();
                let sub = command.find_subcommand(name).filter(|sub| !sub.is_hide_set());
                let sub = sub.ok_or_else(|| format!("line {line}: there is no command `cloudy {name}`"))?;
                for (key, value) in table {
                    let line = line_of(key.span().start);
                    entries.push(entry(&[command, sub], Some(name), key.get_ref(), value.get_ref(), line)?);
                }
            }
            value => {
                let all: Vec<&Command> = std::iter::once(command).chain(command.get_subcommands()).collect();
                entries.push(entry(&all, None, key.get_ref(), value, line)?);
            }
        }
    }
    // What is for all commands comes first.
    entries.sort_by_key(|entry| entry.command.is_some());
    Ok(entries)
}

fn entry(
    commands: &[&Command],
    command: Option<&str>,
    name: &str,
    value: &DeValue<'_>,
    line: usize,
) -> Result<Entry, String> {
    let arg = commands.iter().find_map(|command| option(command, name));
    let of = command.map(|name| format!(" of `cloudy {name}`")).unwrap_or_default();
    let arg = arg.ok_or_else(|| {
        format!(
            "line {line}: there is no option `{name}`{of}; options are written as on the command line, without `--`"
        )
    })?;
    let values = match value {
        DeValue::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| scalar(value.get_ref())).collect::<Option<Vec<_>>>()
        }
        value => scalar(value).map(|value| vec![value]),
    };
    let is_flag = !arg.get_action().takes_values();
    let values = values.filter(|values| is_flag == matches!(value, DeValue::Boolean(_)) || values.is_empty());
    let values = values.ok_or_else(|| {
        let form = if is_flag { "true or false" } else { "a text or a number, or several in [] if it is repeatable" };
        format!("line {line}: `{name}` takes {form}")
    })?;
    Ok(Entry { command: command.map(str::to_owned), option: name.to_owned(), values, line })
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use crate::args::{Cli, Command};
    use crate::periods::Periods;

    fn parse(file: &str, line: &str) -> Result<Command, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cloudy.toml");
        std::fs::write(&path, file).expect("written");
        let words = line.split_whitespace().map(OsString::from);
        let config = ["--config".into(), path.into_os_string()];
        let parsed = Cli::parse_with_warnings(words.chain(config));
        parsed.map(|(cli, _)| cli.command).map_err(|error| error.to_string())
    }

    const FILE: &str = "\
session = \"team-a\"
rate = 7

[slave]
stay = true
supervise = false
rate = 9
data = \"/var/lib/cloudy\"

[tail]
seed = [\"a:1\", \"b:2\"]
count = 3

[master]
send-for = 5
wait-for = 1.5
durability = \"disk\"
";

    #[test]
    fn options_come_from_the_file_unless_the_command_line_has_them() {
        let Ok(Command::Slave(args)) = parse(FILE, "cloudy slave h 1") else { panic!("a slave") };
        assert_eq!(args.process.session.name.as_str(), "team-a");
        assert!(args.stay && !args.supervise);
        assert_eq!(args.rate.map(std::num::NonZeroU32::get), Some(9));
        assert_eq!(args.process.data.directory, Some("/var/lib/cloudy".into()));
        let Ok(Command::Slave(args)) = parse(FILE, "cloudy slave h:1 --rate 1 --session=b") else { panic!("a slave") };
        assert_eq!(args.process.session.name.as_str(), "b");
        assert_eq!(args.rate.map(std::num::NonZeroU32::get), Some(1));
        let Ok(Command::Demo(args)) = parse(FILE, "cloudy demo") else { panic!("a demo") };
        assert_eq!(args.session.name.as_str(), "team-a");
        let Ok(Command::Tail(args)) = parse(FILE, "cloudy tail --from 4") else { panic!("a tail") };
        assert_eq!(
            (args.seeds, args.count.map(std::num::NonZeroU64::get)),
            (vec!["a:1".into(), "b:2".into()], Some(3))
        );
    }

    #[test]
    fn an_option_of_the_file_gives_way_to_one_that_excludes_it() {
        let periods = |line: &str| match parse(FILE, line) {
            Ok(Command::Master(args)) => args.periods(),
            other => panic!("{line}: {other:?}"),
        };
        let [one, two, five] = [1, 2, 5].map(Duration::from_secs);
        assert_eq!(periods("cloudy master h 1 2s 1s"), Periods::new(two, one));
        assert_eq!(periods("cloudy master h 1"), Periods::new(five, Duration::from_millis(1_500)));
        let Ok(Command::Master(args)) = parse(FILE, "cloudy master h 1 --attach") else { panic!("a master") };
        assert!(args.attach);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_by_its_line() {
        for (file, words) in [
            ("session = \"a\"\nsesion = \"b\"\n", "line 2: there is no option `sesion`"),
            ("[slave]\nstay = true\nexpect = 3\n", "line 3: there is no option `expect` of `cloudy slave`"),
            ("\n[slav]\nstay = true\n", "line 2: there is no command `cloudy slav`"),
            ("[slave]\nstay = \"yes\"\n", "line 2: `stay` takes true or false"),
            ("[slave]\nrate = true\n", "line 2: `rate` takes a text or a number"),
            ("[slave]\nrate = [1, 2]\n", "line 2: `rate` takes a text or a number"),
            ("[slave]\n\nrate = 0\n", "line 3: invalid value '0' for '--rate"),
            ("announce = true\n", "line 1: there is no option `announce`"),
            ("config = \"other.toml\"\n", "line 1: there is no option `config`"),
            ("session = \n", "line 1: "),
            ("session = \"a\"\nsession = \"b\"\n", "line 2: duplicate key"),
        ] {
            let error = parse(file, "cloudy slave h 1").expect_err(file);
            assert!(error.contains(words) && error.contains("cloudy.toml"), "{file}: {error}");
        }
        let missing = Cli::parse_with_warnings(["cloudy", "slave", "h", "1", "--config", "/none"].map(OsString::from));
        assert!(missing.expect_err("no file").to_string().contains("/none: cannot read the file"));
    }
}
