//! The identity of this node: a leaf certificate, its private key, and the roots that vouch for other nodes.
//!
//! A node's id is the hash of its leaf's public key (`protocol.md` §2, *incarnation*), and does not depend on its
//! address.

use core::fmt;
use std::sync::Arc;

use cloudy_proto::NodeId;
use hkdf::Hkdf;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::cluster_key::{ClusterKey, MacKey, WipedKeyPair};
use crate::cluster_keys::ClusterKeys;
use chain::TrustedRoots;

pub(crate) mod chain;
pub(crate) mod pem;

/// The DNS name in every node's certificate. A client requests this name at every address.
pub const SERVER_NAME: &str = "cloudy";

/// A separate context, so that no other derivation from the private key yields the same bytes.
const RESET_CONTEXT: &[u8] = b"cloudy stateless reset 1";

/// Maximum of certificates in a chain, leaf included: a handshake carries no more.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;

/// A node's certificate chain and private key, and the roots it trusts.
///
/// Cheap to clone. `Debug` shows the node's id only.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    roots: Arc<TrustedRoots>,
    node_id: NodeId,
    reset_secret: Arc<Zeroizing<[u8; 32]>>,
    /// The key for another certificate; none for an identity of another public key infrastructure.
    node_key: Option<Arc<NodeKey>>,
    /// Derived from the cluster keys; none for an identity of another public key infrastructure.
    discovery_keys: Vec<MacKey>,
    /// The fingerprints of the same keys.
    #[cfg(feature = "admin")]
    fingerprints: Vec<String>,
}

/// The reason for which there is no identity. Nothing is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The chain has no leaf, or more than [`CHAIN_CERTIFICATES_MAX`] certificates.
    #[error(
        "a certificate chain has 1 to {CHAIN_CERTIFICATES_MAX} certificates, the node's own first; this has {found}"
    )]
    ChainLength {
        /// The length of the chain.
        found: usize,
    },
    /// There is no root, so no other node could be trusted.
    #[error("no trusted root is given: give the certificate of the authority that signs the nodes' certificates")]
    NoRoots,
    /// A root is not a certificate.
    #[error("trusted root {position} cannot be used: {cause}")]
    Root {
        /// Its position, from 1.
        position: usize,
        /// The cause.
        cause: rustls::Error,
    },
    /// The leaf cannot be read.
    #[error(transparent)]
    Leaf(#[from] CertificateError),
    /// The private key cannot be used, or belongs to another certificate.
    #[error("the private key cannot be used with the node's certificate: {0}")]
    PrivateKey(rustls::Error),
    /// The other nodes would not accept the chain when they dial this node.
    #[error(
        "the node's certificate is not valid for a server under the trusted roots: {0}; it needs the DNS name \"{SERVER_NAME}\" and the usage serverAuth"
    )]
    NotGoodForServer(rustls::Error),
    /// The other nodes would not accept the chain when this node dials them.
    #[error(
        "the node's certificate is not valid for a client under the trusted roots: {0}; it needs the usage clientAuth"
    )]
    NotGoodForClient(rustls::Error),
    /// A certificate verifier could not be built from the roots.
    #[error("the trusted roots cannot be used: {0}")]
    Verifier(rustls::server::VerifierBuilderError),
    /// The node's own certificate could not be issued.
    #[error("cannot issue this node's certificate: {0}")]
    Issue(rcgen::Error),
    /// The node's private key could not be generated.
    #[error(transparent)]
    NodeKey(#[from] NodeKeyError),
    /// Cluster keys are only for nodes whose certificates come from a cluster key.
    #[error(
        "this node's certificate comes from another public key infrastructure, not from a cluster key: start the node again with another identity"
    )]
    OwnPki,
}

/// A node's private key: with it a restarted process is the same node (`protocol.md` §2, *incarnation*).
///
/// Its bytes are overwritten when it is dropped. `Debug` shows only the node's id.
pub struct NodeKey(WipedKeyPair);

/// The reason for which there is no node key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeKeyError {
    /// The operating system's generator failed.
    #[error("cannot generate a private key for this node: {0}; try again later")]
    Generate(rcgen::Error),
    /// The bytes are not an Ed25519 private key.
    #[error("this is not an Ed25519 private key (PKCS #8, RFC 8410): {0}")]
    Read(rcgen::Error),
}

