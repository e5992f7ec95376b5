//! `cloudy status` and `cloudy check`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use cloudy_node::admin::AdminAddress;

use super::values::{wait, whole};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// For readers.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// The node that is asked.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetArgs {
    /// The admin endpoint of the node: HOST:PORT or unix:PATH
    #[arg(value_name = "TARGET", env = "CLOUDY_ADMIN", default_value = "127.0.0.1:7401")]
    pub(crate) target: AdminAddress,
    /// The form of the answer
    #[arg(short = 'o', long = "output", value_name = "FORM", value_enum, default_value_t)]
    pub(crate) output: OutputForm,
    /// Timeout for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) answer_timeout: Duration,
}

/// Arguments of `cloudy status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy status                                 the node with --admin 127.0.0.1:7401
  cloudy status unix:/run/cloudy.sock
  cloudy status 10.0.0.1:7401 -o json | jq '.groups[].index'

CLOUDY_ADMIN names the target if none is given.

Exit status:
  0    the node answered, ready or not: see `cloudy check`
  1    it did not answer
  2    the command line is wrong")]
pub(crate) struct StatusArgs {
    /// The node.
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Arguments of `cloudy check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy check 127.0.0.1:7401 --expect 3 --lag-critical 10000
  cloudy check unix:/run/cloudy.sock --group orders --lag-warning 100 -o json

A plugin for Nagios, Icinga, Sensu and others: one line with performance data.

Exit status:
  0    OK: every group works here, and is within the limits
  1    WARNING: a limit for warnings is exceeded
  2    CRITICAL: the node does not answer, is not ready, or a critical limit is exceeded
  3    UNKNOWN: the answer or the command line is wrong")]
pub(crate) struct CheckArgs {
    /// The node.
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Check this group only, and that it is there
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Critical with fewer members than this in the view
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = whole(1_u64, 64, "3"))]
    pub(crate) expect: Option<u64>,
    /// Warning if the node or a member lacks more messages than this
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = whole(0_u64, u64::MAX, "1000"))]
    pub(crate) lag_warning: Option<u64>,
    /// Critical if the node or a member lacks more messages than this
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = whole(0_u64, u64::MAX, "10000"))]
    pub(crate) lag_critical: Option<u64>,
}
