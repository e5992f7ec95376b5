//! `cloudy status`: the state of a node, from its admin endpoint.

use std::fmt::Write as _;
use std::process::ExitCode;

use cloudy_node::WireVersions;
use cloudy_node::admin::{GroupStatus, MemberEntry, NodeStatus};
use miette::Report;

use crate::admin_client::fetch;
use crate::args::{OutputForm, StatusArgs};
use crate::commands::version::formats;
use crate::output::{EXIT_EQUAL, print};
use crate::table::{Column, render};

const COLUMNS: [Column; 8] = [
    Column::number("rank"),
    Column::text("node"),
    Column::text("address"),
    Column::text("state"),
    Column::number("index"),
    Column::number("lag"),
    Column::number("round trip ms"),
    Column::number("confirms ms"),
];

/// Runs the command.
pub(crate) async fn run(args: StatusArgs) -> Result<ExitCode, Report> {
    let (json, status) = fetch(&args.target.target, args.target.answer_timeout).await.map_err(Report::msg)?;
    print(&match args.target.output {
        OutputForm::Json => format!("{json}\n"),
        OutputForm::Table => text(&status),
    })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

fn text(status: &NodeStatus) -> String {
    let mut text = format!(
        "node     {} at {}\nversion  {}, wire {}, data {}\nstate    {}\n",
        status.node,
        status.address,
        shown(&status.version),
        WireVersions { min: status.wire_version_min, max: status.wire_version },
        formats(status.disk_format_min, status.disk_format),
        if status.ready { "ready" } else { "not ready" }
    );
    for reason in &status.reasons {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "         {}", shown(reason));
    }
    if let Some(error) = status.disk.as_ref().and_then(|disk| disk.error.as_ref()) {
        // As above.
        let _ = writeln!(text, "disk     {}", shown(error));
    }
    status.groups.iter().for_each(|group| text.push_str(&text_of(group)));
    for ended in &status.ended {
        // As above.
        let _ = writeln!(text, "\nended    group {} ({}): {}", shown(&ended.name), ended.id, shown(&ended.reason));
    }
    text
}

fn text_of(group: &GroupStatus) -> String {
    let view = group.view.as_ref().map_or("none yet".to_owned(), |view| view.id.to_string());
    let mut text = format!(
        "\ngroup    {} ({})\n  view {view}, feature level {}, index {}, lag {}, {} own slots wait\n",
        shown(&group.name),
        group.id,
        group.feature_level,
        group.index,
        group.lag,
        group.pending_slots
    );
    if let Some(wait) = &group.waits_for {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}", shown(&wait.text));
    }
    text.push_str(&members(group));
    text
}

/// The members of a group, as a table.
pub(crate) fn members(group: &GroupStatus) -> String {
    let table = render(&COLUMNS, group.members.iter().map(row));
    table.lines().map(|row| format!("  {row}\n")).collect()
}

fn row(member: &MemberEntry) -> Vec<String> {
    let state = match (member.this_node, member.linked, member.alive) {
        (true, ..) => "this node",
        (_, false, _) => "no link",
        (_, true, false) => "silent",
        (_, true, true) => "alive",
    };
    let role = if member.coordinates { ", coordinates" } else { "" };
    let ms = |micros: Option<u64>| micros.map_or(String::new(), |micros| format!("{:.1}", micros as f64 / 1_000.0));
    vec![
        member.rank.to_string(),
        member.node.chars().take(8).collect(),
        member.addresses.first().map_or(String::new(), ToString::to_string),
        format!("{state}{role}"),
        member.index.to_string(),
        member.lag.to_string(),
        ms(member.round_trip_us),
        ms(member.confirmation_us),
    ]
}

/// A text of another node, without characters that control a terminal.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
