//! Three processes of a store on loopback.

use std::error::Error;
use std::fs::create_dir_all;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::{Connection, STREAM};
use super::{Storage, System};

const NODES: usize = 3;
/// The most that the nodes take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether they have started.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Cluster {
    system: System,
    processes: Vec<Child>,
}

fn address(base: u16, at: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, base + at as u16).into()
}

/// The addresses of all nodes, each in a text, with commas between them.
fn all(base: u16, text: impl Fn(usize, SocketAddr) -> String) -> String {
    (0..NODES).map(|at| text(at, address(base, at))).collect::<Vec<_>>().join(",")
}

impl Cluster {
    /// Starts the nodes, and waits until they accept writes.
    pub(crate) fn start(system: System, storage: Storage, directory: &Path) -> Result<Self, Box<dyn Error>> {
        create_dir_all(directory)?;
        let mut cluster = Self { system, processes: Vec::new() };
        for at in 0..NODES {
            let mut command = match system {
                System::Kv => kv(storage, directory, at)?,
                System::Etcd => etcd(directory, at),
                System::Nats => nats(directory, at),
            };
            cluster.processes.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        let start = Instant::now();
        while !(0..NODES).all(|at| cluster.is_ready(at, storage).unwrap_or(false)) {
            if start.elapsed() > START_MAX {
                return Err("the nodes have not started: are the programs installed, and the ports free?".into());
            }
            // sleep: nothing announces it.
            sleep(LOOK_EVERY);
        }
        Ok(cluster)
    }

    fn ask(&self, at: usize) -> std::io::Result<Connection> {
        Connection::open(self.system, self.clients()[at], 0)
    }

    fn is_ready(&self, at: usize, storage: Storage) -> std::io::Result<bool> {
        let mut node = self.ask(at)?;
        match self.system {
            System::Kv => Ok(node.http("GET", "/ready", "")?.0 == 200),
            System::Etcd => Ok(node.http("GET", "/health", "")?.1.contains("true")),
            System::Nats => {
                let storage = if storage == Storage::Disk { "file" } else { "memory" };
                let stream = format!(
                    "{{\"name\":\"{STREAM}\",\"subjects\":[\"$KV.compare.>\"],\"num_replicas\":3,\"storage\":\"{storage}\",\
                     \"retention\":\"limits\",\"discard\":\"new\",\"max_msgs_per_subject\":1,\"max_msgs\":-1,\
                     \"max_bytes\":-1,\"max_consumers\":-1,\"allow_rollup_hdrs\":true,\"deny_delete\":true}}"
                );
                let answer = node.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &stream)?;
                Ok(answer.contains("\"config\""))
            }
        }
    }

    /// The addresses of the nodes for clients.
    pub(crate) fn clients(&self) -> Vec<SocketAddr> {
        let base = match self.system {
            System::Kv => 18_500,
            System::Etcd => 12_379,
            System::Nats => 14_222,
        };
        (0..NODES).map(|at| address(base, at)).collect()
    }

    /// The node that leads; of `kv` the first, because its nodes are equal.
    pub(crate) fn leader(&self) -> Result<usize, Box<dyn Error>> {
        let field = |text: &str, name: &str| {
            let rest = text.split(&format!("\"{name}\":\"")).nth(1)?;
            rest.split('"').next().map(ToOwned::to_owned)
        };
        match self.system {
            System::Kv => Ok(0),
            System::Etcd => {
                for at in 0..NODES {
                    let (_, status) = self.ask(at)?.http("POST", "/v3/maintenance/status", "{}")?;
                    if field(&status, "leader").is_some_and(|leader| field(&status, "member_id") == Some(leader)) {
                        return Ok(at);
                    }
                }
                Err("etcd has no leader".into())
            }
            System::Nats => {
                let info = self.ask(0)?.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), "")?;
                let name = field(&info, "leader").ok_or("the stream has no leader")?;
                Ok(name.trim_start_matches("node-").parse()?)
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) -> std::io::Result<()> {
        self.processes[at].kill()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended.
            drop((process.kill(), process.wait()));
        }
    }
}

fn kv(storage: Storage, directory: &Path, at: usize) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?.with_file_name("kv"));
    command.arg("--key").arg(directory.join("cluster.key")).args(["--expect", "3"]);
    command.args(["--bind", &address(17_500, at).to_string(), "--http", &address(18_500, at).to_string()]);
    for seed in 0..NODES {
        command.args(["--seed", &address(17_500, seed).to_string()]);
    }
    if storage == Storage::Disk {
        command.arg("--data").arg(directory.join(format!("kv-{at}")));
    }
    Ok(command)
}

fn etcd(directory: &Path, at: usize) -> Command {
    let mut command = Command::new("etcd");
    let client = format!("http://{}", address(12_379, at));
    let peer = format!("http://{}", address(12_479, at));
    command.args(["--name", &format!("node-{at}"), "--data-dir"]).arg(directory.join(format!("etcd-{at}")));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &all(12_479, |at, address| format!("node-{at}=http://{address}"))]);
    command
}

fn nats(directory: &Path, at: usize) -> Command {
    let mut command = Command::new("nats-server");
    let client = address(14_222, at);
    command.args(["--name", &format!("node-{at}"), "-a", "127.0.0.1", "-p", &client.port().to_string(), "-js", "-sd"]);
    command.arg(directory.join(format!("nats-{at}"))).args(["--cluster_name", "compare"]);
    command.args(["--cluster", &format!("nats://{}", address(16_222, at))]);
    command.args(["--routes", &all(16_222, |_, address| format!("nats://{address}"))]);
    command
}
