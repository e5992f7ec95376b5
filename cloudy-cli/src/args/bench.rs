//! `cloudy bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::failover::BenchCommand;
use super::values::{bytes, delay, measured, number, rate, whole};
use super::{FaultArgs, GroupArgs, SLAVES_MAX, exit_status};
use crate::ring::{DurabilityChoice, RingChoice};
use crate::{duration, percent};

/// Maximum size of a payload in a group.
const SIZE_BYTES_MAX: u64 = 16 << 20;
const SIZE_EXAMPLE: &str = "100, 64KiB or 1MiB";
/// Maximum window of a group.
const WINDOW_BYTES_MAX: u64 = 1 << 30;
/// Maximum of runs of a row.
const REPEAT_MAX: u32 = 1_000;

/// Arguments of `cloudy bench`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy bench                                  4 nodes, all sending 100 B at full speed
  cloudy bench --quick                          the usual rows with their targets, in two minutes
  cloudy bench --baseline --repeat 5 --size 1KiB   the rate relative to bare QUIC, and its spread
  cloudy bench --rate 100                       the latency of a group with little to do
  cloudy bench --sweep nodes=2,4,8 size=8,100,1KiB --json
  cloudy bench --sweep loss=0%,1%,5% durability=memory,disk --html bench.html
  cloudy bench failover                         how long a group stands still when something fails
  cloudy bench soak                             what nodes keep in memory over ten minutes

A message is approved when all members hold it, in one order. Latency counts from when a message was due: by the
schedule of --rate, or when its sender offered it; at full speed a sender keeps a window of messages in flight.
A window adapts to its path (~ in the table) unless --window fixes it; the baseline has the same in flight.
The baseline (--baseline) is a bare QUIC program with the same encryption: received by all, no order between senders,
no group. Ratios are only valid if both ran in turns on the same machine: --baseline does that.

", exit_status!()), args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    /// A bench other than that of throughput and latency.
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = nodes, allow_hyphen_values = true)]
    pub(crate) nodes: u16,
    /// Nodes that broadcast: all, one, or a number
    #[arg(long, value_name = "WHO", default_value = "all", value_parser = senders, allow_hyphen_values = true)]
    pub(crate) senders: Senders,
    /// Size of a payload: 100, 64KiB or 1MiB; below 8 there is no latency
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = size, allow_hyphen_values = true)]
    pub(crate) size: u64,
    /// Messages that each sender broadcasts per second [default: full speed]
    #[arg(long, value_name = "PER-SECOND", value_parser = rate, allow_hyphen_values = true)]
    pub(crate) rate: Option<u64>,
    /// Fixed window of each sender in bytes [default: it adapts to the path, up to the group's maximum]
    #[arg(long, value_name = "BYTES", value_parser = window, allow_hyphen_values = true)]
    pub(crate) window: Option<u64>,
    /// Options of the group.
    #[command(flatten)]
    pub(crate) group: GroupArgs,
    /// Time under load before the measurement
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) warm_up: Duration,
    /// Length of the measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = measured, allow_hyphen_values = true)]
    pub(crate) duration: Duration,
    /// Runs of each row; the table shows medians
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = whole(1, REPEAT_MAX, "3"), allow_hyphen_values = true)]
    pub(crate) repeat: u32,
    /// One row for each combination of these values: of nodes, senders, size, rate, window, ring, durability, loss or
    /// latency
    #[arg(long, value_name = "WHAT=A,B,…", num_args = 1.., value_parser = sweep)]
    pub(crate) sweep: Vec<Sweep>,
    /// Run all nodes in this process, on one thread
    #[arg(long)]
    pub(crate) in_process: bool,
    /// Run a bare QUIC program in turns with the library, and show the ratio
    #[arg(long, alias = "floor")]
    pub(crate) baseline: bool,
    /// Run the rows of docs/explanation/performance.md with their targets, beside the bare QUIC program, in less than
    /// two minutes
    #[arg(long, conflicts_with_all = ["nodes", "senders", "size", "rate", "window", "ring", "durability", "warm_up",
          "duration", "repeat", "sweep", "baseline", "loss", "latency"])]
    pub(crate) quick: bool,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a page with plots to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Injected faults.
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

/// Arguments of the hidden `cloudy bench-node`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  cloudy bench-node                             takes orders on stdin and answers on stdout, a line of JSON each")]
pub(crate) struct BenchNodeArgs {}

/// The nodes that broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Senders {
    /// Every node.
    All,
    /// The first nodes, by number.
    First(u16),
}

/// The values of one setting in a sweep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sweep {
    Nodes(Vec<u16>),
    Senders(Vec<Senders>),
    Size(Vec<u64>),
    Rate(Vec<u64>),
    Window(Vec<u64>),
    Ring(Vec<RingChoice>),
    Durability(Vec<DurabilityChoice>),
    Loss(Vec<f64>),
    Latency(Vec<Duration>),
}

fn nodes(text: &str) -> Result<u16, String> {
    number(text, 2, u64::from(SLAVES_MAX), "4").map(|nodes| nodes as u16)
}

fn senders(text: &str) -> Result<Senders, String> {
    match text {
        "all" => Ok(Senders::All),
        "one" => Ok(Senders::First(1)),
        _ => number(text, 1, u64::from(SLAVES_MAX), "all, one or 2").map(|senders| Senders::First(senders as u16)),
    }
}

