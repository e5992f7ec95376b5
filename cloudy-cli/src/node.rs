//! Starts the node that a command runs on.

use std::net::SocketAddr;

use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::{ClusterKey, Node};
use miette::{IntoDiagnostic, Report};

/// Binds the address and starts a node there; over a socket with the faults if there are any, or if it is to be cut off
/// from others later by what is returned beside it.
pub(crate) async fn start(
    address: SocketAddr,
    key: &ClusterKey,
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    let builder = Node::builder().cluster_key(key);
    let without_faults = Faults { seed: faults.seed, ..Faults::none() };
    if faults == without_faults && !partitions {
        return Ok((builder.bind(address).start().await.into_diagnostic()?, None));
    }
    let socket = FaultSocket::bind(address, faults).into_diagnostic()?;
    let control = socket.control();
    Ok((builder.socket(socket).start().await.into_diagnostic()?, Some(control)))
}
