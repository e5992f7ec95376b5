//! `cloudy demo`.

use std::process::ExitCode;

use miette::Report;

use crate::args::DemoArgs;
use crate::output::failure;

/// Runs the command.
pub(crate) async fn run(_args: DemoArgs) -> Result<ExitCode, Report> {
    Err(failure("this build of cloudy cannot run sessions", "build it with the session"))
}