impl NodeKey {
    /// Generates a random Ed25519 key. All its signatures have one length, so that handshakes of equal runs have equal
    /// sizes.
    ///
    /// # Errors
    /// [`NodeKeyError::Generate`] if the operating system has no random bytes.
    pub fn generate() -> Result<Self, NodeKeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(NodeKeyError::Generate)?;
        Ok(Self(WipedKeyPair(pair)))
    }

    /// Reads a key that [`to_pkcs8`](Self::to_pkcs8) wrote. The caller overwrites its own copy.
    ///
    /// # Errors
    /// [`NodeKeyError::Read`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, NodeKeyError> {
        let der = PrivatePkcs8KeyDer::from(bytes);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).map_err(NodeKeyError::Read)?;
        Ok(Self(WipedKeyPair(pair)))
    }

    /// The secret in PKCS #8 (RFC 5958, RFC 8410), DER. Overwritten when dropped.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.0.serialized_der().to_vec())
    }

    /// The id of the node that owns this key, equal to [`node_id_of`] for each of its certificates.
    pub fn node_id(&self) -> NodeId {
        NodeId(Sha256::digest(self.0.0.subject_public_key_info()).into())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.node_id()).finish()
    }
}

/// The bytes are not a certificate.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("the node's certificate cannot be read: {0}")]
pub struct CertificateError(rustls::Error);

impl Identity {
    /// Creates a fresh identity in the cluster of `key`: a random leaf key, and a certificate for it from the cluster's
    /// authority. It exists as long as the process (`protocol.md` §2, *incarnation*).
    ///
    /// # Errors
    /// [`IdentityError::NodeKey`] if the operating system has no random bytes.
    pub fn generate(key: &ClusterKey) -> Result<Self, IdentityError> {
        Self::with_node_key(key, &NodeKey::generate()?)
    }

    /// Creates the identity of the node that owns `node_key`, in the cluster of `key`, with a certificate from the
    /// cluster's authority. Equal keys give the same identity, byte for byte; under another cluster's key the node
    /// keeps its id.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] if no certificate can be made.
    pub fn with_node_key(key: &ClusterKey, node_key: &NodeKey) -> Result<Self, IdentityError> {
        Self::issue(key, None, Arc::new(NodeKey::from_pkcs8(&node_key.to_pkcs8())?))
    }

    /// The same node under these keys: with a certificate of the primary key, and trust in both. Revocations are not
    /// part of an identity.
    ///
    /// # Errors
    /// [`IdentityError::OwnPki`] if this identity does not come from a cluster key; [`IdentityError::Issue`] if no
    /// certificate can be made.
    pub fn with_keys(&self, keys: &ClusterKeys) -> Result<Self, IdentityError> {
        let node_key = self.node_key.clone().ok_or(IdentityError::OwnPki)?;
        Self::issue(keys.primary(), keys.accepted().map(|(_, key)| key), node_key)
    }

