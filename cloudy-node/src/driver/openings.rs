//! Groups that this node opens by their name: what it reports of the name, and what linked nodes report (`protocol.md`
//! §7.1).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cloudy_proto::limits::MEMBERS_MAX;
use cloudy_proto::wire::{NameReport, NamedGroup, NodeFrame, Opening, ReportedSeed};
use cloudy_proto::{Durability, GroupId, NodeId, Parameters};
use tokio::sync::watch;
use tracing::Level;

use crate::driver::Driver;
use crate::group::shared::{EndReason, Shared};
use crate::link::Link;
use crate::repeats::Source;

/// What the log says of a second group with the name of one that runs here.
const SECOND_GROUP: &str = "a second group of the same name";
/// Unlinked nodes that open a group, as reported by a peer.
const LOCATED_MAX: usize = MEMBERS_MAX;

/// An invitation that this node has accepted. Until its outcome is known, this node accepts no other creator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) creator: NodeId,
    pub(crate) group: GroupId,
    /// The creator's link was lost before the outcome: the group may exist.
    pub(crate) lost: bool,
    /// Reports of the creator that arrive from here on were sent after the invitation: streams have no common order.
    reports_are_later: bool,
}

/// What a node knows of a name while it opens a group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// The group of that name here.
    pub(crate) own: NamedGroup,
    pub(crate) promise: Option<Promise>,
    /// Every linked node, and what it has reported.
    pub(crate) peers: BTreeMap<NodeId, Option<NameReport>>,
    /// Nodes that open the group as well and are not linked.
    pub(crate) located: BTreeMap<NodeId, SocketAddr>,
}

/// The answer to a caller that opens a group.
pub(crate) enum OpenName {
    /// The name is reported to linked nodes until the receiver is dropped; the group, if it runs here.
    Opens { here: Option<Arc<Shared>>, known: watch::Receiver<Known> },
    /// Another caller creates, joins, opens or leaves a group of that name at this moment.
    Busy,
    /// This node observes a group of that name.
    Observed,
    /// The group is to keep its result on disk, and this node has no data directory.
    NeedsDataDir,
    /// The group is to keep its result on disk, and this node is in one of that name that keeps it in memory.
    InMemory,
    /// The data directory holds a group of that name, which has ended.
    Ended(GroupId),
    /// The data directory holds two groups of that name.
    Two(GroupId, GroupId),
}

/// A group that this node opens.
pub(super) struct OpeningRun {
    expect: u16,
    parameters: Parameters,
    known: watch::Sender<Known>,
    promise: Option<Promise>,
    seeds: Vec<ReportedSeed>,
    /// What the linked nodes were told last.
    reported: Option<NameReport>,
}

impl Driver {
    /// A caller opens a group.
    pub(super) fn open_name(
        &mut self,
        name: String,
        expect: u16,
        parameters: Parameters,
        seeds: Vec<ReportedSeed>,
    ) -> OpenName {
        if self.openings.get(&name).is_some_and(|opening| !opening.known.is_closed()) {
            return OpenName::Busy;
        }
        self.turn_groups();
        let mut runs = self.groups.values().filter(|run| run.shared.name == name);
        let run = runs.next();
        if let (Some(one), Some(other)) = (run, runs.next()) {
            return OpenName::Two(one.shared.id, other.shared.id);
        }
        let here = match run {
            Some(run) if run.shared.observes => return OpenName::Observed,
            Some(run) if run.installed.is_some() || run.shared.lock().departs.is_some() => return OpenName::Busy,
            Some(run)
                if parameters.durability == Durability::Disk && run.machine.durability() == Durability::Memory =>
            {
                return OpenName::InMemory;
            }
            Some(run) => Some(Arc::clone(&run.shared)),
            None if parameters.durability == Durability::Disk && self.disk.is_none() => return OpenName::NeedsDataDir,
            None => match self.closed.named(&name) {
                Some((id, machine)) if machine.durability() == Durability::Disk => return OpenName::Ended(id),
                _ => None,
            },
        };
        // An acceptance whose outcome is not known outlives the caller that opened the group.
        let promise = self.openings.get(&name).and_then(|opening| opening.promise);
        let own = self.named_group(&name);
        let peers = self.peers.keys().map(|&peer| (peer, None)).collect();
        let (known, known_out) = watch::channel(Known { own, promise, peers, located: BTreeMap::new() });
        self.openings.insert(name, OpeningRun { expect, parameters, known, promise, seeds, reported: None });
        OpenName::Opens { here, known: known_out }
    }

