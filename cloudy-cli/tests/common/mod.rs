//! Real `cloudy` processes, and their output.
#![allow(dead_code)] // Each test binary uses its part.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Maximum time of every event that the tests wait for; they wait no longer than the event takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A separate cluster key, and a directory for files.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: PathBuf,
    /// A separate multicast port, so that tests at the same time do not find each other's slaves.
    discovery_port: u16,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("cluster.key");
        let made = cloudy(&["key", "new", "--cluster-key"]).arg(&key).output().expect("cloudy key new");
        assert!(made.status.success(), "{made:?}");
        Self { dir, key, discovery_port: free_port() }
    }

    /// Another cluster on the same network.
    pub(crate) fn stranger(&self) -> Self {
        Self { discovery_port: self.discovery_port, ..Self::new() }
    }

    /// A node's command, with this cluster's key and discovery group.
    pub(crate) fn node(&self, args: &[&str]) -> Command {
        let mut command = cloudy(args);
        command.arg("--cluster-key").arg(&self.key);
        command.arg("--discovery-group").arg(format!("239.255.99.108:{}", self.discovery_port));
        command
    }

    /// A slave that listens, and where.
    pub(crate) fn slave(&self, args: &[&str]) -> (Running, u16) {
        let slave = Running::start(self.node(&[&["slave", "127.0.0.1", "0"], args].concat()));
        listening(slave)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Waits until a slave says where it listens.
pub(crate) fn listening(mut slave: Running) -> (Running, u16) {
    let line = slave.wait_for("listening on 127.0.0.1:");
    let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).and_then(|port| port.parse().ok());
    (slave, port.unwrap_or_else(|| panic!("no port in {line}")))
}

/// A port that is free at this moment.
pub(crate) fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("an address").port()
}

pub(crate) fn cloudy(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloudy"));
    command.args(args).env_remove("CLOUDY_CLUSTER_KEY_FILE").env_remove("CLOUDY_LOG").env_remove("CLOUDY_SESSION");
    command
}

/// A running process.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Receiver<String>,
    said: Vec<String>,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A stream whose reader has stopped: it accepts no bytes. The reader is returned beside it.
#[cfg(unix)]
pub(crate) fn blocked() -> (Stdio, std::os::unix::net::UnixStream) {
    use std::io::Write;

    let (reader, mut writer) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    writer.set_nonblocking(true).expect("set");
    // In smaller and smaller pieces, until not even a byte is taken.
    for length in [1 << 16, 1 << 8, 1] {
        while writer.write(&vec![b'\n'; length]).is_ok() {}
    }
    writer.set_nonblocking(false).expect("set");
    (Stdio::from(std::os::fd::OwnedFd::from(writer)), reader)
}

/// Waits until something is so that nothing tells of.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let give_up_at = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < give_up_at, "it does not come: {what}");
        // sleep: another program's process gives no other sign.
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let stdout = spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("text");
            text
        });
        let (say, said) = channel();
        spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { child, stdout: Some(stdout), stderr: said, said: Vec::new() }
    }

    /// Waits until it says something on stderr that contains the words, and returns that line.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        let give_up_at = Instant::now() + PATIENCE;
        while let Ok(line) = self.stderr.recv_timeout(give_up_at.saturating_duration_since(Instant::now())) {
            self.said.push(line);
            let last = self.said.len() - 1;
            if self.said[last].contains(words) {
                return self.said[last].clone();
            }
        }
        panic!("it never said {words:?}, but {:#?}", self.said);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by name, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> Ended {
        // Its stderr ends with it.
        let give_up_at = Instant::now() + PATIENCE;
        while let Ok(line) = self.stderr.recv_timeout(give_up_at.saturating_duration_since(Instant::now())) {
            self.said.push(line);
        }
        assert!(Instant::now() < give_up_at, "it does not end; it said {:#?}", self.said);
        let status = self.child.wait().expect("ended");
        let stdout = self.stdout.take().expect("taken once").join().expect("read");
        Ended { status, stdout, stderr: self.said.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its stdout as one JSON object, and nothing else.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// It ended with status 1 and a result that contains all the words.
    pub(crate) fn failed_without_error(&self, words: &[&str]) {
        assert_eq!(self.code(), Some(1), "{self:#?}");
        assert!(!self.stderr.contains("error: "), "{self:#?}");
        words.iter().for_each(|words| assert!(self.stdout.contains(words), "no {words:?} in {self:#?}"));
    }

    /// It ended with an error that contains all the words.
    pub(crate) fn failed_with(&self, words: &[&str]) {
        assert_eq!(self.code(), Some(1), "{self:#?}");
        assert!(self.stderr.contains("error: "), "{self:#?}");
        words.iter().for_each(|words| assert!(self.stderr.contains(words), "no {words:?} in {self:#?}"));
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Ended {
    Running::start(command).end()
}

/// A result, recomputed from a file of JSON lines, that must end with the same.
#[derive(Debug, PartialEq)]
pub(crate) struct Recomputed {
    pub(crate) values: Vec<f64>,
    pub(crate) origins: Vec<String>,
    pub(crate) sum: f64,
    pub(crate) digest: String,
}

pub(crate) fn recompute(path: &Path) -> Recomputed {
    let text = std::fs::read_to_string(path).expect("a result file");
    let mut found = Recomputed { values: Vec::new(), origins: Vec::new(), sum: 0.0, digest: String::new() };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if lines.peek().is_none() {
            assert_eq!(object["count"].as_u64(), Some(found.values.len() as u64), "{line}");
            assert_eq!(object["sum"].as_f64().map(f64::to_bits), Some(found.sum.to_bits()), "{line}");
            found.digest = object["digest"].as_str().expect("a digest").to_owned();
            return found;
        }
        let value = object["value"].as_f64().expect("a value");
        found.values.push(value);
        let index = found.values.len();
        assert_eq!(object["index"].as_u64(), Some(index as u64), "{line}");
        found.sum += index as f64 * value;
        found.origins.push(object["origin"].as_str().expect("an origin").to_owned());
    }
    panic!("{} has no last line", path.display());
}

/// The result that a slave has printed: (count, sum) and digest.
pub(crate) fn printed(stdout: &str) -> &str {
    stdout.split("  own").next().unwrap_or_default()
}
