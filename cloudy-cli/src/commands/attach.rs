//! `cloudy master --attach`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use cloudy_node::session::{AttachConfig, AttachOutcome, MasterError, Multicast, attach_master, resume_master};
use cloudy_node::{Group, Node, SessionPlan};
use miette::Report;

use crate::args::MasterArgs;
use crate::commands::outcome::{present, with_remedy};
use crate::interrupts::Stop;
use crate::keys::KeyFile;
use crate::node::{self, Settings, Who, forget};
use crate::output::{EXIT_INTERRUPTED, failure, print_first};
use crate::periods::Periods;
use crate::progress::Progress;
use crate::report::{Session, heading};
use crate::ring::RingChoice;
use crate::watcher::Watcher;

/// Shows a session of another master, and compares the results.
pub(crate) async fn session(args: &MasterArgs, stop: &Stop) -> Result<ExitCode, Report> {
    let start = async {
        let socket = node::bind(args.listen.address(None).await?)?;
        let admin = args.process.admin.bind()?;
        let file = KeyFile::open(&args.process.key).await?;
        let (node, _) =
            node::start_as(socket, &file.keys, Who::Fresh, args.process.faults.faults(), false, Settings::default())
                .await?;
        node::serve_admin(&node, admin)?;
        Ok::<_, Report>((file, node))
    };
    let Some(started) = stop.unless_asked(start).await else { return Ok(ExitCode::from(EXIT_INTERRUPTED)) };
    let (file, node) = started?;
    let config = AttachConfig::default()
        .session(args.process.session.name.clone())
        .slaves(args.slaves.clone())
        .multicast(Some(Multicast::new(args.discovery_group, node.local_addr().ip())))
        .discovery_timeout(args.discovery_timeout);
    let watcher = Watcher::new(Progress::start(), BTreeMap::new());
    let began_at = Instant::now();
    let running = attach_master(&node, &config, stop.asked(), |event| watcher.observe(event));
    let attached = watcher.during(file.followed(&node, |line| watcher.line(line), running)).await;
    let ended = match attached {
        Ok(attached) => show(args, attached, &watcher, began_at, stop).await,
        Err(MasterError::Stopped) => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        Err(error @ MasterError::NoSession { .. }) => Err(failure(
            error,
            "start a session by `cloudy master` without --attach; if multicast does not reach the slaves of a running session, name one of them by --slave HOST:PORT; if all processes of a session are gone, it is lost, unless it was on disk: then start its slaves and its master again, each with its --data directory",
        )),
        Err(error) => Err(with_remedy(&error)),
    };
    node.shutdown().await;
    ended
}

/// Continues the session in the master's data directory, and compares the results.
pub(crate) async fn resumed(args: &MasterArgs, node: &Node, group: &Group, stop: &Stop) -> Result<ExitCode, Report> {
    let watcher = Watcher::new(Progress::start(), BTreeMap::new());
    watcher.line("continuing the session in the data directory; start its slaves again too");
    let began_at = Instant::now();
    let multicast = Multicast::new(args.discovery_group, node.local_addr().ip());
    let sought = (&args.slaves[..], Some(multicast));
    let running = resume_master(node, group, sought, stop.asked(), |event| watcher.observe(event));
    let ended = match watcher.during(running).await {
        Ok(attached) => show(args, attached, &watcher, began_at, stop).await,
        Err(MasterError::Stopped) => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        // Each slave has printed the result, and this master cannot receive it.
        Err(error) if group.has_ended() => {
            forget(node, group.id()).await;
            return Err(failure(
                error,
                "the session is over: its slaves have printed its result; run the same command again for the next one",
            ));
        }
        Err(error) => return Err(with_remedy(&error)),
    };
    // A result that could not be printed stays for the next start.
    if ended.is_ok() {
        forget(node, group.id()).await;
    }
    ended
}

async fn show(
    args: &MasterArgs,
    attached: AttachOutcome,
    watcher: &Watcher,
    began_at: Instant,
    stop: &Stop,
) -> Result<ExitCode, Report> {
    let AttachOutcome { plan, ring, outcome } = attached;
    let Some(SessionPlan { send, grace, stop: stop_period, seed, .. }) = plan else {
        return Err(failure(
            "the session ended before it began",
            "its master reports the reason; or start another session",
        ));
    };
    let described = (Periods { send, grace, stop: stop_period }, RingChoice::from(ring), seed);
    if !args.json {
        print_first(&heading(described.0, described.1, described.2));
    }
    let mut session = Session::new(described, outcome, watcher, began_at.elapsed());
    session.rows.sort_by_key(|(_, row)| row.slave.address);
    present(&session, args.json, stop).await
}
