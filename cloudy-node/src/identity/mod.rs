//! The identity of this node: a leaf certificate, its private key, and the roots that vouch for the others.
//!
//! A node is named by the hash of its leaf's public key (`protocol.md` §2, *incarnation*), never by its address.

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

/// The DNS name in every node's certificate, which a client asks for whatever address it dials.
pub const SERVER_NAME: &str = "cloudy";

/// So that no other use of the private key shares what is derived.
const RESET_CONTEXT: &[u8] = b"cloudy stateless reset 1";

/// Certificates in one chain, leaf included: a handshake carries no more.
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
    /// For another certificate; none for an identity of an own public key infrastructure.
    node_key: Option<Arc<NodeKey>>,
    /// Of the cluster keys; none for an identity of an own public key infrastructure.
    discovery_keys: Vec<MacKey>,
}

/// Why there is no identity. Nothing is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The chain has no leaf, or more than [`CHAIN_CERTIFICATES_MAX`] certificates.
    #[error(
        "a certificate chain has 1 to {CHAIN_CERTIFICATES_MAX} certificates, the node's own first; this has {found}"
    )]
    ChainLength {
        /// How many there are.
        found: usize,
    },
    /// There is no root, so no other node could be believed.
    #[error("no trusted root is given: give the certificate of the authority that signs the nodes' certificates")]
    NoRoots,
    /// A root is no certificate.
    #[error("trusted root {position} cannot be used: {source}")]
    Root {
        /// Which one, from 1.
        position: usize,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The leaf cannot be read.
    #[error(transparent)]
    Leaf(#[from] CertificateError),
    /// The private key cannot be used, or is another certificate's.
    #[error("the private key cannot be used with the node's certificate: {0}")]
    PrivateKey(rustls::Error),
    /// The other nodes would not accept the chain when they dial this node.
    #[error(
        "the node's certificate is not good for a server under the trusted roots: {0}; it needs the DNS name \"{SERVER_NAME}\" and the usage serverAuth"
    )]
    NotGoodForServer(rustls::Error),
    /// The other nodes would not accept the chain when this node dials them.
    #[error(
        "the node's certificate is not good for a client under the trusted roots: {0}; it needs the usage clientAuth"
    )]
    NotGoodForClient(rustls::Error),
    /// A certificate verifier could not be built from the roots.
    #[error("the trusted roots cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The node's own certificate could not be issued.
    #[error("cannot issue this node's certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The node's private key could not be made.
    #[error(transparent)]
    NodeKey(#[from] NodeKeyError),
    /// Cluster keys are for nodes whose certificates come from one.
    #[error(
        "this node's certificate comes from an own public key infrastructure, not from a cluster key: start the node again with another identity"
    )]
    OwnPki,
}

/// A node's private key: what makes it the same node after a restart (`protocol.md` §2, *incarnation*).
///
/// Its bytes are wiped when it is dropped. `Debug` shows the node's id only.
pub struct NodeKey(WipedKeyPair);

/// Why there is no node key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeKeyError {
    /// The operating system's generator failed.
    #[error("cannot make a private key for this node: {0}; try again later")]
    Generate(rcgen::Error),
    /// The bytes are no Ed25519 private key.
    #[error("this is no Ed25519 private key (PKCS #8, RFC 8410): {0}")]
    Read(rcgen::Error),
}

impl NodeKey {
    /// A random Ed25519 key. Its signatures are of one length, so that handshakes of equal runs have equal sizes.
    ///
    /// # Errors
    /// [`NodeKeyError::Generate`] when the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NodeKeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(NodeKeyError::Generate)?;
        Ok(Self(WipedKeyPair(pair)))
    }

    /// The key of these bytes, which [`to_pkcs8`](Self::to_pkcs8) gave. The caller's copy is the caller's to wipe.
    ///
    /// # Errors
    /// [`NodeKeyError::Read`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, NodeKeyError> {
        let der = PrivatePkcs8KeyDer::from(bytes);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).map_err(NodeKeyError::Read)?;
        Ok(Self(WipedKeyPair(pair)))
    }

    /// The secret in PKCS #8 (RFC 5958, RFC 8410), DER. Wiped when dropped.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.0.serialized_der().to_vec())
    }

    /// The id of the node that owns this key, as [`node_id_of`] says it of each certificate for it.
    pub fn node_id(&self) -> NodeId {
        NodeId(Sha256::digest(self.0.0.subject_public_key_info()).into())
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.node_id()).finish()
    }
}

/// The bytes are no certificate.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("the node's certificate cannot be read: {0}")]
pub struct CertificateError(rustls::Error);

