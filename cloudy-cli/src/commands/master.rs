//! `cloudy master`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloudy_node::fault::FaultControl;
use cloudy_node::session::{
    FindError, MasterConfig, MasterError, MasterEvent, Multicast, ended_sessions, resumed_session, run_master,
};
use cloudy_node::{Durability, Node, OnFailure, RingKind, SessionPlan};
use miette::Report;

use crate::args::MasterArgs;
use crate::commands::attach;
use crate::interrupts::{Asked, Interrupts, Stop};
use crate::keys::KeyFile;
use crate::node::{self, Who, forget};
use crate::output::{EXIT_EQUAL, EXIT_FAILED, EXIT_INTERRUPTED, failure, print_beside, print_first, say_plainly};
use crate::parent::{self, Order, Said, say, say_surely};
use crate::periods::Periods;
use crate::progress::Progress;
use crate::report::{Session, heading};
use crate::ring::{DurabilityChoice, FailureChoice, RingChoice};
use crate::watcher::Watcher;

/// How long slaves may take to reach each other.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) async fn run(args: MasterArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    if args.attach {
        let attached = interrupts.during(attach::session(&args, &stop)).await;
        return attached.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)));
    }
    interrupts.during(session(&args, &stop)).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn session(args: &MasterArgs, stop: &Stop) -> Result<ExitCode, Report> {
    let start = async {
        let socket = node::bind(args.listen.address(None).await?)?;
        let file = KeyFile::open(&args.key).await?;
        let who = Who::of(&args.data, None).await?;
        let (node, control) =
            node::start_as(socket, &file.keys, who, args.faults.faults(), args.child.partitions, None).await?;
        Ok::<_, Report>((file, node, control))
    };
    let Some(started) = stop.unless_asked(start).await else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    let (file, node, control) = started?;
    let config = MasterConfig {
        session: args.session.name.clone(),
        plan: plan(args.periods(), args.seed()),
        ring: ring_kind(args.ring),
        on_failure: on_failure(args.on_failure),
        durability: durability(args.durability),
        failure_timeout: args.timeouts.failure_timeout,
        timeout_max: args.timeouts.timeout_max,
        slaves: args.slaves.clone(),
        multicast: Some(Multicast { group: args.discovery_group, interface: node.local_addr().ip() }),
        expect: args.expect.map(usize::from),
        discovery_timeout: args.discovery_timeout,
        ready_timeout: READY_TIMEOUT,
    };
    let stored = resumed_session(&node).or_else(|| ended_sessions(&node).next().cloned());
    let mut orphaned = false;
    let ended = if let Some(group) = stored {
        file.followed(&node, say_plainly, attach::resumed(args, &node, &group, stop)).await
    } else if args.child.announce {
        let session = for_a_parent(&node, control, &config, (stop, &mut orphaned));
        file.followed(&node, say_plainly, session).await
    } else {
        for_a_user(args, &file, &node, &config, stop).await
    };
    node.shutdown().await;
    if orphaned {
        parent::clear_up(args.child.parents_files.as_deref());
    }
    ended
}

/// A session without an outcome.
fn without_outcome(error: &MasterError) -> Result<ExitCode, Report> {
    match error {
        MasterError::Stopped => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        error => Err(with_remedy(error)),
    }
}

/// Shows the session while it runs, and compares the results.
async fn for_a_user(
    args: &MasterArgs,
    file: &KeyFile,
    node: &Node,
    config: &MasterConfig,
    stop: &Stop,
) -> Result<ExitCode, Report> {
    let (periods, ring, seed) = (args.periods(), args.ring, args.seed());
    if !args.json {
        print_first(&heading(periods, ring, seed));
    }
    let watcher = Watcher::new(Progress::start(), BTreeMap::new());
    let began_at = Instant::now();
    let founded = Cell::new(None);
    let running = run_master(node, config, stop.asked(), |event| {
        if let MasterEvent::Founded { group, .. } = event {
            founded.set(Some(group));
        }
        watcher.observe(event);
    });
    let outcome = match file.followed(node, |line| watcher.line(line), running).await {
        Ok(outcome) => outcome,
        Err(error) => return without_outcome(&error),
    };
    let mut session = Session::new((periods, ring, seed), outcome, &watcher, began_at.elapsed());
    // The ring is ordered by node ids, which say nothing to a reader.
    session.rows.sort_by_key(|(_, row)| row.slave.address);
    session.report_absent(&config.slaves, config.expect.is_some());
    drop(watcher);
    let presented = present(&session, args.json, stop).await;
    if let (Ok(_), Some(group)) = (&presented, founded.get()) {
        forget(node, group).await;
    }
    presented
}

