//! The nodes of a run: processes of their own, or tasks of this one.

use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use miette::Report;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::orders::{Assignment, Order, Post, Said, unexpected};
use super::spec::Program;
use super::{failover, floor, member};
use crate::logging;
use crate::output::failure;
use crate::program;

/// Orders and answers that wait: there is at most one of each.
const LINES_MAX: usize = 4;
/// How long a node may take to say something, beyond the time of the load.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nodes may take to end after a run.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The hidden subcommand that runs a node.
pub(crate) const NODE_COMMAND: &str = "bench-node";

/// Where nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each in a process of its own.
    Processes,
    /// All on this process's thread.
    InProcess,
}

/// The nodes of a run, by number. Dropping it ends them all.
pub(crate) struct Fleet {
    nodes: Vec<Node>,
    running: JoinSet<()>,
}

struct Node {
    orders: mpsc::Sender<Order>,
    said: mpsc::Receiver<Said>,
    /// Whoever attends it: its process is killed with that.
    attended: AbortHandle,
}

impl Fleet {
    /// Starts the nodes and gives each its part.
    pub(crate) async fn start(assignments: Vec<Assignment>, place: Place) -> Result<Self, Report> {
        let mut fleet = Self::new();
        for assignment in assignments {
            fleet.add(Order::Begin(Box::new(assignment)), place).await?;
        }
        Ok(fleet)
    }

    /// Without a node.
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), running: JoinSet::new() }
    }

    /// Starts one more node with its first order; returns its number.
    pub(crate) async fn add(&mut self, first: Order, place: Place) -> Result<usize, Report> {
        let (orders, orders_in) = mpsc::channel(LINES_MAX);
        let (says, said) = mpsc::channel(LINES_MAX);
        let post = Post { orders: orders_in, said: says };
        // What such a node is to see fail is no reason to warn.
        let log = if matches!(first, Order::Serve(_)) { logging::errors_only() } else { None };
        let attended = match place {
            Place::Processes => self.running.spawn(process(post, log)?),
            Place::InProcess => self.running.spawn(run_node(post)),
        };
        self.nodes.push(Node { orders, said, attended });
        let number = self.nodes.len() - 1;
        self.tell(number, first).await;
        Ok(number)
    }

    /// Kills a node's process (`SIGKILL`) as soon as this task waits for something.
    pub(crate) fn kill(&self, number: usize) {
        self.nodes[number].attended.abort();
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Gives a node an order. One that is gone is noticed when it is to answer.
    pub(crate) async fn tell(&self, number: usize, order: Order) {
        // The send fails only once the node is gone.
        let _ = self.nodes[number].orders.send(order).await;
    }

    /// Waits until each node has said what is waited for, at most so long beyond what nodes always may take.
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

    /// Waits until one node has said what is waited for, at most so long beyond what nodes always may take.
    pub(crate) async fn hear_from<T>(
        &mut self,
        number: usize,
        after: Duration,
        what: &str,
        wanted: impl Fn(Said) -> Option<T>,
    ) -> Result<T, Report> {
        let words = match timeout(after + PATIENCE, self.nodes[number].said.recv()).await {
            Ok(Some(Said::Failed(words))) => words,
            Ok(Some(said)) => match wanted(said) {
                Some(said) => return Ok(said),
                None => "it spoke out of turn".to_owned(),
            },
            Ok(None) => "it ended".to_owned(),
            Err(_) => format!("nothing was heard from it for {:?}", after + PATIENCE),
        };
        let problem = format!("node {number} was to be {what}: {words}");
        Err(failure(problem, "run it again, with -vv for more, or with fewer nodes"))
    }

    /// Lets all nodes go, and waits a bounded time until they have.
    pub(crate) async fn end(mut self) {
        self.nodes.clear();
        let all = async { while self.running.join_next().await.is_some() {} };
        // Those that do not end are killed by the drop.
        let _ = timeout(END_TIMEOUT, all).await;
    }
}

/// Runs a node to its end; what goes wrong is said.
pub(crate) async fn run_node(mut post: Post) {
    let ended = match post.orders.recv().await {
        Some(Order::Begin(assignment)) => match assignment.program {
            Program::Group => member::run(&assignment, &mut post).await,
            Program::Floor => floor::run(&assignment, &mut post).await,
        },
        Some(Order::Serve(part)) => failover::node::run(&part, &mut post).await,
        Some(order) => Err(unexpected(&order)),
        None => return,
    };
    if let Err(report) = ended {
        // A bench that is gone has no use for it.
        let _ = post.say(Said::Failed(report.to_string())).await;
    }
}

/// Starts a node's process, with this in its environment; the future carries lines between it and the bench.
fn process(
    post: Post,
    log: Option<(&'static str, &'static str)>,
) -> Result<impl Future<Output = ()> + Send + 'static, Report> {
    let not_started =
        |error| failure(format_args!("cannot start a node ({error})"), "raise the limit of processes (ulimit -u)");
    let mut command = Command::from(program::command().map_err(not_started)?);
    command
        .arg(NODE_COMMAND)
        .args(logging::arguments())
        .envs(log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl-C is for the bench; a node that loses the bench ends by itself.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(not_started)?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (mut stdin, stdout) = pipes.ok_or_else(|| not_started(std::io::Error::other("it has no pipes")))?;
    let Post { mut orders, said } = post;
    Ok(async move {
        let orders = async {
            while let Some(order) = orders.recv().await {
                let Ok(mut line) = serde_json::to_string(&order) else { break };
                line.push('\n');
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    break;
                }
            }
            // Closed, stdin tells the node that the run is over.
            drop(stdin);
        };
        let answers = async {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(answer) = serde_json::from_str(&line) else { break };
                if said.send(answer).await.is_err() {
                    break;
                }
            }
            drop(said);
        };
        tokio::join!(orders, answers);
        // How it ended says nothing that it has not said itself.
        let _ = child.wait().await;
    })
}
