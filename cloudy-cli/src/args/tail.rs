//! `cloudy tail`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{seed, wait, whole};
use super::{AdminArgs, SessionArgs, TrustArgs};

/// Maximum index of a result: the protocol's maximum, `cloudy_proto::limits::ROUND_MAX`.
pub(crate) const INDEX_MAX: NonZeroU64 = NonZeroU64::new(1 << 56).unwrap();

/// Maximum of `--last` and `--count`.
const COUNT_MAX: NonZeroU64 = INDEX_MAX;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object for each message and each view
    #[default]
    Json,
    /// The payload of each message as it is, and a line end
    Text,
    /// The payload of each message in base64
    Base64,
}

/// Arguments of `cloudy tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy tail 127.0.0.1:10502
  cloudy tail 127.0.0.1:10502 --from 1000 | jq .value
  cloudy tail node-1.example:7000 --group orders
  cloudy tail node-1.example:7000 --group orders --last 10 --format text
  cloudy tail --seed node-1.example:7000 --seed node-2.example:7000 --group orders --new --count 1

Each line is a JSON object: index, origin, seq and view of an approved message, and its value if it is a number of a
session, or its payload as text, or as base64 if it is not UTF-8. The last line, once the group has ended, has the count,
and what was read from index 1 on has the digest, and in a session the sum. All seeds, and all addresses of a name, are
tried side by side.

Exit status:
  0    the group has ended, and all of its result from that index on was printed; or --count messages were
  1    something failed
  2    the command line is wrong
  130  interrupted before the group had ended
  141  the reader of the output has closed it")]
pub(crate) struct TailArgs {
    /// A node of the group
    #[arg(value_name = "HOST:PORT", value_parser = seed, required_unless_present = "seeds")]
    pub(crate) address: Option<String>,
    /// Another node of the group; repeatable. The variable has several, with commas between them
    #[arg(long = "seed", value_name = "HOST:PORT", env = "CLOUDY_SEEDS", value_delimiter = ',', value_parser = seed)]
    pub(crate) seeds: Vec<String>,
    /// The group's name [default: that of the session]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The session.
    #[command(flatten)]
    session: SessionArgs,
    /// The first message to print
    #[arg(long, value_name = "INDEX", default_value = "1", allow_hyphen_values = true,
          value_parser = whole(NonZeroU64::MIN, INDEX_MAX, "1000"))]
    pub(crate) from: NonZeroU64,
    /// Begin with the last N messages at this moment
    #[arg(long, value_name = "N", allow_hyphen_values = true, conflicts_with_all = ["from", "new"],
          value_parser = whole(NonZeroU64::MIN, COUNT_MAX, "10"))]
    pub(crate) last: Option<NonZeroU64>,
    /// Print only messages that are approved from this moment on
    #[arg(long, conflicts_with = "from")]
    pub(crate) new: bool,
    /// End after N messages
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = whole(NonZeroU64::MIN, COUNT_MAX, "10"))]
    pub(crate) count: Option<NonZeroU64>,
    /// The form of the output
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Timeout without a coordinator of the group in reach, as when most of its nodes are gone
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) lost_timeout: Duration,
    /// The cluster key, or certificates.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
    /// The admin endpoint.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

impl TailArgs {
    /// The group's name.
    pub(crate) fn group_name(&self) -> String {
        self.group.clone().unwrap_or_else(|| self.session.name.group_name())
    }
}
