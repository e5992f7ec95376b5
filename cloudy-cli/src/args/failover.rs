//! `cloudy bench failover` and `cloudy bench soak`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values::{bytes, measured, number, rate, whole};
use super::{SLAVES_MAX, exit_status};

/// A smaller group has no majority after the loss of a node.
const NODES_MIN: u64 = 3;
/// Maximum size of a message of a paced load: the loads consist of many small messages.
const SIZE_BYTES_MAX: u64 = 64 << 10;
/// Maximum length of the result that newcomers fetch: members retain not much more.
const RESULT_BYTES_MAX: u64 = 48 << 20;
/// Maximum of failures of each kind.
const ROUNDS_MAX: u32 = 10_000;

/// Further benches.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure how long a group pauses when a node fails, and how fast a newcomer catches up
    Failover(FailoverArgs),
    /// Measure the memory of nodes over a long time
    Soak(SoakArgs),
}

/// Arguments of `cloudy bench failover`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy bench failover                         5 nodes, 50 failures of each kind: ten minutes
  cloudy bench failover --rounds 5              fewer rounds: a minute
  cloudy bench failover --failure coordinator,partition --nodes 7
  cloudy bench failover --json | jq '.failures[] | {failure, new_view_us}'

Every node is a process, every member broadcasts at a steady rate, and all timeouts are the defaults. Kinds of failures:
  member, coordinator  kill -9 of one; another process joins before the next round
  partition            a minority is cut off for a while
  master               kill -9 of a creator that is no member, like a session's; the view need not change, and the
                       next round has a new group
Times count at each survivor of each round. At the end newcomers join a group with a long result.

", exit_status!()))]
pub(crate) struct FailoverArgs {
    /// Number of processes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = nodes, allow_hyphen_values = true)]
    pub(crate) nodes: u16,
    /// Number of failures of each kind
    #[arg(long, value_name = "TIMES", default_value_t = 50, value_parser = whole(1, ROUNDS_MAX, "50"),
          allow_hyphen_values = true)]
    pub(crate) rounds: u32,
    /// Kinds of failures
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', default_value = "member,coordinator,master,partition")]
    pub(crate) failure: Vec<FailureKind>,
    /// Length of the result that newcomers fetch: 8MiB; 0 skips this part
    #[arg(long = "fetch", alias = "catch-up", value_name = "BYTES", default_value = "32MiB", value_parser = result, allow_hyphen_values = true)]
    pub(crate) catch_up: u64,
    /// Size of a payload
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = size, allow_hyphen_values = true)]
    pub(crate) size: u64,
    /// Messages that each member broadcasts per second
    #[arg(long, value_name = "PER-SECOND", default_value_t = 500, value_parser = rate, allow_hyphen_values = true)]
    pub(crate) rate: u64,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cloudy bench soak`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy bench soak                             5 nodes, 10,000 messages a second, ten minutes
  cloudy bench soak --duration 8h --rate 200 --json

Members retain up to 64 MiB of the result for newcomers and readers: memory grows up to that, and is then constant.

", exit_status!()))]
pub(crate) struct SoakArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = nodes, allow_hyphen_values = true)]
    pub(crate) nodes: u16,
    /// Length of the measurement
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = measured, allow_hyphen_values = true)]
    pub(crate) duration: Duration,
    /// Size of a payload
    #[arg(long, value_name = "BYTES", default_value = "100", value_parser = size, allow_hyphen_values = true)]
    pub(crate) size: u64,
    /// Messages that each node broadcasts per second
    #[arg(long, value_name = "PER-SECOND", default_value_t = 2_000, value_parser = rate, allow_hyphen_values = true)]
    pub(crate) rate: u64,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailureKind {
    /// A member that does not coordinate is killed
    Member,
    /// The coordinator is killed
    Coordinator,
    /// A creator that is no member is killed
    Master,
    /// A minority is cut off
    Partition,
}

impl FailureKind {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Coordinator => "coordinator",
            Self::Master => "master",
            Self::Partition => "partition",
        }
    }
}

fn nodes(text: &str) -> Result<u16, String> {
    number(text, NODES_MIN, u64::from(SLAVES_MAX), "5").map(|nodes| nodes as u16)
}

fn size(text: &str) -> Result<u64, String> {
    bytes(text, SIZE_BYTES_MAX, "100 or 1KiB")
}

fn result(text: &str) -> Result<u64, String> {
    bytes(text, RESULT_BYTES_MAX, "8MiB")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Option<BenchCommand>, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| match cli.command {
            Command::Bench(args) => args.command,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn options_and_their_defaults() {
        let Ok(Some(BenchCommand::Failover(args))) = parse("cloudy bench failover") else { panic!("not taken") };
        assert_eq!((args.nodes, args.rounds, args.rate, args.size, args.json), (5, 50, 500, 100, false));
        assert_eq!(args.catch_up, 32 << 20);
        assert_eq!(args.failure.iter().map(|kind| kind.name()).collect::<Vec<_>>().len(), 4);
        let line = "cloudy bench failover --rounds 2 --failure partition,master --catch-up 0 --nodes 3 --size 8 --rate 9 \
                    --json";
        let Ok(Some(BenchCommand::Failover(args))) = parse(line) else { panic!("not taken") };
        assert_eq!(args.failure, [FailureKind::Partition, FailureKind::Master]);
        assert_eq!((args.nodes, args.rounds, args.rate, args.size, args.catch_up), (3, 2, 9, 8, 0));
        let Ok(Some(BenchCommand::Soak(args))) = parse("cloudy bench soak") else { panic!("not taken") };
        assert_eq!((args.nodes, args.rate, args.duration), (5, 2_000, Duration::from_secs(600)));
    }

    #[test]
    fn wrong_options_name_what_is_right() {
        for (options, kind, part) in [
            ("failover --nodes 2", ErrorKind::ValueValidation, "from 3 to 64"),
            ("failover --rounds 0", ErrorKind::ValueValidation, "from 1 to 10000"),
            (
                "failover --failure fire",
                ErrorKind::InvalidValue,
                "[possible values: member, coordinator, master, partition]",
            ),
            ("failover --catch-up 49MiB", ErrorKind::ValueValidation, "8MiB"),
            ("soak --size 1MiB", ErrorKind::ValueValidation, "100 or 1KiB"),
            ("soak --duration 0s", ErrorKind::ValueValidation, "2s"),
            ("--nodes 4 soak", ErrorKind::ArgumentConflict, "soak"),
        ] {
            let error = parse(&format!("cloudy bench {options}")).expect_err(options);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{options}: {error}");
        }
    }
}
