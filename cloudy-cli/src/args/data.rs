//! `cloudy data`.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::KeyFileArgs;
use super::tail::{Format, INDEX_MAX};
use super::values::{seed, wait, whole};

/// Arguments of `cloudy data`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy data inspect /var/lib/orders                   what a node has stored
  cloudy data verify /var/lib/orders                    whether any of it is damaged
  cloudy data export /var/lib/orders > orders.jsonl     its messages, as `cloudy tail` prints them
  cloudy data import /var/lib/new --group orders < orders.jsonl
  cloudy data recover /var/lib/orders                   a new group, if all other members are lost
  cloudy data forget /var/lib/orders orders --yes       deletes a group that has ended

The node of the directory must not run. Only import, to a new or empty directory, recover and forget write.")]
pub(crate) struct DataCommandArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// The subcommands of `cloudy data`.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Print what a data directory holds: its node, and for each group the members, indices and sizes
    #[command(after_help = "\
Examples:
  cloudy data inspect /var/lib/orders
  cloudy data inspect /var/lib/orders --json | jq '.groups[].last'

Exit status:
  0    printed
  1    the directory is in use, damaged, or no data directory
  2    the command line is wrong")]
    Inspect(InspectArgs),
    /// Verify every record of a data directory, and name the damaged ones
    #[command(after_help = "\
Examples:
  cloudy data verify /var/lib/orders
  cloudy data verify /var/lib/orders --json | jq .damage

Exit status:
  0    no record is damaged
  1    a record is damaged, or the directory cannot be read
  2    the command line is wrong")]
    Verify(InspectArgs),
    /// Print the messages and views of a group as JSON lines, as `cloudy tail` does for a running node
    #[command(after_help = "\
Examples:
  cloudy data export /var/lib/orders
  cloudy data export /var/lib/orders --group orders --from 1000 | jq .text
  cloudy data export /var/lib/orders --format text

Exit status:
  0    everything from that index on was printed
  1    the directory is in use or damaged, or does not hold that index
  2    the command line is wrong
  141  the reader of the output has closed it")]
    Export(ExportArgs),
    /// Create a data directory with a new node and a new group that has these messages
    #[command(after_help = "\
Examples:
  cloudy data import /var/lib/new --group orders orders.jsonl
  cloudy data export /var/lib/old | cloudy data import /var/lib/new --group orders

FILE has the lines of `cloudy data export`, `cloudy tail` or `cloudy join`. Each message keeps its index and content; its
origin is the new node. The group has a new id and one member: start it by `cloudy join GROUP --data DIR --bind HOST:PORT`,
and other nodes join it.

Exit status:
  0    all messages are stored
  1    something failed, and DIR is as it was
  2    the command line is wrong")]
    Import(ImportArgs),
    /// Make a new group from one data directory, if all other members are lost for good
    #[command(after_help = "\
Examples:
  cloudy data recover /var/lib/orders                      asks the other members first
  cloudy data recover /var/lib/orders --others-are-lost    if none answers and none can return

The group gets a new id, so nodes of the former group, should they return, accept nothing of it. This node becomes its
only member; it has every message that this directory holds. If any node of the group answers, nothing is changed.
DIR keeps the former database beside the new one.

Exit status:
  0    recovered
  1    a member answers, or something failed: DIR is unchanged
  2    the command line is wrong
  130  interrupted")]
    Recover(RecoverArgs),
    /// Delete a group that has ended from a data directory, so that another one can have its name
    #[command(after_help = "\
Examples:
  cloudy data forget /var/lib/orders orders --yes
  cloudy data forget /var/lib/orders 0b9c2f6de1f0481c9c4c0c2f1a7d3e55 --yes --force    also one that may still run elsewhere

The node of the directory keeps its identity and its other groups. A group that has not ended, as far as the directory
knows, is not deleted: its other members may need the vote and the data of this node.

Exit status:
  0    deleted
  1    the directory is in use, the group has not ended, or --yes is missing: nothing is deleted
  2    the command line is wrong")]
    Forget(ForgetArgs),
}

/// Arguments of `cloudy data inspect` and `verify`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `cloudy data export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The group, by name or id [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// The first message to print [default: the first one that is stored]
    #[arg(long, value_name = "INDEX", allow_hyphen_values = true,
          value_parser = whole(NonZeroU64::MIN, INDEX_MAX, "1000"))]
    pub(crate) from: Option<NonZeroU64>,
    /// The form of the output
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Arguments of `cloudy data import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The directory to create; it may exist if it is empty
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The file with the messages [default: stdin]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The name of the new group
    #[arg(long, value_name = "NAME")]
    pub(crate) group: String,
    /// Accept messages that begin with a later index than 1: they get the indices from 1 on
    #[arg(long)]
    pub(crate) renumber: bool,
}

/// Arguments of `cloudy data forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The group, by name or id
    #[arg(value_name = "GROUP")]
    pub(crate) group: String,
    /// Delete it: without this option the command only says what it would delete
    #[arg(long)]
    pub(crate) yes: bool,
    /// Delete it also if it has not ended, as far as the directory knows
    #[arg(long)]
    pub(crate) force: bool,
}

/// Arguments of `cloudy data recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The data directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The group, by name or id [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Ask at this address too, if members may have another one than the directory knows
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) peers: Vec<String>,
    /// Timeout for the answer of each member
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) answer_timeout: Duration,
    /// None of the other members can return: what they alone have is lost. Without effect if one answers
    #[arg(long)]
    pub(crate) others_are_lost: bool,
    /// The cluster key, to ask the other members.
    #[command(flatten)]
    pub(crate) key: KeyFileArgs,
}
