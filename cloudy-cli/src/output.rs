//! The output of the program: results on stdout, errors on stderr, an exit status. A wrong command line ends with
//! clap's own status, 2.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use miette::Report;

use crate::sink::{STDERR, STDOUT};
use crate::words::for_operators;

/// All results are equal, or the command succeeded.
pub(crate) const EXIT_EQUAL: u8 = 0;
/// Something failed, or results differ.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line is wrong: clap's own status.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The state of a checked service is unknown: the convention of monitors.
pub(crate) const EXIT_UNKNOWN: u8 = 3;
/// Ended by Ctrl-C: 128 + SIGINT.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Output was lost, since its reader has closed it: 128 + SIGPIPE, as shells report programs that this signal ends.
pub(crate) const EXIT_READER_GONE: u8 = 141;
/// A defect: Rust's own status.
pub(crate) const EXIT_PANICKED: u8 = 101;
/// A supervised slave did not start, as it reported: another attempt may succeed. The supervisor handles it.
pub(crate) const EXIT_NOT_STARTED: u8 = 75;

/// The time for which the end of the program waits for the reader of each stream.
const FINISH_MAX: Duration = Duration::from_millis(400);

/// An error for the user: the problem and the remedy.
pub(crate) fn failure(problem: impl Display, remedy: impl Display) -> Report {
    miette::miette!(help = remedy.to_string(), "{problem}")
}

/// The reader of stdout has closed it. By convention a program then ends without a message.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reader of standard output has closed it")]
struct ReaderGone;

impl miette::Diagnostic for ReaderGone {}

/// The exit status of a command. Reports its error, if it has one.
pub(crate) fn status(ended: Result<ExitCode, Report>) -> ExitCode {
    let report = match ended {
        Ok(status) => return status,
        Err(report) => report,
    };
    let is_reader_gone = report.chain().any(|cause| cause.is::<ReaderGone>());
    // A command that has changed something reports that as well.
    if !is_reader_gone || report.chain().count() > 1 {
        print_error(&report);
    }
    ExitCode::from(if is_reader_gone { EXIT_READER_GONE } else { EXIT_FAILED })
}

/// Prints help and versions on stdout, and what is wrong with a command line on stderr.
///
/// # Errors
/// Help was lost.
pub(crate) fn print_usage(error: &clap::Error) -> Result<ExitCode, Report> {
    let written = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    printed(written)?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// Writes to stdout, for a command that runs no node: it waits for the reader.
///
/// # Errors
/// Output was lost.
pub(crate) fn print(text: &str) -> Result<(), Report> {
    write(text.as_bytes())
}

/// The same for bytes, which need not be text.
///
/// # Errors
/// Output was lost.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Report> {
    let mut stdout = io::stdout().lock();
    printed(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Like [`print()`], for a command that runs a node or processes: nothing else waits for the reader.
pub(crate) async fn print_soon(text: &str) -> Result<(), Report> {
    printed(STDOUT.write(text.as_bytes().to_vec()).await)
}

/// The same for bytes, which need not be text.
pub(crate) async fn print_bytes(bytes: Vec<u8>) -> Result<(), Report> {
    printed(STDOUT.write(bytes).await)
}

/// Queues the first lines of a result on stdout; a later [`print_soon`] waits for them too.
pub(crate) fn print_first(text: &str) {
    // The first lines of a command find the queue empty.
    let _ = STDOUT.lines(text.as_bytes());
}

fn printed(written: io::Result<()>) -> Result<(), Report> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(error) => Err(failure(
            format_args!("cannot write to standard output ({error})"),
            "check where the output goes: a full disk, a closed terminal",
        )),
    }
}

/// Why a directory cannot be made.
pub(crate) fn no_directory(what: &str, path: &Path, error: &io::Error) -> Report {
    let is_link = error.kind() == io::ErrorKind::AlreadyExists && path.is_symlink();
    let remedy = if is_link {
        "the name is a symbolic link to no directory: make that directory, or remove the link"
    } else {
        "name a directory that you may write to, on a disk with free space"
    };
    failure(format_args!("cannot create the directory {} for {what} ({error})", path.display()), remedy)
}

