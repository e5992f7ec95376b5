//! Stateless resets (RFC 9000 §10.3): a node that was restarted with the same key and address notifies peers that still
//! send to its earlier process, so that they can dial again without waiting for a timeout.

use hkdf::Hkdf;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Length of HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;
/// Length of a connection id, as in the transport's own generator.
const ID_BYTES: usize = 8;

/// The secret behind reset tokens: equal in all processes with the node's key, and unknown to others.
pub(super) struct ResetKey(pub(super) Zeroizing<[u8; 32]>);

impl ResetKey {
    fn hmac(&self, data: &[u8]) -> [u8; SIGNATURE_BYTES] {
        // The first step of HKDF is HMAC (RFC 5869 §2.2).
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

/// A generator of purely random connection ids, because an endpoint also answers for the ids of the earlier process.
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
