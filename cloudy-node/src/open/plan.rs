//! The next step of a node that opens a group, derived from the reports of linked nodes. No I/O, no clock.

use core::fmt;
use std::collections::BTreeSet;

use cloudy_proto::wire::{NameReport, NamedGroup, Opening, ReportedSeed};
use cloudy_proto::{GroupId, NodeId, Parameters};

use crate::driver::Known;
use crate::open::seeds::Universe;

/// How this node opens the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) me: NodeId,
    /// 0: this node does not create the group.
    pub(super) expect: u16,
    pub(super) parameters: &'a Parameters,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Two groups have the name: each with a node that is in it.
    Two([(GroupId, NodeId); 2]),
    /// Join by one of these nodes.
    Join(Vec<NodeId>),
    /// Create the group with these others.
    Create(Vec<NodeId>),
    /// Wait for other nodes.
    Wait(Waits),
}

/// The condition that a node waits for while it opens a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// This node only joins, and no linked node is in the group.
    Group,
    /// This node is in the group, and not on its ring.
    Ring,
    /// Whether this node has accepted an invitation.
    Invited { creator: NodeId },
    /// This node has accepted an invitation, and the creator was lost before it was known whether the group exists.
    Lost { creator: NodeId, group: GroupId },
    /// The nodes that are ready to create the group, this one included, are fewer than `expect`.
    Nodes { ready: Vec<NodeId>, expect: u16 },
    /// Enough nodes are ready, and they are not most of the seeds.
    Seeds { found: usize, of: usize },
    /// `bootstrap_expect` is too small for the number of seeds, those of other nodes included.
    TooFew { expect: u16, seeds: usize },
    /// A linked seed has not reported yet which group it has under the name.
    Answer(NodeId),
    /// Another node creates the group with some of those that this one would invite.
    Other { creator: NodeId },
    /// This other node is to create the group: this one asks it for an invitation.
    Creator(NodeId),
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str(
                "no node in reach is in the group, and without bootstrap_expect this node does not create it; start a \
                 node of the group, or set bootstrap_expect",
            ),
            Self::Ring => f.write_str("this node is in the group and not on its ring"),
            Self::Invited { creator } => write!(f, "node {} creates the group with this node", creator.short()),
            Self::Lost { creator, group } => write!(
                f,
                "node {} invited this node to group {group} and was lost, so the group may exist there; start that node \
                 again with its data directory, or, if it is gone for good, start this process again",
                creator.short()
            ),
            Self::Nodes { ready, expect } => {
                let names = ready.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
                write!(f, "{} of {expect} nodes are ready to create the group, and linked: {names}", ready.len())
            }
            Self::Seeds { found, of } => write!(
                f,
                "the nodes that are ready are {found} of {of} seeds, and the group is created by more than half of them"
            ),
            Self::TooFew { expect, seeds } => write!(
                f,
                "bootstrap_expect is {expect}, and there are {seeds} seeds, those of other nodes included; the group is created \
                 by more than half of them"
            ),
            Self::Other { creator } => {
                write!(f, "node {} creates the group with some of the nodes that are ready", creator.short())
            }
            Self::Answer(node) => write!(f, "node {} has not said whether it is in the group", node.short()),
            Self::Creator(node) => write!(f, "node {} is about to create the group", node.short()),
        }
    }
}

