//! Other nodes: their links, their last reports, and measurements of the paths to them.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::Parameters;
use crate::id::NodeId;
use crate::limits::CONSENSUS_TICK;
use crate::machine::checkpoints::Checkpoints;
use crate::machine::evictions::Evictions;
use crate::path::Path;
use crate::time::Time;
use crate::view::{Origin, View};
use crate::wire::Heartbeat;

/// The addresses of a node, and the name that it advertises.
pub(super) type Contact = (Vec<SocketAddr>, Option<String>);

/// Other nodes: members of the view in force, and all that are linked.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// The addresses of each linked node, and the name that it advertises.
    links: BTreeMap<NodeId, Contact>,
    /// The time of the last frame of each node, and its last report.
    heard: BTreeMap<NodeId, (Time, Heartbeat)>,
    /// The measurements of the path to each.
    paths: BTreeMap<NodeId, Path>,
    /// The time at which this process continued after it had been stopped for longer than a heartbeat.
    woke_at: Option<Time>,
    /// Linked observers.
    observers: BTreeSet<NodeId>,
    /// Members that entered the ring as joiners and have not reported that they are complete.
    incomplete: BTreeSet<NodeId>,
    /// The reported checkpoints of members, for comparison.
    pub(super) checkpoints: Checkpoints,
    /// Evicted nodes, and those of them that are ready to return.
    pub(super) evictions: Evictions,
}

/// Links.
impl Peers {
    #[inline]
    pub(super) fn is_linked(&self, node: NodeId) -> bool {
        self.links.contains_key(&node)
    }

    /// All linked nodes, ordered by id.
    pub(super) fn linked(&self) -> Vec<NodeId> {
        self.links.keys().copied().collect()
    }

    /// The addresses of a linked node.
    pub(super) fn addresses(&self, node: NodeId) -> Option<&Vec<SocketAddr>> {
        self.links.get(&node).map(|(addresses, _)| addresses)
    }

    /// The name that a linked node advertises.
    pub(super) fn advertised(&self, node: NodeId) -> Option<&String> {
        self.links.get(&node).and_then(|(_, advertised)| advertised.as_ref())
    }

    pub(super) fn on_link_up(&mut self, node: NodeId, contact: Contact, now: Time) {
        self.links.insert(node, contact);
        self.heard.entry(node).or_default().0 = now;
        self.paths.entry(node).or_default().link_up();
    }

    /// Notes a lost link: a member's report stays, everything else is dropped.
    pub(super) fn on_link_down(&mut self, node: NodeId, is_member: bool) {
        self.links.remove(&node);
        self.observers.remove(&node);
        if !is_member {
            self.heard.remove(&node);
            self.paths.remove(&node);
        }
    }

    /// Handles a view in force: nodes that are neither members of it nor linked are dropped, and its joiners have to
    /// fetch before they are complete.
    pub(super) fn on_view(&mut self, view: &View) {
        let is_member = |node: &NodeId| view.rank_of(*node).is_some();
        let stays = |node: &NodeId| is_member(node) || self.links.contains_key(node);
        self.heard.retain(|node, _| stays(node));
        self.paths.retain(|node, _| stays(node));
        self.incomplete.retain(is_member);
        let joiners = view.ring.iter().filter(|member| view.id.0 > 1 && member.origin != Origin::Survivor);
        self.incomplete.extend(joiners.map(|member| member.node));
    }
}

/// Signs of life, and what nodes report of themselves.
impl Peers {
    /// Notes a node's heartbeat. True if it is a joiner that has just become complete.
    pub(super) fn on_heartbeat(
        &mut self,
        node: NodeId,
        heartbeat: Heartbeat,
        parameters: &Parameters,
        now: Time,
    ) -> bool {
        self.heard.insert(node, (now, heartbeat));
        if parameters.adapts() {
            self.paths.entry(node).or_default().heartbeat(parameters.heartbeat, now);
        }
        heartbeat.complete && self.incomplete.remove(&node)
    }

    /// Notes that a known node lives.
    pub(super) fn on_sign_of_life(&mut self, node: NodeId, now: Time) {
        if let Some((at, _)) = self.heard.get_mut(&node) {
            *at = now;
        }
    }

    pub(super) fn heard_at(&self, node: NodeId) -> Option<Time> {
        self.heard.get(&node).map(|(at, _)| *at)
    }

    /// The time of a node's last sign of life, or of its answer to a probe.
    pub(super) fn answered_at(&self, node: NodeId) -> Option<Time> {
        self.heard_at(node).max(self.paths.get(&node).and_then(Path::echoed_at))
    }

