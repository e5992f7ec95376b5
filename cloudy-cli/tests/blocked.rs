//! Processes whose stdout or stderr is not read: their nodes go on, and end when they are told to.
#![cfg(unix)]

mod common;

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, Running, blocked, cloudy, free_port, printed, until};

/// Maximum time of an end beside other tests; the product's own bound is two seconds.
const END_MAX: Duration = Duration::from_secs(10);

/// A process, which is killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("starts"))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("asked")
    }

    /// Ends by a signal, in time.
    fn ends_by(mut self, name: &str) -> ExitStatus {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill").success());
        let began_at = Instant::now();
        until("the process has ended", || self.ended().is_some());
        assert!(began_at.elapsed() < END_MAX, "{:?}", began_at.elapsed());
        self.ended().expect("ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A slave whose output is not read, and its port.
fn silent_slave(cluster: &Cluster, stderr: Stdio) -> (Process, u16) {
    let port = free_port();
    let mut command = cluster.node(&["slave", "127.0.0.1", &port.to_string(), "--no-discovery"]);
    command.env("CLOUDY_LOG", "trace").stdout(Stdio::null()).stderr(stderr);
    (Process::start(command), port)
}

#[test]
fn a_slave_whose_log_is_not_read_takes_part_in_a_session() {
    let cluster = Cluster::new();
    let (stderr, mut reader) = blocked();
    let (silent, port) = silent_slave(&cluster, stderr);
    let (other, other_port) = cluster.slave(&["--no-discovery"]);
    let names = [port, other_port].map(|port| format!("127.0.0.1:{port}"));
    let arguments = ["master", "127.0.0.1", "0", "10m", "1s", "--slave", &names[0], "--slave", &names[1]];
    let mut master = Running::start(cluster.node(&arguments));
    master.wait_for("SEND: approved");
    master.wait_for("SEND: approved");
    // The reader is back.
    let text = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("read");
        String::from_utf8(text).expect("text")
    });
    master.signal("INT");
    let (master, other) = (master.end(), other.end());
    assert_eq!(master.code(), Some(0), "{master:#?}");
    assert!(master.stdout.contains("EQUAL: all 2 results are the same"), "{master:#?}");
    assert_eq!(other.code(), Some(0), "{other:#?}");
    let mut silent = silent;
    until("the slave has ended", || silent.ended().is_some());
    assert!(silent.ended().expect("ended").success());
    let text = text.join().expect("read");
    assert!(text.contains("listening on 127.0.0.1:"), "what came first is there");
}

#[test]
fn a_slave_whose_log_is_not_read_ends_when_it_is_told_to() {
    let cluster = Cluster::new();
    let (stderr, _reader) = blocked();
    let (slave, port) = silent_slave(&cluster, stderr);
    // It listens: its port is taken.
    until("the slave listens", || std::net::UdpSocket::bind(("127.0.0.1", port)).is_err());
    assert!(slave.ends_by("TERM").success());
}

#[test]
fn a_result_that_nobody_reads_is_waited_for_until_a_signal() {
    let cluster = Cluster::new();
    let (stdout, _reader) = blocked();
    let port = free_port();
    let mut command = cluster.node(&["slave", "127.0.0.1", &port.to_string(), "--no-discovery"]);
    command.stdout(stdout).stderr(Stdio::null());
    let slave = Process::start(command);
    let name = format!("127.0.0.1:{port}");
    let master = common::run(cluster.node(&["master", "127.0.0.1", "0", "200ms", "300ms", "--slave", &name]));
    assert_eq!(master.code(), Some(0), "{master:#?}");
    let status = slave.ends_by("TERM");
    assert_eq!(status.code(), Some(1), "a result that was not printed is a failure");
}

#[test]
fn a_master_whose_output_is_not_read_runs_its_session_and_ends_at_a_signal() {
    let cluster = Cluster::new();
    let (mut slave, port) = cluster.slave(&["--no-discovery"]);
    let ((stdout, _reader), (stderr, _other_reader)) = (blocked(), blocked());
    let name = format!("127.0.0.1:{port}");
    let mut command = cluster.node(&["master", "127.0.0.1", "0", "200ms", "300ms", "--slave", &name]);
    command.stdout(stdout).stderr(stderr);
    let master = Process::start(command);
    slave.wait_for("GRACE");
    let slave = slave.end();
    assert_eq!(slave.code(), Some(0), "{slave:#?}");
    assert!(!printed(&slave.stdout).is_empty());
    assert_eq!(master.ends_by("TERM").code(), Some(1), "a result that was not printed is a failure");
}

#[test]
fn a_demo_whose_progress_is_not_read_shows_its_result() {
    let (stderr, _reader) = blocked();
    let mut command = cloudy(&["demo", "--nodes", "2", "--send", "300ms", "--grace", "500ms", "-vvv"]);
    let output = command.stdin(Stdio::null()).stderr(stderr).output().expect("run");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("EQUAL: all 2 results are the same"), "{stdout}");
}

#[test]
fn a_tail_that_is_not_read_ends_when_it_is_told_to() {
    let cluster = Cluster::new();
    let (slave, port) = cluster.slave(&["--no-discovery"]);
    let name = format!("127.0.0.1:{port}");
    let mut master = Running::start(cluster.node(&["master", "127.0.0.1", "0", "10m", "1s", "--slave", &name]));
    master.wait_for("SEND: approved");
    let ((stdout, _reader), (stderr, _other_reader)) = (blocked(), blocked());
    let mut command = cloudy(&["tail", &name, "--cluster-key"]);
    command.arg(&cluster.key).stdout(stdout).stderr(stderr);
    let tail = Process::start(command);
    master.wait_for("SEND: approved");
    assert_eq!(tail.ends_by("TERM").code(), Some(130));
    master.signal("INT");
    assert_eq!((master.end().code(), slave.end().code()), (Some(0), Some(0)));
}