/// The next step. No step is repeated: while one is in progress, the next is `Wait`.
pub(super) fn plan(terms: Terms<'_>, known: &Known, seeds: &[ReportedSeed]) -> Plan {
    let running = known.reports().filter_map(|(node, report)| match report.group {
        NamedGroup::Runs { group } => Some((group, node)),
        _ => None,
    });
    let own = match known.own {
        NamedGroup::Runs { group } => Some((group, terms.me)),
        _ => None,
    };
    let running: Vec<(GroupId, NodeId)> = own.into_iter().chain(running).collect();
    if let Some(&first) = running.first() {
        return match running.iter().find(|(group, _)| *group != first.0) {
            Some(&other) => Plan::Two([first, other]),
            None if own.is_some() => Plan::Wait(Waits::Ring),
            None if known.is_forming() => Plan::Wait(known.waits_for_creator()),
            None => Plan::Join(running.into_iter().map(|(_, node)| node).collect()),
        };
    }
    if let NamedGroup::Forming { .. } = known.own {
        return Plan::Wait(known.waits_for_creator());
    }
    // Created by a call that names its members, or takes the nodes that ask.
    let explicit = known.reports().filter(|(node, report)| {
        let creates = matches!(report.group, NamedGroup::Forming { creator, .. } if creator == *node);
        creates && report.opening.is_none()
    });
    let explicit: Vec<NodeId> = explicit.map(|(node, _)| node).collect();
    if !explicit.is_empty() {
        return Plan::Join(explicit);
    }
    if terms.expect == 0 {
        return Plan::Wait(Waits::Group);
    }
    create(terms, known, &Universe::of(seeds, known, terms.me))
}

/// The lowest seed among the nodes that create the group invites the others.
fn create(terms: Terms<'_>, known: &Known, seeds: &Universe) -> Plan {
    if 2 * usize::from(terms.expect) <= seeds.size {
        return Plan::Wait(Waits::TooFew { expect: terms.expect, seeds: seeds.size });
    }
    let mut ready: Vec<NodeId> = known.ready(terms).chain([terms.me]).collect();
    // All nodes choose among the same ones in the same order.
    ready.sort_unstable_by_key(|node| (!seeds.nodes.contains(node), *node));
    let expect = usize::from(terms.expect);
    let sets = ready.iter().map(|&first| known.linked_set(first, &ready, expect, terms.me));
    let mut largest = Vec::new();
    let mut found = 0;
    for set in sets {
        let of_seeds = set.iter().filter(|node| seeds.nodes.contains(node)).count();
        if set.len() == expect && 2 * of_seeds > seeds.size {
            return created_by(terms, known, &set, seeds);
        }
        if set.len() == expect {
            found = found.max(of_seeds);
        }
        if set.len() > largest.len() {
            largest = set;
        }
    }
    Plan::Wait(if largest.len() == expect {
        Waits::Seeds { found, of: seeds.size }
    } else {
        Waits::Nodes { ready: largest, expect: terms.expect }
    })
}

fn created_by(terms: Terms<'_>, known: &Known, set: &[NodeId], seeds: &Universe) -> Plan {
    let silent = known.peers.iter().find(|(node, report)| report.is_none() && seeds.nodes.contains(node));
    if let Some((&node, _)) = silent {
        return Plan::Wait(Waits::Answer(node));
    }
    // All know which of them are seeds.
    match set.iter().filter(|node| seeds.nodes.contains(node)).min() {
        Some(&creator) if creator == terms.me => {
            let others: Vec<NodeId> = set.iter().copied().filter(|&node| node != creator).collect();
            match others.iter().find_map(|node| known.creator_of(*node)) {
                Some(creator) => Plan::Wait(Waits::Other { creator }),
                None => Plan::Create(others),
            }
        }
        Some(&creator) => Plan::Wait(Waits::Creator(creator)),
        None => Plan::Wait(Waits::Nodes { ready: Vec::new(), expect: terms.expect }),
    }
}

impl Known {
    /// The reports of linked nodes.
    pub(super) fn reports(&self) -> impl Iterator<Item = (NodeId, &NameReport)> {
        self.peers.iter().filter_map(|(&node, report)| Some((node, report.as_ref()?)))
    }

    fn opening(&self, node: NodeId) -> Option<&Opening> {
        self.peers.get(&node)?.as_ref()?.opening.as_ref()
    }

    /// This node has accepted an invitation, or creates the group, and that is in progress.
    fn is_forming(&self) -> bool {
        matches!(self.own, NamedGroup::Forming { .. }) && self.promise.is_none_or(|promise| !promise.lost)
    }

