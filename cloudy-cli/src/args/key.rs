//! `cloudy key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cloudy_node::NodeId;

use super::KeyFileArgs;

/// Arguments of `cloudy key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy key show                               the key's fingerprint: equal on all nodes of a cluster
  cloudy key new --cluster-key cluster.key      a key for several machines: copy the file to each
  cloudy key path                               where this machine's key is
  cloudy key rotate cluster.key                 start to change the key of a running cluster
  cloudy key revoke cluster.key NODE-ID         exclude a node for good

The first node on a machine creates the default key file, so a single machine needs none of these.")]
pub(crate) struct KeyArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// The subcommands of `cloudy key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Create a key file; an existing file is not changed
    #[command(after_help = "\
Examples:
  cloudy key new
  cloudy key new --cluster-key cluster.key")]
    New(KeyFileArgs),
    /// Print the fingerprints of the keys, the revoked nodes and the path of the file, never a key
    #[command(after_help = "\
Examples:
  cloudy key show
  cloudy key show --cluster-key cluster.key")]
    Show(KeyFileArgs),
    /// Print the path of the key file, whether it exists or not
    #[command(after_help = "\
Example:
  cp \"$(cloudy key path)\" /media/stick/")]
    Path(KeyFileArgs),
    /// Change the cluster's key while it runs, in three steps; each step prints the next one
    #[command(after_help = "\
Examples:
  cloudy key rotate cluster.key                 1: a fresh key is accepted; copy the file to every node
  cloudy key rotate cluster.key --switch        2: nodes present it, and accept the former one; copy it again
  cloudy key rotate cluster.key --finish        3: the former key is not accepted; copy it again

Nodes apply a changed file within 2 seconds, without a restart. If every step reaches every node before the
next one, no link breaks and no node is refused.")]
    Rotate(RotateArgs),
    /// Exclude a node from the cluster for good
    #[command(after_help = "\
Example:
  cloudy key revoke cluster.key 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b

A slave prints its id when it starts; `cloudy master --json` and `cloudy tail` print it too. A holder of the
cluster key can return as another node: to exclude a person, change the key as well.")]
    Revoke(RevokeArgs),
}

/// Arguments of `cloudy key rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The key file
    pub(crate) file: PathBuf,
    /// Second step: nodes present the next key, and accept the former one
    #[arg(long)]
    pub(crate) switch: bool,
    /// Third step: the former key is not accepted
    #[arg(long, conflicts_with = "switch")]
    pub(crate) finish: bool,
}

/// Arguments of `cloudy key revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The key file
    pub(crate) file: PathBuf,
    /// The node's id, with all 64 hexadecimal digits
    #[arg(value_name = "NODE-ID")]
    pub(crate) node: NodeId,
}
