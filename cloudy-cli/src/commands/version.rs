//! `cloudy version`.

use std::process::ExitCode;

use cloudy_node::{data_formats, wire_versions};
use miette::Report;
use serde_json::json;

use crate::args::VersionArgs;
use crate::output::{EXIT_EQUAL, print};

/// A range of data formats, for a reader.
pub(crate) fn formats(oldest: u64, newest: u64) -> String {
    if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") }
}

/// Prints the versions.
pub(crate) fn run(args: &VersionArgs) -> Result<ExitCode, Report> {
    let version = env!("CARGO_PKG_VERSION");
    let (wire, (oldest, newest)) = (wire_versions(), data_formats().into_inner());
    print(&if args.json {
        let formats = json!({
            "version": version,
            "wire": { "min": wire.min, "max": wire.max },
            "disk": { "min": oldest, "max": newest },
            "feature_level": wire.max,
        });
        format!("{formats}\n")
    } else {
        let disk = formats(oldest, newest);
        format!("cloudy {version}\nwire format {wire}\ndata format {disk}\nfeature level {}\n", wire.max)
    })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}
