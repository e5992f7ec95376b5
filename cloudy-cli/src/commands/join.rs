//! `cloudy join`: a member of a group for programs in any language. Lines in are broadcast, JSON lines out are the result.

use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::io::{self, BufRead, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use cloudy_node::discovery::seeds;
use cloudy_node::fault::Faults;
use cloudy_node::{
    ApprovedError, ApprovedItem, BroadcastError, Durability, EndReason, Entry, Group, GroupConfig, Index, LeaveError,
    LeaveLimits, MessageId, Node, NodeId, Parameters, Receipt, ReceiptError, SuspendError,
};
use miette::{IntoDiagnostic, Report};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::{Notify, mpsc};

use crate::args::{DataArgs, JoinArgs};
use crate::audit::AuditLog;
use crate::interrupts::{Interrupts, Stop};
use crate::keys::Trust;
use crate::lines::{Message, messages, push_json, view_line};
use crate::node::{self, Settings, Who};
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, say_plainly};
use crate::position::Position;
use crate::service;

/// Lines of stdin that wait.
const WAITING_MAX: usize = 1_024;

/// Receipts that wait: more than a window has slots, so that lines which expire behind them are printed.
const RECEIPTS_MAX: usize = 65_536;

/// How long the node may take to leave after a signal.
const LEAVE_AFTER_SIGNAL: Duration = Duration::from_secs(5);

/// How often a command of `--exec` that runs long is named.
const EXEC_REPORT_EVERY: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) async fn run(args: JoinArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let Some(started) = stop.unless_asked(start(&args)).await else {
            return Ok(ExitCode::from(stop.status_of_service()));
        };
        let (trust, node, audit) = started?;
        let ended = tokio::select! {
            ended = trust.followed(&node, &audit, member(&args, &node, &audit, &stop)) => ended,
            never = service::watchdog(&node) => match never {},
        };
        node.shutdown().await;
        ended
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn start(args: &JoinArgs) -> Result<(Trust, Node, AuditLog), Report> {
    let socket = node::bind(address(&args.bind).await?)?;
    let admin = args.admin.bind()?;
    let trust = Trust::open(&args.trust).await?;
    let audit = AuditLog::open(args.audit_log.as_deref())?;
    let settings = Settings { advertise: args.advertise.clone(), ..Settings::default() };
    let node = match &trust {
        Trust::Keys(file) => {
            let who = Who::of(&DataArgs { directory: args.data.clone() }, None).await?;
            node::start_as(socket, &file.keys, who, Faults::none(), false, settings).await?.0
        }
        Trust::Certificates(_) => settings.apply(trust.builder()).bound(socket).start().await.into_diagnostic()?,
    };
    say_plainly(&format!("node {} listens on {}", node.id().short(), node.local_addr()));
    node::serve_admin(&node, admin)?;
    Ok((trust, node, audit))
}

async fn address(bind: &str) -> Result<SocketAddr, Report> {
    let addresses = seeds::look_up(bind).await.into_diagnostic()?;
    addresses.first().copied().ok_or_else(|| failure(format_args!("{bind} has no address"), "give an IP address"))
}

async fn open(args: &JoinArgs, node: &Node, stop: &Stop) -> Result<Option<Group>, Report> {
    let parameters = Parameters::default().durability(args.durability.into());
    let config = GroupConfig::default().parameters(parameters).retain_bytes(args.retain);
    let mut open = node.group(&args.group).seeds(&args.seeds).config(config);
    if let Some(expect) = args.expect {
        open = open.bootstrap_expect(usize::from(expect.get()));
    }
    let open = open.on_progress(|event| say(&event.to_string())).open().timeout(args.open_timeout);
    stop.unless_asked(open).await.transpose().into_diagnostic()
}

async fn member(args: &JoinArgs, node: &Node, audit: &AuditLog, stop: &Stop) -> Result<ExitCode, Report> {
    let Some(group) = open(args, node, stop).await? else {
        return Ok(ExitCode::from(stop.status_of_service()));
    };
    say_plainly(&format!("in group {:?} ({})", group.name(), group.id()));
    let from = args.from.map(|from| Index(from.get()));
    let position = Position::open(args.data.as_deref(), group.id(), from, args.exec.is_some()).await?;
    let (closed, ends_alone) = (Notify::new(), Cell::new(false));
    let mut output = Output { group: &group, exec: args.exec.as_deref(), position, stop, ends_alone: &ends_alone };
    let input = Input { group: &group, stop, closed: &closed, expire: args.expire, heir_timeout: args.heir_timeout };
    let taking_part = input.take_part(args.stay);
    tokio::pin!(taking_part);
    let print = output.print();
    tokio::pin!(print);
    let shown = service::follow(&group);
    tokio::pin!(shown);
    let audited = audit.follow(&group);
    tokio::pin!(audited);
    let (mut is_printed, mut ended) = (false, None);
    while !is_printed || ended.is_none() {
        tokio::select! {
            printed = &mut print, if !is_printed => {
                printed?;
                is_printed = true;
                closed.notify_one();
            }
            never = &mut shown => match never {},
            never = &mut audited => match never {},
            part = &mut taking_part, if ended.is_none() => match part? {
                Part::Abandoned => return Ok(ExitCode::from(stop.status_of_service())),
                Part::Alone(evicted) => {
                    say_plainly(&without_heir(&evicted, group.durability()));
                    ends_alone.set(true);
                    node.shutdown().await;
                    ended = Some(Lines::default());
                }
                // The rest of the result is printed first.
                Part::Over(lines) => ended = Some(lines),
            }
        }
    }
    match ended.and_then(|lines| lines.problem(&args.group)) {
        Some(problem) => Err(problem),
        None => Ok(ExitCode::from(if stop.was_asked() { stop.status_of_service() } else { EXIT_EQUAL })),
    }
}

/// Warns that the group has no other member that could continue it.
fn without_heir(evicted: &[NodeId], durability: Durability) -> String {
    let names = evicted.iter().map(NodeId::short).collect::<Vec<_>>().join(", ");
    let outcome = match durability {
        Durability::Memory => "the group ends with this node, since it is kept in memory",
        Durability::Disk => "the group continues when this node starts again with the same --data directory",
    };
    format!(
        "warning: no other member is left to hand over to, and evicted ones give no sign of life ({names}): {outcome}"
    )
}

/// How this node's part in the group ended.
enum Part {
    /// It has left, or the group is closed.
    Over(Lines),
    /// All its lines are in the result, and no other member gives a sign of life: only these could take over.
    Alone(Vec<NodeId>),
    /// A signal asked it to leave, and it could not.
    Abandoned,
}

/// A broadcast that may expire, in the order of the lines.
type Sending = Pin<Box<dyn Future<Output = Result<Receipt, BroadcastError>> + Send>>;

/// A line of stdin, by its number, and its broadcast.
struct Line<T> {
    number: u64,
    broadcast: T,
}

/// Which lines of stdin were broadcast.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// Those before the group was closed.
    Some,
}

