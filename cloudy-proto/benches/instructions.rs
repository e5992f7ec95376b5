//! The program whose instructions `cargo xtask instructions` counts: without arguments it lists the operations, one a
//! line; with a name it runs that one, and prints how often.

mod scenario;

use std::process::ExitCode;

use scenario::{Group, LOADS, Load, Meter, Operation};

/// Rounds that count.
const ROUNDS: u64 = 200;

fn main() -> ExitCode {
    let all = || LOADS.into_iter().flat_map(|load| Operation::ALL.map(|operation| (load, operation)));
    let Some(wanted) = std::env::args().nth(1) else {
        all().for_each(|(load, operation)| println!("{}", name(load, operation)));
        return ExitCode::SUCCESS;
    };
    let Some((load, operation)) = all().find(|&(load, operation)| name(load, operation) == wanted) else {
        eprintln!("error: nothing to count is named `{wanted}`; `cargo xtask instructions` runs this");
        return ExitCode::from(2);
    };
    let mut group = Group::warm(load);
    (0..ROUNDS).for_each(|_| group.round(&mut Counter { operation }));
    println!("{}", ROUNDS * operation.per_round());
    ExitCode::SUCCESS
}

fn name(load: Load, operation: Operation) -> String {
    format!("{}, {}", operation.name(), load.name)
}

/// Does the work of one operation where the counter looks, and that of the others elsewhere.
struct Counter {
    operation: Operation,
}

impl Meter for Counter {
    fn measure(&mut self, operation: Operation, work: impl FnOnce()) {
        if operation == self.operation { counted(work) } else { work() }
    }
}

/// The counter goes by this function's name.
#[inline(never)]
fn counted(work: impl FnOnce()) {
    work();
}
