//! `cloudy data forget`: deletes a group from a data directory.

use std::process::ExitCode;

use cloudy_node::data::{DataError, StoredGroup, StoredNode, forget_group};
use miette::Report;

use super::report;
use crate::args::ForgetArgs;
use crate::output::{EXIT_EQUAL, failure, print};

/// Runs the command.
pub(super) fn run(args: &ForgetArgs) -> Result<ExitCode, Report> {
    let group = StoredNode::open(&args.directory).and_then(|node| node.group(Some(&args.group))).map_err(report)?;
    let StoredGroup { name, id, last, .. } = &group;
    let what = format!("group {name:?} ({id}) with its messages up to index {last}");
    if !args.yes && (group.has_ended() || args.force) {
        return Err(failure(
            format_args!(
                "{} holds {what}, which this command deletes; nothing is deleted yet",
                args.directory.display()
            ),
            "run it again with --yes; `cloudy data export` prints the messages before",
        ));
    }
    forget_group(&args.directory, &group, args.force).map_err(|error| match error {
        DataError::NotEnded { .. } => failure(
            format_args!(
                "group {name:?} has not ended, as far as this directory knows: other members may need this node's vote and \
                 data; nothing was deleted"
            ),
            "start the node and let it leave; if the group is lost, or this node must not return to it, pass --force",
        ),
        error => report(error),
    })?;
    print(&format!("deleted {what}\n"))?;
    Ok(ExitCode::from(EXIT_EQUAL))
}
