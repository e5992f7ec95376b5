//! Fingerprints of 128 bits: of a hundred million states, two share one with a chance below one in 10^22.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The fingerprint of something.
pub(super) fn of(what: &impl Hash) -> u128 {
    let half = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        what.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}