fn size(text: &str) -> Result<u64, String> {
    bytes(text, SIZE_BYTES_MAX, SIZE_EXAMPLE)
}

fn window(text: &str) -> Result<u64, String> {
    match bytes(text, WINDOW_BYTES_MAX, SIZE_EXAMPLE)? {
        0 => Err("a window is larger than zero; write for example 256KiB".to_owned()),
        window => Ok(window),
    }
}

fn sweep(text: &str) -> Result<Sweep, String> {
    fn each<T>(list: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        list.split(',').map(|value| parse(value).map_err(|error| format!("`{value}`: {error}"))).collect()
    }
    let (what, list) = text.split_once('=').unwrap_or((text, ""));
    match what {
        "nodes" => each(list, nodes).map(Sweep::Nodes),
        "senders" => each(list, senders).map(Sweep::Senders),
        "size" => each(list, size).map(Sweep::Size),
        "rate" => each(list, rate).map(Sweep::Rate),
        "window" => each(list, window).map(Sweep::Window),
        "ring" => each(list, |ring| RingChoice::from_str(ring, false)).map(Sweep::Ring),
        "durability" => each(list, |place| DurabilityChoice::from_str(place, false)).map(Sweep::Durability),
        "loss" => each(list, |share| percent::parse(share).map_err(|error| error.to_string())).map(Sweep::Loss),
        "latency" => each(list, delay).map(Sweep::Latency),
        _ => {
            let known = "nodes, senders, size, rate, window, ring, durability, loss, latency";
            Err(format!("not one of {known}; write for example nodes=2,4,8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| match cli.command {
            Command::Bench(args) => *args,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_defaults() {
        let args = parse("cloudy bench").expect("parses");
        assert_eq!((args.nodes, args.senders, args.size, args.rate), (4, Senders::All, 100, None));
        assert_eq!((args.window, args.group.ring, args.repeat), (None, RingChoice::Pipelined, 1));
        assert_eq!((args.warm_up, args.duration), (Duration::from_millis(500), Duration::from_secs(2)));
        assert!(args.sweep.is_empty() && !args.in_process && !args.baseline && !args.quick && !args.json);
    }

    #[test]
    fn options_are_taken() {
        let args = parse(
            "cloudy bench --nodes 8 --senders one --size 64KiB --rate 1000 --window 2MiB --ring token --durability \
             memory --warm-up 1s --duration 500ms --loss 1% --latency 5ms --repeat 3 --in-process --baseline --json \
             --html a.html --sweep nodes=2,4,8 size=8,1KiB senders=all,one,3 ring=token,pipelined,relay rate=10 \
             window=1MiB durability=memory,disk loss=1%,0.05 latency=0s,20ms",
        )
        .expect("parses");
        assert_eq!((args.nodes, args.senders, args.size, args.rate), (8, Senders::First(1), 65_536, Some(1_000)));
        assert_eq!((args.window, args.group.ring, args.repeat), (Some(2 << 20), RingChoice::Token, 3));
        assert_eq!((args.faults.loss, args.faults.latency), (0.01, Duration::from_millis(5)));
        assert!(args.in_process && args.baseline && args.json && args.html.is_some());
        let expected = [
            Sweep::Nodes(vec![2, 4, 8]),
            Sweep::Size(vec![8, 1_024]),
            Sweep::Senders(vec![Senders::All, Senders::First(1), Senders::First(3)]),
            Sweep::Ring(vec![RingChoice::Token, RingChoice::Pipelined, RingChoice::Relay]),
            Sweep::Rate(vec![10]),
            Sweep::Window(vec![1 << 20]),
            Sweep::Durability(vec![DurabilityChoice::Memory, DurabilityChoice::Disk]),
            Sweep::Loss(vec![0.01, 0.05]),
            Sweep::Latency(vec![Duration::ZERO, Duration::from_millis(20)]),
        ];
        assert_eq!(args.sweep, expected);
    }

    #[test]
    fn wrong_options_name_what_is_right() {
        for (options, part) in [
            ("--nodes 1", "from 2 to 64"),
            ("--nodes 65", "from 2 to 64"),
            ("--senders none", "all, one or 2"),
            ("--senders 0", "all, one or 2"),
            ("--size 17MiB", "100, 64KiB or 1MiB"),
            ("--size 1kb", "100, 64KiB or 1MiB"),
            ("--size 99999999999999999999MiB", "100, 64KiB or 1MiB"),
            ("--window 0", "256KiB"),
            ("--rate 0", "from 1 to 1000000"),
            ("--duration 0s", "2s"),
            ("--repeat 0", "from 1 to 1000"),
            ("--sweep colour=red", "nodes=2,4,8"),
            ("--sweep nodes", "``: not a number"),
            ("--sweep nodes=2,x", "`x`: not a number"),
            ("--sweep ring=star", "`star`"),
            ("--sweep durability=paper", "`paper`"),
            ("--sweep loss=5", "`5`: not a share"),
            ("--sweep latency=soon", "`soon`"),
        ] {
            let error = parse(&format!("cloudy bench {options}")).expect_err(options);
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{error}");
            assert!(error.to_string().contains(part), "{options}: {error}");
        }
        let error = parse("cloudy bench --quick --nodes 8").expect_err("a conflict");
        assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
    }
}
