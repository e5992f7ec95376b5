//! The start of a command's node.

use std::net::{SocketAddr, UdpSocket};

use cloudy_node::DataDir;
use cloudy_node::NodeKey;
use cloudy_node::admin::{AdminAddress, AdminListener};
use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::{ClusterKeys, GroupConfig, GroupId, Identity, Node, NodeBuilder};
use miette::{IntoDiagnostic, Report};
use quinn::{Runtime, TokioRuntime};
use tokio::task::spawn_blocking;

use crate::args::DataArgs;
use crate::output::say_plainly;

/// The identity of a process's node.
pub(crate) enum Who {
    /// A fresh one.
    Fresh,
    /// The node with this private key.
    With(Box<NodeKey>),
    /// The node of this data directory.
    Owns(Box<DataDir>),
}

impl Who {
    /// The node of the data directory, or else with the key, or else a fresh one.
    pub(crate) async fn of(data: &DataArgs, node_key: Option<NodeKey>) -> Result<Self, Report> {
        match (&data.directory, node_key) {
            (Some(path), _) => {
                let path = path.clone();
                // A disk may hang, and signals must end the process all the same.
                let opened = spawn_blocking(move || DataDir::open(&path, true)).await;
                Ok(Self::Owns(Box::new(opened.into_diagnostic()?.into_diagnostic()?)))
            }
            (None, Some(node_key)) => Ok(Self::With(Box::new(node_key))),
            (None, None) => Ok(Self::Fresh),
        }
    }
}

/// Binds the address of a node, before any file is created for it, so that nothing is left behind if the address is in
/// use.
pub(crate) fn bind(address: SocketAddr) -> Result<UdpSocket, Report> {
    cloudy_node::bind(address).into_diagnostic()
}

/// Settings of a node that some commands have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The bytes to retain in memory of a group that the node joins.
    pub(crate) retain_bytes: Option<u64>,
    /// The name at which others find the node.
    pub(crate) advertise: Option<String>,
}

impl Settings {
    pub(crate) fn apply(self, builder: NodeBuilder) -> NodeBuilder {
        let mut join_config = GroupConfig::default();
        join_config.retain_bytes = self.retain_bytes.unwrap_or(join_config.retain_bytes);
        let builder = builder.join_config(join_config);
        match self.advertise {
            Some(name) => builder.advertise(name),
            None => builder,
        }
    }
}

/// Starts a node on a bound socket, with faults if there are any. If it can be cut off from others later, the control
/// for that is returned as well.
pub(crate) async fn start_as(
    socket: UdpSocket,
    keys: &ClusterKeys,
    who: Who,
    faults: Faults,
    partitions: bool,
    settings: Settings,
) -> Result<(Node, Option<FaultControl>), Report> {
    let builder = settings.apply(Node::builder().cluster_keys(keys));
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

/// Serves the admin endpoint of a node, if it has one, and prints its address.
pub(crate) fn serve_admin(node: &Node, listener: Option<AdminListener>) -> Result<(), Report> {
    let Some(listener) = listener else { return Ok(()) };
    let address = listener.address().into_diagnostic()?;
    node.serve_admin(listener).into_diagnostic()?;
    say_plainly(&match address {
        AdminAddress::Tcp(address) => format!("admin endpoint at http://{address}/"),
        unix @ AdminAddress::Unix(_) => format!("admin endpoint at {unix}"),
    });
    Ok(())
}

/// Deletes the data of a session from a data directory. On failure it is there at the next start, and deleted then.
pub(crate) async fn forget(node: &Node, group: GroupId) {
    if let Err(error) = node.forget_group(group).await {
        tracing::warn!(%error, "a session that has ended is still in the data directory");
    }
}
