//! Checks of a peer's certificates beyond those of the TLS library: their number, the path length that a root allows,
//! and a clock that may be wrong.

use core::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::CHAIN_CERTIFICATES_MAX;

/// The cryptographic provider. It is named in each configuration, so that the process's default provider, which an
/// embedding application may have set, has no effect. AES-128-GCM comes first: it is the fastest where the processor
/// has AES.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

/// The wall clock, or 1970-01-01 while it shows an earlier time. Certificates of a cluster key are valid at all these
/// times, so a wrong clock excludes no member.
#[derive(Debug)]
pub(crate) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now())
    }
}

pub(crate) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(since_1970(SystemTime::now()).unwrap_or_default())
}

/// None for a time before 1970, which no certificate covers.
pub(crate) fn since_1970(time: SystemTime) -> Option<core::time::Duration> {
    time.duration_since(UNIX_EPOCH).ok()
}

/// The reason to refuse a chain of certificates that the TLS library accepts.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("the chain has {found} certificates, and {CHAIN_CERTIFICATES_MAX} is the maximum")]
    Length { found: usize },
    #[error("there are more certificates between the node's and the trusted root than the root's path length allows")]
    PathLength,
}

/// The TLS library shows this text to users and to the peer.
impl fmt::Debug for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// The roots that vouch for nodes, and the number of certificates that each allows below it.
pub(crate) struct TrustedRoots {
    store: Arc<RootCertStore>,
    /// In the order of the root store.
    path_lengths: Vec<usize>,
}

impl TrustedRoots {
    /// # Errors
    /// The position of the root that cannot be used, from 1, with the cause.
    pub(crate) fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, (usize, Error)> {
        let (mut store, mut path_lengths) = (RootCertStore::empty(), Vec::with_capacity(roots.len()));
        for (at, root) in roots.into_iter().enumerate() {
            let length = path_length(&root).ok_or_else(|| (at + 1, CertificateError::BadEncoding.into()));
            store.add(root).map_err(|error| (at + 1, error))?;
            path_lengths.push(length?);
        }
        Ok(Self { store: Arc::new(store), path_lengths })
    }

    #[cfg(test)]
    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        self.store.clone()
    }

    /// Checks the certificates of a node that this node dials.
    pub(crate) fn server_verifier(
        self: &Arc<Self>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
        let inner = WebPkiServerVerifier::builder_with_provider(self.store.clone(), provider.clone()).build()?;
        Ok(Arc::new(Servers { inner, roots: self.clone() }))
    }

    /// Checks the certificates of a node that dials this node.
    pub(crate) fn client_verifier(
        self: &Arc<Self>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
        let inner = WebPkiClientVerifier::builder_with_provider(self.store.clone(), provider.clone()).build()?;
        Ok(Arc::new(Clients { inner, roots: self.clone() }))
    }

    /// Checks that there is a path to a root whose path length allows it; the library ignores this constraint of a
    /// root.
    fn check_path(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        if intermediates.is_empty() {
            return Ok(());
        }
        let allowed = |path: &VerifiedPath<'_>| {
            let roots = self.store.roots.iter().zip(&self.path_lengths);
            let length_max = roots.filter(|(root, _)| *root == path.anchor()).map(|(_, length)| *length).max();
            let length = path.intermediate_certificates().count();
            if length_max.is_some_and(|max| length <= max) {
                Ok(())
            } else {
                Err(webpki::Error::PathLenConstraintViolated)
            }
        };
        let certificate = EndEntityCert::try_from(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let algorithms = provider().signature_verification_algorithms.all;
        let roots = &self.store.roots;
        let verified = certificate.verify_for_usage(algorithms, roots, intermediates, now, usage, None, Some(&allowed));
        // The library has verified the chain, so only its length can be wrong.
        verified.map(|_| ()).map_err(|_| ChainError::PathLength.into())
    }
}

impl fmt::Debug for TrustedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedRoots").field("roots", &self.path_lengths.len()).finish()
    }
}

/// Maximum of intermediate certificates below a root (RFC 5280 §4.2.1.9); none if it cannot be read.
fn path_length(root: &CertificateDer<'_>) -> Option<usize> {
    let (_, certificate) = x509_parser::parse_x509_certificate(root).ok()?;
    let constraints = certificate.basic_constraints().ok()?;
    let length = constraints.and_then(|constraints| constraints.value.path_len_constraint);
    Some(length.map_or(usize::MAX, |length| length as usize))
}

/// Checks the length before any computation, because the peer chooses it.
fn check_length(intermediates: &[CertificateDer<'_>]) -> Result<(), ChainError> {
    let found = 1 + intermediates.len();
    if found > CHAIN_CERTIFICATES_MAX { Err(ChainError::Length { found }) } else { Ok(()) }
}

#[derive(Debug)]
struct Servers {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<TrustedRoots>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(intermediates)?;
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.roots.check_path(end_entity, intermediates, now, KeyUsage::server_auth())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    roots: Arc<TrustedRoots>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(intermediates)?;
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        self.roots.check_path(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
