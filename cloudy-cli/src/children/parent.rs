//! The process that started this one: its orders, and the reports to it.

use std::fmt::Debug;
use std::future::pending;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::thread;

use miette::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::interrupts::Stop;
use crate::sink::STDOUT;

/// Maximum length of an order: one with the addresses of a whole demo is a tenth of it.
const ORDER_BYTES_MAX: u64 = 64 << 10;
/// Maximum of orders that wait.
const ORDERS_MAX: usize = 4;

/// Queues a report. A parent that has stopped reading blocks no process: it misses the reports that do not fit.
pub(crate) fn say(said: &(impl Serialize + Debug)) {
    if line(said).is_some_and(|line| !STDOUT.lines(line.as_bytes())) {
        tracing::warn!("the process that started this one does not read: it misses {said:?}");
    }
}

/// Sends a report, and returns once the parent can read it or, after an interrupt, has had time for it.
pub(crate) async fn say_surely(said: &(impl Serialize + Debug), stop: &Stop) -> Result<(), Report> {
    match line(said) {
        Some(line) => stop.print(&line).await,
        None => Ok(()),
    }
}

/// The line of a report.
pub(crate) fn line(said: &(impl Serialize + Debug)) -> Option<String> {
    let line = serde_json::to_string(said);
    let line = line.inspect_err(|error| tracing::error!("cannot report {said:?}: {error}")).ok()?;
    Some(format!("{line}\n"))
}

/// Deletes the files of a parent that is gone, once this process has closed its own. Each process of the parent does
/// so; the last one that ends finds no other process at work there.
pub(crate) fn clear_up(parents_files: Option<&Path>) {
    let Some(directory) = parents_files else { return };
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "some files of the process that started this one are not deleted: {}", directory.display());
    }
}

/// The orders on stdin; they end once the process that holds its other end has finished or is gone.
pub(crate) fn orders<O: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<O> {
    let (sender, orders) = mpsc::channel(ORDERS_MAX);
    // A separate thread, because a read of stdin blocks.
    let spawned = thread::Builder::new().name("orders".to_owned()).spawn(move || read(io::stdin().lock(), &sender));
    if let Err(error) = spawned {
        tracing::error!("orders cannot be read: {error}");
    }
    orders
}

fn read<O: DeserializeOwned>(mut stdin: impl BufRead, orders: &mpsc::Sender<O>) {
    let mut line = Vec::new();
    while stdin.by_ref().take(ORDER_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        match serde_json::from_slice(&line) {
            Ok(order) => {
                if orders.blocking_send(order).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!("a line on stdin is not an order: {error}"),
        }
        line.clear();
    }
}

/// Carries out the parent's orders; returns once there is no parent. Never returns if stdin is not a pipe: then there
/// is no parent.
pub(crate) async fn obey<O: DeserializeOwned + Send + 'static>(act: impl Fn(O)) {
    if !is_watched() {
        return pending().await;
    }
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        act(order);
    }
}

#[cfg(unix)]
fn is_watched() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;

    let stdin = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    stdin.and_then(|stdin| stdin.metadata()).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_watched() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_line_by_line_and_other_lines_are_skipped() {
        let (sender, mut orders) = mpsc::channel(ORDERS_MAX);
        read(&b"1\nx\n[2]\n3"[..], &sender);
        drop(sender);
        assert_eq!([orders.blocking_recv(), orders.blocking_recv(), orders.blocking_recv()], [Some(1), Some(3), None]);
    }
}
