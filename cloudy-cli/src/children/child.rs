//! A child process.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::args::Cli;
use crate::program;
use crate::service;

/// The output of a child that its parent reads; the rest is inherited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// None of it.
    Nothing,
    /// Its reports on stdout.
    Stdout,
    /// Its reports on stdout, and its stderr.
    All,
}

/// Signals that are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// `SIGINT`.
    Interrupt,
    /// `SIGTERM`.
    Terminate,
    /// `SIGHUP`.
    HangUp,
    /// `SIGSTOP`.
    Pause,
    /// `SIGCONT`.
    Resume,
}

/// A running child. Dropping it kills it.
pub(crate) struct Child {
    process: tokio::process::Child,
    /// Its stdin. Closing it notifies the child that it is not needed.
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<Lines<BufReader<ChildStdout>>>,
    pub(super) stderr: Option<Lines<BufReader<ChildStderr>>>,
}

impl Child {
    /// Starts this program with these arguments and additional environment.
    ///
    /// # Errors
    /// The system cannot start a process.
    pub(crate) fn start<A: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = A>,
        environment: Option<(&'static str, &'static str)>,
        reads: Reads,
    ) -> io::Result<Self> {
        #[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), expect(unused_mut))]
        let mut command = program::command()?;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        crate::huge_pages::give(&mut command);
        let mut command = Command::from(command);
        // The process of a supervisor has the supervisor's options; any other one gets its options as arguments only.
        if reads != Reads::Nothing {
            let of_service = service::VARIABLES.map(str::to_owned);
            for name in Cli::variables().into_iter().chain(of_service) {
                command.env_remove(name);
            }
        }
        let pipe = |is_read| if is_read { Stdio::piped() } else { Stdio::inherit() };
        command
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(pipe(reads != Reads::Nothing))
            .stderr(pipe(reads == Reads::All))
            .kill_on_drop(true);
        // The terminal's Ctrl-C is for the parent, which forwards it where needed.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        Ok(Self { process, stdin, stdout: stdout.map(lines), stderr: stderr.map(lines) })
    }

    /// The stream for input other than orders.
    pub(crate) fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// Its first report; none if it ends without one, or the line does not decode.
    pub(crate) async fn said_first<S: DeserializeOwned>(&mut self) -> Option<S> {
        let line = self.stdout.as_mut()?.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Returns once it has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Kills it (`SIGKILL`).
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.process.start_kill()
    }

    /// Sends a signal; one that has ended receives none.
    #[cfg(unix)]
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        use rustix::process::{Pid, Signal as Number, kill_process};

        let number = match signal {
            Signal::Interrupt => Number::INT,
            Signal::Terminate => Number::TERM,
            Signal::HangUp => Number::HUP,
            Signal::Pause => Number::STOP,
            Signal::Resume => Number::CONT,
        };
        // Until the process is waited for, no other process has its id.
        let pid = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        pid.map_or(Ok(()), |pid| kill_process(pid, number).map_err(io::Error::from))
    }

    /// Whether it was stopped (`true`) or continued (`false`) since the last look; none if neither happened.
    #[cfg(unix)]
    pub(crate) fn stop_change(&self) -> Option<bool> {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

        let pid = Pid::from_raw(self.process.id()?.cast_signed())?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        // A child that has ended has no such state.
        let status = waitid(WaitId::Pid(pid), options).ok().flatten()?;
        if status.stopped() { Some(true) } else { status.continued().then_some(false) }
    }

    /// Without signals no process is stopped.
    #[cfg(not(unix))]
    pub(crate) fn stop_change(&self) -> Option<bool> {
        None
    }

    /// Its number; none once it has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Without signals on this system, all requests to end are one.
    #[cfg(not(unix))]
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match signal {
            Signal::Interrupt | Signal::Terminate | Signal::HangUp => self.kill(),
            Signal::Pause | Signal::Resume => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn lines<R: AsyncRead>(pipe: R) -> Lines<BufReader<R>> {
    BufReader::new(pipe).lines()
}
