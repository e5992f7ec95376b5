//! `cloudy check`: a plugin for monitors, by the conventions of Nagios.

use std::process::ExitCode;

use cloudy_node::admin::{GroupStatus, NodeStatus};
use miette::Report;
use serde_json::json;

use crate::admin_client::{NoStatus, fetch};
use crate::args::{CheckArgs, OutputForm};
use crate::output::print;

/// A state of a service, with its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The outcome of a check.
#[derive(Debug)]
struct Outcome {
    state: State,
    reasons: Vec<String>,
    /// Performance data: label, value with unit, limits.
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    label: String,
    value: u64,
    unit: &'static str,
    warning: Option<u64>,
    critical: Option<u64>,
}

impl Outcome {
    fn raise(&mut self, state: State, reason: impl Into<String>) {
        self.state = self.state.max(state);
        self.reasons.push(reason.into());
    }
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<ExitCode, Report> {
    let fetched = fetch(&args.target.target, args.target.answer_timeout).await;
    let outcome = match &fetched {
        Ok((_, status)) => judge(&args, status),
        Err(error) => {
            let state = if matches!(error, NoStatus::Foreign { .. }) { State::Unknown } else { State::Critical };
            Outcome { state, reasons: vec![error.to_string()], figures: Vec::new() }
        }
    };
    print(&match args.target.output {
        OutputForm::Table => line(&outcome),
        OutputForm::Json => json_of(&outcome),
    })?;
    Ok(ExitCode::from(outcome.state as u8))
}

fn judge(args: &CheckArgs, status: &NodeStatus) -> Outcome {
    let mut outcome = Outcome { state: State::Ok, reasons: Vec::new(), figures: Vec::new() };
    let is_asked = |group: &&GroupStatus| args.group.as_ref().is_none_or(|name| *name == group.name);
    let groups: Vec<&GroupStatus> = status.groups.iter().filter(is_asked).collect();
    if let Some(error) = status.disk.as_ref().and_then(|disk| disk.error.as_ref()) {
        outcome.raise(State::Critical, error);
    }
    match (groups.is_empty(), &args.group) {
        (true, Some(name)) => outcome.raise(State::Critical, format!("no group {name:?} runs at this node")),
        (true, None) => outcome.raise(State::Critical, "no group runs at this node"),
        (false, _) => {}
    }
    if !status.ready && args.group.is_none() {
        status.reasons.iter().for_each(|reason| outcome.raise(State::Critical, reason));
    }
    for group in &groups {
        judge_group(args, group, &mut outcome);
    }
    if outcome.state == State::Ok {
        let names = groups.iter().map(|group| format!("group {:?} has {} members", group.name, group.members.len()));
        outcome.reasons.push(names.collect::<Vec<_>>().join(", "));
    }
    outcome
}

fn judge_group(args: &CheckArgs, group: &GroupStatus, outcome: &mut Outcome) {
    let (members, name) = (group.members.len() as u64, &group.name);
    if args.group.is_some() && !group.ready {
        group.reasons.iter().for_each(|reason| outcome.raise(State::Critical, reason));
    }
    if args.expect.is_some_and(|expect| members < expect) {
        let expect = args.expect.unwrap_or_default();
        outcome.raise(State::Critical, format!("group {name:?} has {members} members, expected are {expect}"));
    }
    let of_members = group.members.iter().map(|member| (member.lag, member.node.as_str()));
    let (lag, node) = of_members.chain([(group.lag, "this node")]).max().unwrap_or_default();
    let node: String = node.chars().take(9).collect();
    for (limit, state) in [(args.lag_critical, State::Critical), (args.lag_warning, State::Warning)] {
        if limit.is_some_and(|limit| lag > limit) {
            outcome.raise(state, format!("{node} lacks {lag} messages of group {name:?}"));
            break;
        }
    }
    // A label must not end the performance data.
    let safe = |c: char| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' };
    let label: String = name.chars().map(safe).collect();
    let mut figure = |what: &str, value, unit, warning, critical| {
        outcome.figures.push(Figure { label: format!("{label}_{what}"), value, unit, warning, critical });
    };
    figure("members", members, "", None, None);
    figure("lag", lag, "", args.lag_warning, args.lag_critical);
    figure("index", group.index, "c", None, None);
    figure("pending_slots", group.pending_slots, "", None, None);
}

/// One line: the state, the reasons, and behind a bar the performance data.
fn line(outcome: &Outcome) -> String {
    let reasons = outcome.reasons.join("; ");
    let one_line = |c: char| if c.is_control() || c == '|' { ' ' } else { c };
    let reasons: String = reasons.chars().map(one_line).collect();
    let limit = |limit: Option<u64>| limit.map_or(String::new(), |limit| limit.to_string());
    let figures = outcome.figures.iter().map(|Figure { label, value, unit, warning, critical }| {
        format!("'{label}'={value}{unit};{};{};0", limit(*warning), limit(*critical))
    });
    let figures = figures.collect::<Vec<_>>().join(" ");
    let bar = if figures.is_empty() { "" } else { " | " };
    format!("CLOUDY {} - {reasons}{bar}{figures}\n", outcome.state.name())
}

fn json_of(outcome: &Outcome) -> String {
    let figures = outcome.figures.iter().map(|figure| (figure.label.clone(), figure.value.into()));
    let figures: serde_json::Map<String, serde_json::Value> = figures.collect();
    let object = json!({
        "state": outcome.state.name(),
        "code": outcome.state as u8,
        "reasons": outcome.reasons,
        "figures": figures,
    });
    format!("{object}\n")
}
