//! What a node that opens a group does next, as a table of what it knows.

use cloudy_proto::wire::{NameReport, NamedGroup, Opening, ReportedSeed};
use cloudy_proto::{Durability, GroupId, NodeId, Parameters};

use crate::driver::Known;
use crate::open::plan::{Plan, Terms, Waits, differences, plan};

const NAME: &str = "orders";

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn group(number: u8) -> GroupId {
    GroupId([number; 16])
}

fn seeds(numbers: impl IntoIterator<Item = u8>) -> Vec<ReportedSeed> {
    numbers.into_iter().map(|number| ReportedSeed { name: number.into(), node: Some(node(number)) }).collect()
}

/// A node that opens the group with three members and three seeds, and is linked to the others.
fn opener(own: u8, nodes: &[u8]) -> NameReport {
    let linked = nodes.iter().filter(|&&other| other != own).map(|&other| node(other)).collect();
    let opening = Opening { expect: 3, parameters: Parameters::default(), linked, seeds: seeds(1..=3) };
    NameReport { name: NAME.to_owned(), group: NamedGroup::Absent, opening: Some(opening) }
}

fn with_group(report: NameReport, group: NamedGroup) -> NameReport {
    NameReport { group, ..report }
}

fn idle(group: NamedGroup) -> NameReport {
    NameReport { name: NAME.to_owned(), group, opening: None }
}

/// What node `own` knows: itself without a group, and these reports.
fn known(reports: impl IntoIterator<Item = (u8, Option<NameReport>)>) -> Known {
    let peers = reports.into_iter().map(|(number, report)| (node(number), report)).collect();
    Known { own: NamedGroup::Absent, promise: None, peers, located: Default::default() }
}

fn openers(own: u8, nodes: &[u8]) -> Known {
    known(nodes.iter().filter(|&&other| other != own).map(|&other| (other, Some(opener(other, nodes)))))
}

fn next(own: u8, expect: u16, known: &Known, of: impl IntoIterator<Item = u8>) -> Plan {
    let parameters = Parameters::default();
    plan(Terms { me: node(own), expect, parameters: &parameters }, known, &seeds(of))
}

#[test]
fn the_lowest_of_the_linked_seeds_creates_the_group_and_the_others_ask_it() {
    let nodes = [1, 2, 3];
    assert_eq!(next(1, 3, &openers(1, &nodes), 1..=3), Plan::Create(vec![node(2), node(3)]));
    for own in [2, 3] {
        assert_eq!(next(own, 3, &openers(own, &nodes), 1..=3), Plan::Wait(Waits::Creator(node(1))));
    }
    // A node that is no seed does not create it, even with the lowest id.
    let nodes = [0, 2, 3];
    assert_eq!(next(2, 3, &openers(2, &nodes), 1..=3), Plan::Create(vec![node(3), node(0)]));
}

#[test]
fn fewer_nodes_than_expected_and_fewer_than_most_seeds_create_nothing() {
    let two = openers(1, &[1, 2]);
    assert_eq!(next(1, 3, &two, 1..=3), Plan::Wait(Waits::Nodes { ready: vec![node(1), node(2)], expect: 3 }));
    // Three nodes, of which one is a seed.
    let strangers = openers(1, &[1, 8, 9]);
    assert_eq!(next(1, 3, &strangers, 1..=3), Plan::Wait(Waits::Seeds { found: 1, of: 3 }));
    assert_eq!(next(1, 3, &openers(1, &[1, 2, 3]), 1..=6), Plan::Wait(Waits::TooFew { expect: 3, seeds: 6 }));
    assert_eq!(next(1, 0, &openers(1, &[1, 2, 3]), 1..=3), Plan::Wait(Waits::Group));
}

#[test]
fn nodes_that_are_not_linked_to_each_other_do_not_create_a_group_together() {
    let mut seen = openers(1, &[1, 2, 3]);
    let apart = |number| Some(opener(number, &[1, number]));
    seen.peers.insert(node(2), apart(2));
    seen.peers.insert(node(3), apart(3));
    let Plan::Wait(Waits::Nodes { ready, expect: 3 }) = next(1, 3, &seen, 1..=3) else { panic!("a creation") };
    assert_eq!(ready.len(), 2);
}

#[test]
fn a_seed_that_has_not_answered_is_waited_for() {
    let mut seen = openers(1, &[1, 2, 3, 4]);
    seen.peers.insert(node(4), None);
    assert_eq!(next(1, 3, &seen, 1..=4), Plan::Wait(Waits::Answer(node(4))));
    // It is no seed: it has no say.
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Create(vec![node(2), node(3)]));
}

#[test]
fn a_group_that_runs_is_joined_and_none_is_created_beside_it() {
    let runs = |number| NamedGroup::Runs { group: group(number) };
    let mut seen = openers(1, &[1, 2, 3]);
    seen.peers.insert(node(3), Some(idle(runs(7))));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Join(vec![node(3)]));
    seen.peers.insert(node(2), Some(idle(runs(8))));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Two([(group(8), node(2)), (group(7), node(3))]));
    seen.own = runs(7);
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Two([(group(7), node(1)), (group(8), node(2))]));
    seen.peers.insert(node(2), Some(idle(runs(7))));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Wait(Waits::Ring));
}

#[test]
fn a_creation_in_progress_is_waited_for() {
    let forming = |creator| NamedGroup::Forming { group: group(7), creator: node(creator) };
    // This node has accepted an invitation, or creates the group.
    for creator in [1, 2] {
        let mut seen = openers(1, &[1, 2, 3]);
        seen.own = forming(creator);
        assert_eq!(next(1, 3, &seen, 1..=3), Plan::Wait(Waits::Invited { creator: node(creator) }));
    }
    // A node that this one would invite has accepted the invitation of another, which is in the process.
    let mut seen = openers(1, &[1, 2, 3, 4]);
    seen.peers.insert(node(2), Some(with_group(opener(2, &[1, 2, 3, 4]), forming(4))));
    seen.peers.insert(node(4), Some(with_group(opener(4, &[1, 2, 3, 4]), forming(4))));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Wait(Waits::Other { creator: node(4) }));
    // That creator is not linked, so its invitation may hold: the node is not invited.
    seen.peers.remove(&node(4));
    let Plan::Wait(Waits::Nodes { ready, .. }) = next(1, 3, &seen, 1..=3) else { panic!("a creation") };
    assert_eq!(ready, [node(1), node(3)]);
    // A call that takes the nodes that ask is asked.
    seen.peers.insert(node(5), Some(idle(forming(5))));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Join(vec![node(5)]));
}

#[test]
fn nodes_with_other_settings_do_not_count_and_the_settings_are_named() {
    let mut seen = openers(1, &[1, 2, 3]);
    let mut report = opener(3, &[1, 2, 3]);
    let opening = report.opening.as_mut().expect("it opens");
    (opening.expect, opening.parameters.durability) = (2, Durability::Disk);
    let there = opening.clone();
    seen.peers.insert(node(3), Some(report));
    assert_eq!(next(1, 3, &seen, 1..=3), Plan::Wait(Waits::Nodes { ready: vec![node(1), node(2)], expect: 3 }));
    let parameters = Parameters::default();
    let terms = Terms { me: node(1), expect: 3, parameters: &parameters };
    let named = differences(&there, terms);
    let expected = [("bootstrap_expect", "2", "3"), ("durability", "Disk", "Memory")];
    assert_eq!(named.len(), expected.len(), "{named:?}");
    for (found, (name, there, here)) in named.iter().zip(expected) {
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), (name, there, here));
    }
}