/// The target of events that stand for lines of this module.
pub(crate) const PRINTED: &str = "cloudy::output";

/// Whether lines on stderr are events of the log, which has another form than text.
static AS_EVENTS: AtomicBool = AtomicBool::new(false);

/// Whether lines on stderr are events of the log.
pub(crate) fn prints_events() -> bool {
    AS_EVENTS.load(Ordering::Relaxed)
}

/// From here on, lines on stderr are events of the log.
pub(crate) fn print_as_events() {
    AS_EVENTS.store(true, Ordering::Relaxed);
}

/// Prints a line on stderr without waiting for the reader.
pub(crate) fn say_plainly(line: &str) {
    let line = for_operators(line);
    if prints_events() {
        return tracing::info!(target: PRINTED, "{line}");
    }
    STDERR.lines(format!("{line}\n").as_bytes());
}

/// Writes the problem on one line of stderr and the remedy, if there is one, on the next.
pub(crate) fn print_error(report: &Report) {
    let text = error_text(report);
    if prints_events() {
        let (problem, help) = text.trim_end().split_once("\nhelp: ").unwrap_or((text.trim_end(), ""));
        let problem = problem.trim_start_matches("error: ").trim_start_matches("error");
        return tracing::error!(target: PRINTED, help, "{problem}");
    }
    STDERR.lines(text.as_bytes());
}

/// Prints panics like all other lines: a thread that panics does not wait for the reader either.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        say_plainly(&format!("thread '{}' {panic}", thread.name().unwrap_or("without a name")));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            say_plainly(&trace.to_string());
        }
    }));
}

/// Waits until stdout and stderr are written, or their readers have had time for it.
pub(crate) fn finish() {
    STDOUT.finish(FINISH_MAX);
    STDERR.finish(FINISH_MAX);
}

fn error_text(report: &Report) -> String {
    let mut text = "error".to_owned();
    for cause in report.chain() {
        let cause = cause.to_string();
        // Some errors print their cause in their own text.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    let lacks_files = lacks_files(&text);
    let mut text = for_operators(&text);
    text.push('\n');
    let remedy = report.help().map(|remedy| remedy.to_string());
    let remedy = if lacks_files { Some(RAISE_FILE_LIMIT.to_owned()) } else { remedy };
    if let Some(remedy) = remedy {
        text.push_str(&format!("help: {remedy}\n"));
    }
    text
}

/// The remedy if no more files can be opened.
pub(crate) const RAISE_FILE_LIMIT: &str = "raise the limit of open files (ulimit -n), or end other programs";

/// Whether the system refused to open another file, for this process or in total. Any file or socket can be the one
/// that exceeds the limit, so this checks the system's text and not each error.
#[cfg(unix)]
fn lacks_files(error: &str) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.contains(&format!("(os error {})", errno.raw_os_error())))
}

#[cfg(not(unix))]
fn lacks_files(_error: &str) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use miette::IntoDiagnostic;

    use super::*;

    #[test]
    fn a_failure_is_a_line_with_the_problem_and_one_with_the_remedy() {
        let report = failure("port 10502 is taken", "choose another port");
        assert_eq!(error_text(&report), "error: port 10502 is taken\nhelp: choose another port\n");
    }

    #[test]
    #[cfg(unix)]
    fn where_files_are_lacking_the_remedy_is_a_higher_limit() {
        let cause = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let report = failure(format_args!("cannot bind 127.0.0.1:1 ({cause})"), "choose another port");
        assert!(error_text(&report).ends_with(&format!("\nhelp: {RAISE_FILE_LIMIT}\n")), "{}", error_text(&report));
    }

    #[test]
    fn causes_are_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x ({source})")]
        struct Outer {
            source: io::Error,
        }
        let outer = || Outer { source: io::Error::other("no disk") };
        let report = Err::<(), _>(outer()).into_diagnostic().expect_err("an error");
        assert_eq!(error_text(&report), "error: cannot read x (no disk)\n");
        let report = report.wrap_err("the key");
        assert_eq!(error_text(&report), "error: the key: cannot read x (no disk)\n");
    }
}
