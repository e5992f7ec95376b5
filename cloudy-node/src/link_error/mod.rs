//! Reasons for which there is no link: causes, closing codes and their texts.

use core::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use cloudy_proto::harmless;
use quinn::{ConnectionError, TransportErrorCode};
use thiserror::Error;

use crate::health::{CloseReason, NodeFailure};
use crate::wait::TimedOut;

/// Closing codes of a node (RFC 9000 §10.2); the text beside a code has the details.
pub(crate) mod code {
    /// The node shuts down.
    pub(crate) const SHUTDOWN: u32 = 0;
    /// Another connection of the pair stays.
    pub(crate) const DUPLICATE: u32 = 1;
    /// The peer broke the protocol.
    pub(crate) const BREACH: u32 = 2;
    /// The node dialled itself.
    pub(crate) const ITSELF: u32 = 3;
    /// The peer receives too slowly.
    pub(crate) const OVERFLOW: u32 = 4;
    /// Nothing was received from the peer for too long; it is dialled again.
    pub(crate) const SILENT: u32 = 5;
    /// The peer's identity was revoked.
    pub(crate) const REVOKED: u32 = 6;
    /// The cluster key that vouches for the peer is not accepted.
    pub(crate) const KEY_DROPPED: u32 = 7;
    /// The node has no capacity for another connection.
    pub(crate) const FULL: u32 = 8;
    /// Another process has the identity of the closing node, which stops.
    pub(crate) const SAME_IDENTITY: u32 = 9;
    /// The closing node has the identity of its peer, and the peer has to stop.
    pub(crate) const PEER_IS_SECOND: u32 = 10;
    /// A part of the node failed because of a defect.
    pub(crate) const FAILED: u32 = 11;
    /// The nodes have no wire version in common.
    pub(crate) const OTHER_VERSION: u32 = 12;
}

/// The reason for which a link was not established, or was closed. The text fits both sides.
///
/// The dialling side may have a connection for a moment before the other side refuses it. The refusal then arrives as
/// the close of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkFailure {
    /// The certificate of one side is not signed by an authority that the other side trusts.
    #[error(
        "refused: the other node holds another cluster key (or its certificate comes from another authority); give both nodes the same key file"
    )]
    OtherClusterKey,
    /// One side presented no certificate.
    #[error(
        "refused: no certificate was presented, so that side has no cluster key; only members of one cluster may connect"
    )]
    NoCertificate,
    /// This node's identity was revoked.
    #[error(
        "refused: this node's identity was revoked in its cluster, for good; contact the operator of the cluster, and start it as a new node if it may return"
    )]
    RevokedHere,
    /// The other node's identity was revoked.
    #[error("refused: the other node's identity was revoked in this cluster, for good")]
    RevokedThere,
    /// The certificate of one side has another fault: expired, made for another purpose, revoked, or not readable.
    #[error("refused: a certificate is not accepted: {detail}; renew it, and check that both clocks are right")]
    Certificate {
        /// The text of the side that refused.
        detail: Words,
    },
    /// The sides speak different protocols in TLS.
    #[error("refused: the other side speaks another protocol; is it a cloudy node, and newer than release 0.2?")]
    OtherProtocol,
    /// The nodes have no wire version in common.
    #[error("refused: {detail}")]
    OtherWireVersion {
        /// The versions of both, as the node that refused names them.
        detail: Words,
    },
    /// The sides have no QUIC version in common.
    #[error("refused: the other side speaks another version of QUIC; is it a cloudy node?")]
    OtherQuicVersion,
    /// The other side accepts no more connections.
    #[error("refused: the other node accepts no more connections, in total or from this address; try again later")]
    Full,
    /// The other side gave up the handshake.
    #[error("the other node gave the handshake up: it has too many unfinished ones, or is stopping; try again later")]
    GivenUp,
    /// The handshake was not finished before its timeout.
    #[error("the handshake was not finished within {} ms: is a cloudy node running there, and does UDP pass?", timeout.as_millis())]
    HandshakeTimeout {
        /// The timeout.
        timeout: Duration,
    },
    /// Nothing was received for the idle timeout.
    #[error(
        "nothing is received from the other node: it has stopped or is not running, or the network drops its datagrams"
    )]
    TimedOut,
    /// The other process does not know the connection, because it was restarted.
    #[error("the other node was restarted and has forgotten the connection")]
    Reset,
    /// The other node closed the connection.
    #[error("closed by the other node: {reason} (code {code})")]
    ClosedByPeer {
        /// The closing code.
        code: u64,
        /// The text beside it.
        reason: Words,
    },
    /// This node closed the connection.
    #[error("closed by this node")]
    ClosedHere,
    /// The address cannot be dialled: it has port 0, or another family than the socket.
    #[error("{address} cannot be dialled from this socket: check the port, and that both are IPv4 or both IPv6")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// The endpoint is shut down.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// Another error of the transport.
    #[error("the connection failed: {detail}")]
    Transport {
        /// The transport's text.
        detail: Words,
    },
}

/// Text that may come from another node, without harmful characters: see [`harmless`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(String);

