//! TLS 1.3 with certificates on both sides.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use thiserror::Error;

use crate::identity::Identity;
use crate::identity::chain::{Clock, provider};

/// The reason for which no TLS configuration could be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The trusted roots cannot be used.
    #[error("the trusted roots cannot be used: {0}")]
    Roots(rustls::server::VerifierBuilderError),
    /// The library refused the parameters.
    #[error("TLS 1.3 cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The protocol's name in the handshake (ALPN, RFC 7301), the same for all wire versions: the nodes agree on a version
/// by the headers of their streams.
pub(crate) const ALPN: &[u8] = b"cloudy";

/// The configuration of the side that is dialled: only TLS 1.3; the other side must present a certificate, which is
/// checked against the identity's roots; no resumption, no early data.
///
/// # Errors
/// The identity's roots cannot be used.
pub(crate) fn server_config(identity: &Identity) -> Result<rustls::ServerConfig, TlsError> {
    let provider = provider();
    let verifier = identity.roots().client_verifier(&provider).map_err(TlsError::Roots)?;
    let mut config = rustls::ServerConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The configuration of the side that dials, like `server_config`. The other side's certificate must carry
/// [`SERVER_NAME`](crate::SERVER_NAME), which the handshake requests for every address.
///
/// # Errors
/// TLS 1.3 is not available.
pub fn client_config(identity: &Identity) -> Result<rustls::ClientConfig, TlsError> {
    let provider = provider();
    let verifier = identity.roots().server_verifier(&provider).map_err(TlsError::Roots)?;
    let mut config = rustls::ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would skip the check of the certificate.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

#[cfg(test)]
mod tests;
