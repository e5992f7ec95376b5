//! `cloudy bench`, and `cloudy bench-node`, one of its nodes.

mod plan;

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::ExitCode;

use miette::Report;

use super::failover;
use crate::args::{BenchArgs, BenchCommand};
use crate::bench::conduct::Conductor;
use crate::bench::html;
use crate::bench::machine::Conditions;
use crate::bench::node;
use crate::bench::nodes::Place;
use crate::bench::report::Findings;
use crate::bench::runs;
use crate::interrupts::Interrupts;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_soon};
use crate::progress::Progress;

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

async fn any(args: &BenchArgs) -> Result<ExitCode, Report> {
    match &args.command {
        None => bench(args).await,
        Some(BenchCommand::Failover(args)) => failover::failover(args).await,
        Some(BenchCommand::Soak(args)) => failover::soak(args).await,
    }
}

async fn bench(args: &BenchArgs) -> Result<ExitCode, Report> {
    let plan = plan::plan(args)?;
    let page = args.html.as_deref().map(Page::open).transpose()?;
    let progress = Progress::start();
    let conditions = Conditions::here(&progress);
    progress.line(&format!("{} rows, about {:?}", plan.len(), runs::time_for(&plan)));
    let place = if args.in_process { Place::InProcess(node::boxed) } else { Place::Processes };
    let conductor = Conductor::new(place)?;
    let rows = runs::all(&plan, &conductor, &progress).await?;
    drop(progress);
    let findings = Findings { conditions, rows };
    page.map_or(Ok(()), |page| page.write(&findings))?;
    print_soon(&if args.json { findings.json() } else { findings.text() }).await?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// The file of `--html`: opened before the runs, because they take long, and written once they have succeeded.
struct Page<'a> {
    path: &'a Path,
    file: File,
    /// Whether the file is new, and is deleted unless it is written.
    made_in_vain: bool,
}

impl<'a> Page<'a> {
    fn open(path: &'a Path) -> Result<Self, Report> {
        let failed = |error| unwritable(path, &error);
        // Opening another kind of file may block, and a page may not belong there.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        match File::options().write(true).create_new(true).open(path) {
            Ok(file) => Ok(Self { path, file, made_in_vain: true }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut file = File::options().read(true).write(true).open(path).map_err(failed)?;
                if !is_page_or_empty(&mut file).map_err(failed)? {
                    return Err(failure(
                        format_args!("{} is not a page of a bench, so it is not changed", path.display()),
                        "name another file by --html, or remove this one",
                    ));
                }
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
            // An empty file may remain.
            let _ = fs::remove_file(self.path);
        }
    }
}

/// A page may replace an older one, and no other file: a key would be lost.
fn is_page_or_empty(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(html::START.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start.is_empty() || start == html::START.as_bytes())
}

fn unwritable(path: &Path, error: &io::Error) -> Report {
    failure(format_args!("cannot write {} ({error})", path.display()), "name a file that you may write to")
}
