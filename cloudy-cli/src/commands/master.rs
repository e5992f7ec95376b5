//! `cloudy master`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloudy_node::fault::FaultControl;
use cloudy_node::session::{
    MasterConfig, MasterError, MasterEvent, Multicast, ended_sessions, resumed_session, run_master,
};
use cloudy_node::{Node, SessionPlan};
use miette::Report;

use crate::args::MasterArgs;
use crate::children::parent::{clear_up, obey, say, say_surely};
use crate::commands::attach;
use crate::commands::outcome::{present, with_remedy};
use crate::interrupts::{Asked, Interrupts, Stop};
use crate::keys::KeyFile;
use crate::node::{self, Settings, Who, forget};
use crate::orders::{Order, Said};
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, EXIT_USAGE, failure, print_error, print_first, say_plainly};
use crate::periods::Periods;
use crate::progress::Progress;
use crate::report::{Session, heading};
use crate::ring::DurabilityChoice;
use crate::watcher::Watcher;

/// The time for slaves to reach each other.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

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
    if args.group.durability == DurabilityChoice::Disk && args.process.data.directory.is_none() {
        print_error(&failure(
            "a session on disk needs a data directory for its master, and one for each slave",
            "name one by --data DIR, here and at each slave",
        ));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let start = async {
        let socket = node::bind(args.listen.address(None).await?)?;
        let admin = args.process.admin.bind()?;
        let file = KeyFile::open(&args.process.key).await?;
        let who = Who::of(&args.process.data, None).await?;
        let (node, control) = node::start_as(
            socket,
            &file.keys,
            who,
            args.process.faults.faults(),
            args.process.child.partitions,
            Settings::default(),
        )
        .await?;
        node::serve_admin(&node, admin)?;
        Ok::<_, Report>((file, node, control))
    };
    let Some(started) = stop.unless_asked(start).await else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    let (file, node, control) = started?;
    let config = MasterConfig::new(plan(args.periods(), args.seed()))
        .session(args.process.session.name.clone())
        .ring(args.group.ring.into())
        .on_failure(args.on_failure.into())
        .catch_up(args.catch_up.into())
        .durability(args.group.durability.into())
        .failure_timeout(args.timeouts.failure_timeout)
        .timeout_max(args.timeouts.timeout_max)
        .slaves(args.slaves.clone())
        .multicast(Some(Multicast::new(args.discovery_group, node.local_addr().ip())))
        .expect(args.expect.map(usize::from))
        .discovery_timeout(args.discovery_timeout)
        .ready_timeout(READY_TIMEOUT);
    let stored = resumed_session(&node).or_else(|| ended_sessions(&node).next().cloned());
    let mut orphaned = false;
    let ended = if let Some(group) = stored {
        file.followed(&node, say_plainly, attach::resumed(args, &node, &group, stop)).await
    } else if args.process.child.announce {
        let session = for_a_parent(&node, control, &config, (stop, &mut orphaned));
        file.followed(&node, say_plainly, session).await
    } else {
        for_a_user(args, &file, &node, &config, stop).await
    };
    node.shutdown().await;
    if orphaned {
        clear_up(args.process.child.parents_files.as_deref());
    }
    ended
}

/// Prints the reason for a session without an outcome.
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
    let (periods, ring, seed) = (args.periods(), args.group.ring, args.seed());
    if !args.json {
        print_first(&heading(periods, ring, seed));
    }
    let watcher = Watcher::new(Progress::start(), BTreeMap::new());
    let began_at = Instant::now();
    let created = Cell::new(None);
    let running = run_master(node, config, stop.asked(), |event| {
        if let MasterEvent::Created { group, .. } = event {
            created.set(Some(group));
        }
        watcher.observe(event);
    });
    let running = file.followed(node, |line| watcher.line(line), running);
    let outcome = match watcher.during(running).await {
        Ok(outcome) => outcome,
        Err(error) => return without_outcome(&error),
    };
    let mut session = Session::new((periods, ring, seed), outcome, &watcher, began_at.elapsed());
    // The ring is ordered by node ids, which have no meaning for a reader.
    session.rows.sort_by_key(|(_, row)| row.slave.address);
    session.report_absent(&config.slaves, config.expect.is_some());
    drop(watcher);
    let presented = present(&session, args.json, stop).await;
    if let (Ok(_), Some(group)) = (&presented, created.get()) {
        forget(node, group).await;
    }
    presented
}

/// Reports events to the parent process, which compares the results.
async fn for_a_parent(
    node: &Node,
    control: Option<FaultControl>,
    config: &MasterConfig,
    (stop, orphaned): (&Stop, &mut bool),
) -> Result<ExitCode, Report> {
    say(&Said::Listening { address: node.local_addr(), node: node.id() });
    let act = |order| match (order, &control) {
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
        () = obey(act) => {
            *orphaned = true;
            Err(failure("the process that started this master is gone", "start another"))
        }
    }
}

/// The plan for the slaves.
fn plan(Periods { send, grace, stop }: Periods, seed: u64) -> SessionPlan {
    SessionPlan::new(send, grace, stop).seed(seed)
}
