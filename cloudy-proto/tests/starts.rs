//! Any number of process starts has no later cost for a group: counted by the allocator, in a separate binary.

use std::alloc::System;

use bytes::BytesMut;
use cloudy_proto::limits::LOG_ENTRIES_MAX;
use cloudy_proto::slot::{Batch, push_payload};
use cloudy_proto::wire::{ControlFrame, Stream};
use cloudy_proto::{
    Checkpoint, Durability, Frame, GroupId, Incarnation, Input, Machine, MachineConfig, NodeId, Parameters, Request,
    Role, Rules, Seq, ServeLimits, Time,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The creator and only member of a group.
fn group() -> Machine {
    let mut machine = Machine::new(MachineConfig {
        me: NodeId([1; 32]),
        addresses: Vec::new(),
        advertised: None,
        group: GroupId(*b"a group of one !"),
        name: "starts".to_owned(),
        run: 1,
        role: Role::Creator { member: true, parameters: Parameters::default() },
        durability: Durability::Memory,
        retain_bytes: 1 << 10,
        retain_disk_bytes: None,
        log_entries_max: LOG_ENTRIES_MAX,
        level_max: cloudy_proto::wire::WIRE_VERSION,
        serves: ServeLimits::default(),
        rules: Rules::default(),
    });
    hand(&mut machine, Input::Request(Request::Create { session: None }));
    machine
}

fn hand(machine: &mut Machine, input: Input) {
    machine.handle(Time(0), input);
    while machine.poll_output().is_some() {}
}

/// A process with its own identity asks for a place on the ring, and is gone again.
fn start(machine: &mut Machine, at: u64) {
    let mut node = NodeId([2; 32]);
    node.0[..8].copy_from_slice(&at.to_be_bytes());
    hand(machine, Input::LinkUp { peer: node, addresses: Vec::new(), advertised: None });
    let join = ControlFrame::Join {
        run: at,
        observer: false,
        result: Checkpoint::default(),
        level: cloudy_proto::wire::WIRE_VERSION,
    };
    let (incarnation, stream, frame) = (Incarnation(0), Stream::Control, Frame::Control(join));
    hand(machine, Input::Frame { from: node, incarnation, stream, frame });
    hand(machine, Input::LinkDown { peer: node });
}

/// Bytes allocated by a hundred broadcasts.
fn broadcasts_bytes(machine: &mut Machine) -> usize {
    let first = machine.last_sent().0;
    let region = Region::new(ALLOCATOR);
    for seq in first + 1..=first + 100 {
        let mut body = BytesMut::new();
        push_payload(&mut body, b"payload");
        hand(machine, Input::Broadcast(Batch { first_seq: Seq(seq), count: 1, body: body.freeze() }));
    }
    region.change().bytes_allocated
}

#[test]
fn a_broadcast_costs_the_same_after_a_hundred_thousand_process_starts() {
    let mut machine = group();
    // Past the warm-up of buffers.
    (0..4_000).for_each(|at| start(&mut machine, at));
    broadcasts_bytes(&mut machine);
    let after_some = broadcasts_bytes(&mut machine);
    (4_000..100_000).for_each(|at| start(&mut machine, at));
    let after_all = broadcasts_bytes(&mut machine);
    assert!(after_all < after_some * 2, "{after_all} bytes, {after_some} after 4,000 starts");
}
