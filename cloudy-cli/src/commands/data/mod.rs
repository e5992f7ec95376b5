//! `cloudy data`.

mod export;
mod forget;
mod import;
mod inspect;
mod recover;
mod verify;

use std::process::ExitCode;

use cloudy_node::data::DataError;
use miette::{IntoDiagnostic, Report};
use tokio::task::spawn_blocking;

use crate::args::DataCommand;

/// Runs the command.
pub(crate) async fn run(command: DataCommand) -> Result<ExitCode, Report> {
    match command {
        DataCommand::Inspect(args) => blocking(move || inspect::run(&args)).await,
        DataCommand::Verify(args) => blocking(move || verify::run(&args)).await,
        DataCommand::Export(args) => blocking(move || export::run(&args)).await,
        DataCommand::Import(args) => import::run(args).await,
        DataCommand::Forget(args) => blocking(move || forget::run(&args)).await,
        DataCommand::Recover(args) => recover::run(args).await,
    }
}

/// Runs work that waits for the disk on a thread of its own, so that signals end the command meanwhile.
async fn blocking(work: impl FnOnce() -> Result<ExitCode, Report> + Send + 'static) -> Result<ExitCode, Report> {
    spawn_blocking(work).await.into_diagnostic()?
}

/// An error of the library: its text has the remedy.
fn report(error: DataError) -> Report {
    Report::msg(error)
}
