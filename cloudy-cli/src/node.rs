//! Starts the node that a command runs on.

use std::net::SocketAddr;

use cloudy_node::fault::{FaultSocket, Faults};
use cloudy_node::{ClusterKey, Node};
use miette::{IntoDiagnostic, Report};

/// Binds the address and starts a node there, over a socket with the faults if there are any.
pub(crate) async fn start(address: SocketAddr, key: &ClusterKey, faults: Faults) -> Result<Node, Report> {
    let builder = Node::builder().cluster_key(key);
    let without_faults = Faults { seed: faults.seed, ..Faults::none() };
    let builder = if faults == without_faults {
        builder.bind(address)
    } else {
        builder.socket(FaultSocket::bind(address, faults).into_diagnostic()?)
    };
    builder.start().await.into_diagnostic()
}
