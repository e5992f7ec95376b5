//! The grammar, as tables of command lines and their meanings.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::*;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::huge_pages::NO_HUGE_PAGES;
use crate::periods::Periods;
use crate::ring::{FailureChoice, RingChoice};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

macro_rules! parsed {
    ($variant:ident, $line:expr) => {
        match parse($line) {
            Ok(Command::$variant(args)) => args,
            other => panic!("{}: {other:?}", $line),
        }
    };
}

fn listen(host: &str, port: u16) -> ListenArgs {
    ListenArgs { host: host.to_owned(), port, start_timeout: Duration::from_secs(10) }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
    assert_eq!(usize::from(SLAVES_MAX), cloudy_proto::limits::MEMBERS_MAX);
    assert_eq!(tail::INDEX_MAX.get(), cloudy_proto::limits::ROUND_MAX);
    let beyond = format!("cloudy tail 127.0.0.1:1 --from {}", tail::INDEX_MAX.get() + 1);
    assert!(parse(&beyond).is_err_and(|error| error.to_string().contains("not a whole number from 1 to")));
}

#[test]
fn every_command_has_examples_in_its_help() {
    fn check(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{}", command.get_name());
        assert!(command.get_about().is_some(), "{}", command.get_name());
        command.get_subcommands().for_each(check);
    }
    check(&Cli::command());
    for command in ["demo", "master", "slave"] {
        let help = parse(&format!("cloudy {command} --help")).expect_err("the help").to_string();
        for status in ["0    all results", "1    something", "2    the command line", "130  interrupted"] {
            assert!(help.contains(status), "{help}");
        }
    }
}

#[test]
fn both_spellings_of_a_master_mean_the_same() {
    for (line, send, grace, seed) in [
        ("cloudy master 127.0.0.1 10501 2000000 1000000 0", 2_000_000, 1_000_000, 0),
        ("cloudy master 127.0.0.1 10501 2s 500ms 7", 2_000_000, 500_000, 7),
        ("cloudy master 127.0.0.1 10501 1m 250us", 60_000_000, 250, 0),
        ("cloudy master 127.0.0.1 10501 --send-for 2 --wait-for 1 --with-seed 3", 2_000_000, 1_000_000, 3),
        ("cloudy master --send-for 0.5 --wait-for 300ms 127.0.0.1 10501", 500_000, 300_000, 0),
        ("cloudy master 127.0.0.1 10501 --with-seed 18446744073709551615", 2_000_000, 1_000_000, u64::MAX),
        ("cloudy master 127.0.0.1 10501", 2_000_000, 1_000_000, 0),
        ("cloudy master 127.0.0.1 10501 0 0 0", 0, 0, 0),
    ] {
        let args = parsed!(Master, line);
        assert_eq!(args.periods(), Periods::new(micros(send), micros(grace)), "{line}");
        assert_eq!(args.seed(), seed, "{line}");
        assert_eq!(args.listen, listen("127.0.0.1", 10_501), "{line}");
        assert_eq!(args.group.ring, RingChoice::Pipelined, "{line}");
        assert!(args.slaves.is_empty() && args.expect.is_none() && !args.json, "{line}");
        assert_eq!(args.discovery_timeout, Duration::from_secs(1), "{line}");
    }
}

#[test]
fn a_masters_options_are_taken() {
    let args = parsed!(
        Master,
        "cloudy master ::1 10501 2s 1s 0 --ring token --slave node-1.example:10502 --slave [::1]:10503 --expect 2 \
         --discovery-timeout 3s --discovery-group 239.255.1.2:2000 --json --cluster-key k --loss 5%"
    );
    assert_eq!(args.group.ring, RingChoice::Token);
    assert_eq!(parsed!(Master, "cloudy master h 1 --ring relay").group.ring, RingChoice::Relay);
    assert_eq!(args.slaves, ["node-1.example:10502", "[::1]:10503"]);
    assert_eq!(args.expect, Some(2));
    assert_eq!(args.discovery_timeout, Duration::from_secs(3));
    assert_eq!(args.discovery_group.to_string(), "239.255.1.2:2000");
    assert!(args.json);
    assert_eq!(args.process.key.cluster_key, Some(PathBuf::from("k")));
    assert_eq!(args.process.faults.loss, 0.05);
}

