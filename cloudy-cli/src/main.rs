//! The `cloudy` command: sessions of a master and its slaves.
#![forbid(unsafe_code)]

mod admin_client;
mod args;
mod audit;
mod bench;
mod children;
mod commands;
mod demo;
mod duration;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod huge_pages;
mod interrupts;
mod keys;
mod lines;
mod logging;
mod node;
mod orders;
mod output;
mod percent;
mod periods;
mod position;
mod program;
mod progress;
mod report;
mod ring;
mod service;
mod sink;
mod table;
mod verdict;
mod watcher;
mod words;

use std::process::ExitCode;

use miette::Report;

fn main() -> ExitCode {
    program::keep_name();
    let (cli, warnings) = match args::Cli::read() {
        Ok(read) => read,
        // A wrong command line of a plugin is no critical state of the service.
        Err(error) if error.use_stderr() && args::is_check() => {
            let printed = output::print_usage(&error);
            return end(printed.map_or(ExitCode::FAILURE, |_| ExitCode::from(output::EXIT_UNKNOWN)));
        }
        Err(error) => return end(output::status(output::print_usage(&error))),
    };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    huge_pages::ask(cli.command.runs_a_node(), cli.no_huge_pages);
    // After a restart of this process, which would repeat them.
    warnings.iter().for_each(|warning| output::say_plainly(warning));
    output::report_panics();
    let ended = std::panic::catch_unwind(|| start(cli));
    end(ended.map_or(ExitCode::from(output::EXIT_PANICKED), output::status))
}

/// Earlier output is written first.
fn end(status: ExitCode) -> ExitCode {
    output::finish();
    status
}

fn start(cli: args::Cli) -> Result<ExitCode, Report> {
    logging::start(cli.verbose, cli.log_format, cli.color)?;
    let build = |()| tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = interrupts::has_files_for_signals().and_then(build).map_err(|error| {
        output::failure(format_args!("the runtime does not start ({error})"), output::RAISE_FILE_LIMIT)
    })?;
    let ended = runtime.block_on(async {
        interrupts::survive_full_files();
        commands::run(cli.command).await
    });
    // A call that still blocks, such as a write to a file system that hangs, does not delay the end.
    runtime.shutdown_background();
    ended
}
