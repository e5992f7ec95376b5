//! The rows of a command line.

use std::time::Duration;

use miette::Report;

use crate::args::{BenchArgs, GroupArgs, Senders, Sweep};
use crate::bench::runs::PlannedRow;
use crate::bench::spec::{Spec, default_window};
use crate::bench::targets::Target;
use crate::output::failure;
use crate::ring::{DurabilityChoice, RingChoice};

/// Maximum of rows in a sweep.
const ROWS_MAX: usize = 1_000;

/// The times of `--quick`: all its rows take less than two minutes.
const QUICK_WARM_UP: Duration = Duration::from_secs(1);
/// For many nodes that all send, at a low rate: until the retained result of each has its full size.
const QUICK_WARM_UP_OF_MANY: Duration = Duration::from_secs(4);
const QUICK_MANY: u16 = 8;
const QUICK_DURATION: Duration = Duration::from_millis(700);
/// Pairs of runs with the baseline; runs of the other rows.
const QUICK_PAIRS: u32 = 2;
const QUICK_RUNS: u32 = 2;

/// The rows of `--quick`, each with its target: relative to the baseline, or absolute.
fn quick() -> Vec<(Wish, Target)> {
    let usual = Wish {
        nodes: 4,
        senders: Senders::All,
        size: 100,
        rate: None,
        window: None,
        ring: RingChoice::Pipelined,
        durability: DurabilityChoice::Memory,
        loss: 0.0,
        latency: Duration::ZERO,
    };
    let one_of_eight = Wish { nodes: 8, senders: Senders::First(1), size: 64 << 10, window: Some(2 << 20), ..usual };
    // A larger window takes tens of seconds to drain over such a path.
    let lossy = Wish { loss: 0.05, latency: Duration::from_millis(20), window: Some(16 << 10), ..usual };
    let unloaded = Target::LatencyOfBaseline { p50: 1.1, p99: 1.4 };
    let saturated = Target::Latency { p50_us: 4_000, p99_us: 10_000 };
    vec![
        (Wish { size: 8, ..usual }, Target::OfBaseline(0.5)),
        (usual, Target::OfBaseline(0.8)),
        (Wish { size: 1 << 10, ..usual }, Target::OfBaseline(0.85)),
        (Wish { size: 64 << 10, ..usual }, Target::OfBaseline(0.95)),
        (Wish { size: 1 << 20, ..usual }, Target::OfBaseline(0.95)),
        (Wish { rate: Some(100), ..usual }, unloaded),
        (Wish { window: Some(64 << 10), ..usual }, saturated),
        (Wish { ring: RingChoice::Token, ..usual }, Target::OfBaseline(0.8)),
        (Wish { senders: Senders::First(1), ..usual }, Target::OfBaseline(0.8)),
        (lossy, Target::OfBaseline(0.5)),
        (Wish { durability: DurabilityChoice::Disk, ..usual }, Target::OfRow(2, 0.5)),
        (one_of_eight, Target::Measured),
        (Wish { ring: RingChoice::Relay, ..one_of_eight }, Target::OfRow(12, 2.0)),
        (Wish { nodes: 2, ..usual }, Target::CpuOfRow(2, 1.5)),
        (Wish { nodes: 8, ..usual }, Target::CpuOfRow(2, 1.5)),
        (Wish { nodes: 16, ..usual }, Target::CpuOfRow(2, 1.5)),
    ]
}

/// The settings that distinguish rows.
#[derive(Clone, Copy, Debug)]
struct Wish {
    nodes: u16,
    senders: Senders,
    size: u64,
    rate: Option<u64>,
    window: Option<u64>,
    ring: RingChoice,
    durability: DurabilityChoice,
    loss: f64,
    latency: Duration,
}

/// The rows of the command line.
pub(super) fn plan(args: &BenchArgs) -> Result<Vec<PlannedRow>, Report> {
    if args.quick {
        return quick_plan(args);
    }
    let BenchArgs { nodes, senders, size, rate, window, group: GroupArgs { ring, durability }, .. } = *args;
    let (loss, latency) = (args.faults.loss, args.faults.latency);
    let mut wishes = vec![Wish { nodes, senders, size, rate, window, ring, durability, loss, latency }];
    for sweep in &args.sweep {
        wishes = wishes.iter().flat_map(|wish| wish.swept(sweep)).collect();
        if wishes.len() > ROWS_MAX {
            return Err(failure(format_args!("more than {ROWS_MAX} rows"), "give --sweep fewer values"));
        }
    }
    if args.baseline && wishes.iter().any(|wish| wish.ring == RingChoice::Token && !wish.is_plain_ring()) {
        return Err(failure(
            "the ring of the baseline always runs through all nodes at full speed",
            "leave out --rate and --senders with --baseline --ring token",
        ));
    }
    let row = |wish: &Wish| {
        let spec = wish.spec(args, args.warm_up, args.duration)?;
        Ok(PlannedRow { spec, baseline: args.baseline, repeat: args.repeat, target: None })
    };
    wishes.iter().map(row).collect()
}

fn quick_plan(args: &BenchArgs) -> Result<Vec<PlannedRow>, Report> {
    let row = |(wish, target): (Wish, Target)| {
        let baseline = target.is_of_baseline();
        let many = wish.nodes >= QUICK_MANY && wish.senders == Senders::All;
        let (warm_up, repeat) = match (baseline, many) {
            (_, true) => (QUICK_WARM_UP_OF_MANY, 1),
            (true, false) => (QUICK_WARM_UP, QUICK_PAIRS),
            (false, false) => (QUICK_WARM_UP, QUICK_RUNS),
        };
        let spec = wish.spec(args, warm_up, QUICK_DURATION)?;
        Ok(PlannedRow { spec, baseline, repeat, target: Some(target) })
    };
    quick().into_iter().map(row).collect()
}

