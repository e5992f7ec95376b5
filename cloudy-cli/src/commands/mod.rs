//! One file per command.

mod attach;
mod bench;
mod check;
mod completions;
mod data;
mod demo;
mod doctor;
mod failover;
mod join;
mod key;
mod man;
mod master;
mod outcome;
mod slave;
mod status;
mod supervise;
mod tail;
mod top;
mod version;

use std::process::ExitCode;

use miette::Report;

use crate::args::Command;

/// Runs the command.
///
/// # Errors
/// A problem for the user, and its remedy.
pub(crate) async fn run(command: Command) -> Result<ExitCode, Report> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Master(args) => master::run(args).await,
        Command::Slave(args) if args.is_supervisor() => supervise::run(args).await,
        Command::Slave(args) => slave::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Join(args) => join::run(args).await,
        Command::Bench(args) => bench::run(*args).await,
        Command::BenchNode(_) => crate::bench::node::run_as_process().await,
        Command::Key(args) => key::run(args.command),
        Command::Status(args) => status::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Data(args) => data::run(args.command).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Version(args) => version::run(&args),
    }
}
