//! One run from its first moment to its end, and its outcome.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use cloudy_proto::{Rule, Rules};

use crate::invariants::{Failure, excuse, has_settled, unsettled};
use crate::sim::plan::Plan;
use crate::sim::stats::{Met, Stats};
use crate::sim::transcript::Transcript;
use crate::sim::world::{CALM_US, World};

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The failure, if any.
    pub failure: Option<Failure>,
    /// The counts of the run.
    pub stats: Stats,
    /// The hash of all that every machine put out, if it was asked for.
    pub trace: u64,
    /// The story as text, if requested.
    pub story: Vec<String>,
}

/// Runs a seed with all rules on.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    run(Plan::of(seed), false)
}

/// Runs a seed with one rule off at every node.
#[must_use]
pub fn run_without(rule: Rule, mut plan: Plan) -> Outcome {
    plan.rules = Rules::all_but(rule);
    plan.mutated = true;
    run(plan, false)
}

/// Runs a seed with two rules off at every node that stand in for each other.
#[must_use]
pub fn run_without_both(one: Rule, other: Rule, mut plan: Plan) -> Outcome {
    plan.rules = Rules::all_but_both(one, other);
    plan.mutated = true;
    run(plan, false)
}

/// Runs a plan until a checker fails or everything has settled. A panic of a machine is a failure too.
#[must_use]
pub fn run(plan: Plan, traced: bool) -> Outcome {
    let mut world = World::new(plan, traced);
    let failure = match guarded(|| live(&mut world)) {
        Ok(lived) => lived.err(),
        Err(_) => {
            let said = LAST_PANIC.with(|said| said.take());
            Some(world.judge.failure("the machine's own assertions hold", usize::MAX, said))
        }
    };
    let story = core::mem::take(&mut world.story);
    Outcome { failure, stats: core::mem::take(&mut world.stats), trace: world.trace(), story }
}

/// Runs a plan to its end, and returns all inputs and outputs of its machines.
#[must_use]
pub fn record(plan: Plan) -> Transcript {
    let mut world = World::new(plan, false);
    world.transcript = Some(Transcript::default());
    // A failed check ends the run at an equal place in equal builds.
    drop(guarded(|| live(&mut world)));
    world.transcript.unwrap_or_default()
}

/// Runs something whose panics are kept and not printed.
fn guarded<T>(run: impl FnOnce() -> T) -> std::thread::Result<T> {
    quiet_panics();
    GUARDED.with(|guarded| {
        guarded.set(true);
        let ran = catch_unwind(AssertUnwindSafe(run));
        guarded.set(false);
        ran
    })
}

/// Steps a world until it has settled.
///
/// # Errors
/// If a checker fails, or it does not settle in time.
pub fn live(world: &mut World) -> Result<(), Failure> {
    let give_up_at = world.plan.heal_at_us + CALM_US;
    while world.stats.count(Met::Frame) < FRAMES_MAX {
        let went_on = world.step()?;
        if world.healed && has_settled(world) {
            excuse(world).into_iter().for_each(|why| world.stats.met(why));
            return Ok(());
        }
        if !went_on || world.now_us > give_up_at {
            let (node, what) = unsettled(world).unwrap_or((0, String::new()));
            let what = if went_on { what } else { format!("{what}, and nothing more happens") };
            return Err(world.judge.failure("a calm world settles", node, what));
        }
    }
    Err(world.judge.failure("nobody talks without end", usize::MAX, format!("{FRAMES_MAX} frames")))
}

/// Far above the longest correct run: two nodes that ask each other without end reach this.
const FRAMES_MAX: u64 = 1_000_000;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a panic inside a run for its outcome, without printing it.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(Cell::get) {
                LAST_PANIC.with(|said| said.replace(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}
