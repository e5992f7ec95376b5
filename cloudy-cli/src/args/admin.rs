//! The admin endpoint of a command that runs a node.

use clap::Args;
use cloudy_node::admin::{AdminAddress, AdminListener};
use miette::{IntoDiagnostic, Report};

/// The admin endpoint of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct AdminArgs {
    /// Serve health, status, metrics and a live page of this node at this address, read-only: HOST:PORT or unix:PATH.
    /// HOST is localhost or an IP address; with an address that other machines reach, they can read it too
    #[arg(id = "admin", long = "admin", value_name = "ADDRESS")]
    pub(crate) address: Option<AdminAddress>,
}

impl AdminArgs {
    /// Binds the address, before any file is created for the node.
    pub(crate) fn bind(&self) -> Result<Option<AdminListener>, Report> {
        self.address.as_ref().map(AdminListener::bind).transpose().into_diagnostic()
    }
}
