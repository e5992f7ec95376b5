//! `cloudy slave --supervise`: the slave runs in a separate process, which is restarted after a crash.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use cloudy_node::NodeKey;
use miette::{IntoDiagnostic, Report};
use tokio::time::{Instant, interval, sleep};

use crate::args::SlaveArgs;
use crate::children::supervisor::introduce;
use crate::children::{Child, Reads, Signal};
use crate::interrupts::{Asked, Interrupts, Stop};
use crate::output::{
    EXIT_EQUAL, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_NOT_STARTED, EXIT_READER_GONE, EXIT_USAGE, failure,
};
use crate::progress::Progress;

/// The pause between a crash and the next start, at first; it doubles with each crash.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Number of crashes within [`CRASHES_WITHIN`] after which the supervisor gives up.
const CRASHES_MAX: usize = 10;
/// See [`CRASHES_MAX`]; a slave that has run for this time is restarted with the shortest pause.
const CRASHES_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks whether the slave was stopped.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs the command.
pub(crate) async fn run(args: SlaveArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    interrupts.during(supervise(&args, &stop)).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn supervise(args: &SlaveArgs, stop: &Stop) -> Result<ExitCode, Report> {
    let Some(address) = stop.unless_asked(args.listen.address(None)).await else {
        return Ok(ExitCode::from(stop.status_of_service()));
    };
    // Other nodes find a restarted slave by its key and by its address.
    let supervisor = Supervisor {
        arguments: arguments(std::env::args_os().skip(1), fixed(address?)?),
        key: if args.process.data.directory.is_none() { Some(NodeKey::generate().into_diagnostic()?) } else { None },
        stop,
        progress: Progress::start(),
    };
    let (progress, mut crashes, mut restarts) = (&supervisor.progress, Crashes::default(), false);
    let mut child = Some(supervisor.start().map_err(|error| {
        failure(
            format_args!("the slave does not start ({error})"),
            "raise the limit of processes, or end other programs",
        )
    })?);
    loop {
        let how = match child.take() {
            Some(child) => {
                let status = supervisor.ended(child).await?;
                match final_status(status) {
                    // A failed first start is final.
                    Some(EXIT_NOT_STARTED) if restarts => "the slave did not start again".to_owned(),
                    Some(EXIT_NOT_STARTED) => return Ok(ExitCode::from(EXIT_FAILED)),
                    Some(status) => return Ok(ExitCode::from(status)),
                    None => format!("the slave crashed ({status})"),
                }
            }
            None => "the slave did not start again".to_owned(),
        };
        if stop.was_asked() {
            return Ok(ExitCode::from(stop.status_of_service()));
        }
        let Some((number, backoff)) = crashes.next(Instant::now()) else {
            return Err(failure(
                format_args!("{how}, and this is failure {CRASHES_MAX} within {CRASHES_WITHIN:?}: it is given up"),
                "see what it said on stderr, and run it without --supervise",
            ));
        };
        progress.line(&format!(
            "{how}; it is started again in {backoff:?} (failure {number} within {CRASHES_WITHIN:?}, {CRASHES_MAX} end \
             this){}",
            what_is_lost(args)
        ));
        // sleep: immediate crashes would otherwise take the whole CPU.
        if stop.unless_asked(sleep(backoff)).await.is_none() {
            return Ok(ExitCode::from(stop.status_of_service()));
        }
        restarts = true;
        child = supervisor.start().inspect_err(|error| progress.line(&format!("cannot start the slave: {error}"))).ok();
    }
}

fn what_is_lost(args: &SlaveArgs) -> &'static str {
    match args.process.data.directory {
        Some(_) => "",
        None => {
            "; it comes back to its session as long as another process of that runs: once all are gone, what was in \
             memory is lost, and a master has to begin another session"
        }
    }
}

/// The slave's arguments: the supervisor's own, and those that make it a slave. The latter follow the subcommand, the
/// first argument of that name, because everything behind a `--` is HOST and PORT.
fn arguments(own: impl Iterator<Item = OsString>, address: SocketAddr) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = own.collect();
    let behind = arguments.iter().position(|argument| argument == "slave").map_or(0, |at| at + 1);
    arguments.splice(behind..behind, ["--supervised".into(), "--at".into(), address.to_string().into()]);
    arguments
}

