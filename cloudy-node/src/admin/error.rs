//! Why there is no admin endpoint.

use std::io;
use std::net::SocketAddr;

use super::address::AdminAddress;

/// The reason for which there is no admin endpoint. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Another program listens there.
    #[error(
        "cannot open the admin endpoint: port {} on {} is in use; end the program that has it, or choose another port", .address.port(), .address.ip()
    )]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// A running process has the unix socket.
    #[error("cannot open the admin endpoint: a running process listens at {address}; end it, or choose another path")]
    SocketInUse {
        /// The address.
        address: AdminAddress,
    },
    /// There is a file at the path that is not a socket.
    #[error("cannot open the admin endpoint: the file at {address} is not a socket; remove it, or choose another path")]
    NoSocket {
        /// The address.
        address: AdminAddress,
    },
    /// Another error.
    #[error(
        "cannot open the admin endpoint at {address}: {cause}; choose an address of this machine, or a path in a directory that this user may write to"
    )]
    Other {
        /// The address.
        address: AdminAddress,
        /// The cause.
        cause: io::Error,
    },
    /// The operating system has no thread or no sockets for it.
    #[error("cannot start the thread of the admin endpoint: {0}; raise the limits of threads and open files")]
    Thread(io::Error),
}
