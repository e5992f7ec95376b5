//! The command line's grammar.

mod address;
mod admin;
mod bare;
mod bench;
mod config;
mod data;
mod demo;
#[cfg(test)]
mod deploy;
mod doctor;
mod empty;
mod failover;
mod grammar;
mod join;
mod key;
mod master;
mod schedule;
mod shared;
mod slave;
mod status;
mod tail;
#[cfg(test)]
mod tests;
mod timeouts;
mod top;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use admin::AdminArgs;
pub(crate) use bench::{BenchArgs, BenchNodeArgs, Senders, Sweep};
pub(crate) use data::{DataCommand, DataCommandArgs, ExportArgs, ForgetArgs, ImportArgs, InspectArgs, RecoverArgs};
pub(crate) use demo::DemoArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use failover::{BenchCommand, FailoverArgs, FailureKind, SoakArgs};
pub(crate) use join::JoinArgs;
pub(crate) use key::{KeyArgs, KeyCommand, RevokeArgs, RotateArgs};
pub(crate) use master::MasterArgs;
pub(crate) use schedule::{At, Deed, Schedule, Sides, Who};
#[cfg(test)]
pub(crate) use shared::ChildArgs;
pub(crate) use shared::{DataArgs, FaultArgs, GroupArgs, KeyFileArgs, ListenArgs, ProcessArgs, SessionArgs, TrustArgs};
pub(crate) use slave::SlaveArgs;
pub(crate) use status::{CheckArgs, OutputForm, StatusArgs};
pub(crate) use tail::{Format, INDEX_MAX, TailArgs};
pub(crate) use timeouts::TimeoutArgs;
pub(crate) use top::TopArgs;

/// Maximum of slaves of one session: the protocol's maximum of a ring, `cloudy_proto::limits::MEMBERS_MAX`.
pub(crate) const SLAVES_MAX: u16 = 64;

/// The exit statuses of `output`, for the help of commands that run a session.
macro_rules! exit_status {
    () => {
        "\
Exit status:
  0    all results are equal
  1    something failed, or results differ
  2    the command line is wrong
  130  interrupted before there was a result
  141  the reader of the output has closed it"
    };
}
use exit_status;

/// Several processes agree on one sequence of messages, over QUIC, without a broker.
#[derive(Debug, Parser)]
#[command(
    name = "cloudy",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cloudy demo                                   a whole session on this machine
  cloudy demo --loss 10% --latency 20ms         the same over a bad network
  cloudy demo --kill slave2@500ms               the same, with one slave killed
  cloudy slave 127.0.0.1 10502                  one slave
  cloudy master 127.0.0.1 10501 2s 1s 0         a master, which finds the slaves
  cloudy key show                               the cluster of this machine

An address is HOST:PORT or HOST PORT; an IPv6 address before a colon stands in brackets.
Durations are 2s, 500ms, 1m, 250us; a bare number is microseconds.
Each option --some-option has a variable CLOUDY_SOME_OPTION; the option comes before the variable.
CLOUDY_LOG=debug logs to stderr; it takes filters such as warn,cloudy_node=trace."
)]
pub(crate) struct Cli {
    /// Log more to stderr: once for progress, twice for details, three times for everything
    #[arg(short, long, global = true, display_order = 100, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Do not restart with an allocator that requests huge pages; setting the variable GLIBC_TUNABLES to any value has
    /// the same effect
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[arg(long, global = true, display_order = 101, overrides_with = "no_huge_pages")]
    pub(crate) no_huge_pages: bool,
    /// Read options from this TOML file: `option = value` for all commands that have it, and in a table such as [slave] for
    /// one. The command line and variables come before it
    #[arg(long, value_name = "FILE", global = true, display_order = 102)]
    config: Option<PathBuf>,
    /// Form of everything on stderr but an error in the command line. In json each line is an object
    #[arg(long, value_name = "LOG-FORM", value_enum, global = true, default_value_t, display_order = 103)]
    pub(crate) log_format: LogFormat,
    /// Colours on stderr. With auto there are none if NO_COLOR is set, or where there is no terminal
    #[arg(long, value_name = "WHEN", value_enum, global = true, default_value_t = ColorChoice::Auto, display_order = 104)]
    pub(crate) color: ColorChoice,
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for a reader
    #[default]
    Text,
    /// A JSON object for each line
    Json,
}