/// The configuration of each process of the slave.
struct Supervisor<'a> {
    arguments: Vec<OsString>,
    /// The node's private key, unless a data directory has it.
    key: Option<NodeKey>,
    stop: &'a Stop,
    progress: Progress,
}

impl Supervisor<'_> {
    fn start(&self) -> io::Result<Child> {
        Child::start(&self.arguments, None, Reads::Nothing)
    }

    /// Sends the process its key and waits for its end; forwards a signal.
    async fn ended(&self, mut child: Child) -> Result<ExitStatus, Report> {
        if let Some(stdin) = child.stdin() {
            // A slave that has ended already reports the reason by its status.
            let _ = introduce(stdin, self.key.as_ref()).await;
        }
        let (mut signalled, mut looks) = (false, interval(LOOK_EVERY));
        loop {
            tokio::select! {
                status = child.wait() => return status.into_diagnostic(),
                asked = self.stop.why_asked(), if !signalled => {
                    signalled = true;
                    child.signal(signal_for(asked)).into_diagnostic()?;
                }
                _ = looks.tick() => self.report_stop(&child),
            }
        }
    }

    /// Reports that the slave was stopped, or that it continues: others wait for it meanwhile.
    fn report_stop(&self, child: &Child) {
        let id = child.id().unwrap_or_default();
        match child.stop_change() {
            Some(true) => self.progress.line(&format!(
                "the slave, process {id}, is stopped, so it takes no part in its session: run `kill -CONT {id}` to continue \
                 it, or send this process two signals to end it"
            )),
            Some(false) => self.progress.line(&format!("the slave, process {id}, continues")),
            None => {}
        }
    }
}

/// The signal that the slave gets.
fn signal_for(asked: Asked) -> Signal {
    match asked {
        Asked::Interrupt => Signal::Interrupt,
        Asked::Terminate | Asked::Order => Signal::Terminate,
        Asked::HangUp => Signal::HangUp,
    }
}

/// The address with a fixed port, which the slave keeps.
fn fixed(address: SocketAddr) -> Result<SocketAddr, Report> {
    if address.port() != 0 {
        return Ok(address);
    }
    let free = || -> io::Result<SocketAddr> { UdpSocket::bind(address)?.local_addr() };
    free().map_err(|error| failure(format_args!("no port is free at {address} ({error})"), "name another address"))
}

/// The slave's status, if it ended by itself: a reported failure counts.
fn final_status(status: ExitStatus) -> Option<u8> {
    let told = [EXIT_EQUAL, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_READER_GONE, EXIT_NOT_STARTED];
    let status = u8::try_from(status.code()?).ok()?;
    told.contains(&status).then_some(status)
}

/// Recent crashes.
#[derive(Debug, Default)]
struct Crashes {
    at: VecDeque<Instant>,
}

impl Crashes {
    /// Notes a crash: returns its number among the recent ones and the pause, or none to give up.
    fn next(&mut self, now: Instant) -> Option<(usize, Duration)> {
        while self.at.front().is_some_and(|&at| now - at >= CRASHES_WITHIN) {
            self.at.pop_front();
        }
        let before = u32::try_from(self.at.len()).unwrap_or(u32::MAX);
        self.at.push_back(now);
        let backoff = BACKOFF_MIN.saturating_mul(1 << before.min(16)).min(BACKOFF_MAX);
        (self.at.len() < CRASHES_MAX).then_some((self.at.len(), backoff))
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
            (0..CRASHES_MAX as u64).map(|second| crashes.next(at(second)).map(|(_, wait)| wait.as_millis())).collect();
        let expected = [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000];
        assert_eq!(backoffs[..9], expected.map(Some));
        assert_eq!(backoffs[9], None, "ten within ten seconds");
        // Long after, earlier crashes do not count.
        assert_eq!(crashes.next(at(600)), Some((1, BACKOFF_MIN)));
        assert_eq!(crashes.next(at(601)), Some((2, 2 * BACKOFF_MIN)));
    }

    #[test]
    fn a_slave_s_own_options_stand_before_a_double_dash() {
        let texts = |texts: &[&str]| -> Vec<OsString> { texts.iter().map(OsString::from).collect() };
        let own = texts(&["-v", "slave", "--supervise", "--json", "--", "::1", "0"]);
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let expected =
            texts(&["-v", "slave", "--supervised", "--at", "127.0.0.1:7", "--supervise", "--json", "--", "::1", "0"]);
        assert_eq!(arguments(own.into_iter(), address), expected);
    }
}
