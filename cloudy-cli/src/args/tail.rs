//! `cloudy tail`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;

use super::values::{seed, whole};
use super::{AdminArgs, KeyFileArgs, SessionArgs};
use crate::duration;

/// Maximum index of a result: the protocol's maximum, `cloudy_proto::limits::ROUND_MAX`.
pub(crate) const INDEX_MAX: NonZeroU64 = NonZeroU64::new(1 << 56).unwrap();

/// Arguments of `cloudy tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy tail 127.0.0.1:10502
  cloudy tail 127.0.0.1:10502 --from 1000 | jq .value
  cloudy tail node-1.example:7000 --group orders

Each line is a JSON object: index, origin, seq and view of an approved message, and its value if it is a number of a
session, or its payload in hexadecimal. The last line, once the group has ended, has the count, and what was read from
index 1 on has the digest, and in a session the sum. All addresses of a name are tried side by side.

Exit status:
  0    the group has ended, and all of its result from that index on was printed
  1    something failed
  2    the command line is wrong
  130  interrupted before the group had ended
  141  the reader of the output has closed it")]
pub(crate) struct TailArgs {
    /// A node of the group
    #[arg(value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) address: String,
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
    /// Timeout without a coordinator of the group in reach, as when most of its nodes are gone
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) lost_timeout: Duration,
    /// The cluster key.
    #[command(flatten)]
    pub(crate) key: KeyFileArgs,
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
