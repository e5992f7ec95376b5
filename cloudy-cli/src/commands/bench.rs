//! `cloudy bench`, and `cloudy bench-node`, one of its nodes.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use miette::Report;
use tokio::sync::mpsc;

use super::failover;
use super::master::ring_kind;
use crate::args::{BenchArgs, BenchCommand, Senders, Sweep};
use crate::bench::conduct::Conductor;
use crate::bench::fleet::{Place, run_node};
use crate::bench::html;
use crate::bench::machine::Conditions;
use crate::bench::orders::Post;
use crate::bench::report::Findings;
use crate::bench::runs::{self, Plan};
use crate::bench::spec::{Spec, default_window};
use crate::interrupts::Interrupts;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, print};
use crate::progress::Progress;
use crate::ring::RingChoice;

/// Rows that a sweep may have.
const ROWS_MAX: usize = 1_000;
/// Lines that wait to be read: there is at most one.
const LINES_MAX: usize = 4;

/// The rows of `--quick`.
const QUICK: [Wish; 9] = [
    Wish { size: 8, ..USUAL },
    USUAL,
    Wish { size: 1 << 10, ..USUAL },
    Wish { size: 64 << 10, ..USUAL },
    Wish { size: 1 << 20, ..USUAL },
    Wish { rate: Some(100), ..USUAL },
    Wish { window: Some(64 << 10), ..USUAL },
    Wish { ring: RingChoice::Token, ..USUAL },
    Wish { senders: Senders::First(1), ..USUAL },
];
const USUAL: Wish =
    Wish { nodes: 4, senders: Senders::All, size: 100, rate: None, window: None, ring: RingChoice::Pipelined };
/// Its times: nine rows of three pairs take less than two minutes.
const QUICK_WARM_UP: Duration = Duration::from_millis(300);
const QUICK_DURATION: Duration = Duration::from_secs(1);
const QUICK_REPEAT: u32 = 3;

/// Runs the command.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        tokio::select! {
            ended = any(&args) => ended,
            () = stop.asked() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

/// Runs a node of a bench.
pub(crate) async fn run_as_node() -> Result<ExitCode, Report> {
    let (orders, orders_in) = mpsc::channel(LINES_MAX);
    let (says, mut said) = mpsc::channel(LINES_MAX);
    // A thread of its own: it waits for lines, which the runtime would have to look for.
    std::thread::spawn(move || {
        let lines = io::stdin().lock().lines().map_while(Result::ok);
        lines.map_while(|line| serde_json::from_str(&line).ok()).try_for_each(|order| orders.blocking_send(order).ok())
    });
    let answers = async {
        while let Some(answer) = said.recv().await {
            let line = serde_json::to_string(&answer).unwrap_or_default();
            print(&format!("{line}\n"))?;
        }
        Ok(ExitCode::from(EXIT_EQUAL))
    };
    tokio::join!(run_node(Post { orders: orders_in, said: says }), answers).1
}

async fn any(args: &BenchArgs) -> Result<ExitCode, Report> {
    match &args.command {
        None => bench(args).await,
        Some(BenchCommand::Failover(args)) => failover::failover(args).await,
        Some(BenchCommand::Soak(args)) => failover::soak(args).await,
    }
}

/// Where this bench runs; a warning if that says little.
pub(super) fn conditions(progress: &Progress) -> Conditions {
    let conditions = Conditions::here();
    if conditions.build == "debug" {
        progress.line("warning: a debug build says little about speed; build with --release");
    }
    conditions
}

async fn bench(args: &BenchArgs) -> Result<ExitCode, Report> {
    let plan = plan(args)?;
    let page = args.html.as_deref().map(Page::create).transpose()?;
    let progress = Progress::start();
    let conditions = conditions(&progress);
    progress.line(&format!("{} rows, about {:?}", plan.specs.len(), runs::time_for(&plan)));
    let place = if args.in_process { Place::InProcess } else { Place::Processes };
    let conductor = Conductor::new(place)?;
    let rows = runs::all(&plan, &conductor, &progress).await?;
    drop(progress);
    let findings = Findings { conditions, rows };
    page.map_or(Ok(()), |page| page.write(&findings))?;
    print(&if args.json { findings.json() } else { findings.text() })?;
    Ok(ExitCode::from(EXIT_EQUAL))
}

