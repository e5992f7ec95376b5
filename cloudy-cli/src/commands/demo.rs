//! `cloudy demo`: a whole session on this machine, each slave a process of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloudy_node::fault::Faults;
use cloudy_node::session::{MasterConfig, MasterError, MasterOutcome, run_master};
use cloudy_node::{ClusterKey, Node, key_file};
use miette::{IntoDiagnostic, Report};

use super::master::{READY_TIMEOUT, on_failure, plan, present, ring_kind, with_remedy};
use crate::args::DemoArgs;
use crate::interrupts::{Interrupts, Stop};
use crate::node;
use crate::output::{EXIT_INTERRUPTED, failure, print};
use crate::periods::Periods;
use crate::processes::{Launch, Slaves};
use crate::progress::Progress;
use crate::report::{Session, Watcher, heading};

/// How long the master waits for a slave that has said where it listens: long, for the network may be made to lose.
const FIND_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the command.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    interrupts.during(demo(&args, &stop)).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn demo(args: &DemoArgs, stop: &Stop) -> Result<ExitCode, Report> {
    let periods = Periods::new(args.send, args.grace);
    if let Some(dir) = &args.result_dir {
        std::fs::create_dir_all(dir).map_err(|error| {
            failure(
                format_args!("cannot make the directory {} ({error})", dir.display()),
                "name a directory that you may write to",
            )
        })?;
    }
    let key = DemoKey::open(args)?;
    if !args.json {
        print(&heading(periods, args.ring, args.seed))?;
    }
    let progress = Progress::start();
    progress.line(&format!("starting {} slaves", args.nodes));
    let mut slaves = tokio::select! {
        slaves = Slaves::start(launches(args, &key)) => slaves?,
        () = stop.asked() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    let own = Faults { seed: fault_seed(args, 0), ..args.faults.faults() };
    let master = node::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &key.key, own).await?;
    let watcher = Watcher::new(progress, names(&slaves));
    let began_at = Instant::now();
    let outcome = session(args, &master, &mut slaves, &watcher, stop).await;
    let took = began_at.elapsed();
    master.shutdown().await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(MasterError::Stopped) => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        Err(error) => return Err(with_remedy(&error)),
    };
    let mut session = Session::new((periods, args.ring, args.seed), outcome, &watcher, took);
    drop(watcher);
    in_launch_order(&mut session);
    for ending in slaves.endings().await {
        session.problems.extend(ending.problem(&session.rows));
    }
    present(&session, args.json)
}

/// Runs the master beside the slaves, and says at once when one of them ends too early.
async fn session(
    args: &DemoArgs,
    master: &Node,
    slaves: &mut Slaves,
    watcher: &Watcher,
    stop: &Stop,
) -> Result<MasterOutcome, MasterError> {
    let config = MasterConfig {
        plan: plan(Periods::new(args.send, args.grace), args.seed),
        ring: ring_kind(args.ring),
        on_failure: on_failure(args.on_failure),
        slaves: slaves.addresses().map(|(_, address)| address.to_string()).collect(),
        multicast: None,
        expect: Some(usize::from(args.nodes)),
        discovery_timeout: FIND_TIMEOUT,
        ready_timeout: READY_TIMEOUT,
    };
    let mut run = std::pin::pin!(run_master(master, &config, stop.asked(), |event| watcher.observe(event)));
    loop {
        tokio::select! {
            outcome = &mut run => return outcome,
            ending = slaves.next_ending() => if let Some(trouble) = ending.trouble() {
                watcher.line(&trouble);
            }
        }
    }
}

fn names(slaves: &Slaves) -> BTreeMap<String, String> {
    slaves.addresses().map(|(name, address)| (address.to_string(), name.to_owned())).collect()
}

fn launches(args: &DemoArgs, key: &DemoKey) -> Vec<Launch> {
    let launch = |number: u16| {
        let name = slave_name(number);
        let result = args.result_dir.as_ref().map(|dir| dir.join(format!("{name}.jsonl")));
        let faults = args.faults.arguments(fault_seed(args, number));
        Launch { name, key: key.path.clone(), result, faults }
    };
    (1..=args.nodes).map(launch).collect()
}

fn slave_name(number: u16) -> String {
    format!("slave-{number}")
}

/// Dice of its own for each node: those who share them lose in step.
fn fault_seed(args: &DemoArgs, number: u16) -> u64 {
    args.faults.fault_seed.wrapping_add(u64::from(number))
}

/// The ring is ordered by node ids, which say nothing to a reader.
fn in_launch_order(session: &mut Session) {
    let number = |name: &str| name.rsplit('-').next().and_then(|number| number.parse::<u16>().ok());
    session.rows.sort_by_key(|(name, _)| number(name));
}

/// The cluster key of a demo: the one that the user named, or one that lives as long as the demo.
struct DemoKey {
    path: PathBuf,
    key: ClusterKey,
    _directory: Option<tempfile::TempDir>,
}

impl DemoKey {
    fn open(args: &DemoArgs) -> Result<Self, Report> {
        let choice = args.key.choose();
        if let Ok(choice) = choice
            && !choice.is_default
        {
            let key = choice.open().into_diagnostic()?;
            return Ok(Self { path: choice.path, key, _directory: None });
        }
        let directory = tempfile::Builder::new().prefix("cloudy-demo-").tempdir().map_err(|error| {
            failure(
                format_args!("cannot make a directory for the demo's cluster key ({error})"),
                "set TMPDIR to a directory that you may write to, or name a key by --cluster-key",
            )
        })?;
        let path = directory.path().join("cluster.key");
        let key = key_file::create(&path).into_diagnostic()?;
        Ok(Self { path, key, _directory: Some(directory) })
    }
}
