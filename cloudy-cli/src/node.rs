//! Starts the node that a command runs on.

use std::net::SocketAddr;
use std::path::Path;

use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::identity::NodeKey;
use cloudy_node::{ClusterKey, ClusterKeys, Identity, Node};
use miette::{IntoDiagnostic, Report};
use zeroize::Zeroizing;

use crate::output::failure;

/// Binds the address and starts a fresh node there; over a socket with the faults if there are any, or if it is to be cut
/// off from others later by what is returned beside it.
pub(crate) async fn start(
    address: SocketAddr,
    key: &ClusterKey,
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    start_as(address, &key.clone().into(), None, faults, partitions).await
}

/// The same with all keys of a cluster, as the node whose private key is in a file if one is named.
pub(crate) async fn start_as(
    address: SocketAddr,
    keys: &ClusterKeys,
    node_key: Option<&Path>,
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    let mut builder = Node::builder().cluster_keys(keys);
    if let Some(file) = node_key {
        builder = builder.identity(identity(keys.primary(), file)?);
    }
    let without_faults = Faults { seed: faults.seed, ..Faults::none() };
    if faults == without_faults && !partitions {
        return Ok((builder.bind(address).start().await.into_diagnostic()?, None));
    }
    let socket = FaultSocket::bind(address, faults).into_diagnostic()?;
    let control = socket.control();
    Ok((builder.socket(socket).start().await.into_diagnostic()?, Some(control)))
}

fn identity(key: &ClusterKey, file: &Path) -> Result<Identity, Report> {
    let bytes = std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        failure(
            format_args!("cannot read the node's key in {} ({error})", file.display()),
            "start it without that file",
        )
    })?;
    let node_key = NodeKey::from_pkcs8(&bytes).into_diagnostic()?;
    Identity::with_node_key(key, &node_key).into_diagnostic()
}
