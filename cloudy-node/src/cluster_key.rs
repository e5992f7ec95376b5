//! The cluster key: a secret whose holders form a cluster.
//!
//! From its 32 bytes every holder derives the same certificate authority (HKDF-SHA256, RFC 5869, gives the seed of an
//! Ed25519 key, RFC 8032). So each holder can issue its own leaf certificate and verify all others without an exchange
//! beforehand.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a cluster key.
pub const CLUSTER_KEY_BYTES: usize = 32;
/// The prefix of a cluster key's text form; the digit is the version of the derivation.
pub const CLUSTER_KEY_PREFIX: &str = "cloudy-key-1:";

const TEXT_BYTES: usize = CLUSTER_KEY_PREFIX.len() + 2 * CLUSTER_KEY_BYTES;
const DERIVATION_SALT: &[u8] = b"cloudy cluster key";
const DISCOVERY_INFO: &[u8] = b"discovery 2: HMAC-SHA256 key";
const AUTHORITY_INFO: &[u8] = b"certificate authority 1: Ed25519 seed";
/// The prefix of a PKCS #8 private key for Ed25519; the 32 bytes of the seed follow (RFC 8410 §7).
const ED25519_PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SERIAL_BYTES: usize = 16;
const LAST_SECOND_OF_DAY: Duration = Duration::from_secs(24 * 60 * 60 - 1);

/// A secret of 32 bytes whose holders form a cluster.
///
/// The bytes are in one place on the heap and are overwritten when the key is dropped. `Debug` and `Display` show only
/// the [fingerprint](Self::fingerprint). A clone is another copy of the secret, overwritten like the first.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(Box<Zeroizing<[u8; CLUSTER_KEY_BYTES]>>);

/// The reason for which no key could be generated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateClusterKeyError {
    /// The operating system's generator failed.
    #[error("the operating system gave no random bytes ({0}): try again later")]
    NoRandomBytes(rand::rngs::SysError),
}

/// The reason for which a text is not a cluster key. No variant repeats the text, which may be most of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseClusterKeyError {
    /// The text is empty or has another prefix.
    #[error(
        "this is not a cluster key: a key is one line that starts with \"{CLUSTER_KEY_PREFIX}\"; make one with `cloudy key new`"
    )]
    Prefix,
    /// Too short or too long.
    #[error("a cluster key has {} hexadecimal digits after \"{CLUSTER_KEY_PREFIX}\", this has {found}: copy the whole line", 2 * CLUSTER_KEY_BYTES)]
    Length {
        /// Number of characters after the prefix.
        found: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("character {position} after \"{CLUSTER_KEY_PREFIX}\" is not a hexadecimal digit: copy the key again")]
    Digit {
        /// Its position after the prefix, from 1.
        position: usize,
    },
}

