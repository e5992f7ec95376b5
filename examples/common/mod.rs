//! A node of an example: its options, and its groups.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cloudy_node::{DataDir, Durability, Group, Node, key_file};

/// How long the processes may take to start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// File with the cluster's key, the same at all nodes; it is created if it is missing
    #[arg(long)]
    key: PathBuf,
    /// Address of this node for other nodes
    #[arg(long)]
    bind: SocketAddr,
    /// HOST:PORT of a node; give the same seeds to all nodes
    #[arg(long = "seed")]
    seeds: Vec<String>,
    /// Create the group once this number of nodes run
    #[arg(long)]
    expect: Option<usize>,
    /// Keep the data in this directory; without it, in memory
    #[arg(long)]
    data: Option<PathBuf>,
}

impl NodeArgs {
    pub(crate) async fn start(&self) -> Result<Node, Box<dyn Error>> {
        let keys = key_file::load_or_create(&self.key)?;
        let builder = Node::builder().bind(self.bind);
        let builder = match &self.data {
            Some(directory) => {
                let data = DataDir::open(directory, true)?;
                builder.identity(data.identity(keys.primary())?).data_dir(data)
            }
            None => builder.cluster_key(keys.primary()),
        };
        Ok(builder.cluster_keys(&keys).start().await?)
    }

    /// Resumes, joins or creates the group.
    pub(crate) async fn open(&self, node: &Node, name: &str) -> Result<Group, Box<dyn Error>> {
        let durability = if self.data.is_some() { Durability::Disk } else { Durability::Memory };
        let group = node.group(name).seeds(&self.seeds).durability(durability);
        let group = group.on_progress(|event| eprintln!("{name}: {event}"));
        let group = match self.expect {
            Some(expect) => group.bootstrap_expect(expect),
            None => group,
        };
        Ok(group.open().timeout(OPEN_TIMEOUT).await?)
    }
}
