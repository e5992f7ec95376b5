//! Which slaves of a session give signs of life to its master.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cloudy_proto::{NodeId, Status};

/// A slave that has given no sign of life for so long, beyond what its path and process take, is out of reach.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Since when members of the ring have been silent, on the master's clock.
#[derive(Debug, Default)]
pub(super) struct Reach {
    silent_since: BTreeMap<NodeId, Duration>,
}

impl Reach {
    /// Takes what the master's node knows.
    pub(super) fn look(&mut self, status: &Status, now: Duration) {
        let silent = status.members.iter().filter(|member| !member.alive).map(|member| member.node);
        let since = |node| (node, self.silent_since.get(&node).copied().unwrap_or(now));
        self.silent_since = silent.map(since).collect();
    }

    /// The members that are out of reach.
    pub(super) fn lost(&self, now: Duration) -> Vec<NodeId> {
        let lost = self.silent_since.iter().filter(|(_, since)| now.saturating_sub(**since) >= SILENCE_MAX);
        lost.map(|(node, _)| *node).collect()
    }
}

/// Pairs of nodes without an address of one family in common. A node whose addresses are not known is in no pair.
pub(super) fn apart(nodes: &[(NodeId, &[SocketAddr])]) -> Vec<(NodeId, NodeId)> {
    let mut pairs = Vec::new();
    for (at, (one, addresses)) in nodes.iter().enumerate() {
        for (other, theirs) in &nodes[at + 1..] {
            let shared = addresses.iter().any(|address| theirs.iter().any(|other| same_family(address, other)));
            if !shared && !addresses.is_empty() && !theirs.is_empty() {
                pairs.push((*one, *other));
            }
        }
    }
    pairs
}

fn same_family(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_v4 = |ip: IpAddr| ip.to_canonical().is_ipv4();
    is_v4(one.ip()) == is_v4(other.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_common_family_are_pairs() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let [four, six, mapped] = ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.2]:1"].map(address);
        let node = |number| NodeId([number; 32]);
        let (v4, v6, both, through) = ([four], [six], [six, four], [mapped]);
        let nodes = [(node(1), &v4[..]), (node(2), &v6), (node(3), &both), (node(4), &through), (node(5), &[])];
        assert_eq!(apart(&nodes), [(node(1), node(2)), (node(2), node(4))]);
    }
}