/// The lines of stdin that are not in the result, or may not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Whether the group was closed before the last line was sent.
    are_unsent: bool,
    /// Lines that are in no result, according to their receipts.
    rejected: u64,
    /// Lines of which it is not known.
    unknown: u64,
}

impl Lines {
    fn problem(self, group: &str) -> Option<Report> {
        let Self { are_unsent, rejected, unknown } = self;
        let problem = match (are_unsent, rejected + unknown) {
            (true, _) => "it is closed: lines of standard input that have no receipt are not in its result".to_owned(),
            (false, 0) => return None,
            (false, _) => format!("{rejected} lines of standard input are not in its result, and {unknown} may not be"),
        };
        let remedy = "see the receipts on standard output; send the lines that are missing to a group of another name, or \
                      delete this one by `cloudy data forget DIR NAME` at all nodes and begin it again";
        Some(failure(format_args!("group {group:?}: {problem}"), remedy))
    }
}

/// The lines that this node sends.
struct Input<'a> {
    group: &'a Group,
    stop: &'a Stop,
    /// Notified once the whole result of a closed group is printed.
    closed: &'a Notify,
    /// The time after which a line expires.
    expire: Option<Duration>,
    /// How long the last member waits for a sign of life of an evicted one.
    heir_timeout: Duration,
}

