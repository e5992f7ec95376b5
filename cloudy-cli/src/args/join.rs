//! `cloudy join`.

use std::num::{NonZeroU16, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::tail::INDEX_MAX;
use super::values::{retained, seed, wait, whole};
use super::{AdminArgs, TrustArgs};
use crate::ring::DurabilityChoice;

/// The most members that a group can be created with: `cloudy_proto::limits::MEMBERS_MAX`.
const EXPECT_MAX: NonZeroU16 = NonZeroU16::new(64).unwrap();

/// Arguments of `cloudy join`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy join orders --bind 127.0.0.1:7400 --expect 1
  cloudy join orders --bind 10.0.0.1:7400 --seed 10.0.0.1:7400 --seed 10.0.0.2:7400 --seed 10.0.0.3:7400 --expect 3
  cloudy join orders --bind 10.0.0.1:7400 --seed orders.example:7400 --data /var/lib/orders --durability disk --stay
  cloudy join orders --bind 10.0.0.1:7400 --seed orders.example:7400 --exec 'cat >> log' --from 1001

Each line of stdin is broadcast. Each line of stdout is a JSON object:
  {\"index\":17,\"origin\":\"…\",\"incarnation\":1,\"seq\":4,\"text\":\"…\"}  a message; base64 in place of text if it is not UTF-8
  {\"view\":3,\"index\":17,\"members\":[…]}         a view: the members from this index on
  {\"receipt\":4,\"index\":17,\"incarnation\":1}    this node's message 4 is in the result
  {\"rejected\":4,\"error\":\"…\"}                  this node's message 4 is in no result; unknown: it may be in it
  {\"expired\":4}                                line 4 is in no result: the group did not accept it within --expire
A line of at most 16 MiB is a message, without its line feed. At the end of stdin the node waits for its receipts and
leaves the group, unless --stay. The group is closed once its last member has left. A signal makes a node leave; with
--durability disk it makes the node stop, and the group continues without it until it is started again.

Run the same command again to continue after a crash. With --data the node resumes its group, and the output continues where it
stopped. If the process was killed while it wrote, a pipe gets the lines of that write again, and a file that the output
is appended to has no gap and no repeat. --from has the index after the last message that was read.

Exit status:
  0    all lines are in the result and the node has left, or no other member gives a sign of life, or a signal ended it
  1    something failed, a line is not in the result, or the group was closed before its result was complete here
  2    the command line is wrong
  130  interrupted
  141  the reader of the output has closed it")]
pub(crate) struct JoinArgs {
    /// The group's name
    #[arg(value_name = "GROUP")]
    pub(crate) group: String,
    /// The address to listen on, at which the other nodes reach this one
    #[arg(long, value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) bind: String,
    /// A node to ask, this one or another; the same at all nodes. The variable has several, with commas between them
    #[arg(long = "seed", value_name = "HOST:PORT", env = "CLOUDY_SEEDS", value_delimiter = ',', value_parser = seed)]
    pub(crate) seeds: Vec<String>,
    /// The name or address at which the others find this node, if it is not the one that it listens on, or if that changes at
    /// a restart: behind an address translation, or in Kubernetes. The group stores it with the member
    #[arg(long, value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) advertise: Option<String>,
    /// Create the group with this many members if no node in reach is in it: more than half of the seeds [default: only
    /// join]
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = whole(NonZeroU16::MIN, EXPECT_MAX, "3"))]
    pub(crate) expect: Option<NonZeroU16>,
    /// The directory for the node's identity and for groups on disk, created on first use
    #[arg(long, value_name = "DIR", conflicts_with = "cert")]
    pub(crate) data: Option<PathBuf>,
    /// Where the group keeps its messages if it is created; disk needs --data
    #[arg(long, value_name = "WHERE", default_value_t)]
    pub(crate) durability: DurabilityChoice,
    /// Size of the part of the result to keep in memory for nodes that join or return: a node that misses more needs a
    /// group on disk; at least 1MiB
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = retained, allow_hyphen_values = true)]
    pub(crate) retain: u64,
    /// The first message to print [default: with --data the first one that an earlier process has not printed, else 1]
    #[arg(long, value_name = "INDEX", allow_hyphen_values = true,
          value_parser = whole(NonZeroU64::MIN, INDEX_MAX, "1000"))]
    pub(crate) from: Option<NonZeroU64>,
    /// Withdraw a line that the group does not accept in this time: it is in no result, for certain [default: wait]
    #[arg(long, value_name = "TIME", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) expire: Option<Duration>,
    /// Stay in the group after the end of stdin
    #[arg(long)]
    pub(crate) stay: bool,
    /// Run this command by sh for each message, one at a time: the message is its stdin, and CLOUDY_INDEX, CLOUDY_ORIGIN
    /// and CLOUDY_SEQ are set. If it fails, this node ends, and names the index to continue at
    #[arg(long, value_name = "COMMAND")]
    pub(crate) exec: Option<String>,
    /// How long to wait until the group is open
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) open_timeout: Duration,
    /// How long the last member, when it leaves, waits for evicted members that give no sign of life
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) heir_timeout: Duration,
    /// The cluster key, or certificates.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// Append a JSON line for each join, eviction, leave and change of keys to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// The admin endpoint.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}