    /// It is known what the seeds of a group that is opened lead to.
    pub(super) fn set_seeds(&mut self, name: &str, seeds: Vec<ReportedSeed>) {
        if let Some(opening) = self.openings.get_mut(name) {
            opening.seeds = seeds;
        }
    }

    /// Reports what has changed, and forgets callers that are gone.
    pub(super) fn turn_openings(&mut self) {
        if self.openings.is_empty() {
            return;
        }
        let names: Vec<String> = self.openings.keys().cloned().collect();
        for name in names {
            let report = self.name_report(&name);
            let own = self.named_group(&name);
            let Some(opening) = self.openings.get_mut(&name) else { continue };
            let promise = opening.promise;
            opening.known.send_if_modified(|known| {
                let before = known.clone();
                (known.own, known.promise) = (own, promise);
                known.peers.retain(|peer, _| self.peers.contains_key(peer));
                for &peer in self.peers.keys() {
                    known.peers.entry(peer).or_default();
                }
                known.located.retain(|peer, _| !self.peers.contains_key(peer));
                *known != before
            });
            let is_over = opening.known.is_closed();
            if opening.reported.as_ref() != Some(&report) {
                self.peers.values().for_each(|link| link.push_node(NodeFrame::Named(Box::new(report.clone()))));
                opening.reported = Some(report);
            }
            if is_over && promise.is_none() {
                self.openings.remove(&name);
            }
        }
    }

    /// Asks every linked node again what it has under a name.
    pub(super) fn report_again(&self, name: &str) {
        let reported = self.openings.get(name).and_then(|opening| opening.reported.as_ref());
        if let Some(report) = reported {
            self.peers.values().for_each(|link| link.push_node(NodeFrame::Named(Box::new(report.clone()))));
        }
    }

    /// A link is up: its node learns which groups this node opens.
    pub(super) fn report_names(&mut self, link: &Link) {
        for opening in self.openings.values_mut() {
            if let Some(promise) = opening.promise.as_mut().filter(|promise| promise.creator == link.peer) {
                promise.reports_are_later = true;
            }
            if let Some(report) = &opening.reported {
                link.push_node(NodeFrame::Named(Box::new(report.clone())));
            }
        }
    }

    /// A peer reports what it has under a name.
    pub(super) fn take_name_report(&mut self, peer: NodeId, report: NameReport) {
        self.warn_of_second(peer, &report);
        let Some(link) = self.peers.get(&peer) else { return };
        let Some(opening) = self.openings.get_mut(&report.name) else {
            if report.opening.is_some() {
                let own = self.name_report(&report.name);
                link.push_node(NodeFrame::Named(Box::new(own)));
            }
            return;
        };
        opening.reported_by_creator(peer, report.group);
        let opens = report.opening.is_some();
        let opened = opening.opens(peer);
        if let Some(own) = opening.reported.as_ref().filter(|_| opens && !opened) {
            link.push_node(NodeFrame::Named(Box::new(own.clone())));
        }
        let name = report.name.clone();
        let linked = report.opening.as_ref().map(|opening| opening.linked.clone());
        opening.known.send_modify(|known| drop(known.peers.insert(peer, Some(report))));
        if let Some(linked) = linked {
            self.introduce(&name, peer, &linked);
        }
    }

    /// Tells a node that opens a group where others are that open it too.
    fn introduce(&self, name: &str, peer: NodeId, linked: &[NodeId]) {
        let (Some(opening), Some(to)) = (self.openings.get(name), self.peers.get(&peer)) else { return };
        let missing = self.peers.values().filter(|other| other.peer != peer && !linked.contains(&other.peer));
        missing.filter(|other| opening.opens(other.peer)).for_each(|other| Self::introduce_to(to, other));
    }

    /// A peer reports the address of a node. If both open the same group, this node dials it.
    pub(super) fn told_of_opener(&mut self, by: NodeId, node: NodeId, address: SocketAddr) {
        if node == self.me || self.peers.contains_key(&node) {
            return;
        }
        for opening in self.openings.values_mut().filter(|opening| opening.opens(by)) {
            opening.known.send_if_modified(|known| {
                let has_capacity = known.located.len() < LOCATED_MAX || known.located.contains_key(&node);
                has_capacity && known.located.insert(node, address) != Some(address)
            });
        }
    }

