//! `cloudy completions`.

use std::process::ExitCode;

use miette::Report;

use crate::args::{Cli, CompletionsArgs};
use crate::output::{EXIT_EQUAL, failure, print};

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode, Report> {
    // Into memory first: the generator panics if it cannot write, as into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::grammar(), "cloudy", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| failure(format_args!("the script is not text ({error})"), "choose another shell"))?;
    print(&script)?;
    Ok(ExitCode::from(EXIT_EQUAL))
}
