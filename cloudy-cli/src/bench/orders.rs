//! Orders of a bench to its nodes, and their reports.

use std::net::SocketAddr;
use std::path::PathBuf;

use cloudy_node::{NodeId, ViewId};
use miette::Report;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::spec::{Program, Spec};
use super::timeline::PartCounts;
use crate::output::failure;

/// An order to a node; orders follow in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Listen, and report the address.
    Begin(Box<Assignment>),
    /// Link to all nodes: the address of each, by number.
    Link(Vec<SocketAddr>),
    /// Broadcast from this time on, microseconds since the Unix epoch.
    Start { at_us: u64 },
    /// All have stopped and their messages are approved: end the run. The number of messages of each node.
    End { sent: Vec<u64> },
    /// In place of `Begin`: listen, report the address, and carry out tasks.
    Serve(Box<Part>),
    /// The next task of such a node.
    Do(Task),
}

/// A node's assignment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// Its number, from 0. The first creates the group; the first `spec.senders` broadcast.
    pub(crate) number: usize,
    pub(crate) program: Program,
    pub(crate) spec: Spec,
    /// The cluster key's file.
    pub(crate) key: PathBuf,
}

/// A report of a node; reports follow in this order. `Failed` may come at any time, as the last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Listening(SocketAddr),
    /// Linked to all, and a message of every member was read.
    Ready,
    /// Stopped, and all its messages are approved here; their number.
    Drained {
        sent: u64,
    },
    Done(Box<Outcome>),
    /// A task is finished.
    Did(Word),
    Failed(String),
}

/// The measurements of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Number of messages in its result.
    pub(crate) count: u64,
    /// Of its result; the baseline has none.
    pub(crate) digest: String,
    /// Number of messages that entered its result during the measurement.
    pub(crate) approved: u64,
    /// The length of the measurement.
    pub(crate) interval_us: u64,
    /// The CPU time of its process during the measurement.
    pub(crate) cpu_us: u64,
    /// The mean of its window over its turns during the measurement; zero if it sent nothing.
    pub(crate) window_bytes: u64,
    /// Number of UDP datagrams that it sent during the measurement.
    pub(crate) datagrams: u64,
    /// The maximum memory of its process.
    pub(crate) memory_kib: u64,
    /// Its measurements in each part of the measured time.
    pub(crate) timeline: Vec<PartCounts>,
}

/// A node's side of the connection to its bench.
pub(crate) struct Post {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) said: mpsc::Sender<Said>,
}

impl Post {
    /// Sends a report.
    ///
    /// # Errors
    /// The bench is gone.
    pub(crate) async fn say(&self, said: Said) -> Result<(), Report> {
        self.said.send(said).await.map_err(|_| gone())
    }

    /// Receives the next order.
    ///
    /// # Errors
    /// The bench is gone.
    pub(crate) async fn next(&mut self) -> Result<Order, Report> {
        self.orders.recv().await.ok_or_else(gone)
    }
}

fn gone() -> Report {
    failure("the bench that started this node is gone", "start `cloudy bench`, which starts its nodes itself")
}

/// The error for an order that is not valid at this point.
pub(crate) fn unexpected(order: &Order) -> Report {
    failure(format_args!("an unexpected order: {order:?}"), "start `cloudy bench`, which starts its nodes itself")
}

/// The configuration of a node for its whole life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// Whether it can be cut off from others.
    pub(crate) partitions: bool,
    /// A payload's size.
    pub(crate) size_bytes: usize,
    /// Messages that it broadcasts per second, if it is a member.
    pub(crate) rate_per_s: u64,
    /// The cluster key's file.
    pub(crate) key: PathBuf,
}

/// The way in which a node enters the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The node creates the group and is a member, beside this number of others.
    Creator { others: usize },
    /// The node creates the group for this number of members and is not one itself, like a session's master.
    Master { others: usize },
    /// It joins at the address that it receives.
    Joiner,
}

/// A task of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Enter the group; a joiner through the node at this address. Answered by [`Word::Joined`].
    Join(Option<SocketAddr>),
    /// Report once the group is complete. Answered by [`Word::Settled`].
    Settle { members: usize, voters: usize },
    /// A node has failed. Answered by [`Word::Survived`] once that is over.
    Survive(Failed),
    /// Block traffic with these addresses, until the next order of this kind. Not answered.
    CutOff(Vec<SocketAddr>),
    /// Broadcast this number of messages at full speed. Answered by [`Word::Filled`] once they are approved.
    Fill { messages: u64 },
    /// Answered by [`Word::Memory`].
    Memory,
    /// The group is closed, by the process that gets `ends`. Answered by [`Word::Done`].
    End { ends: bool },
}

/// A failure, for its survivors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// Its time, in microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// Members that the next view excludes; none if no other view is expected.
    pub(crate) without: Vec<NodeId>,
    /// The length of the time before and after it in which rates are counted.
    pub(crate) window_us: u64,
}

/// The result of a task.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It is in the group.
    Joined {
        node: NodeId,
        /// The time of the call.
        took_us: u64,
        /// Number of messages in its result when the call returned.
        messages: u64,
    },
    /// The group is complete.
    Settled {
        view: ViewId,
        coordinator: NodeId,
        /// Messages in its result.
        messages: u64,
    },
    /// Its measurements of a failure.
    Survived(Span),
    /// All messages that it had to broadcast are approved.
    Filled,
    /// The resident memory of its process; none if it is unknown.
    Memory { kib: Option<u64> },
    /// The final result.
    Done { messages: u64, digest: String },
}

/// A survivor's measurements of a failure. Rates are messages approved per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The view in force at the end.
    pub(crate) view: ViewId,
    /// The time from the failure to the first approval of an own message in a view without the failed nodes.
    pub(crate) new_view_us: Option<u64>,
    /// The longest time without any approval after the failure.
    pub(crate) still_us: u64,
    pub(crate) before_per_s: f64,
    pub(crate) during_per_s: f64,
    pub(crate) after_per_s: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_are_one_line_each_and_read_back() {
        let order = Order::Link(vec![SocketAddr::from(([127, 0, 0, 1], 7))]);
        let line = serde_json::to_string(&order).expect("text");
        assert_eq!(line, r#"{"Link":["127.0.0.1:7"]}"#);
        assert!(matches!(serde_json::from_str(&line), Ok(Order::Link(addresses)) if addresses.len() == 1));
        let timeline = vec![PartCounts { approved: 9, latency: vec![(300, 7)] }];
        let outcome = Outcome { timeline, ..Outcome::default() };
        let line = serde_json::to_string(&Said::Done(Box::new(outcome.clone()))).expect("text");
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line), Ok(Said::Done(read)) if *read == outcome));
    }
}
