//! TLS 1.3 with certificates on both sides, and what went wrong with it in words.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloudy_proto::harmless;
use quinn::{ConnectError, ConnectionError, TransportErrorCode};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use thiserror::Error;

pub use cloudy_proto::wire::WIRE_VERSION;

pub(crate) mod chain;

use crate::identity::Identity;
use crate::link::code;
use chain::Clock;

/// Why no TLS configuration could be built.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The trusted roots are of no use.
    #[error("the trusted roots cannot be used: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
    /// The library refused the parameters.
    #[error("TLS 1.3 cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The protocol's name in the handshake (ALPN, RFC 7301) for a wire version: two nodes talk only if theirs are equal.
pub fn alpn(wire_version: u16) -> Vec<u8> {
    format!("cloudy/{wire_version}").into_bytes()
}

/// The configuration of the side that is dialled: TLS 1.3 only, the other side's certificate demanded and checked against
/// the identity's roots, no resumption, no early data.
///
/// # Errors
/// The identity's roots cannot be used.
pub fn server_config(identity: &Identity, wire_version: u16) -> Result<rustls::ServerConfig, TlsError> {
    let provider = provider();
    let verifier = identity.roots().client_verifier(&provider)?;
    let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![alpn(wire_version)];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The configuration of the side that dials: as [`server_config`]; the other side's certificate must carry
/// [`SERVER_NAME`](crate::identity::SERVER_NAME), which is to be asked for whatever the address.
///
/// # Errors
/// TLS 1.3 is not available.
pub fn client_config(identity: &Identity, wire_version: u16) -> Result<rustls::ClientConfig, TlsError> {
    let provider = provider();
    let verifier = identity.roots().server_verifier(&provider)?;
    let mut config = rustls::ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![alpn(wire_version)];
    // A resumed session would skip the check of the certificate.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Named in each configuration, so that the process's default provider, which an embedding app may have set, plays no
/// part. AES-128-GCM first: the fastest where the processor has AES.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

/// Why a link did not come about, or ended, in words for a user. The same words fit both sides.
///
/// A side that dials may have a connection for a moment before the other side refuses it: the refusal then comes as the
/// end of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkFailure {
    /// One side's certificate was not signed by an authority that the other side trusts.
    #[error(
        "refused: the other node holds another cluster key (or its certificate comes from another authority); give both nodes the same key file"
    )]
    OtherClusterKey,
    /// One side showed no certificate at all.
    #[error(
        "refused: no certificate was shown, so that side holds no cluster key; only members of one cluster may connect"
    )]
    NoCertificate,
    /// This node is shut out of its cluster.
    #[error(
        "refused: this node's identity was revoked in its cluster, for good; ask who runs the cluster, and start it as a new node if it is to come back"
    )]
    RevokedHere,
    /// The other node is shut out of the cluster.
    #[error("refused: the other node's identity was revoked in this cluster, for good")]
    RevokedThere,
    /// One side's certificate has another fault: expired, for another purpose, revoked, not readable.
    #[error("refused: a certificate is not accepted: {detail}; renew it, and see that both clocks are right")]
    Certificate {
        /// What the side that refused said.
        detail: Words,
    },
    /// The protocol's version differs.
    #[error(
        "refused: the other node speaks another wire version than {WIRE_VERSION}; run the same version of cloudy on both"
    )]
    OtherWireVersion,
    /// No common version of QUIC.
    #[error("refused: the other side speaks another version of QUIC; is it a cloudy node?")]
    OtherQuicVersion,
    /// The other side takes no more connections.
    #[error("refused: the other node takes no more connections, in total or from this address; try again later")]
    Full,
    /// The other side gave the handshake up before it was finished.
    #[error("the other node gave the handshake up: it has too many unfinished ones, or is stopping; try again later")]
    GivenUp,
    /// The handshake was not finished in its time.
    #[error("the handshake was not finished within {} ms: is a cloudy node running there, and is UDP let through?", timeout.as_millis())]
    HandshakeTimeout {
        /// The time it had.
        timeout: Duration,
    },
    /// Nothing was heard for the idle timeout.
    #[error(
        "nothing is heard from the other node: it has stopped or is not running, or the network drops its datagrams"
    )]
    TimedOut,
    /// The other process does not know the connection: it was restarted.
    #[error("the other node was restarted and has forgotten the connection")]
    Reset,
    /// The other node closed the connection on purpose.
    #[error("closed by the other node: {reason} (code {code})")]
    ClosedByPeer {
        /// The code it gave.
        code: u64,
        /// What it said.
        reason: Words,
    },
    /// This node closed the connection.
    #[error("closed by this node")]
    ClosedHere,
    /// The address cannot be dialled: port 0, or of another family than the socket's.
    #[error("{address} cannot be dialled from this socket: check the port, and that both are IPv4 or both IPv6")]
    Address {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// The endpoint is shut down.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// Something else, in the transport's words.
    #[error("the connection failed: {detail}")]
    Transport {
        /// The transport's words.
        detail: Words,
    },
}

/// Text that may come from another node, made harmless: see [`harmless`].
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
    /// Both sides see the same code: one found the fault, the other was told.
    fn of_transport(code: TransportErrorCode, reason: &[u8]) -> Self {
        if code == TransportErrorCode::CONNECTION_REFUSED {
            return Self::Full;
        }
        if code == TransportErrorCode::APPLICATION_ERROR {
            // What stands for a close before the handshake is finished (RFC 9000 §10.2.3).
            return Self::GivenUp;
        }
        // RFC 9001 §4.8: 0x100 and the alert.
        let alert = u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
        match alert {
            Some(alert::UNKNOWN_CA) => Self::OtherClusterKey,
            Some(alert::CERTIFICATE_REQUIRED) => Self::NoCertificate,
            Some(alert::NO_APPLICATION_PROTOCOL) => Self::OtherWireVersion,
            Some(alert::PROTOCOL_VERSION) => Self::OtherQuicVersion,
            Some(alert::BAD_CERTIFICATE..=alert::CERTIFICATE_UNKNOWN | alert::ACCESS_DENIED | alert::DECRYPT_ERROR) => {
                Self::Certificate { detail: Words::new(reason) }
            }
            _ if reason.is_empty() => Self::Transport { detail: Words::new(code.to_string().as_bytes()) },
            _ => Self::Transport { detail: Words::new(reason) },
        }
    }

    /// Whether the other node had no place at that moment: dialling again soon may succeed.
    pub(crate) fn is_momentary(&self) -> bool {
        matches!(self, Self::Full | Self::GivenUp)
    }

    /// The other side is a process that ends because another one has its identity.
    pub(crate) fn is_same_identity(&self) -> bool {
        matches!(self, Self::ClosedByPeer { code, .. } if *code == u64::from(code::SAME_IDENTITY))
    }

    /// Whether the other side, or this one, refused the link for good: dialling again will end the same until somebody
    /// changes a key, a certificate or a version.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OtherClusterKey
                | Self::NoCertificate
                | Self::RevokedHere
                | Self::RevokedThere
                | Self::Certificate { .. }
                | Self::OtherWireVersion
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

impl From<ConnectError> for LinkFailure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::ShuttingDown,
            ConnectError::InvalidRemoteAddress(address) => Self::Address { address },
            ConnectError::UnsupportedVersion => Self::OtherQuicVersion,
            ConnectError::CidsExhausted | ConnectError::InvalidServerName(_) | ConnectError::NoDefaultClientConfig => {
                Self::Transport { detail: Words::new(error.to_string().as_bytes()) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