impl Input<'_> {
    /// Sends the lines of stdin, prints their receipts, and leaves.
    async fn take_part(&self, stays: bool) -> Result<Part, Report> {
        let lines = match self.stop.unless_asked(self.send_all()).await {
            Some(lines) => lines?,
            None => return self.leave(Lines::default()).await,
        };
        if lines.are_unsent || stays && self.stop.unless_asked(self.closed.notified()).await.is_some() {
            return Ok(Part::Over(lines));
        }
        self.leave(lines).await
    }

    /// Sends the lines of stdin, and prints what became of them.
    async fn send_all(&self) -> Result<Lines, Report> {
        // Lines that cannot expire wait in stdin.
        let (sendings, sendings_in) = mpsc::channel(if self.expire.is_some() { WAITING_MAX } else { 1 });
        let (receipts, receipts_in) = mpsc::channel(RECEIPTS_MAX);
        // All receipts are printed, also if the group is closed meanwhile.
        let send = async { Ok(self.send(sendings).await) };
        let accept = async { Ok(self.accept(sendings_in, receipts).await) };
        let (sent, accepted, lines) = tokio::try_join!(send, accept, self.print_receipts(receipts_in))?;
        let are_unsent = [sent?, accepted?].contains(&Sent::Some);
        Ok(Lines { are_unsent, ..lines })
    }

    /// Leaves, or gives up soon after a signal. After a signal a node on disk only stops: it is started again.
    async fn leave(&self, lines: Lines) -> Result<Part, Report> {
        if self.stop.was_asked() && self.group.durability() == Durability::Disk {
            return Ok(self.suspend(lines).await);
        }
        let limits = LeaveLimits::default().heir_timeout(self.heir_timeout);
        let left = match self.stop.unless_asked(self.group.leave_with(limits)).await {
            Some(left) => left,
            None => self.group.leave_with(limits.timeout(LEAVE_AFTER_SIGNAL)).await,
        };
        match left {
            Ok(()) => Ok(Part::Over(lines)),
            Err(LeaveError::NoHeir { evicted, .. }) if lines == Lines::default() => Ok(Part::Alone(evicted)),
            // It takes no part from here on, and the others notice.
            Err(error) if self.stop.was_asked() => {
                tracing::warn!(%error, "this node ends without having left the group");
                Ok(Part::Abandoned)
            }
            Err(error) => Err(failure(
                error,
                "this node ends without having handed over, which the other members notice: see `cloudy status` at one of \
                 them",
            )),
        }
    }

    /// Stops, and lets the others continue without a timeout.
    async fn suspend(&self, lines: Lines) -> Part {
        match self.group.suspend().await {
            Ok(()) | Err(SuspendError::Ended(EndReason::Left)) => Part::Over(lines),
            Err(error) => {
                tracing::warn!(%error, "this node ends, which the others notice by its silence");
                Part::Abandoned
            }
        }
    }

    /// Begins to broadcast the lines of stdin.
    async fn send(&self, sendings: mpsc::Sender<Line<Sending>>) -> Result<Sent, Report> {
        let (lines, mut lines_in) = mpsc::channel(WAITING_MAX);
        // A thread of its own: a read of stdin cannot be given up.
        std::thread::spawn(move || read_lines(&lines));
        for number in 1_u64.. {
            let line = tokio::select! {
                biased;
                line = lines_in.recv() => line,
                () = self.closed.notified() => return Ok(Sent::Some),
                // A line was not accepted.
                () = sendings.closed() => break,
            };
            let Some(line) = line else { break };
            let line: Vec<u8> = line.map_err(|error| {
                failure(format_args!("cannot read standard input ({error})"), "check where the input comes from")
            })?;
            let mut broadcast = self.broadcast(line);
            if self.expire.is_some() {
                // Its place among the lines that wait; the next ones wait behind it.
                let begun = poll_fn(|context| Poll::Ready(broadcast.as_mut().poll(context))).await;
                if let Poll::Ready(answer) = begun {
                    broadcast = Box::pin(ready(answer));
                }
            }
            if sendings.send(Line { number, broadcast }).await.is_err() {
                break;
            }
        }
        Ok(Sent::All)
    }

    fn broadcast(&self, line: Vec<u8>) -> Sending {
        let group = self.group.clone();
        match self.expire {
            Some(expire) => Box::pin(async move { group.broadcast_within(line, expire).await }),
            None => Box::pin(async move { group.broadcast(line).await }),
        }
    }

    /// Waits until the group accepts the lines, one after the other, and prints those that expired.
    async fn accept(
        &self,
        mut sendings: mpsc::Receiver<Line<Sending>>,
        receipts: mpsc::Sender<Line<Receipt>>,
    ) -> Result<Sent, Report> {
        while let Some(Line { number, broadcast }) = sendings.recv().await {
            match broadcast.await {
                Ok(broadcast) => {
                    if receipts.send(Line { number, broadcast }).await.is_err() {
                        break;
                    }
                }
                Err(BroadcastError::Expired { .. }) => {
                    let line = json!({ "expired": number });
                    self.stop.print_bytes(format!("{line}\n").into_bytes()).await?;
                }
                Err(BroadcastError::Ended(EndReason::Final | EndReason::Closed)) => return Ok(Sent::Some),
                Err(error) => {
                    let problem = format_args!("line {number} of standard input was not sent: {error}");
                    return Err(failure(problem, "correct it, and send it and the lines after it again"));
                }
            }
        }
        Ok(Sent::All)
    }

    /// Prints what became of the broadcasts, in their order. Returns the number of those that are not in the result.
    async fn print_receipts(&self, mut receipts: mpsc::Receiver<Line<Receipt>>) -> Result<Lines, Report> {
        let mut lines = Lines::default();
        while let Some(Line { number, broadcast: receipt }) = receipts.recv().await {
            let MessageId { seq, incarnation, .. } = receipt.id();
            let mut line = match receipt.await {
                Ok(approval) => json!({ "receipt": seq.0, "index": approval.index.0 }),
                Err(ReceiptError::ApprovedLongAgo(_)) => json!({ "receipt": seq.0, "index": null }),
                Err(error @ ReceiptError::Rejected(_)) => {
                    lines.rejected += 1;
                    json!({ "rejected": seq.0, "error": error.to_string() })
                }
                Err(error) => {
                    lines.unknown += 1;
                    json!({ "unknown": seq.0, "error": error.to_string() })
                }
            };
            line["incarnation"] = incarnation.0.into();
            line["line"] = number.into();
            self.stop.print_bytes(format!("{line}\n").into_bytes()).await?;
        }
        Ok(lines)
    }
}