#[test]
fn a_slaves_options_are_taken() {
    let args = parsed!(Slave, "cloudy slave 127.0.0.1 10502");
    assert_eq!(args.listen, listen("127.0.0.1", 10_502));
    assert!(args.result.is_none() && !args.stay && !args.json && !args.no_discovery);
    assert_eq!((args.process.child.clone(), args.rate), (ChildArgs::default(), None));
    assert_eq!(args.process.faults.faults(), cloudy_node::fault::Faults::none());
    assert_eq!(args.discovery_group, cloudy_node::discovery::GROUP);
    let args =
        parsed!(Slave, "cloudy slave node 0 --result r.jsonl --stay --json --no-discovery --cluster-key k --rate 7");
    assert_eq!(args.rate.map(NonZeroU32::get), Some(7));
    assert_eq!(args.listen, listen("node", 0));
    assert_eq!(args.result, Some(PathBuf::from("r.jsonl")));
    assert!(args.stay && args.json && args.no_discovery);
    assert_eq!(args.process.key.cluster_key, Some(PathBuf::from("k")));
}

#[test]
fn a_demos_options_are_taken() {
    let args = parsed!(Demo, "cloudy demo");
    assert_eq!((args.nodes, args.send(), args.grace, args.seed), (4, micros(2_000_000), micros(1_000_000), 0));
    assert_eq!(args.group.ring, RingChoice::Pipelined);
    assert!(args.result_dir.is_none() && !args.json);
    let args = parsed!(
        Demo,
        "cloudy demo --nodes 8 --send 500ms --grace 300000 --seed 9 --ring token --result-dir d --json --loss 10% \
         --latency 20ms --jitter 5000 --reorder 0.05 --duplicate 1% --fault-seed 3"
    );
    assert_eq!((args.nodes, args.send(), args.grace, args.seed), (8, micros(500_000), micros(300_000), 9));
    assert_eq!(args.group.ring, RingChoice::Token);
    assert_eq!(args.result_dir, Some(PathBuf::from("d")));
    assert!(args.json);
    let faults = args.faults.faults();
    assert_eq!((faults.loss, faults.reorder, faults.duplicate, faults.seed), (0.1, 0.05, 0.01, 3));
    assert_eq!((faults.latency, faults.jitter), (micros(20_000), micros(5_000)));
    faults.validate().expect("the grammar takes valid faults only");
}

#[test]
fn a_demo_with_faults_at_times_evicts_and_paces_unless_told_otherwise() {
    for (line, on_failure, rate) in [
        ("cloudy demo", FailureChoice::Wait, None),
        ("cloudy demo --rate 7 --on-failure evict", FailureChoice::Evict, Some(7)),
        ("cloudy demo --kill 1@1s", FailureChoice::Evict, Some(50_000)),
        ("cloudy demo --pause 1@1s..2s --kill master@1s", FailureChoice::Evict, Some(50_000)),
        ("cloudy demo --partition 1/2@1s..2s --on-failure wait --rate 7", FailureChoice::Wait, Some(7)),
    ] {
        let args = parsed!(Demo, line);
        let schedule = args.schedule().expect(line);
        assert_eq!(args.on_failure(&schedule), on_failure, "{line}");
        assert_eq!(args.rate(&schedule).map(NonZeroU32::get), rate, "{line}");
    }
    // STOP begins 200 ms before the end.
    let late = |at: &str| parsed!(Demo, &format!("cloudy demo --kill 1@{at}")).schedule().is_err();
    assert!(!late("2799ms") && late("2800ms"));
}

#[test]
fn faults_reach_another_process_as_they_are() {
    let line = "cloudy slave h 1 --loss 33.3% --latency 1500us --jitter 7 --reorder 0.1 --duplicate 100%";
    let args = parsed!(Slave, line);
    let mut passed: Vec<std::ffi::OsString> = ["cloudy", "slave", "h", "1"].map(Into::into).to_vec();
    passed.extend(args.process.faults.arguments(5));
    let Ok(Command::Slave(other)) = Cli::try_parse_from(passed).map(|cli| cli.command) else { panic!("not taken") };
    assert_eq!(other.process.faults, FaultArgs { fault_seed: 5, ..args.process.faults });
}

