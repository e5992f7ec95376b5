//! `cloudy tail`: the result of a group as JSON lines, while it grows. It holds nobody up.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use cloudy_node::discovery::seeds;
use cloudy_node::session::{SessionName, Sum, numbers};
use cloudy_node::{
    ApprovedError, ApprovedItem, Checkpoint, Entry, Event, Group, Identity, Index, JoinError, Node, payload_slices,
};
use miette::{IntoDiagnostic, Report};
use serde_json::json;
use tokio::time::Instant;

use crate::args::TailArgs;
use crate::interrupts::Interrupts;
use crate::keys::KeyFile;
use crate::output::{EXIT_EQUAL, EXIT_INTERRUPTED, failure, say_plainly};
use crate::sink::STDOUT;

/// How long a name that does not resolve is looked up again.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each address may take to know the group: a node that was just started joins its group within it.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(args: TailArgs) -> Result<ExitCode, Report> {
    let mut interrupts = Interrupts::catch()?;
    let stop = interrupts.stop();
    let work = async {
        let ended = stop.unless_asked(tail(&args)).await;
        ended.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
    };
    interrupts.during(work).await.unwrap_or(Ok(ExitCode::from(EXIT_INTERRUPTED)))
}

async fn tail(args: &TailArgs) -> Result<ExitCode, Report> {
    let file = KeyFile::open(&args.key).await?;
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    let identity = Identity::generate(file.keys.primary()).into_diagnostic()?;
    let addresses =
        seeds::resolve_until(std::slice::from_ref(&args.address), deadline).await.into_diagnostic()?.concat();
    let mut unanswered = None;
    for address in addresses {
        let builder = Node::builder().identity(identity.clone()).cluster_keys(&file.keys);
        let node = builder.bind(beside(address)).start().await.into_diagnostic()?;
        match node.observe_group(&args.group_name(), address, Index(args.from.get())).timeout(ANSWER_MAX).await {
            Ok(group) => return file.followed(&node, say_plainly, Tail::new(args).follow(&group)).await,
            Err(error @ (JoinError::Connect(_) | JoinError::TimedOut(_))) => unanswered = Some(error),
            Err(error) => {
                return Err(failure(
                    error,
                    "name a node of a group that runs, and the group by --session NAME or --group NAME",
                ));
            }
        }
    }
    let error = unanswered.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
    Err(failure(
        format_args!("cannot read along at {}: {error}", args.address),
        "check the address and the group (--group NAME); compare cluster keys by `cloudy key show`",
    ))
}

/// A local address from which that one can be reached.
fn beside(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(v6) if v6.ip().is_loopback() => SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

struct Tail {
    from: Index,
    session: bool,
    sum: Sum,
}

impl Tail {
    fn new(args: &TailArgs) -> Self {
        Self {
            from: Index(args.from.get()),
            session: SessionName::of_group(&args.group_name()).is_some(),
            sum: Sum::default(),
        }
    }

    async fn follow(mut self, group: &Group) -> Result<ExitCode, Report> {
        let mut approved = group.approved_from(self.from);
        while let Some(item) = approved.next_batch().await {
            let text = match item {
                Ok(ApprovedItem::Batch(entry)) => self.lines(&entry),
                Ok(ApprovedItem::View(_)) => continue,
                Err(ApprovedError::Lagged { resume_from }) => {
                    return Err(failure(
                        format_args!(
                            "the result before index {resume_from} is no longer kept here: it was read too slowly"
                        ),
                        format_args!("read this program's output faster, or begin again with --from {resume_from}"),
                    ));
                }
                Err(error) => return Err(failure(error, "begin again with --from INDEX where it names one")),
            };
            if !write(text).await? {
                return Ok(ExitCode::from(EXIT_EQUAL));
            }
        }
        write(self.last_line(final_result(group).await)).await?;
        Ok(ExitCode::from(EXIT_EQUAL))
    }

    fn lines(&mut self, entry: &Entry) -> String {
        let mut text = String::new();
        for (at, payload) in (0..).zip(payload_slices(&entry.batch.body)) {
            let mut line = json!({
                "index": entry.first_index.0 + at,
                "origin": entry.origin.to_string(),
                "seq": entry.batch.first_seq.0 + at,
                "view": entry.view.0,
            });
            match numbers::decode(payload).ok().filter(|_| self.session) {
                Some(number) => {
                    self.sum.add(number);
                    line["value"] = number.into();
                }
                None => line["payload"] = hexadecimal(payload).into(),
            }
            // A string takes whatever is written to it.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn last_line(&self, result: Option<Checkpoint>) -> String {
        let count = result.map_or(self.sum.count(), |result| result.index.0);
        let mut line = json!({ "count": count });
        if let Some(result) = result.filter(|_| self.from == Index(1)) {
            if self.session && self.sum.count() == count {
                line["sum"] = self.sum.sum().into();
            }
            line["digest"] = result.digest.to_string().into();
        }
        format!("{line}\n")
    }
}

async fn final_result(group: &Group) -> Option<Checkpoint> {
    let mut events = group.events();
    while let Some(event) = events.next().await {
        if let Ok(Event::Final { result }) = event {
            return Some(result);
        }
    }
    None
}

fn hexadecimal(payload: &[u8]) -> String {
    payload.iter().fold(String::with_capacity(2 * payload.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// False once nobody reads any more. A slow reader does not stop the node.
async fn write(text: String) -> Result<bool, Report> {
    match STDOUT.write(text.into_bytes()).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(failure(
            format_args!("cannot write to standard output ({error})"),
            "check where the output goes: a full disk, a closed terminal",
        )),
    }
}