    fn waits_for_creator(&self) -> Waits {
        match (self.promise, self.own) {
            (Some(promise), _) if promise.lost => Waits::Lost { creator: promise.creator, group: promise.group },
            (Some(promise), _) => Waits::Invited { creator: promise.creator },
            (None, NamedGroup::Forming { creator, .. }) => Waits::Invited { creator },
            (None, _) => Waits::Group,
        }
    }

    /// Linked nodes that could create the group with this one.
    fn ready(&self, terms: Terms<'_>) -> impl Iterator<Item = NodeId> {
        self.reports().filter_map(move |(node, report)| {
            let opening = report.opening.as_ref()?;
            let same = opening.expect == terms.expect && opening.parameters == *terms.parameters;
            (same && self.is_free(node, report.group)).then_some(node)
        })
    }

    /// The other creator whose invitation a node has accepted, or the node itself if it creates the group.
    fn creator_of(&self, node: NodeId) -> Option<NodeId> {
        match self.peers.get(&node)?.as_ref()?.group {
            NamedGroup::Forming { creator, .. } => Some(creator),
            NamedGroup::Absent | NamedGroup::Runs { .. } => None,
        }
    }

    /// A node has accepted no invitation, or one of a creator that is linked and still creates the group.
    fn is_free(&self, node: NodeId, group: NamedGroup) -> bool {
        match group {
            NamedGroup::Absent => true,
            NamedGroup::Forming { creator, .. } => {
                let of_creator = self.peers.get(&creator).and_then(|report| Some(report.as_ref()?.group));
                creator == node || of_creator == Some(group)
            }
            NamedGroup::Runs { .. } => false,
        }
    }

    /// Two nodes, of which one may be this one, report that they are linked.
    fn are_linked(&self, one: NodeId, other: NodeId, me: NodeId) -> bool {
        let says = |one: NodeId, other: NodeId| match one == me {
            true => self.peers.contains_key(&other),
            false => self.opening(one).is_some_and(|opening| opening.linked.contains(&other)),
        };
        says(one, other) && says(other, one)
    }

    /// Nodes that are all linked to each other, this one first, up to a maximum number.
    fn linked_set(&self, first: NodeId, ready: &[NodeId], expect: usize, me: NodeId) -> Vec<NodeId> {
        let mut set = vec![first];
        for &node in ready {
            let linked = node != first && set.iter().all(|&other| self.are_linked(node, other, me));
            if set.len() < expect && linked {
                set.push(node);
            }
        }
        set
    }
}

/// How the settings of two nodes differ: setting, value there, value here.
pub(super) fn differences(there: &Opening, here: Terms<'_>) -> Vec<(String, String, String)> {
    let mut differences = Vec::new();
    let expects = [there.expect, here.expect].map(|expect| match expect {
        0 => "not set".to_owned(),
        expect => expect.to_string(),
    });
    if expects[0] != expects[1] {
        let [there, here] = expects;
        differences.push(("bootstrap_expect".to_owned(), there, here));
    }
    let (there, here) = (fields(&there.parameters), fields(here.parameters));
    for ((name, there), (_, here)) in there.into_iter().zip(here).filter(|(there, here)| there != here) {
        differences.push((name, there, here));
    }
    differences
}

/// Names and values. `Debug` has every field, also one that is added later.
fn fields(parameters: &Parameters) -> Vec<(String, String)> {
    let text = format!("{parameters:#?}");
    let fields = text.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The nodes that are linked and known to open the group with other settings.
pub(super) fn others<'a>(known: &'a Known, terms: Terms<'a>) -> impl Iterator<Item = (NodeId, &'a Opening)> {
    let ready: BTreeSet<NodeId> = known.ready(terms).collect();
    known.reports().filter_map(move |(node, report)| Some((node, report.opening.as_ref()?))).filter(
        move |(node, opening)| {
            !ready.contains(node) && (opening.expect != terms.expect || opening.parameters != *terms.parameters)
        },
    )
}
