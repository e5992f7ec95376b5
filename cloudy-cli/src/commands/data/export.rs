//! `cloudy data export`: the lines of `cloudy tail`, from a data directory.

use std::process::ExitCode;

use cloudy_node::data::StoredNode;
use cloudy_node::{ApprovedItem, Index};
use miette::Report;

use super::report;
use crate::args::{ExportArgs, Format};
use crate::commands::tail::push_message;
use crate::lines::{Lines, messages, view_line};
use crate::output::{EXIT_EQUAL, print, say_plainly, write};

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
        let mut text = Vec::new();
        for item in &part {
            match item {
                ApprovedItem::Batch(entry) => {
                    messages(entry, from).for_each(|message| push_message(&mut text, &mut lines, args.format, &message))
                }
                ApprovedItem::View(installed) if args.format == Format::Json => {
                    text.extend_from_slice(view_line(installed).as_bytes());
                }
                ApprovedItem::View(_) => {}
            }
        }
        write(&text)?;
    }
    if let Some(end) = result.final_result().filter(|_| args.format == Format::Json) {
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