    fn issue(key: &ClusterKey, accepted: Option<&ClusterKey>, node_key: Arc<NodeKey>) -> Result<Self, IdentityError> {
        let authority = key.authority().map_err(IdentityError::Issue)?;
        let leaf = &node_key.0.0;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).map_err(IdentityError::Issue)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "cloudy node");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = authority.issue(params, leaf).map_err(IdentityError::Issue)?;
        let private_key = PrivatePkcs8KeyDer::from(leaf.serialized_der()).into();
        let mut roots = vec![authority.certificate.clone()];
        if let Some(accepted) = accepted {
            roots.push(accepted.authority().map_err(IdentityError::Issue)?.certificate);
        }
        let identity = Self::check(vec![certificate], &private_key, roots)?;
        let keys = || [Some(key), accepted].into_iter().flatten();
        Ok(Self {
            node_key: Some(node_key),
            discovery_keys: keys().map(ClusterKey::discovery_key).collect(),
            #[cfg(feature = "admin")]
            fingerprints: keys().map(ClusterKey::fingerprint).collect(),
            ..identity
        })
    }

    /// Creates an identity of another public key infrastructure, in place of a cluster key: a chain that starts with
    /// this node's certificate, the private key of that certificate, and the roots under which the certificates of all
    /// nodes verify.
    ///
    /// The certificate needs the DNS name [`SERVER_NAME`] and the usages serverAuth and clientAuth. Two nodes may not
    /// share a private key, because a node's id follows from it. The chain is checked as another node would check it,
    /// so that a mistake appears here and not at the first peer. The private key is overwritten after use.
    ///
    /// # Errors
    /// The part that cannot be used, with the cause.
    pub fn from_pki(
        chain: Vec<CertificateDer<'static>>,
        private_key: PrivateKeyDer<'static>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        Self::check(chain, &Zeroizing::new(private_key), roots)
    }

    fn check(
        chain: Vec<CertificateDer<'static>>,
        private_key: &PrivateKeyDer<'_>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        if chain.is_empty() || chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(IdentityError::ChainLength { found: chain.len() });
        }
        if roots.is_empty() {
            return Err(IdentityError::NoRoots);
        }
        let roots = TrustedRoots::new(roots).map_err(|(position, cause)| IdentityError::Root { position, cause })?;
        let roots = Arc::new(roots);
        let node_id = node_id_of(&chain[0])?;
        check_chain(&chain, &roots, chain::now())?;
        let signer = rustls::crypto::ring::sign::any_supported_type(private_key).map_err(IdentityError::PrivateKey)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(IdentityError::PrivateKey)?;
        let reset_secret = Arc::new(reset_secret(private_key));
        Ok(Self {
            certified: Arc::new(certified),
            roots,
            node_id,
            reset_secret,
            node_key: None,
            discovery_keys: Vec::new(),
            #[cfg(feature = "admin")]
            fingerprints: Vec::new(),
        })
    }

    /// This node's id: the SHA-256 of its certificate's public key.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// A secret of the holder of the private key, for the transport's stateless resets.
    pub(crate) fn reset_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::clone(&self.reset_secret)
    }

    /// The fingerprints of the accepted cluster keys, the primary one first.
    #[cfg(feature = "admin")]
    pub(crate) fn fingerprints(&self) -> &[String] {
        &self.fingerprints
    }

    /// Whether the trusted roots vouch for a chain, in both directions.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        !chain.is_empty() && check_chain(chain, &self.roots, chain::now()).is_ok()
    }

    /// The node's own certificate, if a cluster key issued it.
    pub(crate) fn issued_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.node_key.is_some().then(|| &self.certified.cert[0])
    }

    /// The keys that authenticate this node's discovery datagrams, the primary one first.
    pub(crate) fn discovery_keys(&self) -> Vec<MacKey> {
        self.discovery_keys.clone()
    }

    pub(crate) fn roots(&self) -> Arc<TrustedRoots> {
        self.roots.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.node_id).finish()
    }
}

/// The id of the node that owns a certificate: the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7). It stays
/// the same if the certificate is renewed for the same key. Nothing else of the certificate is checked.
///
/// # Errors
/// The bytes are not a certificate.
pub fn node_id_of(certificate: &CertificateDer<'_>) -> Result<NodeId, CertificateError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(CertificateError)?;
    Ok(NodeId(Sha256::digest(parsed.subject_public_key_info()).into()))
}

/// Derived from the private key alone, so that all processes with that key have the same secret.
fn reset_secret(private_key: &PrivateKeyDer<'_>) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(Hkdf::<Sha256>::extract(Some(RESET_CONTEXT), private_key.secret_der()).0.into())
}

/// Checks a chain as every other node will, in both directions.
fn check_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<TrustedRoots>,
    now: UnixTime,
) -> Result<(), IdentityError> {
    let (leaf, intermediates) = (&chain[0], &chain[1..]);
    let provider = chain::provider();
    let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
    let verifier = roots.server_verifier(&provider).map_err(IdentityError::Verifier)?;
    let checked = verifier.verify_server_cert(leaf, intermediates, &name, &[], now);
    checked.map_err(IdentityError::NotGoodForServer)?;
    let verifier = roots.client_verifier(&provider).map_err(IdentityError::Verifier)?;
    let checked = verifier.verify_client_cert(leaf, intermediates, now);
    checked.map_err(IdentityError::NotGoodForClient)?;
    Ok(())
}

#[cfg(test)]
mod tests;
