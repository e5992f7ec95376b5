//! `cloudy top`.

use std::time::Duration;

use clap::Args;
use cloudy_node::admin::AdminAddress;

use crate::duration;

/// Arguments of `cloudy top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy top                                    the node with --admin 127.0.0.1:7401
  cloudy top 10.0.0.1:7401 10.0.0.2:7401 unix:/run/cloudy.sock
  cloudy top --once                             one picture, for scripts

The keys q and Ctrl-C end it. CLOUDY_ADMIN names the target if none is given.

Exit status:
  0    ended by a key or a signal; with --once: every node answered
  1    there is no terminal; with --once: a node did not answer
  2    the command line is wrong")]
pub(crate) struct TopArgs {
    /// The admin endpoints of the nodes: HOST:PORT or unix:PATH
    #[arg(value_name = "TARGET", env = "CLOUDY_ADMIN", default_value = "127.0.0.1:7401")]
    pub(crate) targets: Vec<AdminAddress>,
    /// The time between two pictures
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) refresh: Duration,
    /// Print one picture and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Timeout for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) answer_timeout: Duration,
}
