//! `cloudy slave`.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::pending;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use cloudy_node::discovery::{Advertisement, Finder, Multicast, Responder};
use cloudy_node::fault::FaultControl;
use cloudy_node::session::{
    ResultFile, SessionName, SlaveConfig, SlaveError, SlaveEvent, SlaveOutcome, SlaveStop, ended_sessions,
    resumed_session, run_slave, stored_result,
};
use cloudy_node::{Durability, Group, Lookup, Node};
use miette::{IntoDiagnostic, Report};
use serde_json::json;

use crate::args::SlaveArgs;
use crate::children::parent::{clear_up, obey, say, say_surely};
use crate::children::supervisor::Supervisor;
use crate::duration;
use crate::interrupts::{Asked, Interrupts, Stop};
use crate::keys::KeyFile;
use crate::node::{self, Settings, Who, forget};
use crate::orders::{Order, Said};
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, EXIT_NOT_STARTED, failure, print_error};
use crate::progress::Progress;
use crate::report::rounded;
use crate::service;
use crate::watcher::{phase_name, stopped_words};

/// How long a slave looks for another process with its identity.
const TWIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the command.
pub(crate) async fn run(args: SlaveArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let Some(started) = stop.unless_asked(Started::new(&args)).await else {
            return Ok(ExitCode::from(stop.status_of_service()));
        };
        let Started { supervisor, key_file, mut file, node, control } = match started {
            Err(report) if args.supervised => {
                print_error(&report);
                return Ok(ExitCode::from(EXIT_NOT_STARTED));
            }
            started => started?,
        };
        let slave = Slave {
            args: &args,
            node: &node,
            fingerprint: key_file.keys.primary().fingerprint(),
            stop: &stop,
            progress: Progress::start(),
            responder: RefCell::new(None),
            waited: Cell::new(false),
        };
        let act = |order| match (order, &control) {
            (Order::CutOff(peers), Some(control)) => control.partition(peers),
            (Order::CutOff(_), None) => {
                tracing::warn!("this slave was started without --partitions, so it cannot be cut off")
            }
            (Order::Stop, _) => stop.now(Asked::Order),
        };
        let mut orphaned = false;
        let unsupervised = async {
            match supervisor {
                Some(supervisor) => supervisor.gone().await,
                None => pending().await,
            }
            slave.progress.line("the supervisor is gone: this slave ends");
            stop.now(Asked::HangUp);
            pending::<Infallible>().await
        };
        let ended = tokio::select! {
            ended = key_file.followed(&node, |line| slave.progress.line(line), slave.sessions(file.as_mut())) => ended,
            () = obey(act), if args.process.child.announce => {
                orphaned = true;
                Err(failure("the process that started this slave is gone", "start another"))
            }
            never = unsupervised => match never {},
            never = slave.look_for_twin() => match never {},
            never = service::watchdog(&node) => match never {},
        };
        drop(slave);
        node.shutdown().await;
        if orphaned {
            clear_up(args.process.child.parents_files.as_deref());
        }
        ended
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

/// The prerequisites of a slave.
struct Started {
    supervisor: Option<Supervisor>,
    key_file: KeyFile,
    file: Option<ResultFile>,
    node: Node,
    control: Option<FaultControl>,
}

impl Started {
    async fn new(args: &SlaveArgs) -> Result<Self, Report> {
        let mut supervisor = if args.supervised { Some(Supervisor::meet().await?) } else { None };
        let socket = node::bind(args.listen.address(args.at).await?)?;
        let admin = args.process.admin.bind()?;
        let key_file = KeyFile::open(&args.process.key).await?;
        let file = match &args.result {
            Some(path) => {
                not_over_own_files(path, key_file.path(), args.process.data.directory.as_deref())?;
                Some(ResultFile::create(path).await.into_diagnostic()?)
            }
            None => None,
        };
        let node_key = supervisor.as_mut().and_then(|supervisor| supervisor.key.take());
        let (keys, who) = (&key_file.keys, Who::of(&args.process.data, node_key).await?);
        let (faults, partitions) = (args.process.faults.faults(), args.process.child.partitions);
        let settings = Settings { retain_bytes: Some(args.retain), advertise: args.advertise.clone() };
        let (node, control) = node::start_as(socket, keys, who, faults, partitions, settings).await?;
        node::serve_admin(&node, admin)?;
        Ok(Self { supervisor, key_file, file, node, control })
    }
}

/// Refuses a result file that would overwrite the node's own files.
fn not_over_own_files(result: &Path, key: &Path, data: Option<&Path>) -> Result<(), Report> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let over_key = real(result).is_some_and(|result| real(key) == Some(result));
    let (directory, data) = (result.parent().and_then(real), data.and_then(real));
    let in_data = directory.zip(data).is_some_and(|(directory, data)| directory.starts_with(data));
    let what = match (over_key, in_data) {
        (true, _) => "the file with the cluster key",
        (_, true) => "a file in the data directory",
        _ => return Ok(()),
    };
    Err(failure(
        format_args!("the result would overwrite {what}, {}", result.display()),
        "name another file by --result",
    ))
}