impl ClusterKey {
    /// Generates a key from the operating system's random numbers.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub fn generate() -> Result<Self, GenerateClusterKeyError> {
        let mut key = Self(Box::new(Zeroizing::new([0; CLUSTER_KEY_BYTES])));
        SysRng.try_fill_bytes(&mut key.0[..]).map_err(GenerateClusterKeyError::NoRandomBytes)?;
        Ok(key)
    }

    /// The key with these bytes: any 32 bytes are a key. The caller overwrites its own copy.
    pub fn from_bytes(bytes: &[u8; CLUSTER_KEY_BYTES]) -> Self {
        let mut key = Self(Box::new(Zeroizing::new([0; CLUSTER_KEY_BYTES])));
        key.0.copy_from_slice(bytes);
        key
    }

    /// The secret as one line of text without a line end: the content of a key file. Overwritten when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // Allocated in full size: growing would leave a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        text.push_str(CLUSTER_KEY_PREFIX);
        for byte in self.0.iter() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// A short public name of the key: a hash of the derived authority's public key, never of the key's own bytes.
    /// Equal keys have equal fingerprints.
    pub fn fingerprint(&self) -> String {
        fingerprint_of(&self.authority_key_pair().0)
    }

    /// The certificate authority, equal for every holder of this key, byte for byte.
    pub(crate) fn authority(&self) -> Result<Authority, rcgen::Error> {
        let key_pair = self.authority_key_pair();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let name = format!("cloudy cluster {}", fingerprint_of(&key_pair.0));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial_of(&key_pair.0));
        set_validity(&mut params);
        let certificate = params.self_signed(&key_pair.0)?.der().clone();
        Ok(Authority { certificate, params, key_pair })
    }

    /// The key that authenticates discovery datagrams.
    pub(crate) fn discovery_key(&self) -> MacKey {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(DERIVATION_SALT), &self.0[..])
            .expand(DISCOVERY_INFO, &mut key[..])
            .expect("HKDF-SHA256 gives up to 8,160 bytes (RFC 5869 §2.3)");
        MacKey::new(key)
    }

    fn authority_key_pair(&self) -> WipedKeyPair {
        let mut pkcs8 = Zeroizing::new([0; ED25519_PKCS8_HEAD.len() + CLUSTER_KEY_BYTES]);
        let (head, seed) = pkcs8.split_at_mut(ED25519_PKCS8_HEAD.len());
        head.copy_from_slice(&ED25519_PKCS8_HEAD);
        Hkdf::<Sha256>::new(Some(DERIVATION_SALT), &self.0[..])
            .expand(AUTHORITY_INFO, seed)
            .expect("HKDF-SHA256 gives up to 8,160 bytes (RFC 5869 §2.3)");
        let pkcs8 = PrivatePkcs8KeyDer::from(&pkcs8[..]);
        let key_pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519);
        WipedKeyPair(key_pair.expect("any 32 bytes are an Ed25519 seed (RFC 8032 §5.1.5)"))
    }
}

impl FromStr for ClusterKey {
    type Err = ParseClusterKeyError;

    /// Parses the text form; white space around it and the case of digits have no meaning.
    fn from_str(text: &str) -> Result<Self, ParseClusterKeyError> {
        let digits = text.trim().strip_prefix(CLUSTER_KEY_PREFIX).ok_or(ParseClusterKeyError::Prefix)?;
        let found = digits.chars().count();
        if found != 2 * CLUSTER_KEY_BYTES {
            return Err(ParseClusterKeyError::Length { found });
        }
        let mut key = Self(Box::new(Zeroizing::new([0; CLUSTER_KEY_BYTES])));
        for (at, digit) in digits.chars().enumerate() {
            let value = digit.to_digit(16).ok_or(ParseClusterKeyError::Digit { position: at + 1 })?;
            key.0[at / 2] = key.0[at / 2] << 4 | value as u8;
        }
        Ok(key)
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.fingerprint())
    }
}

/// A key pair whose private half is overwritten when dropped, as far as this crate holds it.
pub(crate) struct WipedKeyPair(pub(crate) KeyPair);

impl Drop for WipedKeyPair {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A cluster's certificate authority.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    params: CertificateParams,
    key_pair: WipedKeyPair,
}

impl Authority {
    /// Signs a certificate for `subject`'s public key, with its validity and serial number.
    pub(crate) fn issue(
        &self,
        mut params: CertificateParams,
        subject: &KeyPair,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        params.serial_number = Some(serial_of(subject));
        set_validity(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key_pair.0);
        Ok(params.signed_by(subject, &issuer)?.der().clone())
    }
}

/// From the first second of a clock to 9999-12-31T23:59:59Z, which means no end (RFC 5280 §4.1.2.5): a node with a
/// wrong clock is still a member.
fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + LAST_SECOND_OF_DAY;
}

/// Different keys never share a serial number, and all numbers have one length, so that handshakes of equal runs have
/// equal sizes.
fn serial_of(key_pair: &KeyPair) -> SerialNumber {
    let mut serial: [u8; SERIAL_BYTES] = public_hash(key_pair);
    serial[0] = serial[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&serial)
}

fn fingerprint_of(key_pair: &KeyPair) -> String {
    let hash: [u8; 8] = public_hash(key_pair);
    let groups: Vec<String> = hash.chunks(2).map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect();
    groups.join("-")
}