/// Reports progress to the reader of stderr and to a service manager.
fn say(line: &str) {
    say_plainly(line);
    service::status(line);
}

fn read_lines(lines: &mpsc::Sender<io::Result<Vec<u8>>>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = stdin.read_until(b'\n', &mut line).map(|_| line);
        match read {
            Ok(line) if line.is_empty() => return,
            Ok(mut line) => {
                line.truncate(line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len));
                if lines.blocking_send(Ok(line)).is_err() {
                    return;
                }
            }
            // The command ends with it.
            Err(error) => return drop(lines.blocking_send(Err(error))),
        }
    }
}

/// The output ends in order only with the final result, or with this node's part in the group.
fn end_of_output(error: ApprovedError, ends_alone: bool, next: Index) -> Result<(), Report> {
    match error {
        ApprovedError::Ended(EndReason::Left | EndReason::Suspended) => Ok(()),
        ApprovedError::Ended(EndReason::ShutDown) if ends_alone => Ok(()),
        ApprovedError::Lagged { resume_from } => Err(failure(
            format_args!("the result before index {resume_from} is not retained here"),
            format_args!("begin again with --from {resume_from}, with a larger --retain at all nodes, or on disk"),
        )),
        error => Err(failure(
            format_args!("the output ends before message {next}, and the result may have more: {error}"),
            format_args!("begin again with --from {next}, or read on at another member by `cloudy tail --from {next}`"),
        )),
    }
}

/// Where the result goes.
struct Output<'a> {
    group: &'a Group,
    exec: Option<&'a str>,
    position: Position,
    stop: &'a Stop,
    /// Whether the node was shut down because no other member is left.
    ends_alone: &'a Cell<bool>,
}

