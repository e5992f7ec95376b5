//! What a bench and its nodes tell each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use cloudy_node::{NodeId, ViewId};
use miette::Report;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::course::PartCounts;
use super::spec::{Program, Spec};
use crate::output::failure;

/// What a node is told, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Listen, and say where.
    Begin(Box<Assignment>),
    /// Link up with all nodes: where each listens, by number.
    Link(Vec<SocketAddr>),
    /// Broadcast from this time on, microseconds since the Unix epoch.
    Start { at_us: u64 },
    /// All have stopped and are approved: end the run. What each broadcast, by number.
    End { sent: Vec<u64> },
    /// In place of `Begin`: listen, say where, and do tasks.
    Serve(Box<Part>),
    /// What such a node does next.
    Do(Task),
}

/// A node's part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// Which node it is, from 0 on. The first founds the group; the first `spec.senders` broadcast.
    pub(crate) number: usize,
    pub(crate) program: Program,
    pub(crate) spec: Spec,
    /// The cluster key's file.
    pub(crate) key: PathBuf,
}

/// What a node says, in this order; `Failed` at any time and at last.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Listening(SocketAddr),
    /// Linked with all, and every member has been heard.
    Ready,
    /// Stopped, and all that it broadcast is approved here: so many.
    Drained {
        sent: u64,
    },
    Done(Box<Outcome>),
    /// A task is done.
    Did(Word),
    Failed(String),
}

/// What a node saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Messages in its result.
    pub(crate) count: u64,
    /// Of its result; the floor has none.
    pub(crate) digest: String,
    /// Messages that entered its result while it measured.
    pub(crate) approved: u64,
    /// How long it measured.
    pub(crate) interval_us: u64,
    /// Of its process while it measured.
    pub(crate) cpu_us: u64,
    /// What it allowed itself outside its own result, on the average of its turns while it measured; zero if it sent nothing.
    pub(crate) window_bytes: u64,
    /// UDP datagrams that it sent while it measured.
    pub(crate) datagrams: u64,
    /// The most that its process ever had in memory.
    pub(crate) memory_kib: u64,
    /// What it saw of each part of the time that it measured.
    pub(crate) course: Vec<PartCounts>,
}

/// A node's end of the line to its bench.
pub(crate) struct Post {
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) said: mpsc::Sender<Said>,
}

impl Post {
    /// Says something.
    ///
    /// # Errors
    /// The bench is gone.
    pub(crate) async fn say(&self, said: Said) -> Result<(), Report> {
        self.said.send(said).await.map_err(|_| gone())
    }

    /// The next order.
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

/// An order that does not come at this point.
pub(crate) fn unexpected(order: &Order) -> Report {
    failure(format_args!("an order out of turn: {order:?}"), "start `cloudy bench`, which starts its nodes itself")
}

/// What a node is, as long as it lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// It can be cut off from others.
    pub(crate) partitions: bool,
    /// A payload's size.
    pub(crate) size_bytes: usize,
    /// Messages that it broadcasts a second, if it is a member.
    pub(crate) rate_per_s: u64,
    /// The cluster key's file.
    pub(crate) key: PathBuf,
}

/// How a node comes into the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The node creates the group and is a member, beside this number of others.
    Founder { others: usize },
    /// The node creates the group for this number of members and is not one itself, like a session's master.
    Master { others: usize },
    /// It joins by the address that it is given.
    Joiner,
}

/// What a node is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Come into the group, a joiner by the node at this address. Answered by [`Word::Joined`].
    Join(Option<SocketAddr>),
    /// Say so once the group is whole. Answered by [`Word::Settled`].
    Settle { members: usize, voters: usize },
    /// Something has failed. Answered by [`Word::Survived`] once that is over.
    Survive(Failed),
    /// Nothing passes to and from these addresses, until the next order of this kind. Not answered.
    CutOff(Vec<SocketAddr>),
    /// Broadcast this number of messages at full speed. Answered by [`Word::Filled`] once they are approved.
    Fill { messages: u64 },
    /// Answered by [`Word::Memory`].
    Memory,
    /// The group ends; the process that gets the order ends it. Answered by [`Word::Done`].
    End { ends: bool },
}

/// A failure, for those who survive it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// When, microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// Members that the next view is to be without; none if no other view need come.
    pub(crate) without: Vec<NodeId>,
    /// How long the time before and after is that counts for rates.
    pub(crate) window_us: u64,
}

/// What a node has done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It is in the group.
    Joined {
        node: NodeId,
        /// From the call to its return.
        took_us: u64,
        /// In its result at the return.
        messages: u64,
    },
    /// The group is whole.
    Settled {
        view: ViewId,
        coordinator: NodeId,
        /// Messages in its result.
        messages: u64,
    },
    /// What it saw of a failure.
    Survived(Span),
    /// All that it was to broadcast is approved.
    Filled,
    /// What its process has resident; none where that is not known.
    Memory { kib: Option<u64> },
    /// The final result.
    Done { messages: u64, digest: String },
}

/// What a survivor saw of a failure. Rates are messages approved a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The view in force at the end.
    pub(crate) view: ViewId,
    /// From the failure to the first approval of an own message in a view without those that failed.
    pub(crate) new_view_us: Option<u64>,
    /// The longest time without any approval since the failure.
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
        let course = vec![PartCounts { approved: 9, latency: vec![(300, 7)] }];
        let outcome = Outcome { course, ..Outcome::default() };
        let line = serde_json::to_string(&Said::Done(Box::new(outcome.clone()))).expect("text");
        assert!(!line.contains('\n'));
        assert!(matches!(serde_json::from_str(&line), Ok(Said::Done(read)) if *read == outcome));
    }
}
