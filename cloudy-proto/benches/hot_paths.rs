//! The hot paths by the clock. On a machine with other work, trust the counts of `cargo xtask instructions` more.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the bench has a clock; the machine has none")]

mod scenario;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use scenario::{Group, LOADS, Load, Meter, Operation};

/// Adds up the time of one operation; reading the clock is part of it.
struct Stopwatch {
    operation: Operation,
    took: Duration,
}

impl Meter for Stopwatch {
    fn measure(&mut self, operation: Operation, work: impl FnOnce()) {
        if operation != self.operation {
            return work();
        }
        let begun = Instant::now();
        work();
        self.took += begun.elapsed();
    }
}

/// The time of so many operations.
fn time(group: &mut Group, operation: Operation, operations: u64) -> Duration {
    let mut stopwatch = Stopwatch { operation, took: Duration::ZERO };
    let rounds = operations.div_ceil(operation.per_round());
    (0..rounds).for_each(|_| group.round(&mut stopwatch));
    stopwatch.took.mul_f64(operations as f64 / (rounds * operation.per_round()) as f64)
}

fn hot_paths(criterion: &mut Criterion) {
    for load in LOADS {
        let Load { name, .. } = load;
        let mut benches = criterion.benchmark_group(name);
        for operation in Operation::ALL {
            let mut group = Group::warm(load);
            benches.bench_function(operation.name(), |bencher| {
                bencher.iter_custom(|operations| time(&mut group, operation, operations));
            });
        }
    }
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
