//! `cloudy data verify`: names damaged records.

use std::process::ExitCode;

use cloudy_node::data::{Verification, verify};
use miette::Report;
use serde_json::{Value, json};

use super::report;
use crate::args::InspectArgs;
use crate::output::{EXIT_EQUAL, EXIT_FAILED, print, report_panics, say_plainly};

/// The remedy for damage.
const REMEDY: &str = "help: check the disk, then restore the data directory from a backup made since its last run, or start with a new one and let the node join again";

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<ExitCode, Report> {
    // The database library checks a damaged file by assertions, and their outcome is reported as damage.
    std::panic::set_hook(Box::new(|_| {}));
    let verified = verify(&args.directory);
    report_panics();
    let verified = verified.map_err(report)?;
    print(&if args.json { json(&verified) } else { text(&verified) })?;
    if verified.damage.is_empty() {
        return Ok(ExitCode::from(EXIT_EQUAL));
    }
    if !args.json {
        say_plainly(REMEDY);
    }
    Ok(ExitCode::from(EXIT_FAILED))
}

fn text(verified: &Verification) -> String {
    let records: u64 = verified.tables.iter().map(|(_, table)| table.records).sum();
    let bytes: u64 = verified.tables.iter().map(|(_, table)| table.bytes).sum();
    if verified.damage.is_empty() {
        return format!("{records} records with {bytes} bytes are good\n");
    }
    let damage: String = verified.damage.iter().map(|damage| format!("damaged: {damage}\n")).collect();
    format!("{damage}{} of {records} records are damaged\n", verified.damage.len())
}

fn json(verified: &Verification) -> String {
    let tables = verified.tables.iter().map(|(group, table)| {
        json!({
            "group": group.to_string(),
            "table": table.table.to_string(),
            "records": table.records,
            "bytes": table.bytes,
        })
    });
    let damage = verified.damage.iter().map(|damage| {
        json!({
            "group": damage.group.map(|group| group.to_string()),
            "table": damage.table,
            "record": damage.record,
            "fault": damage.fault,
        })
    });
    let (tables, damage): (Vec<Value>, Vec<Value>) = (tables.collect(), damage.collect());
    let object = json!({ "node": verified.node.to_string(), "tables": tables, "damage": damage });
    format!("{object}\n")
}