impl Cli {
    /// The command line, and warnings about it.
    ///
    /// # Errors
    /// It is wrong, or asks for help.
    pub(crate) fn read() -> Result<(Self, Vec<String>), clap::Error> {
        Self::parse_with_warnings(std::env::args_os())
    }

    /// The whole grammar: what is derived, with a variable for each option, and a short and a long help.
    pub(crate) fn grammar() -> clap::Command {
        grammar::complete(Self::command())
    }

    /// The variables of all options.
    pub(crate) fn variables() -> Vec<String> {
        grammar::variables(&Self::grammar())
    }

    fn parse_with_warnings(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, Vec<String>), clap::Error> {
        let mut command = Self::grammar();
        let arguments = address::spell(&command, arguments.into_iter().collect());
        let (arguments, settings) = config::extend(&mut command, arguments)?;
        let matches = command.try_get_matches_from_mut(arguments);
        let matches = matches.map_err(|error| settings.explain(&mut command, error))?;
        empty::refuse(&mut command, &matches)?;
        let warnings = bare::warnings(&command, &matches);
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((cli, warnings))
    }
}

/// Whether the command line is one of `cloudy check`, also if it is wrong.
pub(crate) fn is_check() -> bool {
    std::env::args_os().nth(1).is_some_and(|command| command == "check")
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole session on this machine: a master and its slaves, each as a process
    Demo(DemoArgs),
    /// Start a session with the slaves that are found or named, and compare their results
    Master(MasterArgs),
    /// Wait for a master, take part in its session, and print the result
    Slave(SlaveArgs),
    /// Print a group's result as JSON lines, while it grows
    Tail(TailArgs),
    /// Be a member of a group: lines of stdin are broadcast, the result is JSON lines
    Join(JoinArgs),
    /// Measure groups on this machine, beside bare QUIC
    Bench(Box<BenchArgs>),
    /// Run one node of a bench
    #[command(hide = true)]
    BenchNode(BenchNodeArgs),
    /// Create, show, find or change the cluster key
    Key(KeyArgs),
    /// Show the state of a running node
    Status(StatusArgs),
    /// Show running nodes on a terminal, and follow them
    Top(TopArgs),
    /// Check a running node, as a plugin for monitors
    Check(CheckArgs),
    /// Check this machine and the paths to other nodes, and name remedies
    Doctor(DoctorArgs),
    /// Inspect, verify, export, import or recover the data directory of a node that does not run
    Data(DataCommandArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print manual pages
    Man(ManArgs),
    /// Print the versions of this program and of its formats
    Version(VersionArgs),
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
impl Command {
    /// Whether a node runs in the command's own process.
    pub(crate) fn runs_a_node(&self) -> bool {
        match self {
            Self::Master(_) | Self::Tail(_) | Self::Join(_) | Self::BenchNode(_) => true,
            Self::Slave(args) => !args.is_supervisor(),
            Self::Bench(args) => args.in_process,
            Self::Status(_)
            | Self::Top(_)
            | Self::Check(_)
            | Self::Doctor(_)
            | Self::Demo(_)
            | Self::Key(_)
            | Self::Data(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Version(_) => false,
        }
    }
}

/// Arguments of `cloudy completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy completions bash > ~/.local/share/bash-completion/completions/cloudy
  cloudy completions zsh > ~/.zfunc/_cloudy
  cloudy completions fish > ~/.config/fish/completions/cloudy.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Arguments of `cloudy version`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy version
  cloudy version --json | jq .wire.max

Nodes form a group if they have one wire format. A data directory is read by programs with its data format.")]
pub(crate) struct VersionArgs {
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cloudy man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy man | man -l -                         read the manual
  cloudy man key new | man -l -                 read about one command
  cloudy man --dir ~/.local/share/man/man1      install all pages")]
pub(crate) struct ManArgs {
    /// The command of the page; all of cloudy if there is none
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) path: Vec<String>,
    /// Write the pages of all commands to this directory, which is created if it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