impl Words {
    /// The harmless part of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(harmless(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// TLS alerts (RFC 8446 §6), which QUIC carries as its own error codes (RFC 9001 §4.8).
mod alert {
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const CERTIFICATE_UNKNOWN: u8 = 46;
    pub(super) const UNKNOWN_CA: u8 = 48;
    pub(super) const ACCESS_DENIED: u8 = 49;
    pub(super) const DECRYPT_ERROR: u8 = 51;
    pub(super) const PROTOCOL_VERSION: u8 = 70;
    pub(super) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(super) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

impl LinkFailure {
    /// Both sides see the same code, the one that found the fault and the one that received it.
    fn of_transport(code: TransportErrorCode, reason: &[u8]) -> Self {
        if code == TransportErrorCode::CONNECTION_REFUSED {
            return Self::Full;
        }
        if code == TransportErrorCode::APPLICATION_ERROR {
            // The code that stands for a close before the end of the handshake (RFC 9000 §10.2.3).
            return Self::GivenUp;
        }
        // RFC 9001 §4.8: 0x100 plus the alert.
        let alert = u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
        match alert {
            Some(alert::UNKNOWN_CA) => Self::OtherClusterKey,
            Some(alert::CERTIFICATE_REQUIRED) => Self::NoCertificate,
            Some(alert::NO_APPLICATION_PROTOCOL) => Self::OtherProtocol,
            Some(alert::PROTOCOL_VERSION) => Self::OtherQuicVersion,
            Some(alert::BAD_CERTIFICATE..=alert::CERTIFICATE_UNKNOWN | alert::ACCESS_DENIED | alert::DECRYPT_ERROR) => {
                Self::Certificate { detail: Words::new(reason) }
            }
            _ if reason.is_empty() => Self::Transport { detail: Words::new(code.to_string().as_bytes()) },
            _ => Self::Transport { detail: Words::new(reason) },
        }
    }

    /// Whether the other node had no capacity at that moment, so that another attempt may succeed soon.
    pub(crate) fn is_momentary(&self) -> bool {
        matches!(self, Self::Full | Self::GivenUp)
    }

    /// Whether the other process stops because another one has its identity.
    pub(crate) fn is_same_identity(&self) -> bool {
        matches!(self, Self::ClosedByPeer { code, .. } if *code == u64::from(code::SAME_IDENTITY))
    }

    /// Whether either side refused the link for good: another attempt fails as well until a key, a certificate or a
    /// version changes.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OtherClusterKey
                | Self::NoCertificate
                | Self::RevokedHere
                | Self::RevokedThere
                | Self::Certificate { .. }
                | Self::OtherProtocol
                | Self::OtherWireVersion { .. }
                | Self::OtherQuicVersion
        )
    }
}

impl From<ConnectionError> for LinkFailure {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::VersionMismatch => Self::OtherQuicVersion,
            ConnectionError::TransportError(error) => Self::of_transport(error.code, error.reason.as_bytes()),
            ConnectionError::ConnectionClosed(close) => Self::of_transport(close.error_code, &close.reason),
            ConnectionError::ApplicationClosed(close) if close.error_code == code::REVOKED.into() => Self::RevokedHere,
            ConnectionError::ApplicationClosed(close) if close.error_code == code::FULL.into() => Self::Full,
            ConnectionError::ApplicationClosed(close) if close.error_code == code::OTHER_VERSION.into() => {
                Self::OtherWireVersion { detail: Words::new(&close.reason) }
            }
            ConnectionError::ApplicationClosed(close) => {
                Self::ClosedByPeer { code: close.error_code.into_inner(), reason: Words::new(&close.reason) }
            }
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::CidsExhausted => Self::Transport { detail: Words::new(error.to_string().as_bytes()) },
        }
    }
}

impl From<quinn::ConnectError> for LinkFailure {
    fn from(error: quinn::ConnectError) -> Self {
        use quinn::ConnectError as E;

        match error {
            E::EndpointStopping => Self::ShuttingDown,
            E::InvalidRemoteAddress(address) => Self::Address { address },
            E::UnsupportedVersion => Self::OtherQuicVersion,
            E::CidsExhausted | E::InvalidServerName(_) | E::NoDefaultClientConfig => {
                Self::Transport { detail: Words::new(error.to_string().as_bytes()) }
            }
        }
    }
}

/// The reason for which a link was not established. Existing links are unaffected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no connection, or the other side refused it.
    #[error("{address}: {failure}")]
    Link {
        /// The address that was dialled, or the address of the dialling peer.
        address: SocketAddr,
        /// The cause.
        failure: LinkFailure,
    },
    /// The address is this node's own.
    #[error("{address} is this node itself")]
    Itself {
        /// The address.
        address: SocketAddr,
    },
    /// Another process with this node's identity is at the address.
    #[error(
        "{address} is another process with this node's identity: give each node a data directory and a node key of its own, and never copy them"
    )]
    SameIdentity {
        /// The address.
        address: SocketAddr,
    },
    /// The node was shut down.
    #[error("this node was shut down")]
    ShutDown,
    /// A part of the node failed because of a defect.
    #[error(transparent)]
    NodeFailed(#[from] NodeFailure),
    /// No attempt finished before the timeout. If one did, its error is returned instead.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

impl ConnectError {
    /// Whether another attempt would fail in the same way.
    pub(crate) fn is_final(&self) -> bool {
        let Self::Link { failure, .. } = self else { return true };
        failure.is_refusal() || matches!(failure, LinkFailure::Full | LinkFailure::Address { .. })
    }
}

impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::ShutDown => Self::ShutDown,
            CloseReason::Failed(failure) => Self::NodeFailed(failure),
        }
    }
}

#[cfg(test)]
mod tests;
