//! `cloudy demo`: a whole session on this machine, each node a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cloudy_node::admin::AdminAddress;
use cloudy_node::key_file;
use miette::{IntoDiagnostic, Report};

use super::outcome::present;
use crate::args::{AdminArgs, DemoArgs, Schedule, Who};
use crate::demo::{Demo, Launch, Processes, judge};
use crate::interrupts::{Interrupts, Stop};
use crate::output::{EXIT_INTERRUPTED, EXIT_USAGE, failure, no_directory, print_error, print_first};
use crate::progress::Progress;
use crate::report::{Session, heading};
use crate::ring::DurabilityChoice;
use crate::watcher::Watcher;
use crate::{duration, logging};

/// The timeout for the master to find a slave that has reported its address: long, because the network may be lossy.
const FIND_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the command.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Report> {
    let schedule = match args.schedule() {
        Ok(schedule) => schedule,
        Err(error) => {
            print_error(&failure(error, "times count from the start of SEND; see `cloudy demo --help`"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    interrupts.during(demo(&args, schedule, &stop)).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn demo(args: &DemoArgs, schedule: Schedule, stop: &Stop) -> Result<ExitCode, Report> {
    let periods = args.periods();
    let admin = free_address(&args.admin)?;
    if let Some(dir) = &args.result_dir {
        std::fs::create_dir_all(dir).map_err(|error| no_directory("the results", dir, &error))?;
    }
    let files = DemoFiles::open(args)?;
    if !args.json {
        print_first(&heading(periods, args.group.ring, args.seed));
    }
    let progress = Progress::start();
    progress.line(&format!("starting {} slaves", args.nodes));
    if let Some(AdminAddress::Tcp(address)) = admin {
        progress.line(&format!("slave-1 is shown at http://{address}/"));
    }
    let mut processes = Processes::new();
    let start = async {
        processes
            .start(
                (1..=args.nodes)
                    .map(|number| slave(args, &schedule, &files, number, admin.as_ref().filter(|_| number == 1)))
                    .collect(),
            )
            .await?;
        let slaves: Vec<SocketAddr> = processes.all().map(|(_, address)| address).collect();
        processes.start(vec![master(args, &schedule, &files, &slaves)]).await
    };
    let Some(started) = stop.unless_asked(start).await else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    started?;
    let names = processes.all().map(|(who, address)| (address.to_string(), who.to_string())).collect();
    let watcher = Watcher::new(progress, names);
    let began_at = Instant::now();
    let session_max = periods.send + periods.grace + periods.stop;
    let played = Demo::new(processes, schedule, session_max, &watcher, stop).play().await;
    if played.outcome.is_none() && watcher.send_at().is_none() {
        if stop.was_asked() {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        return Err(played.endings.get(&Who::Master).map_or_else(no_session, |ending| ending.error(Who::Master)));
    }
    let session = judge(played, &watcher, |outcome| {
        Session::new((periods, args.group.ring, args.seed), outcome, &watcher, began_at.elapsed())
    });
    drop(watcher);
    present(&session, args.json, stop).await
}

/// The address for an admin endpoint, with a free port in place of port 0. A taken address is an error before the demo
/// begins.
fn free_address(admin: &AdminArgs) -> Result<Option<AdminAddress>, Report> {
    let listener = admin.bind()?;
    listener.map(|listener| listener.address()).transpose().into_diagnostic()
}

fn no_session() -> Report {
    failure("there was no session, and the master did not say why", "run it again with -v for more")
}

fn slave(args: &DemoArgs, schedule: &Schedule, files: &DemoFiles, number: u16, admin: Option<&AdminAddress>) -> Launch {
    let who = Who::Slave(number);
    let mut arguments = texts(&["slave", "127.0.0.1", "0", "--no-discovery"]);
    arguments.extend(common(args, schedule, files, number));
    if let Some(dir) = &args.result_dir {
        arguments.extend(["--result".into(), dir.join(format!("{who}.jsonl")).into()]);
    }
    arguments.extend(texts(&["--retain", &args.retain.to_string()]));
    if let Some(rate) = args.rate(schedule) {
        arguments.extend(texts(&["--rate", &rate.to_string()]));
    }
    if let Some(admin) = admin {
        arguments.extend(texts(&["--admin", &admin.to_string()]));
    }
    Launch { who, arguments }
}

fn master(args: &DemoArgs, schedule: &Schedule, files: &DemoFiles, slaves: &[SocketAddr]) -> Launch {
    let [send, grace, find] = [args.send(), args.grace, FIND_TIMEOUT].map(duration::show);
    let [seed, ring, expect] = [args.seed.to_string(), args.group.ring.to_string(), slaves.len().to_string()];
    let on_failure = args.on_failure(schedule).to_string();
    let mut arguments = texts(&["master", "127.0.0.1", "0", &send, &grace, &seed, "--ring", &ring]);
    arguments.extend(texts(&["--durability", &args.group.durability.to_string()]));
    arguments.extend(texts(&["--catch-up", &args.catch_up.to_string()]));
    arguments.extend(texts(&["--on-failure", &on_failure, "--expect", &expect, "--discovery-timeout", &find]));
    arguments.extend(slaves.iter().flat_map(|address| ["--slave".into(), address.to_string().into()]));
    arguments.extend(common(args, schedule, files, 0));
    arguments.extend(args.timeouts.arguments());
    arguments.extend(logging::arguments());
    Launch { who: Who::Master, arguments }
}

/// The arguments of all processes; the seed of faults depends on the number, because processes with equal seeds lose
/// the same datagrams.
fn common(args: &DemoArgs, schedule: &Schedule, files: &DemoFiles, number: u16) -> Vec<OsString> {
    let mut arguments = texts(&["--announce", "--session", args.session.name.as_str(), "--cluster-key"]);
    arguments.push(files.key.clone().into());
    if let Some(directory) = &files.directory {
        arguments.extend(["--parents-files".into(), directory.path().into()]);
    }
    if let Some(data) = &files.data {
        arguments.extend(["--data".into(), data.join(number.to_string()).into()]);
    }
    if schedule.has_partitions() {
        arguments.extend(texts(&["--partitions"]));
    }
    arguments.extend(args.faults.arguments(args.faults.fault_seed.wrapping_add(u64::from(number))));
    arguments
}

fn texts(texts: &[&str]) -> Vec<OsString> {
    texts.iter().map(OsString::from).collect()
}

/// The files of a demo's processes: the cluster key, the user's or a temporary one, and the data directories of a
/// session on disk. The demo deletes its directory at its end; if it is killed, its processes do.
struct DemoFiles {
    key: PathBuf,
    data: Option<PathBuf>,
    directory: Option<tempfile::TempDir>,
}

impl DemoFiles {
    fn open(args: &DemoArgs) -> Result<Self, Report> {
        let choice = args.key.choose().ok().filter(|choice| !choice.is_default);
        let on_disk = args.group.durability == DurabilityChoice::Disk;
        let directory = if on_disk || choice.is_none() { Some(temporary()?) } else { None };
        let inside = |name: &str| directory.as_ref().map(|directory| directory.path().join(name));
        let key = match choice {
            Some(choice) => {
                // A malformed key file is an error here, and not at every process.
                choice.open().into_diagnostic()?;
                choice.path
            }
            None => {
                let path = inside("cluster.key").unwrap_or_default();
                key_file::create(&path).into_diagnostic()?;
                path
            }
        };
        let data = inside("data").filter(|_| on_disk);
        if let Some(data) = &data {
            std::fs::create_dir(data).into_diagnostic()?;
        }
        Ok(Self { key, data, directory })
    }
}

fn temporary() -> Result<tempfile::TempDir, Report> {
    tempfile::Builder::new().prefix("cloudy-demo-").tempdir().map_err(|error| {
        failure(
            format_args!("cannot make a directory for the demo's files ({error})"),
            "set TMPDIR to a directory that you may write to",
        )
    })
}