/// The file of `--html`: made before anything runs, for a run is long.
struct Page<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Page<'a> {
    fn create(path: &'a Path) -> Result<Self, Report> {
        let file = File::create(path).map_err(|error| unwritable(path, &error))?;
        Ok(Self { path, file })
    }

    fn write(mut self, findings: &Findings) -> Result<(), Report> {
        self.file.write_all(html::page(findings).as_bytes()).map_err(|error| unwritable(self.path, &error))
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Report {
    failure(format_args!("cannot write {} ({error})", path.display()), "name a file that you may write to")
}

/// The rows that the command line asks for.
fn plan(args: &BenchArgs) -> Result<Plan, Report> {
    if args.quick {
        let specs =
            QUICK.iter().map(|wish| wish.spec(args, QUICK_WARM_UP, QUICK_DURATION)).collect::<Result<_, _>>()?;
        return Ok(Plan { specs, floor: true, repeat: QUICK_REPEAT });
    }
    let BenchArgs { nodes, senders, size, rate, window, ring, .. } = *args;
    let mut wishes = vec![Wish { nodes, senders, size, rate, window, ring }];
    for sweep in &args.sweep {
        wishes = wishes.iter().flat_map(|wish| wish.swept(sweep)).collect();
        if wishes.len() > ROWS_MAX {
            return Err(failure(format_args!("more than {ROWS_MAX} rows"), "give --sweep fewer values"));
        }
    }
    let specs =
        wishes.iter().map(|wish| wish.spec(args, args.warm_up, args.duration)).collect::<Result<Vec<_>, _>>()?;
    if args.floor && wishes.iter().any(|wish| wish.ring == RingChoice::Token && !wish.is_plain_ring()) {
        return Err(failure(
            "the floor's ring goes round all nodes as fast as it can",
            "leave out --rate and --senders with --floor --ring token",
        ));
    }
    Ok(Plan { specs, floor: args.floor, repeat: args.repeat })
}

/// What tells one row from another.
#[derive(Clone, Debug)]
struct Wish {
    nodes: u16,
    senders: Senders,
    size: u64,
    rate: Option<u64>,
    window: Option<u64>,
    ring: RingChoice,
}

impl Wish {
    /// One for each value.
    fn swept(&self, sweep: &Sweep) -> Vec<Self> {
        let wish = self.clone();
        match sweep {
            Sweep::Nodes(values) => values.iter().map(|&nodes| Self { nodes, ..wish.clone() }).collect(),
            Sweep::Senders(values) => values.iter().map(|&senders| Self { senders, ..wish.clone() }).collect(),
            Sweep::Size(values) => values.iter().map(|&size| Self { size, ..wish.clone() }).collect(),
            Sweep::Rate(values) => values.iter().map(|&rate| Self { rate: Some(rate), ..wish.clone() }).collect(),
            Sweep::Window(values) => {
                values.iter().map(|&window| Self { window: Some(window), ..wish.clone() }).collect()
            }
            Sweep::Ring(values) => values.iter().map(|&ring| Self { ring, ..wish.clone() }).collect(),
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
            ring: ring_kind(self.ring),
            durability: crate::commands::master::durability(args.durability),
            warm_up,
            duration,
            faults: args.faults.faults(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn planned(line: &str) -> Result<Plan, Report> {
        match Cli::try_parse_from(line.split_whitespace()).expect(line).command {
            Command::Bench(args) => plan(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sweep_has_a_row_for_each_combination() {
        let plan = planned("cloudy bench --senders one --sweep nodes=2,8 size=8,1MiB --repeat 3").expect("a plan");
        let rows: Vec<_> = plan.specs.iter().map(|spec| (spec.nodes, spec.senders, spec.size_bytes)).collect();
        assert_eq!(rows, [(2, 1, 8), (2, 1, 1 << 20), (8, 1, 8), (8, 1, 1 << 20)]);
        assert_eq!((plan.specs[0].window_bytes, plan.specs[1].window_bytes), (2 << 20, 4 << 20));
        assert_eq!((plan.floor, plan.repeat), (false, 3));
    }

    #[test]
    fn quick_is_quick() {
        let plan = planned("cloudy bench --quick").expect("a plan");
        assert_eq!((plan.specs.len(), plan.floor), (QUICK.len(), true));
        assert!(runs::time_for(&plan) < Duration::from_secs(110), "{:?}", runs::time_for(&plan));
    }

    #[test]
    fn what_cannot_be_run_is_said_before_anything_runs() {
        for (line, words) in [
            ("cloudy bench --nodes 3 --senders 4", "4 senders among 3 nodes"),
            ("cloudy bench --senders 3 --sweep nodes=4,2", "3 senders among 2 nodes"),
            ("cloudy bench --floor --ring token --rate 5", "as fast as it can"),
            ("cloudy bench --floor --sweep ring=token senders=one", "as fast as it can"),
        ] {
            let error = planned(line).expect_err(line);
            assert!(error.to_string().contains(words) && error.help().is_some(), "{error}");
        }
        assert!(planned("cloudy bench --ring token --rate 5").is_ok());
    }
}
