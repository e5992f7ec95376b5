//! `cloudy master`.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::Args;

use super::values::{multicast_group, seed, whole};
use super::{GroupArgs, ListenArgs, ProcessArgs, SLAVES_MAX, TimeoutArgs, exit_status};
use crate::duration;
use crate::periods::Periods;
use crate::ring::{CatchUpChoice, FailureChoice};

const SEND_DEFAULT: Duration = Duration::from_secs(2);
const GRACE_DEFAULT: Duration = Duration::from_secs(1);

/// Arguments of `cloudy master`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy master 127.0.0.1 10501 2000000 1000000 0
  cloudy master 127.0.0.1 10501 2s 1s 0 --ring token
  cloudy master 127.0.0.1 10501 --send-for 2 --wait-for 1 --with-seed 0
  cloudy master 192.0.2.1 10501 2s 1s --slave node-1.example:10502 --slave node-2.example:10502
  cloudy master 192.0.2.1 10501 2s 1s --expect 4 --discovery-timeout 10s
  cloudy master 192.0.2.9 10501 --attach
  cloudy master 127.0.0.1 10501 2s 1s --session team-a
  cloudy master 127.0.0.1 10501 2s 1s 0 --durability disk --data /var/lib/cloudy

The comparison of results gets the last 200ms of GRACE, or of SEND where GRACE has no more than that.

", exit_status!()))]
pub(crate) struct MasterArgs {
    /// The address.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Time for which slaves broadcast: 2s, 500ms; a number without a unit is microseconds [default: 2s]
    #[arg(value_parser = duration::parse, requires = "grace", allow_hyphen_values = true)]
    send: Option<Duration>,
    /// Time without broadcasts after that: 1s; a number without a unit is microseconds [default: 1s]
    #[arg(value_parser = duration::parse, allow_hyphen_values = true)]
    grace: Option<Duration>,
    /// Seed of the slaves' random numbers [default: 0]
    #[arg(allow_hyphen_values = true, value_parser = whole(0, u64::MAX, "7"))]
    seed: Option<u64>,
    /// The same as SEND; a number without a unit is seconds
    #[arg(long, value_name = "SECONDS", value_parser = duration::parse_seconds, conflicts_with_all = POSITIONAL,
          allow_hyphen_values = true)]
    send_for: Option<Duration>,
    /// The same as GRACE; a number without a unit is seconds
    #[arg(long, value_name = "SECONDS", value_parser = duration::parse_seconds, conflicts_with_all = POSITIONAL,
          allow_hyphen_values = true)]
    wait_for: Option<Duration>,
    /// The same as SEED
    #[arg(long, value_name = "NUMBER", conflicts_with_all = POSITIONAL, allow_hyphen_values = true,
          value_parser = whole(0, u64::MAX, "7"))]
    with_seed: Option<u64>,
    /// Options of the group.
    #[command(flatten)]
    pub(crate) group: GroupArgs,
    /// Policy for a slave that fails or stalls
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) on_failure: FailureChoice,
    /// Policy for a slave that fetches its result more slowly than the result grows
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) catch_up: CatchUpChoice,
    /// A slave by its address, in place of multicast discovery; repeatable. All addresses of a name are tried, and
    /// several names of one slave count once. The variable has several, with commas between them
    #[arg(long = "slave", visible_alias = "seed", value_name = "HOST:PORT", env = "CLOUDY_SEEDS", value_delimiter = ',',
          value_parser = seed)]
    pub(crate) slaves: Vec<String>,
    /// Begin as soon as this many slaves have accepted, and without any others; fewer at the discovery timeout are an error
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = whole(1, SLAVES_MAX, "4"))]
    pub(crate) expect: Option<u16>,
    /// Time for the search for slaves
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) discovery_timeout: Duration,
    /// Multicast group and port for discovery, if slaves use another than the default
    #[arg(long, value_name = "GROUP:PORT", default_value_t = cloudy_node::discovery::GROUP, value_parser = multicast_group)]
    pub(crate) discovery_group: SocketAddrV4,
    /// Attach to a running session in place of a new one: its master is gone, or on another host. It ends like that
    /// master; Ctrl-C ends the session
    #[arg(long, conflicts_with_all = POSITIONAL,
          conflicts_with_all = ["send_for", "wait_for", "with_seed", "ring", "on_failure", "catch_up", "durability", "expect", "directory",
                               "failure_timeout", "timeout_max"])]
    pub(crate) attach: bool,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Timeouts of the session.
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
    /// Options of every process.
    #[command(flatten)]
    pub(crate) process: ProcessArgs,
}

const POSITIONAL: [&str; 3] = ["send", "grace", "seed"];

impl MasterArgs {
    /// The session's periods, in either spelling.
    pub(crate) fn periods(&self) -> Periods {
        let send = self.send.or(self.send_for).unwrap_or(SEND_DEFAULT);
        let grace = self.grace.or(self.wait_for).unwrap_or(GRACE_DEFAULT);
        Periods::new(send, grace)
    }

    /// The seed, in either spelling.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.or(self.with_seed).unwrap_or(0)
    }
}
