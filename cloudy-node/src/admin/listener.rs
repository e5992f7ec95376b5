//! The listening socket of an admin endpoint.

use std::io;
use std::net::TcpListener;

use super::address::AdminAddress;
use super::error::AdminError;
#[cfg(unix)]
use super::unix::UnixSocket;

/// A bound socket for an admin endpoint ([`Node::serve_admin`](crate::Node::serve_admin)): a program knows that the
/// address is free before it creates files for its node.
#[derive(Debug)]
pub struct AdminListener(pub(super) Socket);

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixSocket),
}

impl AdminListener {
    /// Binds an address. A unix socket of a process that is gone is replaced, and access is for this user only.
    ///
    /// # Errors
    /// The address is in use, not one of this machine, or this user may not use it. Nothing was changed.
    pub fn bind(address: &AdminAddress) -> Result<Self, AdminError> {
        match address {
            AdminAddress::Tcp(at) => match TcpListener::bind(at) {
                Ok(listener) => Ok(Self(Socket::Tcp(listener))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(AdminError::PortInUse { address: *at }),
                Err(cause) => Err(AdminError::Other { address: address.clone(), cause }),
            },
            #[cfg(unix)]
            AdminAddress::Unix(path) => Ok(Self(Socket::Unix(UnixSocket::bind(path)?))),
            #[cfg(not(unix))]
            AdminAddress::Unix(_) => {
                Err(AdminError::Other { address: address.clone(), cause: io::ErrorKind::Unsupported.into() })
            }
        }
    }

    /// The address, with the port that was taken for port 0.
    ///
    /// # Errors
    /// The operating system does not return the address.
    pub fn address(&self) -> io::Result<AdminAddress> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr().map(AdminAddress::Tcp),
            #[cfg(unix)]
            Socket::Unix(socket) => Ok(AdminAddress::Unix(socket.path().to_owned())),
        }
    }
}
