//! `cloudy key`.

use clap::{Args, Subcommand};

use super::KeyFileArgs;

/// Arguments of `cloudy key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloudy key show                               the key's fingerprint: equal on all nodes of a cluster
  cloudy key new --cluster-key cluster.key      a key for several machines: copy the file to each
  cloudy key path                               where this machine's key is

A node makes the default key file on its first run, so one machine alone needs none of these.")]
pub(crate) struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// What can be done with the key.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; a file that is there already is left alone
    #[command(after_help = "\
Examples:
  cloudy key new
  cloudy key new --cluster-key cluster.key")]
    New(KeyFileArgs),
    /// Print the key's fingerprint and file, never the key
    #[command(after_help = "\
Examples:
  cloudy key show
  cloudy key show --cluster-key cluster.key")]
    Show(KeyFileArgs),
    /// Print the key's file, whether it exists or not
    #[command(after_help = "\
Example:
  cp \"$(cloudy key path)\" /media/stick/")]
    Path(KeyFileArgs),
}
