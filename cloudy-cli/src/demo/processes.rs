//! The processes of a demo: they end with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use miette::Report;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::args::Who;
use crate::children::{Child, Control, News, Reads};
use crate::orders::{Order, Said};
use crate::output::failure;

/// The timeout for a process to report its address.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum of unread reports: a process that sends more waits.
const NEWS_MAX: usize = 64;
/// Maximum of orders to a process that are not carried out.
const CONTROLS_MAX: usize = 256;

/// The arguments of a process.
pub(crate) struct Launch {
    pub(crate) who: Who,
    pub(crate) arguments: Vec<OsString>,
}

/// The running processes. Dropping it kills the remaining ones.
pub(crate) struct Processes {
    handles: BTreeMap<Who, Handle>,
    news: mpsc::Receiver<(Who, News<Said>)>,
    teller: mpsc::Sender<(Who, News<Said>)>,
    attended: JoinSet<()>,
}

struct Handle {
    address: SocketAddr,
    controls: mpsc::Sender<Control<Order>>,
}

impl Processes {
    /// Without processes.
    pub(crate) fn new() -> Self {
        let (teller, news) = mpsc::channel(NEWS_MAX);
        Self { handles: BTreeMap::new(), news, teller, attended: JoinSet::new() }
    }

    /// Starts more processes, and waits until each has reported its address.
    pub(crate) async fn start(&mut self, launches: Vec<Launch>) -> Result<(), Report> {
        let children = launches.into_iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let start_by = Instant::now() + START_TIMEOUT;
        for (who, mut child) in children {
            let (controls, controlled) = mpsc::channel(CONTROLS_MAX);
            match timeout_at(start_by, child.said_first()).await {
                Ok(Some(Said::Listening { address, .. })) => self.handles.insert(who, Handle { address, controls }),
                Ok(_) => {
                    let problem = format!("{who} did not start{}", child.last_words().await.words());
                    return Err(failure(problem, "read its output; run it again with -v for more"));
                }
                Err(_) => {
                    let problem = format!("{who} did not report its address within {START_TIMEOUT:?}");
                    return Err(failure(problem, "is this machine very busy? start fewer slaves: --nodes 2"));
                }
            };
            self.attended.spawn(child.follow(who, controlled, self.teller.clone()));
        }
        Ok(())
    }

    /// The address of a process.
    pub(crate) fn address(&self, who: Who) -> Option<SocketAddr> {
        self.handles.get(&who).map(|handle| handle.address)
    }

    /// All processes that were started, slaves first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Who, SocketAddr)> {
        self.handles.iter().map(|(who, handle)| (*who, handle.address))
    }

    /// Receives the next report.
    pub(crate) async fn news(&mut self) -> (Who, News<Said>) {
        match self.news.recv().await {
            Some(news) => news,
            // This struct itself holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Orders an action on a process; false if it has ended, or too many orders wait.
    pub(crate) fn control(&self, who: Who, control: Control<Order>) -> bool {
        self.handles.get(&who).is_some_and(|handle| handle.controls.try_send(control).is_ok())
    }
}

fn start(Launch { who, arguments }: Launch) -> Result<(Who, Child), Report> {
    let not_started =
        |error| failure(format_args!("cannot start {who} ({error})"), "raise the limit of processes (ulimit -u)");
    Ok((who, Child::start(arguments, None, Reads::All).map_err(not_started)?))
}