impl Wish {
    /// One row for each value.
    fn swept(self, sweep: &Sweep) -> Vec<Self> {
        fn each<T: Copy>(values: &[T], wish: impl Fn(T) -> Wish) -> Vec<Wish> {
            values.iter().map(|&value| wish(value)).collect()
        }
        match sweep {
            Sweep::Nodes(values) => each(values, |nodes| Self { nodes, ..self }),
            Sweep::Senders(values) => each(values, |senders| Self { senders, ..self }),
            Sweep::Size(values) => each(values, |size| Self { size, ..self }),
            Sweep::Rate(values) => each(values, |rate| Self { rate: Some(rate), ..self }),
            Sweep::Window(values) => each(values, |window| Self { window: Some(window), ..self }),
            Sweep::Ring(values) => each(values, |ring| Self { ring, ..self }),
            Sweep::Durability(values) => each(values, |durability| Self { durability, ..self }),
            Sweep::Loss(values) => each(values, |loss| Self { loss, ..self }),
            Sweep::Latency(values) => each(values, |latency| Self { latency, ..self }),
        }
    }

    fn is_plain_ring(&self) -> bool {
        self.rate.is_none() && self.senders == Senders::All
    }

    fn spec(&self, args: &BenchArgs, warm_up: Duration, duration: Duration) -> Result<Spec, Report> {
        let size_bytes = self.size as usize;
        let senders = match self.senders {
            Senders::All => self.nodes,
            Senders::First(senders) if senders <= self.nodes => senders,
            Senders::First(senders) => {
                let problem = format!("{senders} senders among {} nodes", self.nodes);
                return Err(failure(problem, "give --senders at most as many as --nodes"));
            }
        };
        Ok(Spec {
            nodes: usize::from(self.nodes),
            senders: usize::from(senders),
            size_bytes,
            rate_per_s: self.rate,
            window_bytes: self.window.unwrap_or_else(|| default_window(size_bytes)),
            window_adapts: self.window.is_none(),
            ring: self.ring.into(),
            durability: self.durability.into(),
            warm_up,
            duration,
            faults: args.faults.faults().loss(self.loss).latency(self.latency),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::bench::runs::time_for;

    fn planned(line: &str) -> Result<Vec<PlannedRow>, Report> {
        match Cli::try_parse_from(line.split_whitespace()).expect(line).command {
            Command::Bench(args) => plan(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sweep_has_a_row_for_each_combination() {
        let plan = planned("cloudy bench --senders one --sweep nodes=2,8 size=8,1MiB --repeat 3").expect("a plan");
        let rows: Vec<_> = plan.iter().map(|row| (row.spec.nodes, row.spec.senders, row.spec.size_bytes)).collect();
        assert_eq!(rows, [(2, 1, 8), (2, 1, 1 << 20), (8, 1, 8), (8, 1, 1 << 20)]);
        assert_eq!((plan[0].spec.window_bytes, plan[1].spec.window_bytes), (2 << 20, 4 << 20));
        assert!(plan.iter().all(|row| (row.baseline, row.repeat, row.target) == (false, 3, None)));
    }

    #[test]
    fn a_sweep_goes_through_faults_and_durability_and_keeps_the_other_faults() {
        let line = "cloudy bench --jitter 1ms --sweep loss=0%,5% latency=0s,20ms durability=memory,disk";
        let plan = planned(line).expect("a plan");
        assert_eq!(plan.len(), 8);
        let Spec { durability, faults, .. } = &plan[7].spec;
        assert_eq!((*durability, faults.loss), (cloudy_node::Durability::Disk, 0.05));
        assert_eq!((faults.latency, faults.jitter), (Duration::from_millis(20), Duration::from_millis(1)));
        assert_eq!((plan[0].spec.faults.loss, plan[0].spec.faults.latency), (0.0, Duration::ZERO));
    }

    #[test]
    fn quick_is_quick() {
        let plan = planned("cloudy bench --quick").expect("a plan");
        assert!(time_for(&plan) < Duration::from_secs(110), "{:?}", time_for(&plan));
    }

    /// A target names a row by its number: a row that moved would be compared with another.
    #[test]
    fn quick_holds_rows_against_those_that_they_differ_from_in_one_thing() {
        let plan = planned("cloudy bench --quick").expect("a plan");
        for (at, row) in plan.iter().enumerate() {
            let (Some(Target::OfRow(number, _)) | Some(Target::CpuOfRow(number, _))) = row.target else { continue };
            let other = &plan[number - 1].spec;
            assert!(number - 1 < at, "row {} is held against a later one", at + 1);
            let Spec { nodes, senders, ring, durability, warm_up, .. } = &row.spec;
            let alike = [
                Spec { nodes: *nodes, senders: *senders, warm_up: *warm_up, ..other.clone() },
                Spec { ring: *ring, ..other.clone() },
                Spec { durability: *durability, ..other.clone() },
            ];
            assert!(alike.contains(&row.spec), "row {} and row {number}", at + 1);
        }
    }

    #[test]
    fn an_invalid_plan_is_reported_before_anything_runs() {
        for (line, words) in [
            ("cloudy bench --nodes 3 --senders 4", "4 senders among 3 nodes"),
            ("cloudy bench --senders 3 --sweep nodes=4,2", "3 senders among 2 nodes"),
            ("cloudy bench --baseline --ring token --rate 5", "at full speed"),
            ("cloudy bench --baseline --sweep ring=token senders=one", "at full speed"),
        ] {
            let error = planned(line).expect_err(line);
            assert!(error.to_string().contains(words) && error.help().is_some(), "{error}");
        }
        assert!(planned("cloudy bench --ring token --rate 5").is_ok());
    }
}