fn public_hash<const N: usize>(key_pair: &KeyPair) -> [u8; N] {
    let digest: [u8; 32] = Sha256::digest(key_pair.subject_public_key_info()).into();
    core::array::from_fn(|at| digest[at])
}

/// Length of a tag: HMAC-SHA256, truncated to 128 bits (RFC 2104 §5).
pub(crate) const TAG_BYTES: usize = 16;

/// A key of HMAC-SHA256 that is derived from a cluster key and used for discovery only. Overwritten when dropped.
#[derive(Clone)]
pub(crate) struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    pub(crate) fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes keys of any length (RFC 2104 §2)");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// The tag over the parts in order.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; TAG_BYTES] {
        let whole: [u8; 32] = self.mac(parts).finalize().into_bytes().into();
        std::array::from_fn(|at| whole[at])
    }

    /// Whether the tag belongs to the parts, in constant time.
    pub(crate) fn verifies(&self, parts: &[&[u8]], tag: &[u8; TAG_BYTES]) -> bool {
        self.mac(parts).verify_truncated_left(tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use super::*;

    #[test]
    fn text_form_gives_the_key_back() {
        let key = ClusterKey::generate().unwrap();
        let text = key.to_text();
        assert_eq!(text.capacity(), TEXT_BYTES);
        for spelling in [format!(" \t{}\r\n\n", *text), text.to_uppercase().replace("CLOUDY-KEY", "cloudy-key")] {
            let read: ClusterKey = spelling.parse().unwrap();
            assert_eq!(*read.0, *key.0);
        }
    }

    #[test]
    fn each_malformed_key_has_its_own_error() {
        let good = ClusterKey::from_bytes(&[0xab; 32]).to_text();
        let cases = [
            (String::new(), ParseClusterKeyError::Prefix),
            ("cloudy-key-2:00".to_owned(), ParseClusterKeyError::Prefix),
            (good[..good.len() - 1].to_owned(), ParseClusterKeyError::Length { found: 63 }),
            (format!("{}0", *good), ParseClusterKeyError::Length { found: 65 }),
            (format!("{}g", &good[..good.len() - 1]), ParseClusterKeyError::Digit { position: 64 }),
            (format!("{}ä{}", &good[..15], &good[16..]), ParseClusterKeyError::Digit { position: 3 }),
        ];
        for (text, error) in cases {
            let found = text.parse::<ClusterKey>().unwrap_err();
            assert!(!found.to_string().contains("abab") && !format!("{found:?}").contains("abab"));
            assert_eq!(found, error);
        }
    }

    #[test]
    fn holders_of_one_key_derive_one_authority() {
        let (one, same) = (ClusterKey::from_bytes(&[7; 32]), ClusterKey::from_bytes(&[7; 32]));
        assert_eq!(one.authority().unwrap().certificate, same.authority().unwrap().certificate);
        assert_eq!(one.fingerprint(), same.fingerprint());
        let other = ClusterKey::from_bytes(&[8; 32]);
        assert_ne!(one.authority().unwrap().certificate, other.authority().unwrap().certificate);
        assert_ne!(one.fingerprint(), other.fingerprint());
        // Every cloudy of this key version must derive the same authority, so this value may never change.
        assert_eq!(one.fingerprint(), "6bf2-0772-502d-ad80");
    }

    #[test]
    fn the_fingerprint_is_in_the_authoritys_name() {
        let key = ClusterKey::generate().unwrap();
        let certificate = key.authority().unwrap().certificate;
        let name = format!("cloudy cluster {}", key.fingerprint());
        assert!(certificate.windows(name.len()).any(|window| window == name.as_bytes()));
    }

    #[test]
    fn secrets_are_wiped_and_not_shown() {
        fn wiped<T: ZeroizeOnDrop>(_: &T) {}
        let key = ClusterKey::from_bytes(&[0xab; 32]);
        wiped(&*key.0);
        wiped(&key.to_text());
        for shown in [format!("{key:?}"), format!("{key:#?}"), key.to_string(), key.fingerprint()] {
            assert!(shown.contains(&key.fingerprint()));
            assert!(!shown.contains("abab") && !shown.contains("171, 171"), "{shown}");
        }
    }
}
