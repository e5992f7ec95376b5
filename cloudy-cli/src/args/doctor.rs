//! `cloudy doctor`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cloudy_node::admin::AdminAddress;

use super::TrustArgs;
use super::values::{seed, wait};

/// Arguments of `cloudy doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy doctor                                          this machine
  cloudy doctor --peer 10.0.0.2:7400 --peer 10.0.0.3:7400 --data /var/lib/orders
  cloudy doctor --status 10.0.0.2:7401 --multicast 10.0.0.1 --json

Without findings nothing is printed. Each finding has a remedy. Run it as the node's user, on both sides of a path.

Exit status:
  0    nothing was found
  1    warnings
  2    something is broken, or the command line is wrong")]
pub(crate) struct DoctorArgs {
    /// A node to link to, with the key: both directions, round trip and largest datagram
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) peers: Vec<String>,
    /// The admin endpoint of a node, to compare clocks and versions
    #[arg(long = "status", value_name = "ADDRESS")]
    pub(crate) status: Vec<AdminAddress>,
    /// The node's data directory: rights, format, and the time of a sync
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Check multicast on the interface with this address
    #[arg(long, value_name = "IP")]
    pub(crate) multicast: Option<IpAddr>,
    /// Timeout for each answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = wait, allow_hyphen_values = true)]
    pub(crate) timeout: Duration,
    /// Print one JSON object with all checks
    #[arg(long)]
    pub(crate) json: bool,
    /// The cluster key, or certificates.
    #[command(flatten)]
    pub(crate) trust: TrustArgs,
}
