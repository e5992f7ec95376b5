//! SIGINT, SIGTERM and SIGHUP: the first ends a command in order, the second ends the program at once.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use miette::Report;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::output::{self, EXIT_EQUAL, EXIT_INTERRUPTED, failure, print_bytes};
use crate::service;

/// Maximum time until the program handles the first signal: a program that is stuck in a system call is ended.
const NOTICE_MAX: Duration = Duration::from_secs(2);
/// The same signal again within this time is not a second one: `timeout` sends one to its command and one to its group.
const SAME_WITHIN: Duration = Duration::from_millis(50);
/// Maximum time for which a result waits for the reader of stdout after an interrupt.
const INTERRUPTED_PRINT_MAX: Duration = Duration::from_secs(1);
/// Maximum time until the program ends after the second signal.
const END_MAX: Duration = Duration::from_secs(1);

/// The reason for which a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal was closed; or the supervisor is gone.
    HangUp,
    /// An order of the parent process: the session ends for all.
    Order,
}

/// Makes a file that may not grow (`ulimit -f`) an error of the write, like a full disk. Otherwise the system ends the
/// program by SIGXFSZ. Programs that are started later have the default again.
pub(crate) fn survive_full_files() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays for the life of the process. Without one such a write ends the process, as by default.
        let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    }
}

/// Checks that the runtime can open its files for signals: it panics if it cannot.
///
/// # Errors
/// The limit of open files is reached.
pub(crate) fn has_files_for_signals() -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::net::UnixStream;
        // One pair for the signals; the others represent the files that the runtime opens before it.
        let _files = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
    }
    Ok(())
}

/// The signals that end a program, caught by a thread of their own.
pub(crate) struct Interrupts {
    caught: mpsc::Receiver<Asked>,
    /// Whether the first was handled.
    noticed: Arc<AtomicBool>,
    stop: Stop,
}

impl Interrupts {
    /// Starts to catch them.
    pub(crate) fn catch() -> Result<Self, Report> {
        let uncaught = |error| failure(format_args!("cannot catch signals ({error})"), "try again");
        let (sender, caught) = mpsc::channel(2);
        let noticed = Arc::new(AtomicBool::new(false));
        let (ready, started) = std::sync::mpsc::channel();
        let catcher =
            Catcher { caught: sender, noticed: Arc::clone(&noticed), notice_max: NOTICE_MAX, end_max: END_MAX };
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || catcher.run(&ready)).map_err(uncaught)?;
        let gone = || Err(io::Error::other("the thread for them is gone"));
        started.recv().unwrap_or_else(|_| gone()).map_err(uncaught)?;
        Ok(Self { caught, noticed, stop: Stop { sender: watch::Sender::new(None) } })
    }

    /// The handle by which a command learns that it has to end.
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs the work. The first signal requests it to stop; None at the second, which does not wait for it.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let stop = self.stop();
        let twice = async {
            let first = self.next().await;
            self.noticed.store(true, Ordering::Relaxed);
            service::stopping().await;
            stop.now(first);
            self.next().await;
        };
        tokio::select! {
            done = work => Some(done),
            () = twice => None,
        }
    }

    async fn next(&mut self) -> Asked {
        match self.caught.recv().await {
            Some(asked) => asked,
            // The thread ends the program by itself.
            None => pending().await,
        }
    }
}

/// The thread's part. It is independent of the command's runtime, which a system call may block.
struct Catcher {
    caught: mpsc::Sender<Asked>,
    noticed: Arc<AtomicBool>,
    /// See [`NOTICE_MAX`].
    notice_max: Duration,
    /// See [`END_MAX`].
    end_max: Duration,
}

impl Catcher {
    fn run(self, ready: &std::sync::mpsc::Sender<io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result: io::Result<Infallible> = runtime.and_then(|runtime| {
            runtime.block_on(async {
                let mut signals = Signals::catch()?;
                // The command waits for this.
                let _ = ready.send(Ok(()));
                self.catch(async || signals.next().await).await;
                output::finish();
                exit(i32::from(EXIT_INTERRUPTED));
            })
        });
        let Err(error) = result;
        // As above.
        let _ = ready.send(Err(error));
    }

    /// Forwards signals. Returns once the program has to be ended by this thread.
    async fn catch(&self, mut next: impl AsyncFnMut() -> Asked) {
        let first = next().await;
        let caught_at = Instant::now();
        self.pass_on(first);
        let second = async {
            loop {
                let second = next().await;
                if second != first || caught_at.elapsed() >= SAME_WITHIN {
                    return second;
                }
            }
        };
        let unnoticed = async {
            // sleep: a bound on the command's own thread.
            sleep(self.notice_max).await;
            if self.noticed.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        tokio::select! {
            second = second => {
                self.pass_on(second);
                // sleep: as above.
                sleep(self.end_max).await;
            }
            () = unnoticed => {
                output::say_plainly("interrupted while a system call does not return: the program ends without it");
            }
        }
    }

    fn pass_on(&self, asked: Asked) {
        // There is capacity for two; a command that has ended needs none.
        let _ = self.caught.try_send(asked);
    }
}

struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    /// None if it stays ignored, as `nohup` requests. At a daemon it has no effect.
    #[cfg(unix)]
    hang_up: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    is_daemon: bool,
}