impl Output<'_> {
    /// Prints the result until the group, or this node's part in it, ends.
    async fn print(&mut self) -> Result<(), Report> {
        let mut approved = self.group.approved_from(self.position.read_from());
        while let Some(item) = approved.next_batch().await {
            match item {
                Ok(ApprovedItem::Batch(entry)) => {
                    self.print_messages(&entry).await?;
                    self.execute(&entry).await?;
                }
                Ok(ApprovedItem::View(view)) if self.position.is_new(view.id()) => {
                    self.stop.print_bytes(view_line(&view).into_bytes()).await?;
                    self.position.printed_view(view.id()).await?;
                }
                Ok(ApprovedItem::View(_)) => {}
                Err(error) => return end_of_output(error, self.ends_alone.get(), self.position.shown()),
            }
        }
        Ok(())
    }

    async fn print_messages(&mut self, entry: &Entry) -> Result<(), Report> {
        let mut lines = Vec::new();
        messages(entry, self.position.shown()).for_each(|message| push_json(&mut lines, &message.json()));
        if lines.is_empty() {
            return Ok(());
        }
        self.position.prints(entry.last_index().next()).await?;
        self.stop.print_bytes(lines).await?;
        self.position.printed().await
    }

    async fn execute(&mut self, entry: &Entry) -> Result<(), Report> {
        let Some(command) = self.exec else { return Ok(()) };
        for Message { index, origin, seq, payload, .. } in messages(entry, self.position.executed()) {
            let mut message = tempfile::tempfile().into_diagnostic()?;
            message.write_all(payload).into_diagnostic()?;
            io::Seek::rewind(&mut message).into_diagnostic()?;
            let mut child = Command::new("sh");
            for name in service::VARIABLES {
                child.env_remove(name);
            }
            let status = child
                .args(["-c", command])
                .env("CLOUDY_INDEX", index.to_string())
                .env("CLOUDY_ORIGIN", origin.to_string())
                .env("CLOUDY_SEQ", seq.to_string())
                .stdin(Stdio::from(message))
                .stdout(Stdio::from(io::stderr()))
                .kill_on_drop(true)
                .status();
            let status = self.finished(status, index).await?;
            if !status.success() {
                return Err(failure(
                    format_args!("the command for the message at index {index} failed: {status}"),
                    format_args!("begin again with --from {index}, or with the same --data"),
                ));
            }
            self.position.has_executed(index.next()).await?;
        }
        Ok(())
    }

    /// Waits for the command of a message. Names it while it runs long, and stops it soon after a signal.
    async fn finished(
        &self,
        status: impl Future<Output = io::Result<ExitStatus>>,
        index: Index,
    ) -> Result<ExitStatus, Report> {
        let given_up = async {
            self.stop.asked().await;
            // sleep: the time that the command has to finish.
            tokio::time::sleep(LEAVE_AFTER_SIGNAL).await;
        };
        tokio::pin!(status, given_up);
        let mut reports = tokio::time::interval(EXEC_REPORT_EVERY);
        reports.tick().await;
        loop {
            tokio::select! {
                biased;
                status = &mut status => return status.into_diagnostic(),
                () = &mut given_up => {
                    return Err(failure(
                        format_args!("interrupted while the command for the message at index {index} ran: it was stopped"),
                        format_args!("begin again with --from {index}, or with the same --data"),
                    ));
                }
                _ = reports.tick() => say(&format!("the command for the message at index {index} is still running")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_final_result_and_the_end_of_its_own_part_end_the_output_of_a_member_in_order() {
        let ended = |reason, alone| end_of_output(ApprovedError::Ended(reason), alone, Index(7));
        assert!(ended(EndReason::Left, false).is_ok() && ended(EndReason::ShutDown, true).is_ok());
        for reason in [EndReason::Closed, EndReason::ShutDown, EndReason::Deleted, EndReason::Revoked] {
            let error = ended(reason, false).expect_err("the result may have more");
            let remedy = error.help().expect("a remedy").to_string();
            assert!(error.to_string().contains("before message 7") && remedy.contains("--from 7"), "{error}");
        }
    }

    #[test]
    fn lines_that_are_not_in_the_result_for_certain_are_a_failure() {
        let none = Lines::default();
        assert!(none.problem("orders").is_none());
        for (lines, words) in [
            (Lines { are_unsent: true, ..none }, "lines of standard input that have no receipt"),
            (Lines { rejected: 2, ..none }, "2 lines of standard input are not in its result"),
            (Lines { unknown: 1, ..none }, "and 1 may not be"),
        ] {
            let problem = lines.problem("orders").expect("a problem").to_string();
            assert!(problem.contains(words) && problem.contains("\"orders\""), "{problem}");
        }
    }
}
