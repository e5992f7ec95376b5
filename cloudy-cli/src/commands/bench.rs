//! `cloudy bench`, and `cloudy bench-node`, one of its nodes.

mod plan;

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use miette::Report;
use tokio::sync::mpsc;

use super::failover;
use crate::args::{BenchArgs, BenchCommand};
use crate::bench::conduct::Conductor;
use crate::bench::fleet::{Place, run_node};
use crate::bench::html;
use crate::bench::machine::Conditions;
use crate::bench::orders::Post;
use crate::bench::report::Findings;
use crate::bench::runs;
use crate::interrupts::Interrupts;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_soon};
use crate::progress::Progress;

/// Lines that wait to be read: there is at most one.
const LINES_MAX: usize = 4;

/// Runs the command.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let ended = stop.unless_asked(any(&args)).await;
        ended.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

/// Runs a node of a bench.
pub(crate) async fn run_as_node() -> Result<ExitCode, Report> {
    let (orders, orders_in) = mpsc::channel(LINES_MAX);
    let (says, mut said) = mpsc::channel(LINES_MAX);
    // A thread of its own: it waits for lines, which the runtime would have to look for.
    std::thread::spawn(move || {
        let lines = io::stdin().lock().lines().map_while(Result::ok);
        lines.map_while(|line| serde_json::from_str(&line).ok()).try_for_each(|order| orders.blocking_send(order).ok())
    });
    let answers = async {
        while let Some(answer) = said.recv().await {
            let line = serde_json::to_string(&answer).unwrap_or_default();
            print_soon(&format!("{line}\n")).await?;
        }
        Ok(ExitCode::from(EXIT_EQUAL))
    };
    tokio::join!(run_node(Post { orders: orders_in, said: says }), answers).1
}

async fn any(args: &BenchArgs) -> Result<ExitCode, Report> {
    match &args.command {
        None => bench(args).await,
        Some(BenchCommand::Failover(args)) => failover::failover(args).await,
        Some(BenchCommand::Soak(args)) => failover::soak(args).await,
    }
}

/// Where this bench runs; a warning if that says little.
pub(super) fn conditions(progress: &Progress) -> Conditions {
    let conditions = Conditions::here();
    if conditions.build == "debug" {
        progress.line("warning: a debug build says little about speed; build with --release");
    }
    conditions
}

async fn bench(args: &BenchArgs) -> Result<ExitCode, Report> {
    let plan = plan::plan(args)?;
    let page = args.html.as_deref().map(Page::open).transpose()?;
    let progress = Progress::start();
    let conditions = conditions(&progress);
    progress.line(&format!("{} rows, about {:?}", plan.len(), runs::time_for(&plan)));
    let place = if args.in_process { Place::InProcess } else { Place::Processes };
    let conductor = Conductor::new(place)?;
    let rows = runs::all(&plan, &conductor, &progress).await?;
    drop(progress);
    let findings = Findings { conditions, rows };
    page.map_or(Ok(()), |page| page.write(&findings))?;
    print_soon(&if args.json { findings.json() } else { findings.text() }).await?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// The file of `--html`: opened before anything runs, for a run is long, and written once that has succeeded.
struct Page<'a> {
    path: &'a Path,
    file: File,
    /// It was not there, and goes with this unless it is written.
    made_in_vain: bool,
}

impl<'a> Page<'a> {
    fn open(path: &'a Path) -> Result<Self, Report> {
        let failed = |error| unwritable(path, &error);
        // Opening anything else may wait, and what it holds may be no page's place.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        match File::options().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self { path, file, made_in_vain: true }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = File::options().write(true).open(path).map_err(failed)?;
                Ok(Self { path, file, made_in_vain: false })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn write(mut self, findings: &Findings) -> Result<(), Report> {
        self.made_in_vain = false;
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(html::page(findings).as_bytes()));
        written.map_err(|error| unwritable(self.path, &error))
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if self.made_in_vain {
            // An empty file that stays says nothing wrong.
            let _ = fs::remove_file(self.path);
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Report {
    failure(format_args!("cannot write {} ({error})", path.display()), "name a file that you may write to")
}
