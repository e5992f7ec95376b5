//! Follows a child: forwards orders to it, and its reports and its end to the parent.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::process::ExitStatus;

use miette::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncWriteExt, Lines};
use tokio::process::ChildStdin;
use tokio::sync::mpsc;

use super::child::{Child, Signal};
use crate::output::failure;

/// Maximum of lines of a child's stderr that are kept for the reason of its end.
const LAST_WORDS_LINES_MAX: usize = 8;

/// An action on a child.
#[derive(Debug)]
pub(crate) enum Control<O> {
    /// An order, written to its stdin.
    Order(O),
    /// `SIGKILL`.
    Kill,
    /// `SIGSTOP`.
    Pause,
    /// `SIGCONT`.
    Resume,
}

/// An event of a child.
pub(crate) enum News<S> {
    /// A report.
    Said(S),
    /// A line on stderr.
    Wrote(String),
    /// Its end, as the last event.
    Ended(Ending),
}

/// The end of a child.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// None if it was given up.
    pub(crate) status: Option<ExitStatus>,
    /// Its last lines on stderr.
    pub(crate) last_words: VecDeque<String>,
}

impl Ending {
    /// The reason for which this end is a problem, if it is.
    pub(crate) fn trouble(&self, name: impl Display) -> Option<String> {
        match self.status {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{name} ended ({status}){}", self.words())),
            None => Some(format!("{name} did not end after the session and was killed")),
        }
    }

    /// The error with which it ended.
    pub(crate) fn error(&self, name: impl Display) -> Report {
        let said = |head| self.last_words.iter().find_map(|line| line.strip_prefix(head));
        let problem = said("error: ").map(str::to_owned).or_else(|| self.trouble(&name));
        let problem = problem.unwrap_or_else(|| format!("{name} ended too early"));
        failure(problem, said("help: ").unwrap_or("run it again with -v for more"))
    }

    /// Its last output, from its error on.
    pub(crate) fn words(&self) -> String {
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
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

impl Child {
    /// Waits for the end of a child that is not needed.
    pub(crate) async fn last_words(mut self) -> Ending {
        let mut ending = Ending::default();
        while let Some(line) = next(&mut self.stderr).await {
            ending.wrote(line);
        }
        ending
    }

    /// Forwards the child's reports under this name, and carries out orders for it, until the child has ended. Once no
    /// control is left, its stdin is closed.
    pub(crate) async fn follow<K: Copy + Display, O: Serialize, S: DeserializeOwned>(
        mut self,
        name: K,
        mut controls: mpsc::Receiver<Control<O>>,
        news: mpsc::Sender<(K, News<S>)>,
    ) {
        // Orders that the child has not read: a paused one reads nothing.
        let (mut ending, mut orders, mut is_controlled) = (Ending::default(), Vec::new(), true);
        while self.stdout.is_some() || self.stderr.is_some() {
            let found = tokio::select! {
                line = next(&mut self.stdout), if self.stdout.is_some() => {
                    line.and_then(|line| said(name, &line)).map(News::Said)
                }
                line = next(&mut self.stderr), if self.stderr.is_some() => line.map(|line| {
                    ending.wrote(line.clone());
                    News::Wrote(line)
                }),
                control = controls.recv(), if is_controlled => {
                    match control {
                        Some(control) => self.control(name, control, &mut orders),
                        None => is_controlled = false,
                    }
                    None
                }
                written = write(&mut self.stdin, &orders), if !orders.is_empty() => {
                    match written {
                        Ok(bytes) => drop(orders.drain(..bytes)),
                        // It has ended, or is about to.
                        Err(_) => orders.clear(),
                    }
                    None
                }
            };
            if !is_controlled && orders.is_empty() {
                self.stdin = None;
            }
            if let Some(found) = found {
                // The receiver may be gone.
                let _ = news.send((name, found)).await;
            }
        }
        ending.status = self.wait().await.ok();
        let _ = news.send((name, News::Ended(ending))).await;
    }

    fn control<O: Serialize>(&mut self, name: impl Display, control: Control<O>, orders: &mut Vec<u8>) {
        let done = match control {
            Control::Order(order) => serde_json::to_writer(&mut *orders, &order).map_err(io::Error::from),
            Control::Kill => self.kill(),
            Control::Pause => self.signal(Signal::Pause),
            Control::Resume => self.signal(Signal::Resume),
        };
        if matches!(orders.last(), Some(last) if *last != b'\n') {
            orders.push(b'\n');
        }
        if let Err(error) = done {
            tracing::error!("{name} cannot be controlled: {error}");
        }
    }
}

/// The next line; none at the end, which closes the stream. Cancel safe.
async fn next<R: AsyncBufRead + Unpin>(lines: &mut Option<Lines<R>>) -> Option<String> {
    let line = lines.as_mut()?.next_line().await.ok().flatten();
    if line.is_none() {
        *lines = None;
    }
    line
}

/// Cancel safe.
async fn write(stdin: &mut Option<ChildStdin>, orders: &[u8]) -> io::Result<usize> {
    stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(orders).await
}

fn said<S: DeserializeOwned>(name: impl Display, line: &str) -> Option<S> {
    serde_json::from_str(line)
        .inspect_err(|error| tracing::error!("{name} sent a report that does not decode ({error}): {line}"))
        .ok()
}
