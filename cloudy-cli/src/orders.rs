//! Orders to a process of a demo, and its reports (see [`children`](crate::children)).

use std::net::SocketAddr;

use cloudy_node::session::{MasterEvent, MasterOutcome, Summary};
use cloudy_node::{NodeId, ViewId};
use serde::{Deserialize, Serialize};

/// An order to a process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Block traffic with these addresses, until the next order of this kind.
    CutOff(Vec<SocketAddr>),
    /// End the session for all, early and with a result; before a session, give up. A signal makes a slave leave instead.
    Stop,
}

/// A report of a process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// First: it takes part from then on.
    Listening { address: SocketAddr, node: NodeId },
    /// A master: an event.
    Saw(MasterEvent),
    /// A slave: another view is in force.
    View { id: ViewId, members: Vec<NodeId> },
    /// A slave: its result.
    Result(Summary),
    /// A master: the session's end.
    Outcome(MasterOutcome),
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
    fn every_order_and_report_is_one_line_and_parses_back() {
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
            MasterEvent::Created { group: GroupId([1; 16]), members: 4 },
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
