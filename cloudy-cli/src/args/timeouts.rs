//! The timeouts of a session.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use crate::duration;

/// Three heartbeats: with less, healthy slaves would count as failed.
const FAILURE_TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// Far above the delays of every usable path and disk.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// The timeouts of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Timeouts of the session; they grow with measured round trips, gaps and syncs")]
pub(crate) struct TimeoutArgs {
    /// Silence after which a slave counts as failed; at least 150ms
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = timeout, allow_hyphen_values = true)]
    pub(crate) failure_timeout: Duration,
    /// Maximum of the timeouts, which grow for slow paths, processes and disks; at the failure timeout or below,
    /// timeouts are fixed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, allow_hyphen_values = true)]
    pub(crate) timeout_max: Duration,
}

impl TimeoutArgs {
    /// The arguments that give a master the same timeouts.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let values = [("--failure-timeout", self.failure_timeout), ("--timeout-max", self.timeout_max)];
        values.into_iter().flat_map(|(name, value)| [name.into(), duration::show(value).into()]).collect()
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text).map_err(|error| error.to_string())?;
    if !(FAILURE_TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
        let [min, max] = [FAILURE_TIMEOUT_MIN, TIMEOUT_MAX].map(duration::show);
        return Err(format!("not from {min} to {max}; write for example 500ms"));
    }
    Ok(timeout)
}
