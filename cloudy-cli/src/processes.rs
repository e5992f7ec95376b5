//! The slaves of a demo: processes of their own that end with it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cloudy_node::session::{MasterRow, Summary};
use miette::Report;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::output::failure;

/// How long a process may take until it says where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a slave may take to end after its session.
const END_TIMEOUT: Duration = Duration::from_secs(8);
/// Lines of a slave's stderr that are kept for whoever asks why it died.
const LAST_WORDS_LINES_MAX: usize = 8;

/// What a slave is started with.
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) key: PathBuf,
    pub(crate) result: Option<PathBuf>,
    pub(crate) faults: Vec<OsString>,
}

/// The running slaves. Dropping them kills those that are left.
pub(crate) struct Slaves {
    addresses: Vec<(String, SocketAddr)>,
    attended: JoinSet<Ending>,
    /// Those that ended during the session.
    ended: Vec<Ending>,
}

/// How a slave's process ended.
#[derive(Debug)]
pub(crate) struct Ending {
    name: String,
    status: Option<ExitStatus>,
    result: Option<Printed>,
    last_words: Vec<String>,
}

/// What a slave says of where it listens (`--announce`).
#[derive(Deserialize)]
struct Announcement {
    listening: SocketAddr,
}

/// What of a slave's own result is held against what its master knows of it.
#[derive(Debug, PartialEq, Deserialize)]
struct Printed {
    count: u64,
    sum: f64,
    digest: String,
}

impl Slaves {
    /// Starts them all, and waits until each has said where it listens.
    pub(crate) async fn start(launches: Vec<Launch>) -> Result<Self, Report> {
        let processes = launches.into_iter().map(Process::spawn).collect::<Result<Vec<_>, _>>()?;
        let start_by = Instant::now() + START_TIMEOUT;
        let mut slaves = Self { addresses: Vec::new(), attended: JoinSet::new(), ended: Vec::new() };
        for mut process in processes {
            match timeout_at(start_by, process.announcement()).await {
                Ok(Some(Announcement { listening })) => slaves.addresses.push((process.name.clone(), listening)),
                Ok(None) => {
                    let ending = process.attend().await;
                    let problem = format!("{} did not start{}", ending.name, ending.words());
                    return Err(failure(problem, "see what it says; run it again with -v for more"));
                }
                Err(_) => {
                    let problem = format!("{} did not say within {START_TIMEOUT:?} where it listens", process.name);
                    return Err(failure(problem, "is this machine very busy? start fewer slaves: --nodes 2"));
                }
            }
            slaves.attended.spawn(process.attend());
        }
        Ok(slaves)
    }

    /// Their names and where they listen, in launch order.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.addresses.iter().map(|(name, address)| (name.as_str(), *address))
    }

    /// The next one that ends; never returns once none is left.
    pub(crate) async fn next_ending(&mut self) -> &Ending {
        match self.attended.join_next().await {
            Some(Ok(ending)) => {
                self.ended.push(ending);
                &self.ended[self.ended.len() - 1]
            }
            _ => std::future::pending().await,
        }
    }

    /// Waits until all have ended, for a bounded time; those that have not are killed.
    pub(crate) async fn endings(mut self) -> Vec<Ending> {
        let all = async {
            while let Some(ending) = self.attended.join_next().await {
                self.ended.extend(ending);
            }
        };
        let in_time = timeout(END_TIMEOUT, all).await.is_ok();
        if !in_time {
            for (name, _) in &self.addresses {
                if !self.ended.iter().any(|ending| ending.name == *name) {
                    let name = name.clone();
                    self.ended.push(Ending { name, status: None, result: None, last_words: Vec::new() });
                }
            }
        }
        self.ended
    }
}

impl Ending {
    /// Why this is too early or too bad an end, if it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self.status {
            Some(status) if status.success() && self.result.is_some() => None,
            Some(status) => Some(format!("{} ended ({status}){}", self.name, self.words())),
            None => Some(format!("{} did not end after the session and was killed", self.name)),
        }
    }

    /// What is wrong with it beside what its master knows.
    pub(crate) fn problem(&self, rows: &[(String, MasterRow)]) -> Option<String> {
        let reported = rows.iter().find(|(name, _)| *name == self.name).and_then(|(_, row)| row.result.summary());
        let trouble = self.trouble();
        if trouble.is_some() {
            return trouble;
        }
        match (&self.result, reported) {
            (Some(printed), Some(reported)) if *printed != Printed::of(reported) => {
                Some(format!("{} printed another result than it reported: {printed:?}", self.name))
            }
            _ => None,
        }
    }

    fn words(&self) -> String {
        match self.last_words.as_slice() {
            [] => " without a word".to_owned(),
            words => format!(": {}", words.join(" | ")),
        }
    }
}

impl Printed {
    fn of(summary: &Summary) -> Self {
        Self { count: summary.count, sum: summary.sum, digest: summary.digest.to_string() }
    }
}

/// A slave's process and what it says.
struct Process {
    name: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Process {
    fn spawn(launch: Launch) -> Result<Self, Report> {
        let Launch { name, key, result, faults } = launch;
        let not_started =
            |error| failure(format_args!("cannot start {name} ({error})"), "raise the limit of processes (ulimit -u)");
        let program = std::env::current_exe().map_err(not_started)?;
        let mut command = Command::new(program);
        command.args(["slave", "127.0.0.1", "0", "--announce", "--no-discovery", "--json", "--cluster-key"]).arg(key);
        command.args(faults);
        if let Some(path) = result {
            command.arg("--result").arg(path);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C is for the demo, which ends the session for all; a slave that loses the demo ends by itself.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(not_started)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(not_started(std::io::Error::other("it has no output")));
        };
        let (stdout, stderr) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        Ok(Self { name, child, stdout, stderr })
    }

    /// Where it listens; none if it ended without saying so.
    async fn announcement(&mut self) -> Option<Announcement> {
        let line = self.stdout.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Reads what it says until it ends. Its stdin stays open until then: that is how it knows of the demo.
    async fn attend(mut self) -> Ending {
        let mut result = None;
        let mut last_words = VecDeque::new();
        let (mut stdout, mut stderr) = (self.stdout, self.stderr);
        let results = async {
            while let Ok(Some(line)) = stdout.next_line().await {
                result = serde_json::from_str(&line).ok().or(result.take());
            }
        };
        let words = async {
            while let Ok(Some(line)) = stderr.next_line().await {
                if last_words.len() == LAST_WORDS_LINES_MAX {
                    last_words.pop_front();
                }
                last_words.push_back(line);
            }
        };
        tokio::join!(results, words);
        let stdin = self.child.stdin.take();
        let status = self.child.wait().await.ok();
        drop(stdin);
        Ending { name: self.name, status, result, last_words: last_words.into() }
    }
}
