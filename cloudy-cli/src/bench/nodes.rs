//! The nodes of a run: processes, or tasks of this one.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use miette::Report;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::orders::{Assignment, Order, Post, Said};
use crate::children::{Child, Control, News, Reads};
use crate::logging;
use crate::output::failure;

/// Maximum of orders and answers that wait: there is at most one of each.
const LINES_MAX: usize = 4;
/// The timeout for a node's report, beyond the time of the load.
const PATIENCE: Duration = Duration::from_secs(30);
/// The timeout for nodes to end after a run.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The hidden subcommand that runs a node.
pub(crate) const NODE_COMMAND: &str = "bench-node";

/// The place of nodes.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// Each in a separate process.
    Processes,
    /// All on this process's thread, each by this function.
    InProcess(fn(Post) -> Running),
}

/// A running node.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The nodes of a run, by number. Dropping it ends them all.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    running: JoinSet<()>,
}

struct Node {
    controls: mpsc::Sender<Control<Order>>,
    news: mpsc::Receiver<(usize, News<Said>)>,
}

impl Nodes {
    /// Starts the nodes with their assignments.
    pub(crate) async fn start(assignments: Vec<Assignment>, place: Place) -> Result<Self, Report> {
        let mut started = Self::new();
        for assignment in assignments {
            started.add(Order::Begin(Box::new(assignment)), place).await?;
        }
        Ok(started)
    }

    /// Without a node.
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), running: JoinSet::new() }
    }

    /// Starts one more node with its first order; returns its number.
    pub(crate) async fn add(&mut self, first: Order, place: Place) -> Result<usize, Report> {
        let (controls, controlled) = mpsc::channel(LINES_MAX);
        let (teller, news) = mpsc::channel(LINES_MAX);
        let number = self.nodes.len();
        match place {
            Place::Processes => {
                // Failures that such a node is expected to see need no warnings.
                let log = if matches!(first, Order::Serve(_)) { logging::errors_only() } else { None };
                self.running.spawn(start(log)?.follow(number, controlled, teller));
            }
            Place::InProcess(run) => drop(self.running.spawn(in_process(number, run, controlled, teller))),
        }
        self.nodes.push(Node { controls, news });
        self.tell(number, first).await;
        Ok(number)
    }

    /// Kills a node's process (`SIGKILL`) as soon as this task waits.
    pub(crate) async fn kill(&self, number: usize) {
        // The send fails only once the node is gone.
        let _ = self.nodes[number].controls.send(Control::Kill).await;
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Sends an order to a node. One that is gone is detected when its answer is due.
    pub(crate) async fn tell(&self, number: usize, order: Order) {
        // The send fails only once the node is gone.
        let _ = self.nodes[number].controls.send(Control::Order(order)).await;
    }

    /// Waits for an answer of each node, for this time beyond their usual timeout.
    pub(crate) async fn hear<T>(
        &mut self,
        after: Duration,
        what: &str,
        wanted: impl Fn(Said) -> Option<T>,
    ) -> Result<Vec<T>, Report> {
        let mut heard = Vec::with_capacity(self.nodes.len());
        for number in 0..self.nodes.len() {
            heard.push(self.hear_from(number, after, what, &wanted).await?);
        }
        Ok(heard)
    }

    /// Waits for an answer of one node, for this time beyond its usual timeout.
    pub(crate) async fn hear_from<T>(
        &mut self,
        number: usize,
        after: Duration,
        what: &str,
        wanted: impl Fn(Said) -> Option<T>,
    ) -> Result<T, Report> {
        let words = match timeout(after + PATIENCE, self.nodes[number].news.recv()).await {
            Ok(Some((_, News::Said(Said::Failed(words))))) => words,
            Ok(Some((_, News::Said(said)))) => match wanted(said) {
                Some(said) => return Ok(said),
                None => "it sent an unexpected report".to_owned(),
            },
            Ok(Some((_, News::Wrote(_) | News::Ended(_))) | None) => "it ended".to_owned(),
            Err(_) => format!("it sent no report for {:?}", after + PATIENCE),
        };
        let problem = format!("node {number} was to be {what}: {words}");
        Err(failure(problem, "run it again, with -vv for more, or with fewer nodes"))
    }

    /// Closes the nodes' inputs, and waits a bounded time until they have ended.
    pub(crate) async fn end(mut self) {
        self.nodes.clear();
        let all = async { while self.running.join_next().await.is_some() {} };
        // The drop kills those that do not end.
        let _ = timeout(END_TIMEOUT, all).await;
    }
}

/// Starts a node's process, with this in its environment.
fn start(log: Option<(&'static str, &'static str)>) -> Result<Child, Report> {
    let arguments = std::iter::once(NODE_COMMAND.into()).chain(logging::arguments());
    Child::start(arguments, log, Reads::Stdout).map_err(|error| {
        failure(format_args!("cannot start a node ({error})"), "raise the limit of processes (ulimit -u)")
    })
}

/// Runs a node on this thread, with the same orders and reports as a process.
async fn in_process(
    number: usize,
    run: fn(Post) -> Running,
    mut controls: mpsc::Receiver<Control<Order>>,
    news: mpsc::Sender<(usize, News<Said>)>,
) {
    let (orders, orders_in) = mpsc::channel(LINES_MAX);
    let (says, mut said) = mpsc::channel(LINES_MAX);
    let tell = async {
        while let Some(Control::Order(order)) = controls.recv().await {
            if orders.send(order).await.is_err() {
                break;
            }
        }
        drop(orders);
    };
    let hear = async {
        while let Some(said) = said.recv().await {
            if news.send((number, News::Said(said))).await.is_err() {
                break;
            }
        }
        // The receiver receives the close of this node.
        drop(news);
    };
    tokio::join!(tell, hear, run(Post { orders: orders_in, said: says }));
}
