//! The processes of a demo: they end with it.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use miette::Report;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::args::Who;
use crate::output::failure;
use crate::parent::{Order, Said};
use crate::program;

/// How long a process may take until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of a process's stderr that are kept for whoever asks why it died.
const LAST_WORDS_LINES_MAX: usize = 8;
/// News that nobody has read: a process that says more waits.
const NEWS_MAX: usize = 64;
/// What is to be done to a process and is not done yet.
const CONTROLS_MAX: usize = 256;

/// What a process is started with.
pub(crate) struct Launch {
    pub(crate) who: Who,
    pub(crate) arguments: Vec<OsString>,
}

/// The running processes. Dropping it kills those that are left.
pub(crate) struct Fleet {
    handles: BTreeMap<Who, Handle>,
    news: mpsc::Receiver<(Who, News)>,
    teller: mpsc::Sender<(Who, News)>,
    attended: JoinSet<()>,
}

struct Handle {
    address: SocketAddr,
    controls: mpsc::Sender<Control>,
}

/// What is done to a process.
#[derive(Debug)]
pub(crate) enum Control {
    /// It is told.
    Order(Order),
    /// `SIGKILL`.
    Kill,
    /// `SIGSTOP`.
    Pause,
    /// `SIGCONT`.
    Resume,
}

/// What becomes of a process.
pub(crate) enum News {
    /// It said something.
    Said(Said),
    /// It wrote a line to stderr.
    Wrote(String),
    /// It has ended, and nothing follows.
    Ended(Ending),
}

/// How a process ended.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// None if it had to be given up.
    pub(crate) status: Option<ExitStatus>,
    /// The end of what it wrote to stderr.
    pub(crate) last_words: VecDeque<String>,
}

impl Fleet {
    /// Without a process.
    pub(crate) fn new() -> Self {
        let (teller, news) = mpsc::channel(NEWS_MAX);
        Self { handles: BTreeMap::new(), news, teller, attended: JoinSet::new() }
    }

    /// Starts more processes, and waits until each has said where it listens.
    pub(crate) async fn start(&mut self, launches: Vec<Launch>) -> Result<(), Report> {
        let processes = launches.into_iter().map(Process::spawn).collect::<Result<Vec<_>, _>>()?;
        let start_by = Instant::now() + START_TIMEOUT;
        for mut process in processes {
            let who = process.who;
            let (controls, controlled) = mpsc::channel(CONTROLS_MAX);
            match timeout_at(start_by, process.listening()).await {
                Ok(Some(address)) => self.handles.insert(who, Handle { address, controls }),
                Ok(None) => {
                    let problem = format!("{who} did not start{}", process.last_words().await.words());
                    return Err(failure(problem, "see what it says; run it again with -v for more"));
                }
                Err(_) => {
                    let problem = format!("{who} did not say within {START_TIMEOUT:?} where it listens");
                    return Err(failure(problem, "is this machine very busy? start fewer slaves: --nodes 2"));
                }
            };
            self.attended.spawn(process.attend(controlled, self.teller.clone()));
        }
        Ok(())
    }

    /// Where a process listens.
    pub(crate) fn address(&self, who: Who) -> Option<SocketAddr> {
        self.handles.get(&who).map(|handle| handle.address)
    }

    /// All processes that were started, slaves first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Who, SocketAddr)> {
        self.handles.iter().map(|(who, handle)| (*who, handle.address))
    }

    /// What happens next.
    pub(crate) async fn news(&mut self) -> (Who, News) {
        match self.news.recv().await {
            Some(news) => news,
            // The fleet itself holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Does something to a process; false if it has ended, or too much is to be done to it already.
    pub(crate) fn control(&self, who: Who, control: Control) -> bool {
        self.handles.get(&who).is_some_and(|handle| handle.controls.try_send(control).is_ok())
    }
}

impl Ending {
    /// Why this is a bad end, if it is.
    pub(crate) fn trouble(&self, who: Who) -> Option<String> {
        match self.status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{who} ended ({status}){}", self.words())),
            None => Some(format!("{who} did not end after the session and was killed")),
        }
    }

    /// The error that it ended with, in its own words.
    pub(crate) fn error(&self, who: Who) -> Report {
        let said = |head| self.last_words.iter().find_map(|line| line.strip_prefix(head));
        let problem = said("error: ").map(str::to_owned).or_else(|| self.trouble(who));
        let problem = problem.unwrap_or_else(|| format!("{who} ended too early"));
        failure(problem, said("help: ").unwrap_or("run it again with -v for more"))
    }

    fn words(&self) -> String {
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        // What it did before it failed is of no interest.
        let error_at = words.iter().position(|line| line.starts_with("error: ")).unwrap_or_default();
        match &words[error_at..] {
            [] => " without a word".to_owned(),
            words => format!(": {}", words.join(" | ")),
        }
    }

    fn wrote(&mut self, line: String) {
        if self.last_words.len() == LAST_WORDS_LINES_MAX {
            self.last_words.pop_front();
        }
        self.last_words.push_back(line);
    }
}

