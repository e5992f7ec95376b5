//! Stateless resets (RFC 9000 §10.3): a node that was started again with the same key, at the same address, tells those
//! who still write to its earlier process, so that they need not wait for a timeout to dial it again.

use hkdf::Hkdf;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The bytes of HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;
/// The bytes of a connection id: as many as the transport's own generator makes.
const ID_BYTES: usize = 8;

/// What the tokens of resets are made of: the same in every process with the node's key, and known to nobody else.
pub(super) struct ResetKey(pub(super) Zeroizing<[u8; 32]>);

impl ResetKey {
    fn hmac(&self, data: &[u8]) -> [u8; SIGNATURE_BYTES] {
        // HKDF's first step is HMAC (RFC 5869 §2.2).
        Hkdf::<Sha256>::extract(Some(&self.0[..]), data).0.into()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.hmac(data));
    }

    fn signature_len(&self) -> usize {
        SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.hmac(data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Connection ids that are random and nothing else: an endpoint also answers for those of the process before.
pub(super) struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