#[test]
fn the_other_commands_are_taken() {
    for line in [
        "cloudy key new",
        "cloudy key show --cluster-key k",
        "cloudy key path",
        "cloudy key rotate k",
        "cloudy key rotate k --switch",
        "cloudy key rotate k --finish",
        "cloudy key revoke k 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "cloudy completions bash",
        "cloudy completions fish",
        "cloudy man",
        "cloudy man key new",
        "cloudy man --dir d",
        "cloudy -vv demo",
        "cloudy demo --verbose",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    let cli = Cli::try_parse_from(["cloudy", "demo", "-v", "-v"]).expect("parses");
    assert_eq!(cli.verbose, 2);
}

#[test]
fn wrong_command_lines_name_what_is_wrong() {
    use ErrorKind::*;
    for (line, kind, part) in [
        ("cloudy", DisplayHelpOnMissingArgumentOrSubcommand, "Usage"),
        ("cloudy dance", InvalidSubcommand, "dance"),
        ("cloudy key", DisplayHelpOnMissingArgumentOrSubcommand, "cloudy key new"),
        ("cloudy key rotate", MissingRequiredArgument, "<FILE>"),
        ("cloudy key rotate k --switch --finish", ArgumentConflict, "--finish"),
        ("cloudy key revoke k", MissingRequiredArgument, "<NODE-ID>"),
        ("cloudy key revoke k 6b86b273", ValueValidation, "64 hexadecimal digits, this has 8"),
        ("cloudy key revoke k 127.0.0.1:10502", ValueValidation, "64 hexadecimal digits"),
        ("cloudy slave 127.0.0.1", MissingRequiredArgument, "<PORT>"),
        ("cloudy slave 127.0.0.1 65536", ValueValidation, "65536"),
        ("cloudy slave 127.0.0.1 -1", ValueValidation, "-1"),
        ("cloudy slave h 1 --loss 10", ValueValidation, "10% or 0.1"),
        ("cloudy slave h 1 --loss -5%", ValueValidation, "10% or 0.1"),
        ("cloudy slave h 1 --latency 2h", ValueValidation, "longer than 1m"),
        ("cloudy slave h 1 --discovery-group 239.255.0.1", ValueValidation, "239.255.0.1"),
        ("cloudy master 127.0.0.1 10501 soon 1s 0", ValueValidation, "2s, 500ms, 1m or 250us"),
        ("cloudy master 127.0.0.1 10501 -5 1s 0", ValueValidation, "2s, 500ms, 1m or 250us"),
        ("cloudy master 127.0.0.1 10501 99999999999999999999 1s 0", ValueValidation, "longer than 365 days"),
        ("cloudy master 127.0.0.1 10501 2s 1s -1", ValueValidation, "-1"),
        ("cloudy master 127.0.0.1 10501 2s", MissingRequiredArgument, "<GRACE>"),
        ("cloudy master 127.0.0.1 10501 2s 1s 0 0", UnknownArgument, "0"),
        ("cloudy master 127.0.0.1 10501 2s 1s 0 --send-for 2", ArgumentConflict, "--send-for"),
        ("cloudy master 127.0.0.1 10501 2s 1s --with-seed 2", ArgumentConflict, "--with-seed"),
        ("cloudy master --wait-for 1 127.0.0.1 10501 2s 1s 0", ArgumentConflict, "--wait-for"),
        ("cloudy master h 1 --slave localhost", ValueValidation, "`localhost` is not HOST:PORT"),
        ("cloudy master h 1 --slave ::1:10502", ValueValidation, "brackets"),
        ("cloudy master h 1 --expect 0", ValueValidation, "from 1 to 64"),
        ("cloudy master h 1 --ring star", InvalidValue, "[possible values: token, pipelined, relay]"),
        ("cloudy demo --nodes 0", ValueValidation, "from 2 to 64"),
        ("cloudy demo --nodes 1", ValueValidation, "2 slaves or more"),
        ("cloudy demo --nodes 65", ValueValidation, "from 2 to 64"),
        ("cloudy demo --send -5", ValueValidation, "2s, 500ms, 1m or 250us"),
        ("cloudy demo --kill 1", ValueValidation, "slave2@500ms"),
        ("cloudy demo --pause 1@1s", ValueValidation, "slave3@1s..1500ms"),
        ("cloudy demo --partition 1/2", ValueValidation, "1,2/3,4,master@700ms..1200ms"),
        ("cloudy demo --rate 0", ValueValidation, "0"),
        ("cloudy slave h 1 --rate -1", ValueValidation, "-1"),
        ("cloudy slave h 1 --partitions", MissingRequiredArgument, "--announce"),
        ("cloudy demo --seed -1", ValueValidation, "-1"),
        ("cloudy join g --bind a:1 --open-timeout 0", ValueValidation, "shorter than 1ms"),
        ("cloudy tail a:1 --lost-timeout 60", ValueValidation, "without a unit is microseconds"),
        ("cloudy completions tcsh", InvalidValue, "bash"),
        ("cloudy man demo --dir d", ArgumentConflict, "--dir"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert!(error.to_string().contains(part), "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

/// Every option and argument that takes a number or a time refuses other texts, by its own name.
#[test]
fn texts_that_are_no_numbers_are_errors_of_their_own_option() {
    const NUMBERS: [&str; 14] = [
        "N",
        "NUMBER",
        "TIME",
        "SECONDS",
        "SHARE",
        "BYTES",
        "TIMES",
        "PER-SECOND",
        "INDEX",
        "PORT",
        "SEND",
        "GRACE",
        "SEED",
        "WHO@TIME",
    ];
    fn check(path: &[String], command: &clap::Command, checked: &mut usize) {
        for arg in command.get_arguments() {
            let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
            if !NUMBERS.contains(&name) {
                continue;
            }
            for text in ["-1", "-1s", "soon", "-soon", "+1", "1e3", ""] {
                let line = line_with(path, command, arg, text);
                let error = Cli::try_parse_from(&line).expect_err(&line.join(" "));
                let option = arg.get_long().map_or_else(|| name.to_owned(), |long| format!("--{long}"));
                let words = error.to_string();
                assert_eq!(error.kind(), ErrorKind::ValueValidation, "{line:?}: {words}");
                assert!(words.contains(&option) && words.contains("write for example"), "{line:?}: {words}");
                *checked += 1;
            }
        }
        for sub in command.get_subcommands() {
            check(&[path, &[sub.get_name().to_owned()]].concat(), sub, checked);
        }
    }
    let mut checked = 0;
    check(&["cloudy".to_owned()], &Cli::command(), &mut checked);
    assert!(checked > 200, "{checked}");
}

/// A command line that is valid but for this argument: the other arguments it requires, and the text in its place.
fn line_with(path: &[String], command: &clap::Command, arg: &clap::Arg, text: &str) -> Vec<String> {
    let mut line = path.to_vec();
    for positional in command.get_positionals() {
        let id = positional.get_id().as_str();
        // Of a master's periods, each needs those before it, and SEND needs GRACE.
        let period = arg.is_positional() && ["send", "grace"].contains(&id) && arg.get_id() != "port";
        if positional.get_id() == arg.get_id() {
            line.push(text.to_owned());
        } else if positional.is_required_set() || period && command.get_name() == "master" {
            let right = match id {
                "port" => "1",
                "address" => "h:1",
                _ => "1s",
            };
            line.push(right.to_owned());
        }
    }
    line.extend(arg.get_long().into_iter().flat_map(|long| [format!("--{long}"), text.to_owned()]));
    line
}

#[test]
fn a_session_has_a_name_and_a_default_one() {
    for command in ["master h 1", "slave h 1", "demo"] {
        for (option, expected) in [("", "default"), (" --session team-a", "team-a")] {
            let name = match parse(&format!("cloudy {command}{option}")).expect("parses") {
                Command::Master(args) => args.process.session.name,
                Command::Slave(args) => args.process.session.name,
                Command::Demo(args) => args.session.name,
                other => panic!("{other:?}"),
            };
            assert_eq!(name.as_str(), expected, "{command}{option}");
        }
        let error = parse(&format!("cloudy {command} --session a/b")).expect_err("no name");
        assert!(error.to_string().contains("write for example team-a"), "{error}");
    }
    let group = |line| parsed!(Tail, line).group_name();
    assert_eq!(group("cloudy tail h:1"), "session");
    assert_eq!(group("cloudy tail h:1 --session team-a"), "session/team-a");
    assert_eq!(group("cloudy tail h:1 --group orders"), "orders");
}

#[tokio::test]
async fn hosts_are_addresses_or_names() {
    let listen = |host: &str| ListenArgs { start_timeout: Duration::ZERO, ..listen(host, 10_501) };
    for (host, address) in [("127.0.0.1", "127.0.0.1:10501"), ("::1", "[::1]:10501"), ("[::1]", "[::1]:10501")] {
        assert_eq!(listen(host).address(None).await.expect(host).to_string(), address);
    }
    assert!(listen("localhost").address(None).await.expect("resolves").ip().is_loopback());
    // `.invalid` never exists (RFC 2606 §2).
    let error = listen("no-such-host.invalid").address(None).await.expect_err("no such name");
    assert!(error.to_string().contains("`no-such-host.invalid`") && error.help().is_some(), "{error}");
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn only_a_command_that_runs_a_node_is_started_again_for_huge_pages() {
    for (line, runs) in [
        ("cloudy slave ::1 0", true),
        ("cloudy slave ::1 0 --supervise", false),
        ("cloudy slave ::1 0 --supervise --supervised", true),
        ("cloudy master ::1 0 2s 1s", true),
        ("cloudy tail [::1]:1", true),
        ("cloudy bench --in-process", true),
        ("cloudy bench-node", true),
        ("cloudy bench", false),
        ("cloudy demo", false),
        ("cloudy key path", false),
        ("cloudy man", false),
        ("cloudy completions bash", false),
    ] {
        assert_eq!(parse(line).expect(line).runs_a_node(), runs, "{line}");
    }
    // A process that is started again, or by another, has it once more.
    let cli =
        Cli::try_parse_from(["cloudy", NO_HUGE_PAGES, NO_HUGE_PAGES, "demo", NO_HUGE_PAGES]).expect("a global option");
    assert!(cli.no_huge_pages);
}

#[test]
fn the_timeouts_of_a_session_have_a_minimum() {
    let args = parsed!(Master, "cloudy master 127.0.0.1 10501");
    assert_eq!((args.timeouts.failure_timeout, args.timeouts.timeout_max), (micros(500_000), micros(10_000_000)));
    let args = parsed!(Demo, "cloudy demo --failure-timeout 2s --timeout-max 1s");
    assert_eq!((args.timeouts.failure_timeout, args.timeouts.timeout_max), (micros(2_000_000), micros(1_000_000)));
    assert_eq!(args.timeouts.arguments(), ["--failure-timeout", "2s", "--timeout-max", "1s"]);
    for refused in ["149ms", "2h", "soon"] {
        assert!(parse(&format!("cloudy master 127.0.0.1 10501 --failure-timeout {refused}")).is_err(), "{refused}");
    }
}

#[test]
fn every_command_that_runs_a_node_takes_an_admin_address() {
    let commands: [&[&str]; 5] = [
        &["slave", "127.0.0.1", "0"],
        &["master", "127.0.0.1", "0"],
        &["join", "orders", "--bind", "127.0.0.1:7402", "--seed", "127.0.0.1:7400"],
        &["tail", "127.0.0.1:7400"],
        &["demo", "--stay"],
    ];
    for command in commands {
        for (address, accepted) in [("127.0.0.1:7401", true), ("unix:/run/cloudy.sock", true), ("example.org:1", false)]
        {
            let arguments = [&["cloudy"], command, &["--admin", address]].concat();
            assert_eq!(Cli::try_parse_from(&arguments).is_ok(), accepted, "{arguments:?}");
        }
    }
}
