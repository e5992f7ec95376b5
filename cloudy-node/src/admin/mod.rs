//! The admin endpoint of a node: its health, status and metrics, and a live page, over HTTP.
//!
//! [`NodeBuilder::admin`](crate::NodeBuilder::admin) opens it; nothing listens otherwise. It serves `GET` and `HEAD` only
//! and changes nothing. A thread of its own serves it, with bounds on connections, sizes and times, and asks the node at
//! most four times a second: no client costs a group anything else.
//!
//! | path | content |
//! |---|---|
//! | `/livez` | 200 while the node's driver answers |
//! | `/readyz` | 200 while every group works here, else 503; with `?verbose` the reasons |
//! | `/status` | a [`NodeStatus`] as JSON |
//! | `/metrics` | OpenMetrics |
//! | `/` | a page that shows all of it and follows it |
//!
//! Every client that reaches the address can read it: ids, addresses, names of groups and counts, never keys or messages.

mod address;
mod convert;
mod error;
mod events;
mod history;
mod listener;
mod metrics;
mod page;
mod ready;
mod routes;
mod server;
mod source;
mod status;
#[cfg(test)]
mod tests;
#[cfg(unix)]
mod unix;

use std::net::SocketAddr;
use std::time::Instant;

use cloudy_proto::NodeId;

pub use crate::histogram::Histogram;
pub use address::{AdminAddress, ParseAdminAddressError};
pub use error::AdminError;
pub use listener::AdminListener;
pub use status::{
    DiskStatus, EndedGroupStatus, GroupCounters, GroupRole, GroupStatus, KeysStatus, MemberEntry, NodeStatus,
    PeerStatus, PendingEntry, RemovedEntry, STATUS_SCHEMA, ViewChangeStatus, ViewStatus, WaitEntry,
};

use crate::driver::Mailbox;
use convert::About;
use routes::App;
use source::Source;

/// Serves an admin endpoint of a node until the node is closed.
pub(crate) fn serve(
    listener: AdminListener,
    (node, address): (NodeId, SocketAddr),
    mailbox: &Mailbox,
) -> Result<(), AdminError> {
    let about = About { node, address, started: Instant::now() };
    let source = Source::new(about, mailbox.downgrade());
    server::start(listener, App::new(source), mailbox.health.clone())
}
