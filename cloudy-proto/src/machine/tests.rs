//! A group of one, for the unit tests of the machine's parts.

use super::{Machine, MachineConfig, Role};
use crate::config::Parameters;
use crate::id::{GroupId, NodeId};
use crate::io::{Input, Output, Request};
use crate::limits::LOG_ENTRIES_MAX;
use crate::rules::Rules;
use crate::time::Time;

/// The creator and only member of a group, whose disk has synced all so far.
pub(super) fn alone(parameters: Parameters) -> Machine {
    let durability = parameters.durability;
    let mut machine = Machine::new(MachineConfig {
        me: NodeId([1; 32]),
        addresses: Vec::new(),
        group: GroupId(*b"a group of one !"),
        name: "alone".to_owned(),
        run: 1,
        role: Role::Founder { member: true, parameters },
        durability,
        retain_bytes: 1 << 20,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        rules: Rules::default(),
    });
    machine.handle(Time(0), Input::Request(Request::Found { session: None }));
    while let Some(ticket) = drain(&mut machine).into_iter().rev().find_map(ticket_of) {
        machine.handle(Time(0), Input::Persisted { ticket });
    }
    assert!(machine.plane.is_member() && machine.is_coordinator());
    machine
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
