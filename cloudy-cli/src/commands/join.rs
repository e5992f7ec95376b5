//! `cloudy join`: a member of a group for programs in any language. Lines in are broadcast, JSON lines out are the result.

use std::io::{self, BufRead, Write as _};
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use cloudy_node::discovery::seeds;
use cloudy_node::fault::Faults;
use cloudy_node::{
    ApprovedError, ApprovedItem, EndReason, Entry, Group, GroupConfig, Index, LEAVE_TIMEOUT, Node, Parameters, Receipt,
};
use miette::{IntoDiagnostic, Report};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::args::{DataArgs, JoinArgs};
use crate::interrupts::{Interrupts, Stop};
use crate::keys::KeyFile;
use crate::lines::{Message, messages, push_json, view_line};
use crate::node::{self, Who};
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, say_plainly};
use crate::position::Position;
use crate::service;
use crate::sink::STDOUT;

/// Lines of stdin, and receipts, that wait.
const WAITING_MAX: usize = 1_024;

/// How long the node may take to leave after a signal.
const LEAVE_AFTER_SIGNAL: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(args: JoinArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let Some(started) = stop.unless_asked(start(&args)).await else {
            return Ok(ExitCode::from(stop.status_of_service()));
        };
        let (file, node) = started?;
        let ended = tokio::select! {
            ended = file.followed(&node, say_plainly, member(&args, &node, &stop)) => ended,
            never = service::watchdog(&node) => match never {},
        };
        node.shutdown().await;
        ended
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn start(args: &JoinArgs) -> Result<(KeyFile, Node), Report> {
    let socket = node::bind(address(&args.bind).await?)?;
    let admin = args.admin.bind()?;
    let file = KeyFile::open(&args.key).await?;
    let who = Who::of(&DataArgs { directory: args.data.clone() }, None).await?;
    let (node, _) = node::start_as(socket, &file.keys, who, Faults::none(), false, None).await?;
    say_plainly(&format!("node {} listens on {}", node.id().short(), node.local_addr()));
    node::serve_admin(&node, admin)?;
    Ok((file, node))
}

async fn address(bind: &str) -> Result<SocketAddr, Report> {
    let addresses = seeds::look_up(bind).await.into_diagnostic()?;
    addresses.first().copied().ok_or_else(|| failure(format_args!("{bind} has no address"), "give an IP address"))
}

async fn member(args: &JoinArgs, node: &Node, stop: &Stop) -> Result<ExitCode, Report> {
    let parameters = Parameters::default().durability(args.durability.into());
    let mut open = node.group(&args.group).seeds(&args.seeds).config(GroupConfig::default().parameters(parameters));
    if let Some(expect) = args.expect {
        open = open.bootstrap_expect(usize::from(expect.get()));
    }
    let open = open.on_progress(|event| say(&event.to_string())).open().timeout(args.open_timeout);
    let Some(opened) = stop.unless_asked(open).await else {
        return Ok(ExitCode::from(stop.status_of_service()));
    };
    let group = opened.into_diagnostic()?;
    say_plainly(&format!("in group {:?} ({})", group.name(), group.id()));
    let from = args.from.map(|from| Index(from.get()));
    let position = Position::open(args.data.as_deref(), group.id(), from, args.exec.is_some()).await?;
    let mut output = Output { group: &group, exec: args.exec.as_deref(), position };
    let (receipts, receipts_in) = mpsc::channel(WAITING_MAX);
    let sent = async {
        tokio::try_join!(send(&group, receipts), print_receipts(receipts_in))?;
        if args.stay {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let leaving = async {
        let asked = stop.unless_asked(sent).await;
        if let Some(Err(error)) = asked {
            return Err(error);
        }
        let limit = if stop.was_asked() { LEAVE_AFTER_SIGNAL } else { LEAVE_TIMEOUT };
        match group.leave_within(limit).await {
            Ok(()) => Ok(true),
            // It takes no part from here on, and the others notice.
            Err(error) if stop.was_asked() => {
                tracing::warn!(%error, "this node ends without having left the group");
                Ok(false)
            }
            Err(error) => Err(error).into_diagnostic(),
        }
    };
    tokio::pin!(leaving);
    let mut left = false;
    let print = output.print();
    tokio::pin!(print);
    let shown = service::follow(&group);
    tokio::pin!(shown);
    loop {
        tokio::select! {
            printed = &mut print => {
                printed?;
                let status = if stop.was_asked() { stop.status_of_service() } else { EXIT_EQUAL };
                return Ok(ExitCode::from(status));
            }
            never = &mut shown => match never {},
            ended = &mut leaving, if !left => {
                left = true;
                // Else the rest of the result is printed.
                if !ended? {
                    return Ok(ExitCode::from(stop.status_of_service()));
                }
            }
        }
    }
}

/// Reports progress to the reader of stderr and to a service manager.
fn say(line: &str) {
    say_plainly(line);
    service::status(line);
}

/// Broadcasts the lines of stdin.
async fn send(group: &Group, receipts: mpsc::Sender<Receipt>) -> Result<(), Report> {
    let (lines, mut lines_in) = mpsc::channel(WAITING_MAX);
    // A thread of its own: a read of stdin cannot be given up.
    std::thread::spawn(move || read_lines(&lines));
    while let Some(line) = lines_in.recv().await {
        let line: Vec<u8> = line.into_diagnostic()?;
        let receipt = group.broadcast(line).await.into_diagnostic()?;
        if receipts.send(receipt).await.is_err() {
            break;
        }
    }
    Ok(())
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

/// Prints what became of the broadcasts, in their order.
async fn print_receipts(mut receipts: mpsc::Receiver<Receipt>) -> Result<(), Report> {
    while let Some(receipt) = receipts.recv().await {
        let seq = receipt.id().seq.0;
        let line = match receipt.await {
            Ok(approval) => json!({ "receipt": seq, "index": approval.index.0 }),
            Err(error) => json!({ "receipt": seq, "error": error.to_string() }),
        };
        write(format!("{line}\n")).await?;
    }
    Ok(())
}

/// Where the result goes.
struct Output<'a> {
    group: &'a Group,
    exec: Option<&'a str>,
    position: Position,
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
                    write(view_line(&view)).await?;
                    self.position.printed_view(view.id()).await?;
                }
                Ok(ApprovedItem::View(_)) => {}
                Err(ApprovedError::Ended(EndReason::Left | EndReason::Closed)) => return Ok(()),
                Err(ApprovedError::Lagged { resume_from }) => {
                    return Err(failure(
                        format_args!("the result before index {resume_from} is not retained here"),
                        format_args!("begin again with --from {resume_from}"),
                    ));
                }
                Err(error) => {
                    let next = self.position.shown();
                    return Err(failure(error, format_args!("begin again with --from {next}")));
                }
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
        write(lines).await?;
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
            let status = status.await.into_diagnostic()?;
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
}

async fn write(text: impl Into<Vec<u8>>) -> Result<(), Report> {
    STDOUT.write(text.into()).await.map_err(|error| {
        failure(
            format_args!("cannot write to standard output ({error})"),
            "check where the output goes: a full disk, a closed pipe",
        )
    })
}
