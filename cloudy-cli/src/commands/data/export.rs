//! `cloudy data export`: the lines of `cloudy tail`, from a data directory.

use std::process::ExitCode;

use cloudy_node::Index;
use cloudy_node::data::StoredNode;
use miette::Report;

use super::report;
use crate::args::ExportArgs;
use crate::lines::Lines;
use crate::output::{EXIT_EQUAL, print, say_plainly};

/// Runs the command.
pub(super) fn run(args: &ExportArgs) -> Result<ExitCode, Report> {
    let node = StoredNode::open(&args.directory).map_err(report)?;
    let group = node.group(args.group.as_deref()).map_err(report)?;
    let from = args.from.map_or(group.first, |from| Index(from.get()));
    if args.from.is_none() && from > Index(1) {
        say_plainly(&format!("messages before index {from} are not in this directory"));
    }
    let (mut result, mut lines) = (node.read(&group, from).map_err(report)?, Lines::of_group(&group.name));
    while let Some(part) = result.next_part().map_err(report)? {
        let text: String = part.iter().map(|item| lines.of(item)).collect();
        print(&text)?;
    }
    if let Some(end) = result.final_result() {
        print(&lines.last(Some(end), true))?;
    }
    if group.held > 0 {
        say_plainly(&format!(
            "{} more messages are held without an approval: the node learns from the other members whether they count",
            group.held
        ));
    }
    Ok(ExitCode::from(EXIT_EQUAL))
}