    /// The last report of a node; a default if it has sent none on its link.
    pub(super) fn heartbeat(&self, node: NodeId) -> Option<&Heartbeat> {
        self.heard.get(&node).map(|(_, heartbeat)| heartbeat)
    }

    /// Whether a member joined and has not reported that it is complete.
    pub(super) fn is_incomplete(&self, node: NodeId) -> bool {
        self.incomplete.contains(&node)
    }

    pub(super) fn on_observer(&mut self, node: NodeId) {
        self.observers.insert(node);
    }

    pub(super) fn is_observer(&self, node: NodeId) -> bool {
        self.observers.contains(&node)
    }

    pub(super) fn observers(&self) -> &BTreeSet<NodeId> {
        &self.observers
    }
}

/// Paths.
impl Peers {
    /// Notes a probe to a linked node. False if none is due.
    pub(super) fn start_probe(&mut self, node: NodeId, now: Time) -> bool {
        let path = self.paths.entry(node).or_default();
        let is_due = path.is_probe_due(now);
        if is_due {
            path.probe(now);
        }
        is_due
    }

    /// Notes the echo of a probe.
    pub(super) fn on_echo(&mut self, node: NodeId, sent_at: Time, now: Time) {
        if let Some(path) = self.paths.get_mut(&node) {
            path.echo(sent_at, now);
        }
    }

    /// Notes that this process was stopped for a time, in which it received nothing.
    pub(super) fn on_slept(&mut self, slept: Duration) {
        self.paths.values_mut().for_each(|path| path.slept(slept));
    }

    /// Notes that this process runs again: for a tick it decides on nothing that it received before.
    pub(super) fn on_wake(&mut self, now: Time) {
        self.woke_at = Some(now);
    }

    /// Whether this process was stopped until a moment ago, so that its knowledge of others is old.
    pub(super) fn has_just_woken(&self, now: Time) -> bool {
        self.woke_at.is_some_and(|at| now.since(at) < CONSENSUS_TICK)
    }

    pub(super) fn path(&self, node: NodeId) -> Option<&Path> {
        self.paths.get(&node)
    }

    /// The longest of the bounds that hardly any round trip exceeds on its path.
    pub(super) fn longest_round_trip(&self) -> Option<Duration> {
        self.paths.values().filter_map(Path::round_trip_max).max()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.heard.len(), self.paths.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, Index, ViewId};
    use crate::view::RingMember;

    const MEMBER: NodeId = NodeId([1; 32]);
    const STRANGER: NodeId = NodeId([2; 32]);

    fn view(id: u64, origin: Origin) -> View {
        let member =
            RingMember { node: MEMBER, incarnation: Incarnation(1), origin, addresses: Vec::new(), advertised: None };
        View { id: ViewId(id), ring: vec![member], parameters: Parameters::default(), last: false }
    }

    #[test]
    fn a_member_is_remembered_without_its_link_and_a_stranger_is_not() {
        let mut peers = Peers::default();
        for node in [MEMBER, STRANGER] {
            peers.on_link_up(node, Contact::default(), Time(1));
            peers.on_observer(node);
        }
        peers.on_link_down(MEMBER, true);
        peers.on_link_down(STRANGER, false);
        assert_eq!((peers.heard_at(MEMBER), peers.heard_at(STRANGER)), (Some(Time(1)), None));
        assert!(!peers.is_linked(MEMBER) && peers.observers().is_empty());
        peers.on_view(&view(1, Origin::Joiner));
        assert_eq!(peers.counts(), (1, 1));
    }

    #[test]
    fn a_joiner_is_incomplete_until_it_reports_that_it_is_complete() {
        let mut peers = Peers::default();
        peers.on_view(&view(1, Origin::Joiner));
        assert!(!peers.is_incomplete(MEMBER), "nothing comes before the first view");
        peers.on_view(&view(2, Origin::Joiner));
        assert!(peers.is_incomplete(MEMBER));
        let mut report = |complete| {
            let heartbeat = Heartbeat { complete, index: Index(7), ..Heartbeat::default() };
            peers.on_heartbeat(MEMBER, heartbeat, &Parameters::default(), Time(1))
        };
        assert_eq!([false, true, true].map(&mut report), [false, true, false]);
        assert_eq!(peers.heartbeat(MEMBER).map(|heartbeat| heartbeat.index), Some(Index(7)));
    }

    #[test]
    fn a_process_has_just_woken_for_one_tick() {
        let mut peers = Peers::default();
        assert!(!peers.has_just_woken(Time(1)));
        peers.on_wake(Time(1));
        assert!(peers.has_just_woken(Time(1)) && !peers.has_just_woken(Time(1) + CONSENSUS_TICK));
    }
}
