//! Starts the node that a command runs on.

use std::net::SocketAddr;
use std::path::Path;

use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::identity::NodeKey;
use cloudy_node::storage::DataDir;
use cloudy_node::{ClusterKey, Identity, Node};
use miette::{IntoDiagnostic, Report};
use zeroize::Zeroizing;

use crate::args::DataArgs;
use crate::output::failure;

/// Binds the address and starts a node there; over a socket with the faults if there are any, or if it is to be cut off
/// from others later by what is returned beside it.
pub(crate) async fn start(
    address: SocketAddr,
    key: &ClusterKey,
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    start_as(address, (identity(key, None)?, None), faults, partitions).await
}

/// The identity of the node whose private key is in a file, or a fresh one.
pub(crate) fn identity(key: &ClusterKey, file: Option<&Path>) -> Result<Identity, Report> {
    let Some(file) = file else { return Identity::generate(key).into_diagnostic() };
    let bytes = std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        failure(
            format_args!("cannot read the node's key in {} ({error})", file.display()),
            "start it without that file",
        )
    })?;
    let node_key = NodeKey::from_pkcs8(&bytes).into_diagnostic()?;
    Identity::with_node_key(key, &node_key).into_diagnostic()
}

/// The node's data directory, if it is to have one.
pub(crate) fn open_data(data: &DataArgs) -> Result<Option<DataDir>, Report> {
    data.directory.as_deref().map(|path| DataDir::open(path, true)).transpose().into_diagnostic()
}

/// Deletes what a data directory holds of sessions that have ended.
pub(crate) async fn forget_ended(node: &Node) {
    for group in node.resumed_groups().iter().filter(|group| group.has_ended()) {
        node.forget_group(group.id()).await;
    }
}

/// As [`start`], with that identity and data directory.
pub(crate) async fn start_as(
    address: SocketAddr,
    (identity, data): (Identity, Option<DataDir>),
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    let builder = Node::builder().identity(identity);
    let builder = match data {
        Some(data) => builder.data_dir(data),
        None => builder,
    };
    let without_faults = Faults { seed: faults.seed, ..Faults::none() };
    if faults == without_faults && !partitions {
        return Ok((builder.bind(address).start().await.into_diagnostic()?, None));
    }
    let socket = FaultSocket::bind(address, faults).into_diagnostic()?;
    let control = socket.control();
    Ok((builder.socket(socket).start().await.into_diagnostic()?, Some(control)))
}
