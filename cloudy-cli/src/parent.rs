//! What a process that a demo started is told and says: a JSON object on a line each, on stdin and stdout.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use cloudy_node::session::{MasterEvent, MasterOutcome, Summary};
use cloudy_node::{NodeId, ViewId};
use miette::Report;
use serde::{Deserialize, Serialize};

use crate::interrupts::Stop;
use crate::output::print_beside;
use crate::sink::STDOUT;

/// What a process is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Nothing passes to and from these addresses, until the next order of this kind.
    CutOff(Vec<SocketAddr>),
    /// End the session for all, early and with a result; before a session, give up. A signal makes a slave leave instead.
    Stop,
}

/// What a process says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// First of all: it takes part from here on.
    Listening { address: SocketAddr, node: NodeId },
    /// A master: what it saw.
    Saw(MasterEvent),
    /// A slave: another view is in force.
    View { id: ViewId, members: Vec<NodeId> },
    /// A slave: its result.
    Result(Summary),
    /// A master: the session's end.
    Outcome(MasterOutcome),
}

/// Says something soon. A parent that has stopped reading holds nobody up: it misses what is too much for it.
pub(crate) fn say(said: &Said) {
    if line(said).is_some_and(|line| !STDOUT.lines(line.as_bytes())) {
        tracing::warn!("the process that started this one reads nothing: it misses {said:?}");
    }
}

/// Says something, and returns once the parent can read it or, after an interrupt, has had time for it.
pub(crate) async fn say_surely(said: &Said, stop: &Stop) -> Result<(), Report> {
    match line(said) {
        Some(line) => print_beside(&line, stop).await,
        None => Ok(()),
    }
}

fn line(said: &Said) -> Option<String> {
    let line = serde_json::to_string(said);
    let line = line.inspect_err(|error| tracing::error!("cannot say {said:?}: {error}")).ok()?;
    Some(format!("{line}\n"))
}

/// The parent is gone, and what it cannot delete any more is deleted here, once this process has let go of its own files.
/// Each process of the parent does so: the last one that ends finds no other process at work there.
pub(crate) fn clear_up(parents_files: Option<&Path>) {
    let Some(directory) = parents_files else { return };
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the files of the process that started this one are not all deleted: {}", directory.display());
    }
}

/// The longest order: one with the addresses of a whole demo is a tenth of it.
#[cfg(unix)]
const ORDER_BYTES_MAX: u64 = 64 << 10;

/// Does what it is told; returns once the process that holds the other end of stdin is gone, however it ended.
#[cfg(unix)]
pub(crate) async fn obey(act: impl Fn(Order)) {
    use std::os::fd::AsFd;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    use tokio::net::unix::pipe::Receiver;

    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let Ok(pipe) = stdin.and_then(Receiver::from_owned_fd) else {
        // Not a pipe: nobody is to be watched.
        return std::future::pending().await;
    };
    let (mut pipe, mut line) = (BufReader::new(pipe), Vec::new());
    while (&mut pipe).take(ORDER_BYTES_MAX).read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        match serde_json::from_slice(&line) {
            Ok(order) => act(order),
            Err(error) => tracing::warn!("what came on stdin is no order: {error}"),
        }
        line.clear();
    }
}

/// Elsewhere there are no orders, and the parent's own cleaning up has to do.
#[cfg(not(unix))]
pub(crate) async fn obey(_act: impl Fn(Order)) {
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use cloudy_node::session::{Found, MasterRow, Refusal, SlaveResult};
    use cloudy_node::{Digest, GroupId, Index, Phase, Rank};

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn whatever_is_said_is_one_line_and_reads_back() {
        let (node, id) = (NodeId([7; 32]), ViewId(2));
        let summary =
            Summary { count: 3, sum: 0.1 + 0.2, digest: Digest(u128::MAX - 1), own: 1, confirmations: 2, left: None };
        let slave = Found { node, address: address(1), name: "127.0.0.1:1".to_owned() };
        let refusal = Refusal { name: "x".to_owned(), reason: "two\nlines".to_owned() };
        let rows = [
            SlaveResult::Reported(summary),
            SlaveResult::Contradictory(summary),
            SlaveResult::Silent,
            SlaveResult::Left,
        ];
        let row = |result| MasterRow { slave: slave.clone(), rank: Rank(1), result };
        let outcome = MasterOutcome { rows: rows.map(row).into(), refusals: vec![refusal.clone()] };
        let phases = [Phase::Start, Phase::Send, Phase::Grace, Phase::Stop, Phase::Done];
        let mut all = vec![
            Said::Listening { address: address(1), node },
            Said::View { id, members: vec![node] },
            Said::Result(summary),
            Said::Outcome(outcome),
        ];
        let events = [
            MasterEvent::Found(slave),
            MasterEvent::Refused(refusal),
            MasterEvent::Founded { group: GroupId([1; 16]), members: 4 },
            MasterEvent::Approved(vec![(node, Index(5))]),
            MasterEvent::Silent(node),
            MasterEvent::Left(node),
            MasterEvent::Blamed(node),
            MasterEvent::View { id, members: vec![node] },
            MasterEvent::Reported(node),
        ];
        all.extend(events.into_iter().chain(phases.map(MasterEvent::Phase)).map(Said::Saw));
        for said in all {
            let line = serde_json::to_string(&said).expect("text");
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Said>(&line).expect("reads back"), said);
        }
    }

    #[test]
    fn orders_are_one_line_and_read_back() {
        for (order, text) in
            [(Order::CutOff(vec![address(7)]), r#"{"CutOff":["127.0.0.1:7"]}"#), (Order::Stop, r#""Stop""#)]
        {
            let line = serde_json::to_string(&order).expect("text");
            assert_eq!(line, text);
            assert_eq!(serde_json::from_str::<Order>(&line).expect("reads back"), order);
        }
    }
}