impl Identity {
    /// A fresh identity in the cluster of `key`: a random leaf key, and a certificate for it from the cluster's
    /// authority. It lasts as long as the process (`protocol.md` §2, *incarnation*).
    ///
    /// # Errors
    /// [`IdentityError::NodeKey`] when the operating system gives no random bytes.
    pub fn generate(key: &ClusterKey) -> Result<Self, IdentityError> {
        Self::with_node_key(key, &NodeKey::generate()?)
    }

    /// The identity of the node that owns `node_key`, in the cluster of `key`, with a certificate from the cluster's
    /// authority. Equal keys give the same identity, byte for byte; under another cluster's key the node keeps its id.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] when no certificate can be made.
    pub fn with_node_key(key: &ClusterKey, node_key: &NodeKey) -> Result<Self, IdentityError> {
        Self::issue(key, None, Arc::new(NodeKey::from_pkcs8(&node_key.to_pkcs8())?))
    }

    /// The same node under these keys: with a certificate of the primary one, and trust in both. Whom they revoke is not
    /// part of an identity.
    ///
    /// # Errors
    /// [`IdentityError::OwnPki`] if this identity is not of a cluster key; [`IdentityError::Issue`] when no certificate can
    /// be made.
    pub fn with_keys(&self, keys: &ClusterKeys) -> Result<Self, IdentityError> {
        let node_key = self.node_key.clone().ok_or(IdentityError::OwnPki)?;
        Self::issue(keys.primary(), keys.accepted().map(|(_, key)| key), node_key)
    }

    fn issue(key: &ClusterKey, accepted: Option<&ClusterKey>, node_key: Arc<NodeKey>) -> Result<Self, IdentityError> {
        let authority = key.authority()?;
        let leaf = &node_key.0.0;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "cloudy node");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = authority.issue(params, leaf)?;
        let private_key = PrivatePkcs8KeyDer::from(leaf.serialized_der()).into();
        let mut roots = vec![authority.certificate.clone()];
        if let Some(accepted) = accepted {
            roots.push(accepted.authority()?.certificate);
        }
        let identity = Self::check(vec![certificate], &private_key, roots)?;
        let discovery_keys = [Some(key), accepted].into_iter().flatten().map(ClusterKey::discovery_key).collect();
        Ok(Self { node_key: Some(node_key), discovery_keys, ..identity })
    }

    /// An identity of an own public key infrastructure, in place of a cluster key: a chain with this node's certificate
    /// first, that certificate's private key, and the roots under which the certificates of all nodes verify.
    ///
    /// The certificate needs the DNS name [`SERVER_NAME`] and the usages serverAuth and clientAuth; two nodes may not
    /// share a private key, for the key names the node. The chain is checked as another node would check it, so that a
    /// mistake shows here and not at the first peer. The private key is wiped.
    ///
    /// # Errors
    /// Says which part cannot be used, and why.
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
        let roots = TrustedRoots::new(roots).map_err(|(position, source)| IdentityError::Root { position, source })?;
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
        })
    }

    /// This node's id: the SHA-256 of its certificate's public key.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// What only the holder of the private key knows, for the transport's stateless resets.
    pub(crate) fn reset_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::clone(&self.reset_secret)
    }

    /// Whether the trusted roots vouch for that chain, in both directions.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        !chain.is_empty() && check_chain(chain, &self.roots, chain::now()).is_ok()
    }

    /// The node's own certificate, if a cluster key's holder issued it.
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

/// The id of the node whose certificate this is: the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), which stays
/// the same when the certificate is renewed for the same key. Nothing else of the certificate is checked.
///
/// # Errors
/// The bytes are no certificate.
pub fn node_id_of(certificate: &CertificateDer<'_>) -> Result<NodeId, CertificateError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(CertificateError)?;
    Ok(NodeId(Sha256::digest(parsed.subject_public_key_info()).into()))
}

/// Derived from the private key alone, so that every process with that key has the same.
fn reset_secret(private_key: &PrivateKeyDer<'_>) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(Hkdf::<Sha256>::extract(Some(RESET_CONTEXT), private_key.secret_der()).0.into())
}

/// What every other node will ask of the chain, in both directions.
fn check_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<TrustedRoots>,
    now: UnixTime,
) -> Result<(), IdentityError> {
    let (leaf, intermediates) = (&chain[0], &chain[1..]);
    let provider = chain::provider();
    let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
    let verifier = roots.server_verifier(&provider)?;
    let checked = verifier.verify_server_cert(leaf, intermediates, &name, &[], now);
    checked.map_err(IdentityError::NotGoodForServer)?;
    let verifier = roots.client_verifier(&provider)?;
    let checked = verifier.verify_client_cert(leaf, intermediates, now);
    checked.map_err(IdentityError::NotGoodForClient)?;
    Ok(())
}

#[cfg(test)]
mod tests;
