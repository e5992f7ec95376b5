//! `cloudy slave`.

use std::net::{SocketAddr, SocketAddrV4};
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use super::values::{multicast_group, retained, seed, whole};
use super::{ListenArgs, ProcessArgs, exit_status};

/// Arguments of `cloudy slave`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy slave 127.0.0.1 10502
  cloudy slave [::1]:10502
  cloudy slave 127.0.0.1 10502 --result result.jsonl
  cloudy slave 127.0.0.1 10502 --supervise
  cloudy slave 127.0.0.1 10502 --data /var/lib/cloudy
  cloudy slave 127.0.0.1 10502 --session team-a
  cloudy slave 0.0.0.0 10502 --stay --cluster-key /etc/cloudy/cluster.key

A result file has a JSON object per line: index, origin, seq, view and value of each approved message, and a last line
with count, sum and digest. It is written while the session runs: follow it with tail -f. What it holds before stays until
a session begins. It has to be a regular file, or /dev/null, and only one process writes to it.

Ctrl-C, SIGTERM and SIGHUP make a slave leave its session, which continues without it; a second signal ends it at once.
A slave that is ended by SIGTERM or SIGHUP, while it waits or by leaving, has status 0.

", exit_status!()))]
pub(crate) struct SlaveArgs {
    /// The address.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Write the result to this file, as JSON lines, while the session runs
    #[arg(long, value_name = "FILE")]
    pub(crate) result: Option<PathBuf>,
    /// Wait for the next master after a session
    #[arg(long)]
    pub(crate) stay: bool,
    /// Run the node in a separate process, which is restarted after a crash and rejoins its session
    #[arg(long)]
    pub(crate) supervise: bool,
    /// Read the node's private key from a supervisor on stdin, and end with the process that holds its other end
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
    /// The address, from a supervisor
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub(crate) at: Option<SocketAddr>,
    /// Print one JSON object per session on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not answer multicast discovery: masters must name this slave
    #[arg(long)]
    pub(crate) no_discovery: bool,
    /// Maximum numbers that the slave broadcasts per second [default: unlimited]
    #[arg(long, value_name = "PER-SECOND", allow_hyphen_values = true,
          value_parser = whole(NonZeroU32::MIN, NonZeroU32::MAX, "2000"))]
    pub(crate) rate: Option<NonZeroU32>,
    /// Size of the part of a session's result to keep in memory for slaves that rejoin or lag: payloads, and some 300
    /// bytes a slot; at least 1MiB. A slave that misses more cannot rejoin, unless the session is on disk
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = retained, allow_hyphen_values = true)]
    pub(crate) retain: u64,
    /// The multicast group and port for discovery; on IPv6 ff12:: and the group's four bytes
    #[arg(long, value_name = "GROUP:PORT", default_value_t = cloudy_node::discovery::GROUP, value_parser = multicast_group)]
    pub(crate) discovery_group: SocketAddrV4,
    /// A node that may know where the others are, by its name or address: it is asked when this slave is restarted in a
    /// session and others have moved; repeatable. The variable has several, with commas between them
    #[arg(long = "seed", value_name = "HOST:PORT", env = "CLOUDY_SEEDS", value_delimiter = ',', value_parser = seed)]
    pub(crate) seeds: Vec<String>,
    /// The name or address at which the others find this node, if it is not the one that it listens on, or if that changes at
    /// a restart: behind an address translation, or in Kubernetes. The group stores it with the member
    #[arg(long, value_name = "HOST:PORT", value_parser = seed)]
    pub(crate) advertise: Option<String>,
    /// Options of every process.
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

impl SlaveArgs {
    /// Whether this process only supervises the slave's.
    pub(crate) fn is_supervisor(&self) -> bool {
        self.supervise && !self.supervised
    }
}
