//! `cloudy data import`: a new node and group, from the lines of a result.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::process::ExitCode;

use cloudy_node::data::{Imported, Importer};
use miette::{IntoDiagnostic, Report};
use tokio::sync::mpsc;

use super::report;
use crate::args::ImportArgs;
use crate::interrupts::Interrupts;
use crate::lines::Line;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_soon};

/// Lines that were read ahead.
const LINES_MAX: usize = 1_024;

/// Runs the command.
pub(super) async fn run(args: ImportArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let lines = open(&args)?;
        let mut importer = Importer::create(&args.directory, &args.group).await.map_err(report)?;
        match stop.unless_asked(messages(&args, lines, &mut importer)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                importer.discard().await;
                return Err(error);
            }
            None => {
                importer.discard().await;
                return Ok(ExitCode::from(EXIT_INTERRUPTED));
            }
        }
        let imported = importer.finish().await.map_err(report)?;
        print_soon(&summary(&args, &imported)).await?;
        Ok(ExitCode::from(EXIT_EQUAL))
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

fn summary(args: &ImportArgs, imported: &Imported) -> String {
    format!(
        "created the new group {:?} with {} messages\ngroup {}\nnode  {}, its only member\nnext  cloudy join {:?} --data {} --bind HOST:PORT --seed HOST:PORT\n",
        args.group,
        imported.last,
        imported.group,
        imported.node,
        args.group,
        args.directory.display()
    )
}

/// The lines of the input. They are read on a thread of their own, since a read of stdin cannot be given up.
fn open(args: &ImportArgs) -> Result<mpsc::Receiver<io::Result<String>>, Report> {
    let input: Box<dyn BufRead + Send> = match &args.file {
        Some(path) => {
            let opened = File::open(path).map_err(|error| {
                failure(format_args!("cannot read {} ({error})", path.display()), "name a file of `cloudy data export`")
            });
            Box::new(BufReader::new(opened?))
        }
        None => Box::new(BufReader::new(io::stdin())),
    };
    let (lines, lines_in) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in input.lines() {
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    Ok(lines_in)
}

async fn messages(
    args: &ImportArgs,
    mut lines: mpsc::Receiver<io::Result<String>>,
    importer: &mut Importer,
) -> Result<(), Report> {
    let (mut number, mut first, mut next) = (0_u64, None, 1);
    while let Some(line) = lines.recv().await {
        let line = line.into_diagnostic()?;
        number += 1;
        let wrong = |fault: &str| {
            let remedy = "give the unchanged lines of `cloudy data export`, `cloudy tail` or `cloudy join`";
            failure(format_args!("line {number} is not of a result: {fault}"), remedy)
        };
        match Line::read(&line).map_err(|fault| wrong(&fault))? {
            Line::Other => {}
            Line::Count(count) if count + 1 == next || first.is_some_and(|first| first > 1) => {}
            Line::Count(count) => {
                return Err(wrong(&format!("it counts {count} messages, and {} precede it", next - 1)));
            }
            Line::Message { index, payload } => {
                if first.is_none() {
                    begins_at(index, args.renumber)?;
                    (first, next) = (Some(index), index);
                }
                if index != next {
                    return Err(wrong(&format!("it has index {index}, and {next} comes next")));
                }
                next += 1;
                importer.message(payload).await.map_err(report)?;
            }
        }
    }
    Ok(())
}

fn begins_at(index: u64, renumber: bool) -> Result<(), Report> {
    if index == 1 || renumber {
        return Ok(());
    }
    Err(failure(
        format_args!("the messages begin with index {index}: the earlier ones are missing"),
        "export a directory that has them; or pass --renumber, and the first message gets index 1",
    ))
}
