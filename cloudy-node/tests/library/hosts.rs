//! Nodes with data directories, in processes that can be killed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cloudy_node::DataDir;
use cloudy_node::{ClusterKey, Durability, Group, GroupConfig, Node, Parameters};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::until;

/// A group that keeps its result on disk.
pub(crate) fn on_disk() -> GroupConfig {
    let parameters = Parameters::default().durability(Durability::Disk);
    GroupConfig::default().parameters(parameters)
}

/// A place where processes of one node run, one after the other.
pub(crate) struct Host {
    pub(crate) data: TempDir,
    address: Option<SocketAddr>,
    /// The name that its nodes advertise, and the addresses of all names.
    pub(crate) advertised: Option<(String, Names)>,
}

/// A name service.
pub(crate) type Names = Arc<Mutex<BTreeMap<String, SocketAddr>>>;

/// A process: it can be killed at any point.
pub(crate) struct Process {
    /// There until it is killed.
    runtime: Option<Runtime>,
    pub(crate) node: Node,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { data: TempDir::new().unwrap(), address: None, advertised: None }
    }

    /// The next process takes a free port.
    pub(crate) fn moves(&mut self) {
        self.address = None;
    }

    /// Starts a process, at the address of the one before.
    pub(crate) async fn start(&mut self, key: &ClusterKey) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let data_dir = opened(self.data.path()).await;
        let identity = data_dir.identity(key).unwrap();
        let address = self.address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut bound = None;
        until("the port is free", async || {
            bound = cloudy_node::bind(address).ok();
            bound.is_some()
        })
        .await;
        let socket = bound.unwrap();
        let mut builder = Node::builder().bound(socket).identity(identity).data_dir(data_dir);
        if let Some((name, names)) = self.advertised.clone() {
            let names = move |name: &str| Some(names.lock().unwrap().get(name).into_iter().copied().collect());
            builder = builder.advertise(name).resolver(names);
        }
        let node = runtime.spawn(async move { builder.start().await }).await.unwrap().unwrap();
        if let Some((name, names)) = &self.advertised {
            names.lock().unwrap().insert(name.clone(), node.local_addr());
        }
        self.address = Some(node.local_addr());
        Process { runtime: Some(runtime), node }
    }
}

/// The data directory, once the process before has let it go.
pub(crate) async fn opened(path: &Path) -> DataDir {
    let mut data_dir = None;
    until("the data directory is free", async || {
        data_dir = DataDir::open(path, true).ok();
        data_dir.is_some()
    })
    .await;
    data_dir.unwrap()
}

impl Process {
    /// Stops it at once, without a message to any other.
    pub(crate) fn kill(self) {}

    pub(crate) fn resumed(&self) -> Group {
        self.node.resumed_groups()[0].clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

pub(crate) async fn start_hosts(key: &ClusterKey, count: usize) -> (Vec<Host>, Vec<Process>) {
    let mut hosts: Vec<Host> = (0..count).map(|_| Host::new()).collect();
    let processes = start_again(&mut hosts, key).await;
    (hosts, processes)
}

pub(crate) async fn start_again(hosts: &mut [Host], key: &ClusterKey) -> Vec<Process> {
    join_all(hosts.iter_mut().map(|host| host.start(key))).await
}
