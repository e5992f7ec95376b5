//! Fingerprints of 128 bits: of a hundred million states, two share one with a chance below one in 10^22.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Collects the bytes to hash, so that both halves come from the same bytes.
#[derive(Default)]
struct Collector(Vec<u8>);

impl Hasher for Collector {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.0);
        hasher.finish()
    }
}

/// The fingerprint of something.
pub(super) fn of(what: &impl Hash) -> u128 {
    let mut collector = Collector::default();
    what.hash(&mut collector);
    let low = collector.finish();
    collector.write_u8(1);
    u128::from(collector.finish()) << 64 | u128::from(low)
}