impl Signals {
    #[cfg(unix)]
    fn catch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        let is_daemon = is_daemon(has_terminal(), std::os::unix::process::parent_id());
        Ok(Self { interrupt, terminate, hang_up, is_daemon })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> Asked {
        let hang_up = async {
            let Some(hang_up) = &mut self.hang_up else { return pending().await };
            while hang_up.recv().await.is_some() && self.is_daemon {
                tracing::info!("SIGHUP has no effect on a process without a terminal");
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            () = hang_up => Asked::HangUp,
        }
    }

    #[cfg(not(unix))]
    fn catch() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> Asked {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Asked::Interrupt,
            Err(_) => pending().await,
        }
    }
}

/// Whether SIGHUP was ignored when this process started. If that is unknown, it keeps its default, and ends the
/// program.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // proc(5): a bit for each signal, from 1 on, which is SIGHUP.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// A process without a terminal that the first process of its system or container has started, or is itself. SIGHUP
/// notifies other processes that their terminal is closed.
#[cfg(unix)]
fn is_daemon(has_terminal: bool, parent: u32) -> bool {
    !has_terminal && parent <= 1
}

/// Whether the process has a terminal that can be closed.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Requests a command to end, and keeps the reason.
#[derive(Clone)]
pub(crate) struct Stop {
    sender: watch::Sender<Option<Asked>>,
}

impl Stop {
    /// Requests the command to end. The first reason counts.
    pub(crate) fn now(&self, why: Asked) {
        self.sender.send_if_modified(|asked| asked.replace(asked.unwrap_or(why)).is_none());
    }

    /// Whether it was requested to end.
    pub(crate) fn was_asked(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Returns once it is requested to end.
    pub(crate) async fn asked(&self) {
        let _: Asked = self.why_asked().await;
    }

    /// Returns the reason once it is requested to end.
    pub(crate) async fn why_asked(&self) -> Asked {
        let mut asked = self.sender.subscribe();
        let asked = asked.wait_for(Option::is_some).await.map(|asked| *asked);
        match asked {
            Ok(Some(asked)) => asked,
            // The sender lives as long as this.
            _ => pending().await,
        }
    }

    /// Runs the work; None if the command is requested to end first.
    pub(crate) async fn unless_asked<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }

    /// Prints a result to stdout. After a request to end it waits only briefly for the reader.
    pub(crate) async fn print(&self, text: &str) -> Result<(), Report> {
        self.print_bytes(text.as_bytes().to_vec()).await
    }

    /// The same for bytes, which need not be text.
    pub(crate) async fn print_bytes(&self, bytes: Vec<u8>) -> Result<(), Report> {
        let given_up = async {
            self.asked().await;
            // sleep: a reader that is alive takes what there is meanwhile.
            sleep(INTERRUPTED_PRINT_MAX).await;
        };
        tokio::select! {
            biased;
            printed = print_bytes(bytes) => printed,
            () = given_up => Err(failure(
                "interrupted while standard output has no reader: the result was not printed",
                "run it again, and read its output",
            )),
        }
    }

    /// The exit status of a command that serves until it receives a signal: it has done its work, unless a user
    /// interrupted it by Ctrl-C.
    pub(crate) fn status_of_service(&self) -> u8 {
        match *self.sender.borrow() {
            Some(Asked::Interrupt) => EXIT_INTERRUPTED,
            _ => EXIT_EQUAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(60);
    const NEVER: Duration = Duration::from_secs(1 << 20);
    const WHILE: Duration = Duration::from_millis(500);

    /// The program is ended from outside in the next while, after a first signal and a second one so much later.
    async fn is_ended(noticed: bool, second_after: Duration, (notice_max, end_max): (Duration, Duration)) -> bool {
        let (caught, mut passed_on) = mpsc::channel(2);
        let catcher = Catcher { caught, noticed: Arc::new(AtomicBool::new(noticed)), notice_max, end_max };
        let mut signals = 0;
        let catch = catcher.catch(async || {
            signals += 1;
            match signals {
                1 => {}
                2 => sleep(second_after).await,
                _ => pending().await,
            }
            Asked::Terminate
        });
        let ended = timeout(WHILE, catch).await.is_ok();
        assert_eq!(passed_on.recv().await, Some(Asked::Terminate));
        ended
    }

    #[test]
    #[cfg(unix)]
    fn a_daemon_is_a_process_of_init_without_a_terminal() {
        for (has_terminal, parent, expected) in
            [(false, 0, true), (false, 1, true), (true, 1, false), (false, 7, false)]
        {
            assert_eq!(is_daemon(has_terminal, parent), expected, "{has_terminal} {parent}");
        }
    }

    #[tokio::test]
    async fn a_stuck_command_and_one_with_two_signals_are_killed() {
        assert!(!is_ended(true, NEVER, (SOON, SOON)).await, "it ends in order");
        assert!(is_ended(false, NEVER, (SOON, NEVER)).await, "it is stuck");
        assert!(is_ended(true, SOON, (NEVER, SOON)).await, "it was told twice");
        assert!(!is_ended(true, Duration::ZERO, (NEVER, SOON)).await, "it was told once, twice over");
        assert!(!is_ended(true, SOON, (NEVER, NEVER)).await, "it has time to end");
    }
}
