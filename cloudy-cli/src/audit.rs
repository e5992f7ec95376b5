//! The audit log of a command: joins, evictions, leaves and changes of keys, as JSON lines in a file.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use cloudy_node::{Event, EventsError, Group, NodeId};
use miette::Report;
use serde_json::{Value, json};

use crate::output::failure;

/// Lines that wait for the disk. Beyond it lines are dropped, and a later line has their number.
const WAITING_LINES_MAX: usize = 1024;

/// An audit log; without a file it does nothing. A thread writes, so a slow disk delays no node.
#[derive(Default)]
pub(crate) struct AuditLog {
    writer: Option<Writer>,
}

struct Writer {
    lines: Option<SyncSender<Value>>,
    /// Number of dropped lines that no line names yet.
    dropped: Arc<AtomicU64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl AuditLog {
    /// Opens the file, to append.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Report> {
        let Some(path) = path else { return Ok(Self::default()) };
        let opened = open(path).map_err(|cause| {
            failure(
                format_args!("cannot open the audit log {} ({cause})", path.display()),
                "name a file that can be written",
            )
        })?;
        let (lines, waiting) = sync_channel::<Value>(WAITING_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let (missing, path, mut file) = (Arc::clone(&dropped), path.display().to_string(), opened);
        let thread = thread::spawn(move || {
            for mut line in waiting {
                let lost = missing.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    line["lines_lost_before"] = lost.into();
                }
                // One write for each line, so that processes that share a file do not mix theirs.
                if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
                    missing.fetch_add(lost + 1, Ordering::Relaxed);
                    tracing::warn!(%error, path, "a line of the audit log was not written");
                }
            }
        });
        Ok(Self { writer: Some(Writer { lines: Some(lines), dropped, thread: Some(thread) }) })
    }

    /// Writes a line, with the time. It never waits.
    fn write(&self, mut line: Value) {
        let Some(writer) = &self.writer else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        line["at_ms"] = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).into();
        let taken = writer.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok());
        if !taken {
            writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a change of the key file.
    pub(crate) fn keys(&self, text: &str) {
        self.write(json!({ "event": "keys", "text": text }));
    }

    /// Notes the changes of a group's members, for as long as it is polled.
    pub(crate) async fn follow(&self, group: &Group) -> Infallible {
        if self.writer.is_none() {
            return pending().await;
        }
        let (mut events, mut members) = (group.events(), BTreeSet::new());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.note(group, &event, &mut members),
                Err(EventsError::Missed { count }) => {
                    self.write(json!({ "event": "missed", "group": group.name(), "count": count }));
                }
                Err(_) => break,
            }
        }
        pending().await
    }

    fn note(&self, group: &Group, event: &Event, members: &mut BTreeSet<NodeId>) {
        let name = group.name();
        let of_node = |event: &str, node: &NodeId, reason: &str| {
            self.write(json!({ "event": event, "group": name, "node": node.to_string(), "reason": reason }));
        };
        match event {
            Event::ViewInstalled { view, .. } => {
                let ring: BTreeSet<NodeId> = view.ring.iter().map(|member| member.node).collect();
                for node in ring.difference(members) {
                    let view = view.id.0;
                    self.write(json!({ "event": "joined", "group": name, "node": node.to_string(), "view": view }));
                }
                *members = ring;
            }
            Event::Silent { node } => of_node("evicted", node, "it did not answer"),
            Event::Blamed { node } => of_node("evicted", node, "other members reported it"),
            Event::Left { node } => of_node("left", node, "it left by itself"),
            Event::Suspended { node } => of_node("suspended", node, "it stops and will return"),
            Event::Closed => self.write(json!({ "event": "closed", "group": name })),
            _ => {}
        }
    }
}

impl Drop for AuditLog {
    /// Waits until all lines are written.
    fn drop(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        writer.lines = None;
        // A panic there was reported.
        let _ = writer.thread.take().map(thread::JoinHandle::join);
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
