//! `cloudy data recover`: a new group from one data directory.

use std::process::ExitCode;

use cloudy_node::data::{AskedMembers, Recovered, ask_members};
use cloudy_node::discovery::seeds;
use miette::{IntoDiagnostic, Report};

use super::report;
use crate::args::RecoverArgs;
use crate::interrupts::Interrupts;
use crate::keys::KeyFile;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_soon, say_plainly};

/// Runs the command.
pub(super) async fn run(args: RecoverArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let asked = stop.unless_asked(ask(&args)).await;
        let Some(asked) = asked else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
        let asked = asked?;
        let (others, group) = (asked.others.len(), asked.group.clone());
        // From here on it takes seconds, and the directory changes at once at the end.
        let recovered = asked.recover().await.map_err(report)?;
        print_soon(&summary(&args, &group.name, others, &recovered, &group.view.map(|view| view.id.0))).await?;
        Ok(ExitCode::from(EXIT_EQUAL))
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

/// Asks the other members, and refuses if one of them can answer, or if they are not given up.
async fn ask(args: &RecoverArgs) -> Result<AskedMembers, Report> {
    let file = KeyFile::open(&args.key).await?;
    let mut more = Vec::new();
    for peer in &args.peers {
        more.extend(seeds::look_up(peer).await.into_diagnostic()?);
    }
    say_plainly("asking the other members at their known addresses");
    let asked = ask_members(&args.directory, args.group.as_deref(), &file.keys, &more, args.answer_timeout);
    let asked = asked.await.map_err(report)?;
    let members = asked.others.iter().map(|(node, addresses)| match addresses.first() {
        Some(address) => format!("{node} at {address}"),
        None => format!("{node} at no known address"),
    });
    let members = members.collect::<Vec<_>>().join(", ");
    if !asked.answers.is_empty() {
        return Err(failure(
            format_args!("the group is not lost: {}", asked.answers.join("; ")),
            "start this node again, and let it rejoin the group; or stop the others for good first",
        ));
    }
    if !asked.others.is_empty() && !args.others_are_lost {
        return Err(failure(
            format_args!("no other member answers, and each may still have messages that this one lacks: {members}"),
            "start them again if that is possible; if they are lost for good, with their disks, pass --others-are-lost",
        ));
    }
    Ok(asked)
}

fn summary(args: &RecoverArgs, name: &str, others: usize, recovered: &Recovered, view: &Option<u64>) -> String {
    let Recovered { group, former, approved, last, excluded, backup, .. } = recovered;
    let held = last.0.saturating_sub(approved.0);
    let mut text = format!("recovered group {name:?} as the new group {group}, with this node as its only member\n");
    text.push_str(&format!("messages  1 to {last}: {approved} were approved here"));
    text.push_str(&match held {
        0 => "\n".to_owned(),
        held => format!(", and {held} were held here without a stored approval\n"),
    });
    let view = view.unwrap_or_default();
    if others > 0 {
        text.push_str(&format!(
            "missing   whatever the others approved without this node, after they excluded it from view {view}; and what \
             they broadcast and this node never received\n"
        ));
    }
    for node in excluded {
        text.push_str(&format!("excluded  {node}: give it a new data directory, and let it join\n"));
    }
    text.push_str(&format!("former    group {former}, kept in {}\n", backup.display()));
    text.push_str(&format!(
        "next      cloudy join {name:?} --data {} --bind HOST:PORT --seed HOST:PORT\n",
        args.directory.display()
    ));
    text
}