/// A process and what it says.
struct Process {
    who: Who,
    child: Child,
    /// Open until the end: that is how the process knows of the demo.
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    /// Orders that the process has not read: a paused one reads nothing.
    orders: Vec<u8>,
}

impl Process {
    fn spawn(Launch { who, arguments }: Launch) -> Result<Self, Report> {
        let not_started =
            |error| failure(format_args!("cannot start {who} ({error})"), "raise the limit of processes (ulimit -u)");
        let mut command = Command::from(program::command().map_err(not_started)?);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for the demo, which ends the session for all; a process that loses the demo ends by itself.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(not_started)?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(not_started(io::Error::other("it has no pipes")));
        };
        let (stdout, stderr) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        Ok(Self { who, child, stdin, stdout, stderr, orders: Vec::new() })
    }

    /// Where it listens; none if it ended without saying so.
    async fn listening(&mut self) -> Option<SocketAddr> {
        let line = self.stdout.next_line().await.ok()??;
        match serde_json::from_str(&line) {
            Ok(Said::Listening { address, .. }) => Some(address),
            _ => None,
        }
    }

    /// Why one that has not started has ended.
    async fn last_words(mut self) -> Ending {
        let mut ending = Ending::default();
        while let Ok(Some(line)) = self.stderr.next_line().await {
            ending.wrote(line);
        }
        ending
    }

    /// Tells what it says and does what it is to, until it ends.
    async fn attend(mut self, mut controls: mpsc::Receiver<Control>, teller: mpsc::Sender<(Who, News)>) {
        let (mut ending, mut out, mut err) = (Ending::default(), true, true);
        while out || err {
            let news = tokio::select! {
                line = self.stdout.next_line(), if out => match line {
                    Ok(Some(line)) => self.said(&line).map(News::Said),
                    _ => {
                        out = false;
                        None
                    }
                },
                line = self.stderr.next_line(), if err => match line {
                    Ok(Some(line)) => {
                        ending.wrote(line.clone());
                        Some(News::Wrote(line))
                    }
                    _ => {
                        err = false;
                        None
                    }
                },
                Some(control) = controls.recv() => {
                    self.control(control);
                    None
                }
                written = self.stdin.write(&self.orders), if !self.orders.is_empty() => {
                    match written {
                        Ok(bytes) => drop(self.orders.drain(..bytes)),
                        // It has ended, or is about to.
                        Err(_) => self.orders.clear(),
                    }
                    None
                }
            };
            if let Some(news) = news {
                // Without a reader the demo is over, and this task with it.
                let _ = teller.send((self.who, news)).await;
            }
        }
        ending.status = self.child.wait().await.ok();
        let _ = teller.send((self.who, News::Ended(ending))).await;
    }

    fn said(&self, line: &str) -> Option<Said> {
        let said = serde_json::from_str(line);
        said.inspect_err(|error| tracing::error!("{} said what is not to be read ({error}): {line}", self.who)).ok()
    }

    fn control(&mut self, control: Control) {
        let done = match control {
            Control::Order(order) => serde_json::to_writer(&mut self.orders, &order).map_err(io::Error::from),
            Control::Kill => self.child.start_kill(),
            Control::Pause => self.signal(Signal::Stop),
            Control::Resume => self.signal(Signal::Continue),
        };
        if matches!(self.orders.last(), Some(last) if *last != b'\n') {
            self.orders.push(b'\n');
        }
        if let Err(error) = done {
            tracing::error!("{} is not to be controlled: {error}", self.who);
        }
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) -> io::Result<()> {
        use rustix::process::{Pid, Signal as Number, kill_process};

        // Until it is waited for, nobody else has its number.
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let number = match signal {
            Signal::Stop => Number::STOP,
            Signal::Continue => Number::CONT,
        };
        pid.map_or(Ok(()), |pid| kill_process(pid, number).map_err(io::Error::from))
    }

    #[cfg(not(unix))]
    fn signal(&self, _signal: Signal) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Clone, Copy)]
enum Signal {
    Stop,
    Continue,
}
