//! Groups of one and of two, for the unit tests of the machine's parts.

use super::{Machine, MachineConfig, Role};
use crate::config::{Durability, Parameters};
use crate::id::{GroupId, Incarnation, NodeId};
use crate::io::{Input, Output, Request};
use crate::limits::{LOG_ENTRIES_MAX, ServeLimits};
use crate::rules::Rules;
use crate::time::Time;

/// The creator of every group here, which coordinates it.
pub(super) const COORDINATOR: NodeId = NodeId([1; 32]);
/// The other member of a group of two.
pub(super) const MEMBER: NodeId = NodeId([2; 32]);

/// A node that is of no group yet.
pub(super) const JOINER: NodeId = NodeId([3; 32]);

fn machine(me: NodeId, role: Role, durability: Durability) -> Machine {
    Machine::new(MachineConfig {
        me,
        addresses: Vec::new(),
        advertised: None,
        group: GroupId(*b"a group of one !"),
        name: "alone".to_owned(),
        run: u64::from(me.0[0]),
        role,
        durability,
        retain_bytes: 1 << 20,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        level_max: crate::wire::WIRE_VERSION,
        serves: ServeLimits::default(),
        rules: Rules::default(),
    })
}

/// The creator and only member of a group, whose disk has synced all so far.
pub(super) fn alone(parameters: Parameters) -> Machine {
    let durability = parameters.durability;
    let mut machine = machine(COORDINATOR, Role::Creator { member: true, parameters }, durability);
    machine.handle(Time(0), Input::Request(Request::Create { session: None }));
    while let Some(ticket) = drain(&mut machine).into_iter().rev().find_map(ticket_of) {
        machine.handle(Time(0), Input::Persisted { ticket });
    }
    assert!(machine.plane.is_member() && machine.is_coordinator());
    machine
}

/// A node that the coordinator has a link to, and has not invited yet.
pub(super) fn invited() -> Machine {
    let mut machine = machine(MEMBER, Role::Invited { by: COORDINATOR }, Durability::Memory);
    machine.handle(Time(0), Input::LinkUp { peer: COORDINATOR, addresses: Vec::new(), advertised: None });
    drain(&mut machine);
    machine
}

/// A node that joins a running group by way of the coordinator, which it has no link to yet.
pub(super) fn joiner() -> Machine {
    machine(JOINER, Role::Joiner { contact: COORDINATOR }, Durability::Memory)
}

/// A group of two in memory, in its first view: the coordinator, and the other member. All frames between them were taken.
pub(super) fn pair(parameters: Parameters) -> (Machine, Machine) {
    let mut coordinator = machine(COORDINATOR, Role::Creator { member: true, parameters }, Durability::Memory);
    let mut member = invited();
    coordinator.handle(Time(0), Input::Request(Request::Invite { node: MEMBER }));
    coordinator.handle(Time(0), Input::LinkUp { peer: MEMBER, addresses: Vec::new(), advertised: None });
    exchange(&mut coordinator, &mut member);
    coordinator.handle(Time(0), Input::Request(Request::Create { session: None }));
    exchange(&mut coordinator, &mut member);
    assert!(coordinator.is_coordinator() && coordinator.plane.is_member() && member.plane.is_member());
    (coordinator, member)
}

/// Carries frames between two machines until none is left.
fn exchange(coordinator: &mut Machine, member: &mut Machine) {
    while carry(coordinator, member) | carry(member, coordinator) {}
}

/// True if there was any.
fn carry(from: &mut Machine, to: &mut Machine) -> bool {
    let (sender, receiver, incarnation) = (from.identity.me, to.identity.me, from.identity.incarnation);
    let mut carried = false;
    for output in drain(from) {
        if let Output::Send { to: receiving, stream, frame } = output
            && receiving == receiver
        {
            carried = true;
            // A stream's header names the incarnation; before one is listed there are control streams only.
            let incarnation = if stream.view().is_some() { incarnation } else { Incarnation(0) };
            to.handle(Time(0), Input::Frame { from: sender, incarnation, stream, frame });
        }
    }
    carried
}

fn ticket_of(output: Output) -> Option<u64> {
    match output {
        Output::Persist { ticket, .. } => Some(ticket),
        _ => None,
    }
}

/// All outputs.
pub(super) fn drain(machine: &mut Machine) -> Vec<Output> {
    core::iter::from_fn(|| machine.poll_output()).collect()
}
