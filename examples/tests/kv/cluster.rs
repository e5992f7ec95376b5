//! Processes of `kv` on addresses that no other test uses.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client;

/// Against hanging: far above the usual time.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// Between two looks at a state that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for a state that nothing announces.
pub(crate) async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let reaches = async {
        while !reached().await {
            // sleep: between two checks.
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(HANGS_AFTER, reaches).await.unwrap_or_else(|_| panic!("it does not come: {what}"));
}

/// The nodes of a store.
pub(crate) struct Cluster {
    directory: TempDir,
    /// The number of nodes that create the group.
    count: usize,
    on_disk: bool,
    base_port: u16,
    processes: Vec<Option<Child>>,
    /// Processes that each node has had with a data directory of its own.
    lives: Vec<usize>,
}

impl Cluster {
    /// Starts nodes, and waits until each is an active member.
    pub(crate) async fn start(count: usize, on_disk: bool) -> Self {
        static CLUSTERS: AtomicU16 = AtomicU16::new(0);
        let base_port = 7_400 + 20 * CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let (directory, processes) = (TempDir::new().unwrap(), (0..count).map(|_| None).collect());
        let mut cluster = Self { directory, count, on_disk, base_port, processes, lives: vec![0; count] };
        (0..count).for_each(|at| cluster.spawn(at));
        cluster.all_ready().await;
        cluster
    }

    /// A loopback address of this test process alone: no other process gets the ports of a killed one.
    fn host() -> Ipv4Addr {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 64 + high % 64, middle, low)
    }

    /// An address of each node, so that a packet filter can tell them apart.
    pub(crate) fn node_host(at: usize) -> Ipv4Addr {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 128 + high % 8 * 16 + (at % 16) as u8, middle, low)
    }

    fn address(&self, at: usize) -> SocketAddr {
        (Self::node_host(at), self.base_port + at as u16).into()
    }

    pub(crate) fn http(&self, at: usize) -> SocketAddr {
        (Self::host(), self.base_port + 10 + at as u16).into()
    }

    pub(crate) fn https(&self) -> Vec<SocketAddr> {
        (0..self.processes.len()).map(|at| self.http(at)).collect()
    }

    fn data(&self, at: usize) -> PathBuf {
        self.directory.path().join(format!("data-{at}-{}", self.lives[at]))
    }

    /// Starts a process, with the data of the one before if that is on disk.
    pub(crate) fn spawn(&mut self, at: usize) {
        let command = self.command(at, Command::new(env!("CARGO_BIN_EXE_kv")));
        self.run(at, command);
    }

    /// The same, on a disk that is full once the data has grown by a little.
    pub(crate) fn spawn_with_small_disk(&mut self, at: usize) {
        let sizes = std::fs::read_dir(self.data(at)).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        // The shell counts blocks of 512 or 1,024 bytes.
        let blocks = sizes.max().unwrap() / 512 + 64;
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &limit, env!("CARGO_BIN_EXE_kv")]);
        let command = self.command(at, shell);
        self.run(at, command);
    }

    fn run(&mut self, at: usize, mut command: Command) {
        self.processes[at] = Some(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn command(&self, at: usize, mut command: Command) -> Command {
        command.arg("--key").arg(self.directory.path().join("cluster.key"));
        command.args(["--bind", &self.address(at).to_string(), "--http", &self.http(at).to_string()]);
        command.args(["--expect", &self.count.to_string()]);
        for seed in 0..self.count {
            command.args(["--seed", &self.address(seed).to_string()]);
        }
        if self.on_disk {
            command.arg("--data").arg(self.data(at));
        }
        command
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self, at: usize) -> bool {
        self.processes[at].as_mut().is_none_or(|process| process.try_wait().unwrap().is_some())
    }

    /// Ends a process in order, and waits for its end.
    pub(crate) async fn stop(&mut self, at: usize) {
        self.signal(at, Signal::INT);
        until("the process ends", async || self.has_ended(at)).await;
    }

    /// Starts a node that is not among the seeds.
    pub(crate) fn add(&mut self) -> usize {
        self.processes.push(None);
        self.lives.push(0);
        let at = self.processes.len() - 1;
        self.spawn(at);
        at
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.processes[at].take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, at: usize, signal: Signal) {
        let process = self.processes[at].as_ref().unwrap();
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// A node leaves for good; the next process of it is a new node.
    pub(crate) async fn leave(&mut self, at: usize) {
        client::request(self.http(at), "POST /leave", &[], "").await.unwrap();
        let mut process = self.processes[at].take().unwrap();
        until("the process ends", async || process.try_wait().unwrap().is_some()).await;
        self.lives[at] += 1;
    }

    pub(crate) async fn is_ready(&self, at: usize) -> bool {
        client::get(self.http(at), "/ready").await.is_ok_and(|answer| answer.status == 200)
    }

    pub(crate) async fn all_ready(&self) {
        for at in 0..self.processes.len() {
            until(&format!("node {at} is an active member"), async || self.is_ready(at).await).await;
        }
    }

    /// The number of members that a node knows.
    pub(crate) async fn members(&self, at: usize) -> usize {
        let answer = client::get(self.http(at), "/members").await;
        let body = answer.ok().and_then(|answer| serde_json::from_str::<serde_json::Value>(&answer.body).ok());
        body.and_then(|body| body["members"].as_array().map(Vec::len)).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            // It may have ended.
            drop((process.kill(), process.wait()));
        }
    }
}
