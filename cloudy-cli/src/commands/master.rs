//! `cloudy master`.

use std::process::ExitCode;

use miette::Report;

use crate::args::MasterArgs;
use crate::output::failure;

/// Runs the command.
pub(crate) async fn run(_args: MasterArgs) -> Result<ExitCode, Report> {
    Err(failure("this build of cloudy cannot run sessions", "build it with the session"))
}
