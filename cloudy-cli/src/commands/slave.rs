//! `cloudy slave`.

use std::process::ExitCode;

use miette::Report;

use crate::args::SlaveArgs;
use crate::output::failure;

/// Runs the command.
pub(crate) async fn run(_args: SlaveArgs) -> Result<ExitCode, Report> {
    Err(failure("this build of cloudy cannot run sessions", "build it with the session"))
}
