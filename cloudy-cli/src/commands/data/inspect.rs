//! `cloudy data inspect`: what a data directory holds.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use cloudy_node::NodeId;
use cloudy_node::data::{StoredGroup, StoredNode};
use miette::Report;
use serde_json::{Value, json};

use super::report;
use crate::args::InspectArgs;
use crate::output::{EXIT_EQUAL, print};
use crate::table::{Column, render};

/// Runs the command.
pub(super) fn run(args: &InspectArgs) -> Result<ExitCode, Report> {
    let node = StoredNode::open(&args.directory).map_err(report)?;
    let groups = node.groups().map_err(report)?;
    let id = (node.node_id(), node.format());
    print(&if args.json { json(&args.directory, id, &groups) } else { text(&args.directory, id, &groups) })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

fn json(directory: &Path, (node, format): (NodeId, u64), groups: &[StoredGroup]) -> String {
    let groups: Vec<Value> = groups.iter().map(|group| json_of(node, group)).collect();
    let object = json!({
        "directory": directory.display().to_string(),
        "node": node.to_string(),
        "disk_format": format,
        "groups": groups,
    });
    format!("{object}\n")
}

fn json_of(node: NodeId, group: &StoredGroup) -> Value {
    let member = |member: &cloudy_node::RingMember| {
        json!({
            "node": member.node.to_string(),
            "incarnation": member.incarnation.0,
            "addresses": member.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "advertised": member.advertised,
        })
    };
    let tables = group
        .tables
        .iter()
        .map(|table| json!({ "table": table.table.to_string(), "records": table.records, "bytes": table.bytes }));
    json!({
        "id": group.id.to_string(),
        "name": group.name,
        "creator": group.creator.to_string(),
        "view": group.view.as_ref().map(|view| view.id.0),
        "members": group.view.iter().flat_map(|view| &view.ring).map(member).collect::<Vec<_>>(),
        "is_member": group.view.as_ref().is_some_and(|view| view.rank_of(node).is_some()),
        "voters": group.voters.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "first": group.first.0,
        "last": group.last.0,
        "held": group.held,
        "snapshot": group.snapshot.map(|index| index.0),
        "closed": group.closed,
        "tables": tables.collect::<Vec<_>>(),
    })
}

fn text(directory: &Path, (node, format): (NodeId, u64), groups: &[StoredGroup]) -> String {
    let mut text = format!("directory  {}\nnode       {node}\n", directory.display());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "format     {format}");
    if groups.is_empty() {
        text.push_str("groups     none\n");
    }
    for group in groups {
        text.push_str(&text_of(node, group));
    }
    text
}

fn text_of(node: NodeId, group: &StoredGroup) -> String {
    let mut text = format!("\ngroup {:?}\n  id         {}\n  creator    {}\n", group.name, group.id, group.creator);
    let mut line = |name: &str, value: String| {
        // As above.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    match &group.view {
        None => line("view", "none yet".to_owned()),
        Some(view) => {
            line("view", format!("{}, members {}", view.id, view.members()));
            for member in &view.ring {
                let own = if member.node == node { ", this node" } else { "" };
                let address = member.addresses.first().map_or("no address".to_owned(), ToString::to_string);
                let name = member.advertised.as_ref().map(|name| format!("{name}, ")).unwrap_or_default();
                line("member", format!("{} at {name}{address}{own}", member.node));
            }
        }
    }
    if group.last < group.first {
        line("messages", "none".to_owned());
    } else {
        line("messages", format!("{} to {}", group.first, group.last));
    }
    if group.held > 0 {
        line("held", format!("{} more, which the members may have approved or not", group.held));
    }
    if let Some(snapshot) = group.snapshot {
        line("snapshot", format!("of the application's state at index {snapshot}"));
    }
    line("closed", if group.closed { "yes" } else { "no" }.to_owned());
    let columns = [Column::text("table"), Column::number("records"), Column::number("bytes")];
    let rows = group
        .tables
        .iter()
        .map(|table| vec![table.table.to_string(), table.records.to_string(), table.bytes.to_string()]);
    for row in render(&columns, rows).lines() {
        // As above.
        let _ = writeln!(text, "  {row}");
    }
    text
}
