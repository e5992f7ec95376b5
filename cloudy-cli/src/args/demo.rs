//! `cloudy demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{FaultArgs, KeyFileArgs, SLAVES_MAX, exit_status};
use crate::duration;
use crate::ring::{FailureChoice, RingChoice};

/// Arguments of `cloudy demo`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy demo
  cloudy demo --nodes 8 --send 5s --grace 2s
  cloudy demo --ring token --seed 7
  cloudy demo --loss 10% --latency 20ms --jitter 5ms
  cloudy demo --result-dir results              slave-1.jsonl, slave-2.jsonl, …
  cloudy demo --json | jq .

", exit_status!()))]
pub(crate) struct DemoArgs {
    /// How many slaves
    #[arg(long, value_name = "N", default_value_t = 4, allow_negative_numbers = true,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(SLAVES_MAX)))]
    pub(crate) nodes: u16,
    /// How long slaves broadcast
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) send: Duration,
    /// How long the session goes on without broadcasts; its end is set apart for the comparison
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) grace: Duration,
    /// Where the slaves' random numbers start
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// When a slave may send
    #[arg(long, value_name = "MODEL", default_value_t)]
    pub(crate) ring: RingChoice,
    /// What to do about a slave that fails or stalls
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) on_failure: FailureChoice,
    /// Write each slave's result into this directory, as JSON lines, while the session runs
    #[arg(long, value_name = "DIR")]
    pub(crate) result_dir: Option<PathBuf>,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Which cluster key.
    #[command(flatten)]
    pub(crate) key: KeyFileArgs,
    /// Which faults.
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}
