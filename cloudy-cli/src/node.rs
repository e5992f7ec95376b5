//! Starts the node that a command runs on.

use std::net::{SocketAddr, UdpSocket};

use cloudy_node::DataDir;
use cloudy_node::NodeKey;
use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::{ClusterKeys, GroupConfig, GroupId, Identity, Node};
use miette::{IntoDiagnostic, Report};
use quinn::{Runtime, TokioRuntime};
use tokio::task::spawn_blocking;

use crate::args::DataArgs;

/// Which node a process is.
pub(crate) enum Who {
    /// One that never was before.
    Fresh,
    /// The one with that private key.
    With(Box<NodeKey>),
    /// The one whose data directory it is.
    Owns(Box<DataDir>),
}

impl Who {
    /// The one with that data directory, or else with that key, or else a fresh one.
    pub(crate) async fn of(data: &DataArgs, node_key: Option<NodeKey>) -> Result<Self, Report> {
        match (&data.directory, node_key) {
            (Some(path), _) => {
                let path = path.clone();
                // A disk may hang, and signals are to end the process all the same.
                let opened = spawn_blocking(move || DataDir::open(&path, true)).await;
                Ok(Self::Owns(Box::new(opened.into_diagnostic()?.into_diagnostic()?)))
            }
            (None, Some(node_key)) => Ok(Self::With(Box::new(node_key))),
            (None, None) => Ok(Self::Fresh),
        }
    }
}

/// Binds the address of a node. Done before any file is made for the node, so that nothing is left behind where the
/// address is taken.
pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, Report> {
    cloudy_node::bind(address).into_diagnostic()
}

/// Starts a node on a bound socket; with the faults if there are any, or if it is to be cut off from others later by what
/// is returned beside it. Of a group that it joins the node keeps `retain_bytes` in memory.
pub(crate) async fn start_as(
    socket: UdpSocket,
    keys: &ClusterKeys,
    who: Who,
    faults: Faults,
    partitions: bool,
    retain_bytes: Option<u64>,
) -> Result<(Node, Option<FaultControl>), Report> {
    let mut join_config = GroupConfig::default();
    join_config.retain_bytes = retain_bytes.unwrap_or(join_config.retain_bytes);
    let builder = Node::builder().cluster_keys(keys).join_config(join_config);
    let builder = match who {
        Who::Fresh => builder,
        Who::With(node_key) => builder.identity(Identity::with_node_key(keys.primary(), &node_key).into_diagnostic()?),
        Who::Owns(data) => builder.identity(data.identity(keys.primary()).into_diagnostic()?).data_dir(*data),
    };
    let without_faults = Faults::none().seed(faults.seed);
    if faults == without_faults && !partitions {
        return Ok((builder.bound(socket).start().await.into_diagnostic()?, None));
    }
    let socket = TokioRuntime.wrap_udp_socket(socket).into_diagnostic()?;
    let socket = FaultSocket::wrap(socket, faults).into_diagnostic()?;
    let control = socket.control();
    Ok((builder.socket(socket).start().await.into_diagnostic()?, Some(control)))
}

/// Deletes what a data directory holds of a session. One that stays is there at the next start, and deleted then.
pub(crate) async fn forget(node: &Node, group: GroupId) {
    if let Err(error) = node.forget_group(group).await {
        tracing::warn!(%error, "a session that has ended is still in the data directory");
    }
}