    /// Whether this node may accept an invitation: it has not accepted one of another creator.
    pub(super) fn may_accept(&self, name: &str, creator: NodeId) -> bool {
        let promise = self.openings.get(name).and_then(|opening| opening.promise);
        promise.is_none_or(|promise| promise.creator == creator)
    }

    /// This node accepts an invitation to a group that it opens.
    pub(super) fn promised(&mut self, name: &str, creator: NodeId, group: GroupId) {
        if let Some(opening) = self.openings.get_mut(name) {
            let seen = opening.known.borrow().peers.get(&creator).cloned().flatten();
            let reports_are_later = seen.is_some_and(|seen| seen.group == NamedGroup::Forming { group, creator });
            opening.promise = Some(Promise { creator, group, lost: false, reports_are_later });
        }
    }

    /// A group is over here. If its creator was lost, it may exist all the same.
    pub(super) fn promise_over(&mut self, group: GroupId, reason: Option<&EndReason>) {
        let lost = matches!(reason, Some(EndReason::CoordinatorLost(_)));
        for opening in self.openings.values_mut() {
            match &mut opening.promise {
                Some(promise) if promise.group == group && lost => promise.lost = true,
                promise => {
                    promise.take_if(|promise| promise.group == group);
                }
            }
        }
    }

    /// A group is in force here, so nothing about it is open.
    pub(super) fn promise_kept(&mut self, group: GroupId) {
        for opening in self.openings.values_mut() {
            opening.promise.take_if(|promise| promise.group == group);
        }
    }

    /// The group of that name here.
    fn named_group(&self, name: &str) -> NamedGroup {
        let mut runs = self.groups.values().filter(|run| run.shared.name == name && !run.shared.observes);
        match runs.next() {
            Some(run) if run.creation.is_some() || (run.installed.is_some() && !run.comes) => {
                NamedGroup::Forming { group: run.shared.id, creator: run.shared.creator }
            }
            Some(run) => NamedGroup::Runs { group: run.shared.id },
            None => match self.openings.get(name).and_then(|opening| opening.promise) {
                Some(promise) => NamedGroup::Forming { group: promise.group, creator: promise.creator },
                None => NamedGroup::Absent,
            },
        }
    }

    fn name_report(&self, name: &str) -> NameReport {
        let opening = self.openings.get(name).filter(|opening| !opening.known.is_closed()).map(|opening| {
            let known = opening.known.borrow();
            let opens = |peer: &&NodeId| known.peers.get(*peer).is_some_and(|report| opens(report.as_ref()));
            let linked = self.peers.keys().filter(opens).copied().take(MEMBERS_MAX).collect();
            let seeds = opening.seeds.clone();
            Opening { expect: opening.expect, parameters: opening.parameters.clone(), linked, seeds }
        });
        NameReport { name: name.to_owned(), group: self.named_group(name), opening }
    }

    /// The log names both ids if a peer is in another group with the name of one that runs here.
    fn warn_of_second(&self, peer: NodeId, report: &NameReport) {
        let (NamedGroup::Runs { group: theirs }, NamedGroup::Runs { group: ours }) =
            (report.group, self.named_group(&report.name))
        else {
            return;
        };
        if theirs != ours {
            let (name, peer_name) = (&report.name, peer.short());
            let text = format_args!(
                "{SECOND_GROUP}: {name:?} is group {ours} here and group {theirs} at node {peer_name}; end one of the \
                 two, delete it by Node::forget_group, and open the other at its nodes"
            );
            self.links.repeats.say(Level::ERROR, SECOND_GROUP, Source::Node(peer), text);
        }
    }
}

impl OpeningRun {
    /// A linked node opens the group too.
    fn opens(&self, peer: NodeId) -> bool {
        self.known.borrow().peers.get(&peer).is_some_and(|report| opens(report.as_ref()))
    }

    /// The creator whose invitation was accepted says whether it still has the group.
    fn reported_by_creator(&mut self, peer: NodeId, group: NamedGroup) {
        let Some(promise) = self.promise.as_mut().filter(|promise| promise.creator == peer) else { return };
        let has_it = match group {
            NamedGroup::Absent => false,
            NamedGroup::Forming { group, .. } | NamedGroup::Runs { group } => group == promise.group,
        };
        if has_it {
            promise.reports_are_later = true;
        } else if promise.lost && promise.reports_are_later {
            self.promise = None;
        }
    }
}

fn opens(report: Option<&NameReport>) -> bool {
    report.is_some_and(|report| report.opening.is_some())
}
