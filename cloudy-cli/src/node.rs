//! Starts the node that a command runs on.

use std::net::SocketAddr;
use std::path::Path;

use cloudy_node::fault::{FaultControl, FaultSocket, Faults};
use cloudy_node::identity::NodeKey;
use cloudy_node::storage::DataDir;
use cloudy_node::{ClusterKey, ClusterKeys, Identity, Node};
use miette::{IntoDiagnostic, Report};
use zeroize::Zeroizing;

use crate::args::DataArgs;
use crate::output::failure;

/// Which node a process is.
pub(crate) enum Who<'a> {
    /// One that never was before.
    Fresh,
    /// The one whose private key is in a file.
    KeyIn(&'a Path),
    /// The one whose data directory it is.
    Owns(Box<DataDir>),
}

impl<'a> Who<'a> {
    /// The one with that data directory, or else with that key, or else a fresh one.
    pub(crate) fn of(data: &DataArgs, node_key: Option<&'a Path>) -> Result<Self, Report> {
        match (&data.directory, node_key) {
            (Some(path), _) => Ok(Self::Owns(Box::new(DataDir::open(path, true).into_diagnostic()?))),
            (None, Some(file)) => Ok(Self::KeyIn(file)),
            (None, None) => Ok(Self::Fresh),
        }
    }
}

/// Binds the address and starts a node there; over a socket with the faults if there are any, or if it is to be cut off
/// from others later by what is returned beside it.
pub(crate) async fn start_as(
    address: SocketAddr,
    keys: &ClusterKeys,
    who: Who<'_>,
    faults: Faults,
    partitions: bool,
) -> Result<(Node, Option<FaultControl>), Report> {
    let builder = Node::builder().cluster_keys(keys);
    let builder = match who {
        Who::Fresh => builder,
        Who::KeyIn(file) => builder.identity(identity(keys.primary(), file)?),
        Who::Owns(data) => builder.identity(data.identity(keys.primary()).into_diagnostic()?).data_dir(*data),
    };
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

/// Deletes what a data directory holds of sessions that have ended.
pub(crate) async fn forget_ended(node: &Node) {
    for group in node.resumed_groups().iter().filter(|group| group.has_ended()) {
        node.forget_group(group.id()).await;
    }
}