/// Tells the process that started this one what happens; that one compares the results.
async fn for_a_parent(
    node: &Node,
    control: Option<FaultControl>,
    config: &MasterConfig,
    (stop, orphaned): (&Stop, &mut bool),
) -> Result<ExitCode, Report> {
    say(&Said::Listening { address: node.local_addr(), node: node.id() });
    let obey = |order| match (order, &control) {
        (Order::CutOff(peers), Some(control)) => control.partition(peers),
        (Order::CutOff(_), None) => tracing::warn!("a partition was not announced when this master was started"),
        (Order::Stop, _) => stop.now(Asked::Order),
    };
    tokio::select! {
        outcome = run_master(node, config, stop.asked(), |event| say(&Said::Saw(event))) => {
            match outcome {
                Ok(outcome) => say_surely(&Said::Outcome(outcome), stop).await?,
                Err(error) => return without_outcome(&error),
            }
            Ok(ExitCode::from(EXIT_EQUAL))
        }
        () = parent::obey(obey) => {
            *orphaned = true;
            Err(failure("the process that started this master is gone", "start another"))
        }
    }
}

/// Prints the end of a session; status 0 only if all results are there and equal.
pub(crate) async fn present(session: &Session, json: bool, stop: &Stop) -> Result<ExitCode, Report> {
    print_beside(&if json { format!("{}\n", session.json()) } else { session.text() }, stop).await?;
    Ok(ExitCode::from(if session.is_good() { EXIT_EQUAL } else { EXIT_FAILED }))
}

/// What the slaves are told.
pub(crate) fn plan(Periods { send, grace, stop }: Periods, seed: u64) -> SessionPlan {
    SessionPlan { send, grace, stop, seed }
}

/// The library's word for it.
pub(crate) fn durability(choice: DurabilityChoice) -> Durability {
    match choice {
        DurabilityChoice::Memory => Durability::Memory,
        DurabilityChoice::Disk => Durability::Disk,
    }
}

/// The library's word for it.
pub(crate) fn on_failure(choice: FailureChoice) -> OnFailure {
    match choice {
        FailureChoice::Wait => OnFailure::Wait,
        FailureChoice::Evict => OnFailure::Evict,
    }
}

pub(crate) fn ring_kind(ring: RingChoice) -> RingKind {
    match ring {
        RingChoice::Token => RingKind::Token,
        RingChoice::Pipelined => RingKind::Pipelined,
        RingChoice::Relay => RingKind::Relay,
    }
}

/// The error, and what to do about it.
pub(crate) fn with_remedy(error: &MasterError) -> Report {
    let remedy = match error {
        // Their words have been shown as they came.
        MasterError::NoSlaves { refusals } if !refusals.is_empty() => {
            let problem = "no slave takes part: those that were asked said why not, each above";
            return failure(
                problem,
                "end what keeps them busy, or wait for it; compare cluster keys by `cloudy key show`",
            );
        }
        MasterError::NoSlaves { .. } | MasterError::TooFew { .. } => {
            "start slaves first, for example `cloudy slave 127.0.0.1 10502 &`; where multicast does not reach them, name \
             each by --slave HOST:PORT; all need the same cluster key (`cloudy key show`)"
        }
        MasterError::Find(FindError::Discovery(_)) => {
            "name the slaves: --slave HOST:PORT, as often as there are slaves"
        }
        MasterError::Find(FindError::Seeds(_)) => "check the name, or give an IP address",
        MasterError::NotReady { .. } => "every slave must be reachable from every other; listen on an address that is",
        MasterError::Diverged { .. } => "run a memory test on both machines, and keep their result files",
        _ => "see what the slaves say on their stderr, and run it again with -v",
    };
    failure(error, remedy)
}
