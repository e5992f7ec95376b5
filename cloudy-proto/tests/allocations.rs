//! The machine allocates for slots, not for messages: counted by the allocator, in a separate binary.

use std::alloc::System;

use bytes::{Bytes, BytesMut};
use cloudy_proto::slot::{Payloads, payload_slices, push_payload};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "../benches/scenario/mod.rs"]
mod scenario;

use scenario::{Group, LOADS, Load, Meter, Operation};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: u64 = 50;
/// Maximum allocations of one operation.
const EACH_MAX: f64 = 2.5;
/// Maximum difference from an operation with a single message in the slot: digest checkpoints come by the number of
/// messages, one in 65,536.
const DIFFERENCE_MAX: f64 = 0.5;

/// Counts the allocations of each operation.
#[derive(Default)]
struct Allocations {
    counts: [usize; Operation::ALL.len()],
}

impl Meter for Allocations {
    fn measure(&mut self, operation: Operation, work: impl FnOnce()) {
        let count = allocations(work);
        let all = Operation::ALL.iter().zip(&mut self.counts);
        all.filter(|(known, _)| **known == operation).for_each(|(_, counted)| *counted += count);
    }
}

fn allocations(work: impl FnOnce()) -> usize {
    let region = Region::new(ALLOCATOR);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}

/// By operation.
fn each(load: Load) -> Vec<f64> {
    let (mut group, mut allocations) = (Group::warm(load), Allocations::default());
    (0..ROUNDS).for_each(|_| group.round(&mut allocations));
    let all = Operation::ALL.iter().zip(allocations.counts);
    all.map(|(operation, count)| count as f64 / (ROUNDS * operation.per_round()) as f64).collect()
}

// One test: another that ran beside it would be counted.
#[test]
fn allocations_go_by_slots_and_not_by_messages() {
    let [many @ .., single] = LOADS;
    let of_single = each(single);
    for load in many {
        for ((operation, count), of_single) in Operation::ALL.iter().zip(each(load)).zip(&of_single) {
            let what = format!("{count} allocations, {}, {}", operation.name(), load.name);
            println!("{what}; {of_single} with {}", single.name);
            assert!(count < EACH_MAX, "{what}");
            assert!(count - of_single < DIFFERENCE_MAX, "{what}; {of_single} with {}", single.name);
        }
    }

    let mut body = BytesMut::with_capacity(1 << 16);
    let written = allocations(|| (0..1_000).for_each(|_| push_payload(&mut body, &[7; 8])));
    assert_eq!(written, 0, "payloads are written into the room that is there");
    let body: Bytes = body.freeze();
    assert_eq!(allocations(|| assert_eq!(payload_slices(&body).count(), 1_000)), 0, "they are read in place");
    // The buffer becomes shared once.
    assert!(allocations(|| assert_eq!(Payloads::of(body).count(), 1_000)) <= 1, "they are shared, not copied");
}
