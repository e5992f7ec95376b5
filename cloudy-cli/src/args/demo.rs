//! `cloudy demo`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::schedule::{self, At, During, Schedule, ScheduleError, Sides, Who};
use super::values::{retained, whole};
use super::{AdminArgs, FaultArgs, GroupArgs, KeyFileArgs, SLAVES_MAX, SessionArgs, TimeoutArgs, exit_status};
use crate::duration;
use crate::periods::Periods;
use crate::ring::{CatchUpChoice, FailureChoice};

/// The default rate of a slave in a demo with faults: four slaves then need a few megabytes a second, so that the 64
/// MiB that members retain cover an absence of ten seconds and more.
const RATE_WITH_FAULTS: NonZeroU32 = NonZeroU32::new(50_000).expect("not zero");

/// The default rate of a slave in a demo that stays: it leaves the machine to other programs.
const RATE_OF_STAY: NonZeroU32 = NonZeroU32::new(2_000).expect("not zero");

/// The longest time of a demo that stays.
const STAY_MAX: Duration = Duration::from_secs(24 * 3_600);

const SCHEDULED: &str = "Faults at a time";

/// Arguments of `cloudy demo`.
#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  cloudy demo
  cloudy demo --nodes 8 --send 5s --grace 2s
  cloudy demo --ring token --with-seed 7
  cloudy demo --loss 10% --latency 20ms --jitter 5ms
  cloudy demo --kill slave2@500ms --pause slave3@1s..1500ms
  cloudy demo --partition 1,2/3,4,master@500ms..1500ms
  cloudy demo --durability disk
  cloudy demo --result-dir results              slave-1.jsonl, slave-2.jsonl, …
  cloudy demo --json | jq .
  cloudy demo --stay --admin 127.0.0.1:7401     a live page at http://127.0.0.1:7401/, until Ctrl-C

Times of --kill, --pause and --partition count from the start of SEND and are before STOP, which is the last 200ms. WHO
is master, or a slave as 2, slave2 or slave-2. All slaves that were not killed must have the same result. With --json
the output lists the faults and the views.

", exit_status!()))]
pub(crate) struct DemoArgs {
    /// Number of slaves
    #[arg(long, value_name = "N", default_value_t = 4, allow_hyphen_values = true, value_parser = nodes)]
    pub(crate) nodes: u16,
    /// Time for which slaves broadcast
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse, allow_hyphen_values = true)]
    send: Duration,
    /// Broadcast until Ctrl-C, for a day at most, and then compare the results: to look at a running session by --admin
    #[arg(long, conflicts_with = "send")]
    stay: bool,
    /// Time without broadcasts after that; its end is reserved for the comparison
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) grace: Duration,
    /// Seed of the slaves' random numbers
    #[arg(long = "with-seed", alias = "seed", value_name = "NUMBER", default_value_t = 0, allow_hyphen_values = true,
          value_parser = whole(0, u64::MAX, "7"))]
    pub(crate) seed: u64,
    /// Options of the group.
    #[command(flatten)]
    pub(crate) group: GroupArgs,
    /// Policy for a slave that fails or stalls [default: wait; evict with --kill, --pause or --partition]
    #[arg(long, value_name = "POLICY")]
    on_failure: Option<FailureChoice>,
    /// What to do about a slave that fetches its result more slowly than the result grows
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) catch_up: CatchUpChoice,
    /// Maximum numbers that each slave broadcasts per second [default: unlimited; 50000 with --kill, --pause or
    /// --partition, because an evicted slave returns only while the others retain what it lacks; 2000 with --stay]
    #[arg(long, value_name = "PER-SECOND", allow_hyphen_values = true,
          value_parser = whole(NonZeroU32::MIN, NonZeroU32::MAX, "2000"))]
    rate: Option<NonZeroU32>,
    /// Bytes of the result that each slave retains in memory for slaves that return: a slave that lacks more cannot
    /// return
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = retained, allow_hyphen_values = true)]
    pub(crate) retain: u64,
    /// Write each slave's result to this directory, as JSON lines, while the session runs
    #[arg(long, value_name = "DIR")]
    pub(crate) result_dir: Option<PathBuf>,
    /// Print one JSON object on stdout and nothing else there
    #[arg(long)]
    pub(crate) json: bool,
    /// Kill a process at a time: slave2@500ms; repeatable
    #[arg(long, value_name = "WHO@TIME", value_parser = schedule::kill, allow_hyphen_values = true, help_heading = SCHEDULED)]
    kill: Vec<At<Who>>,
    /// Pause a process from one time to another: slave3@1s..1500ms; repeatable
    #[arg(long, value_name = "WHO@FROM..TO", value_parser = schedule::pause, allow_hyphen_values = true, help_heading = SCHEDULED)]
    pause: Vec<During<Who>>,
    /// Cut groups of processes off from each other for a time: 1,2/3,4,master@700ms..1200ms; repeatable. A process in
    /// no group reaches all
    #[arg(long, value_name = "WHO,…/WHO,…@FROM..TO", value_parser = schedule::partition, allow_hyphen_values = true, help_heading = SCHEDULED)]
    partition: Vec<During<Sides>>,
    /// Options of the session.
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Options of the cluster key.
    #[command(flatten)]
    pub(crate) key: KeyFileArgs,
    /// Timeouts of the session.
    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,
    /// The admin endpoint, of the first slave.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Injected faults.
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

impl DemoArgs {
    /// Time for which slaves broadcast.
    pub(crate) fn send(&self) -> Duration {
        if self.stay { STAY_MAX } else { self.send }
    }

    /// The session's periods.
    pub(crate) fn periods(&self) -> Periods {
        Periods::new(self.send(), self.grace)
    }

    /// The schedule of faults.
    ///
    /// # Errors
    /// A fault is impossible in this demo.
    pub(crate) fn schedule(&self) -> Result<Schedule, ScheduleError> {
        let Periods { send, grace, .. } = self.periods();
        Schedule::new(&self.kill, &self.pause, &self.partition, self.nodes, send + grace)
    }

    /// The policy for a slave that fails.
    pub(crate) fn on_failure(&self, schedule: &Schedule) -> FailureChoice {
        let default = if schedule.has_faults() { FailureChoice::Evict } else { FailureChoice::Wait };
        self.on_failure.unwrap_or(default)
    }

    /// Maximum numbers that each slave broadcasts per second.
    pub(crate) fn rate(&self, schedule: &Schedule) -> Option<NonZeroU32> {
        let default = if self.stay { Some(RATE_OF_STAY) } else { schedule.has_faults().then_some(RATE_WITH_FAULTS) };
        self.rate.or(default)
    }
}

/// A single slave's result could not be compared.
fn nodes(text: &str) -> Result<u16, String> {
    whole(2, SLAVES_MAX, "4")(text).map_err(|error| match text {
        "1" => "a demo compares results, so it needs 2 slaves or more; write for example 4".to_owned(),
        _ => error,
    })
}