struct Slave<'a> {
    args: &'a SlaveArgs,
    node: &'a Node,
    fingerprint: String,
    stop: &'a Stop,
    progress: Progress,
    /// Answers masters that search for slaves, also while busy, so that a second master learns the reason.
    responder: RefCell<Option<Responder>>,
    waited: Cell<bool>,
}

impl Slave<'_> {
    async fn sessions(&self, mut file: Option<&mut ResultFile>) -> Result<ExitCode, Report> {
        let mut has_result = false;
        for group in ended_sessions(self.node) {
            has_result |= self.present_stored(group, file.as_deref_mut()).await?;
        }
        if has_result && !self.args.stay {
            return Ok(ExitCode::from(EXIT_EQUAL));
        }
        loop {
            let observe = |event| self.observe(event);
            let session = self.args.process.session.name.clone();
            let config = SlaveConfig::default()
                .session(session)
                .result(file.as_deref_mut())
                .numbers_per_second_max(self.args.rate);
            if resumed_session(self.node).is_some() {
                self.waits();
                self.progress.line("continuing the session in the data directory");
            }
            let stop = async {
                match self.stop.why_asked().await {
                    Asked::Order => SlaveStop::End,
                    Asked::Interrupt | Asked::Terminate | Asked::HangUp => SlaveStop::Leave,
                }
            };
            let outcome = run_slave(self.node, config, stop, observe).await;
            let ended = match outcome {
                Ok(outcome) => {
                    let group = outcome.group;
                    if let Some(sent) = outcome.summary.left {
                        let sent = duration::show(rounded(sent));
                        self.progress
                            .line(&format!("no slave is left to continue the session: it ended, after {sent} of SEND"));
                    }
                    let presented = self.present(outcome).await;
                    if presented.is_ok() {
                        forget(self.node, group).await;
                    }
                    presented
                }
                Err(SlaveError::StoppedWaiting) => return Ok(ExitCode::from(self.stop.status_of_service())),
                Err(SlaveError::Left { group, approved }) => {
                    forget(self.node, group).await;
                    self.progress.line(&format!(
                        "left the session, which continues without this slave: {approved} messages were approved before"
                    ));
                    return Ok(ExitCode::from(self.stop.status_of_service()));
                }
                Err(error @ SlaveError::Join(_)) => return Err(error).into_diagnostic(),
                Err(error) => Err(error).into_diagnostic(),
            };
            if !self.args.stay || self.stop.was_asked() {
                return ended.map(|()| ExitCode::from(EXIT_EQUAL));
            }
            if let Err(report) = ended {
                print_error(&report);
            }
        }
    }

    fn observe(&self, event: SlaveEvent) {
        match event {
            SlaveEvent::Waiting => self.waits(),
            SlaveEvent::Joined { master, rank, members, durability } => self.progress.line(&format!(
                "in the session of master {} as number {} of {members} on the ring; its result is kept {}",
                master.short(),
                rank.0 + 1,
                match durability {
                    Durability::Memory => "in memory",
                    Durability::Disk => "on disk",
                }
            )),
            SlaveEvent::Phase(phase) => {
                self.progress.line(phase_name(phase));
                service::status(phase_name(phase));
            }
            SlaveEvent::View { id, members } if self.args.process.child.announce => say(&Said::View { id, members }),
            SlaveEvent::View { id, members } => self.progress.line(&format!("view {id}: {} slaves", members.len())),
            SlaveEvent::NoCompleteMember(stopped) => self.progress.line(&stopped_words(&stopped)),
            SlaveEvent::NotBegun { master, cause } => self.progress.line(&format!(
                "the master, node {}, {cause} before SEND: this slave has no result of that session",
                master.short()
            )),
            SlaveEvent::Approved(count) => self.progress.state(format!("approved {count}")),
            _ => {}
        }
    }

    /// Looks by multicast for another process with this node's identity, as of a copied data directory: no other node may
    /// link to both. The node reports what it finds, and the process that was started later ends.
    async fn look_for_twin(&self) -> Infallible {
        let address = self.node.local_addr();
        let place = Multicast::new(self.args.discovery_group, address.ip());
        let is_copyable = self.args.process.data.directory.is_some() && !self.args.no_discovery;
        // Without discovery the responder has warned of it.
        let finder = is_copyable.then(|| Finder::start(self.node.discovery_keys(), place, TWIN_TIMEOUT).ok()).flatten();
        if let Some(mut finder) = finder {
            while let Some(hint) = finder.next().await {
                if hint.node == self.node.id() && hint.address != address {
                    // A node that listens on all addresses may meet itself, which is an error without effect.
                    let _ = self.node.connect(hint.address).await;
                }
            }
        }
        pending().await
    }

    /// Starts to wait for a master.
    fn waits(&self) {
        let address = self.node.local_addr();
        if self.waited.replace(true) {
            return self.progress.line("waiting for the next master");
        }
        let (id, fingerprint) = (self.node.id(), &self.fingerprint);
        self.progress.line(&format!("listening on {address} as node {id}, cluster key fingerprint {fingerprint}"));
        if self.args.process.session.name != SessionName::default() {
            self.progress.line(&format!("waiting for a master of session \"{}\"", self.args.process.session.name));
        }
        let place = Multicast::new(self.args.discovery_group, address.ip());
        if resumed_session(self.node).is_some() {
            let multicast = (!self.args.no_discovery).then_some(place);
            let lookup = Lookup::default().names(self.args.seeds.clone()).multicast(multicast);
            if let Err(error) = self.node.look_up(lookup) {
                self.progress.line(&format!("warning: slaves with new addresses are not sought: {error}"));
            }
        }
        if !self.args.no_discovery {
            // A session in the data directory takes precedence over the requested one.
            let resumed = resumed_session(self.node).and_then(|group| SessionName::of_group(group.name()));
            let label = resumed.as_ref().unwrap_or(&self.args.process.session.name).to_string();
            let advertised = Advertisement::new(id, address, label);
            match Responder::start(self.node.discovery_keys(), place, advertised) {
                Ok(responder) => *self.responder.borrow_mut() = Some(responder),
                Err(error) => self.progress.line(&format!(
                    "warning: masters must name this slave by --slave {address}, because discovery is off: {error}"
                )),
            }
        }
        if self.args.process.child.announce {
            say(&Said::Listening { address, node: id });
        }
        self.progress.state("waiting for a master".to_owned());
        service::status("waiting for a master");
        service::ready();
    }

    /// Prints the result of a session that had ended before this process started: an earlier process did not print it.
    /// False if the session ended without a result at this slave.
    async fn present_stored(&self, group: &Group, file: Option<&mut ResultFile>) -> Result<bool, Report> {
        let outcome = stored_result(group, file).await;
        let has_result = outcome.is_ok();
        if let Ok(outcome) = outcome {
            self.progress.line("the session in the data directory has ended: this is its result");
            self.present(outcome).await?;
        }
        forget(self.node, group.id()).await;
        Ok(has_result)
    }

    async fn present(&self, outcome: SlaveOutcome) -> Result<(), Report> {
        let SlaveOutcome { summary, rank, master, timings, file_error, .. } = outcome;
        let sum = summary.sum;
        if self.args.process.child.announce {
            say_surely(&Said::Result(summary), self.stop).await?;
        } else if self.args.json {
            let object = json!({
                "node": self.node.id().to_string(),
                "master": master.to_string(),
                "rank": rank.0,
                "count": summary.count,
                "sum": sum,
                "digest": summary.digest.to_string(),
                "own": summary.own,
                "confirmations": summary.confirmations,
                "send_us": timings.send.as_micros() as u64,
                "grace_us": timings.grace.as_micros() as u64,
                "stop_us": timings.stop.as_micros() as u64,
            });
            self.stop.print(&format!("{object}\n")).await?;
        } else {
            let text = format!(
                "({}, {sum})  digest {}  own {}  confirmations {}\n",
                summary.count, summary.digest, summary.own, summary.confirmations
            );
            self.stop.print(&text).await?;
        }
        file_error.map_or(Ok(()), Err).into_diagnostic()
    }
}
