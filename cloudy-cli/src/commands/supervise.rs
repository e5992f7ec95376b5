//! `cloudy slave --supervise`: the slave runs in a process of its own, which is started again after a crash.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use cloudy_node::identity::NodeKey;
use miette::{IntoDiagnostic, Report};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::args::SlaveArgs;
use crate::interrupts::{Interrupts, Stop};
use crate::output::{EXIT_EQUAL, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, failure};
use crate::progress::Progress;

/// Between a crash and the next start, at first; it doubles with each crash.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The same, at last.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Crashes within [`CRASHES_WITHIN`] that are enough to give up.
const CRASHES_MAX: usize = 10;
/// See [`CRASHES_MAX`]; a slave that has run for as long starts again at the least back-off.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);

/// Runs the command.
pub(crate) async fn run(args: SlaveArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    interrupts.during(supervise(&args, &stop)).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn supervise(args: &SlaveArgs, stop: &Stop) -> Result<ExitCode, Report> {
    // Others find a slave that was started again by its key and by its address.
    let identity = if args.data.directory.is_none() { Some(write_identity()?) } else { None };
    let address = fixed(args.listen.address().await?)?;
    let mut arguments: Vec<OsString> =
        std::env::args_os().skip(1).filter(|argument| argument != "--supervise").collect();
    arguments.extend(["--at".into(), address.to_string().into()]);
    if let Some(identity) = &identity {
        arguments.extend(["--node-key".into(), identity.path().into()]);
    }
    let program = std::env::current_exe().into_diagnostic()?;
    let (progress, mut crashes) = (Progress::start(), Crashes::default());
    loop {
        let mut command = Command::new(&program);
        command.args(&arguments).kill_on_drop(true);
        // The terminal's Ctrl-C is for this process, which passes it on: once, and not twice.
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().map_err(|error| {
            failure(
                format_args!("the slave does not start ({error})"),
                "raise the limit of processes, or end other programs",
            )
        })?;
        let status = ended(child, stop).await?;
        if let Some(status) = final_status(status) {
            return Ok(ExitCode::from(status));
        }
        if stop.was_asked() {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        let Some(backoff) = crashes.next(Instant::now()) else {
            return Err(failure(
                format_args!(
                    "the slave crashed {CRASHES_MAX} times within {CRASHES_WITHIN:?}, the last time with {status}"
                ),
                "see what it said on stderr, and run it without --supervise",
            ));
        };
        let lost = match args.data.directory {
            Some(_) => "",
            None => {
                "; it comes back to its session as long as another process of that runs: once all are gone, what was in \
                 memory is lost, and a master has to begin another session"
            }
        };
        progress.line(&format!("the slave crashed ({status}); it is started again in {backoff:?}{lost}"));
        tokio::select! {
            // sleep: what crashes at once would otherwise take the whole CPU.
            () = sleep(backoff) => {}
            () = stop.asked() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    }
}

/// The node's key in a file that nobody else can read; it goes with this process.
fn write_identity() -> Result<NamedTempFile, Report> {
    let key = NodeKey::generate().into_diagnostic()?;
    let written = NamedTempFile::with_prefix("cloudy-node-key-").and_then(|mut file| {
        file.write_all(&key.to_pkcs8())?;
        Ok(file)
    });
    written.map_err(|error| {
        failure(
            format_args!("the node's key cannot be kept ({error})"),
            "make room in the directory for temporary files",
        )
    })
}

/// The address with a port of its own: the one that the slave keeps.
fn fixed(address: SocketAddr) -> Result<SocketAddr, Report> {
    if address.port() != 0 {
        return Ok(address);
    }
    let free = || -> io::Result<SocketAddr> { UdpSocket::bind(address)?.local_addr() };
    free().map_err(|error| failure(format_args!("no port is free at {address} ({error})"), "name another address"))
}

/// Waits for the process; passes an interrupt on.
async fn ended(mut child: Child, stop: &Stop) -> Result<ExitStatus, Report> {
    let interrupted = tokio::select! {
        status = child.wait() => return status.into_diagnostic(),
        () = stop.asked() => interrupt(&mut child),
    };
    interrupted.into_diagnostic()?;
    child.wait().await.into_diagnostic()
}

#[cfg(unix)]
fn interrupt(child: &mut Child) -> io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};

    // Until it is waited for, nobody else has its number.
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    pid.map_or(Ok(()), |pid| kill_process(pid, Signal::INT).map_err(io::Error::from))
}

#[cfg(not(unix))]
fn interrupt(child: &mut Child) -> io::Result<()> {
    child.start_kill()
}

/// What the slave ended with, if it ended by itself: a failure that it has told of is one.
fn final_status(status: ExitStatus) -> Option<u8> {
    let told = [EXIT_EQUAL, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED];
    let status = u8::try_from(status.code()?).ok()?;
    told.contains(&status).then_some(status)
}

/// The crashes of the last while.
#[derive(Debug, Default)]
struct Crashes {
    at: VecDeque<Instant>,
}

impl Crashes {
    /// Another one: how long to wait, or none if it is time to give up.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        while self.at.front().is_some_and(|&at| now - at >= CRASHES_WITHIN) {
            self.at.pop_front();
        }
        let before = u32::try_from(self.at.len()).unwrap_or(u32::MAX);
        self.at.push_back(now);
        let backoff = BACKOFF_MIN.saturating_mul(1 << before.min(16)).min(BACKOFF_MAX);
        (self.at.len() < CRASHES_MAX).then_some(backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_back_off_and_too_many_are_given_up_on() {
        let (mut crashes, start) = (Crashes::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let backoffs: Vec<Option<u128>> =
            (0..CRASHES_MAX as u64).map(|second| crashes.next(at(second)).map(|wait| wait.as_millis())).collect();
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000];
        assert_eq!(backoffs[..9], expected.map(Some));
        assert_eq!(backoffs[9], None, "ten within ten seconds");
        // Long after, it is as if nothing had been.
        assert_eq!(crashes.next(at(600)), Some(BACKOFF_MIN));
        assert_eq!(crashes.next(at(601)), Some(2 * BACKOFF_MIN));
    }
}
