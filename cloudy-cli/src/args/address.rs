//! `HOST:PORT` in place of `HOST PORT`, and the reverse.

use std::ffi::OsString;

use clap::{Arg, Command};

/// Spells the address of a command line as the grammar has it: in two arguments for a command with HOST and PORT, in one
/// for a command with an address.
pub(super) fn spell(command: &Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = subcommand_at(command, &arguments) else { return arguments };
    let name = arguments[at].to_string_lossy().into_owned();
    let Some(sub) = command.find_subcommand(&name) else { return arguments };
    let has = |id: &str| sub.get_positionals().any(|arg| arg.get_id() == id);
    match positionals(command, sub, &arguments, at + 1)[..] {
        [first, ..] if has("host") && has("port") => {
            if let Some((host, port)) = arguments[first].to_str().and_then(split) {
                let parts = [host, port].map(OsString::from);
                arguments.splice(first..=first, parts);
            }
        }
        [host, port] if has("address") => {
            if let Some(address) = arguments[host].to_str().zip(arguments[port].to_str()).and_then(join) {
                arguments[host] = address.into();
                arguments.remove(port);
            }
        }
        _ => {}
    }
    arguments
}

/// The place of the subcommand's name.
pub(super) fn subcommand_at(command: &Command, arguments: &[OsString]) -> Option<usize> {
    positionals(command, command, arguments, 1).first().copied()
}

/// `h:1` or `[::1]:1`. An IPv6 address without brackets has no port in it.
fn split(text: &str) -> Option<(String, String)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    (is_bracketed || !host.contains(':')).then(|| (host.to_owned(), port.to_owned()))
}

fn join((host, port): (&str, &str)) -> Option<String> {
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || split(host).is_some() {
        return None;
    }
    let is_bare = host.contains(':') && !host.starts_with('[');
    Some(if is_bare { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// The places of the arguments that are neither options nor their values.
fn positionals(root: &Command, command: &Command, arguments: &[OsString], from: usize) -> Vec<usize> {
    let mut places = Vec::new();
    let (mut at, mut all) = (from, false);
    while at < arguments.len() {
        let text = arguments[at].to_string_lossy();
        if all || text == "-" || !text.starts_with('-') {
            places.push(at);
        } else if text == "--" {
            all = true;
        } else if takes_next(root, command, &text) {
            at += 1;
        }
        at += 1;
    }
    places
}

/// Whether the value of this option is the next argument.
fn takes_next(root: &Command, command: &Command, text: &str) -> bool {
    let mut options = root.get_arguments().chain(command.get_arguments());
    let takes = |arg: &Arg| arg.get_action().takes_values();
    match text.strip_prefix("--") {
        Some(long) => {
            options.any(|arg| takes(arg) && arg.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long)))
        }
        None => options.any(|arg| takes(arg) && arg.get_short().is_some_and(|short| text.ends_with(short))),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::parse_with_warnings(line.split_whitespace().map(OsString::from)).map(|(cli, _)| cli.command)
    }

    #[test]
    fn an_address_is_one_argument_or_two() {
        for (line, host, port) in [
            ("cloudy slave 127.0.0.1:10502", "127.0.0.1", 10_502),
            ("cloudy slave node:0", "node", 0),
            ("cloudy slave [::1]:10502", "[::1]", 10_502),
            ("cloudy slave ::1 10502", "::1", 10_502),
            ("cloudy -v slave --session a --rate 7 h:1 --stay", "h", 1),
            ("cloudy slave --session=a --supervise -- h:1", "h", 1),
            ("cloudy slave --supervised --at 127.0.0.1:7 --supervise -- h:1", "h", 1),
        ] {
            let Ok(Command::Slave(args)) = parse(line) else { panic!("{line}") };
            assert_eq!((args.listen.host.as_str(), args.listen.port), (host, port), "{line}");
        }
        for line in ["cloudy master h:1 2s 1s 7 --slave a:1", "cloudy master --slave a:1 h 1 2s 1s 7"] {
            let Ok(Command::Master(args)) = parse(line) else { panic!("{line}") };
            assert_eq!((args.listen.host.as_str(), args.listen.port, args.seed()), ("h", 1, 7), "{line}");
            assert_eq!(args.slaves, ["a:1"]);
        }
        for (line, address) in [
            ("cloudy tail h 1", "h:1"),
            ("cloudy tail h:1", "h:1"),
            ("cloudy tail ::1 1 --group g", "[::1]:1"),
            ("cloudy tail --from 7 [::1] 1", "[::1]:1"),
        ] {
            let Ok(Command::Tail(args)) = parse(line) else { panic!("{line}") };
            assert_eq!(args.address.as_deref(), Some(address), "{line}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for (line, part) in [
            ("cloudy slave h:", "<PORT>"),
            ("cloudy slave h:65536", "65536"),
            ("cloudy slave ::1", "<PORT>"),
            ("cloudy slave h:1 2", "'2'"),
            ("cloudy tail h", "`h` is not HOST:PORT"),
            ("cloudy tail h x", "'x'"),
            ("cloudy tail h:1 2", "'2'"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
