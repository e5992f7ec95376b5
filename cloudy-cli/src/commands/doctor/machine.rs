//! Checks of this machine: limits of the process, buffers of sockets, the data directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use cloudy_node::data::check_directory;
use tokio::task::spawn_blocking;

use super::Finding;

/// Files that a node with a data directory needs, with connections of an admin endpoint.
const FILES_NEEDED: u64 = 64;
/// With fewer a busy node may run out of them.
const FILES_GOOD: u64 = 256;
/// The socket buffer for which a node asks: with less, bursts are lost.
const BUFFER_BYTES: u64 = 2 << 20;
/// Less than one window of datagrams.
const BUFFER_BYTES_MIN: u64 = 200 << 10;
/// Number of synced writes.
const SYNCS: usize = 8;
/// The fastest of some synced writes: slower disks delay every approval.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// Members of a group would take this node for stalled.
const SYNC_BROKEN: Duration = Duration::from_secs(1);
/// Files in the kernel's directory with the largest buffers of sockets.
const BUFFER_LIMITS: [(&str, &str); 2] = [("receive", "rmem_max"), ("send", "wmem_max")];

/// Checks the limits of files and processes.
pub(super) fn limits() -> Vec<Finding> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        vec![of_files(files)]
    }
    #[cfg(not(unix))]
    {
        Vec::new()
    }
}

fn of_files(files: u64) -> Finding {
    let what = format!("this process may open {files} files");
    let remedy = "raise the limit (ulimit -n 1024, or LimitNOFILE= of a systemd unit)";
    match files {
        0..FILES_NEEDED => Finding::broken("files", what, remedy),
        FILES_NEEDED..FILES_GOOD => Finding::warning("files", what, remedy),
        _ => Finding::fine("files", what),
    }
}

/// Checks the largest buffers of UDP sockets.
pub(super) fn buffers() -> Vec<Finding> {
    buffers_in(Path::new("/proc/sys/net/core"))
}

fn buffers_in(directory: &Path) -> Vec<Finding> {
    let limit = |file| fs::read_to_string(directory.join(file)).ok()?.trim().parse::<u64>().ok();
    // Other systems, and network namespaces without this file, have limits of their own.
    let known = BUFFER_LIMITS.iter().filter_map(|(which, file)| Some((*which, *file, limit(*file)?)));
    known.map(|(which, file, bytes)| of_buffer(which, file, bytes)).collect()
}

fn of_buffer(which: &str, file: &str, bytes: u64) -> Finding {
    let what = format!("a UDP socket may have {bytes} bytes of {which} buffer");
    let remedy = format!("run `sysctl -w net.core.{file}={BUFFER_BYTES}`, and keep it in /etc/sysctl.d");
    if bytes < BUFFER_BYTES_MIN { Finding::warning("buffers", what, remedy) } else { Finding::fine("buffers", what) }
}

/// Checks the data directory: rights, format and the time of a sync.
pub(super) async fn data(directory: &Path) -> Vec<Finding> {
    let directory = directory.to_owned();
    let checked = spawn_blocking(move || {
        let mut findings = vec![of_directory(&directory)];
        if directory.is_dir() {
            findings.push(of_syncs(syncs(&directory)));
        }
        findings
    });
    checked.await.unwrap_or_default()
}

fn of_directory(directory: &Path) -> Finding {
    if !directory.exists() {
        return Finding::fine("data", format!("{} does not exist, and is created on first use", directory.display()));
    }
    match check_directory(directory) {
        Ok(()) => Finding::fine("data", format!("{} can be used", directory.display())),
        Err(error) => Finding::broken("data", error.to_string(), "follow the text, then run this again"),
    }
}

/// The fastest synced write to a file of the directory.
fn syncs(directory: &Path) -> io::Result<Duration> {
    let path = directory.join(".cloudy-doctor");
    let timed = timed_syncs(&path, |file| file.sync_data());
    // It may not exist.
    let _ = fs::remove_file(path);
    timed
}

fn timed_syncs(path: &Path, sync: impl Fn(&File) -> io::Result<()>) -> io::Result<Duration> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let mut best = Duration::MAX;
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[0; 4_096])?;
        sync(&file)?;
        best = best.min(started.elapsed());
    }
    Ok(best)
}

fn of_syncs(best: io::Result<Duration>) -> Finding {
    let remedy = "use a local disk with a write cache that survives power failures, or end what else uses it";
    match best {
        Err(error) => Finding::broken(
            "disk",
            format!("a file in the data directory cannot be written and synced ({error})"),
            "run this as the node's user, and free space on the disk",
        ),
        Ok(best) => {
            let what = format!("the fastest of {SYNCS} synced writes took {:.1} ms", best.as_secs_f64() * 1_000.0);
            match best {
                best if best >= SYNC_BROKEN => Finding::broken("disk", what, remedy),
                best if best >= SYNC_SLOW => Finding::warning("disk", what, remedy),
                _ => Finding::fine("disk", what),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn small_limits_of_files_are_found() {
        let level = |files| of_files(files).level;
        assert_eq!([20, 100, 1_024].map(level), [Level::Broken, Level::Warning, Level::Fine]);
    }

    #[test]
    fn small_buffers_are_found_with_the_setting_that_enlarges_them() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("rmem_max"), "65536\n").expect("written");
        fs::write(directory.path().join("wmem_max"), "4194304\n").expect("written");
        let [receive, send] = &buffers_in(directory.path())[..] else { panic!("two limits") };
        assert_eq!((receive.level, send.level), (Level::Warning, Level::Fine));
        assert!(receive.what.contains("65536 bytes of receive"), "{receive:?}");
        assert!(receive.remedy.contains("net.core.rmem_max=2097152"), "{receive:?}");
        assert!(buffers_in(&directory.path().join("none")).is_empty(), "other systems");
    }

    #[test]
    fn a_slow_disk_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let slow = timed_syncs(&path, |_| {
            // sleep: it is the disk.
            std::thread::sleep(SYNC_SLOW);
            Ok(())
        });
        assert_eq!(of_syncs(slow).level, Level::Warning);
        let failing = timed_syncs(&path, |_| Err(io::ErrorKind::StorageFull.into()));
        let failing = of_syncs(failing);
        assert!(failing.level == Level::Broken && failing.remedy.contains("free space"), "{failing:?}");
        assert_eq!(of_syncs(Ok(SYNC_BROKEN)).level, Level::Broken);
        assert_eq!(of_syncs(Ok(Duration::from_millis(3))).level, Level::Fine);
    }
}
