//! `cloudy version`.

use std::process::ExitCode;

use cloudy_node::{DATA_FORMAT_VERSION, WIRE_VERSION};
use miette::Report;
use serde_json::json;

use crate::args::VersionArgs;
use crate::output::{EXIT_EQUAL, print};

/// Prints the versions.
pub(crate) fn run(args: &VersionArgs) -> Result<ExitCode, Report> {
    let version = env!("CARGO_PKG_VERSION");
    print(&if args.json {
        format!("{}\n", json!({ "version": version, "wire": WIRE_VERSION, "disk": DATA_FORMAT_VERSION }))
    } else {
        format!("cloudy {version}\nwire format {WIRE_VERSION}\ndata format {DATA_FORMAT_VERSION}\n")
    })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}
