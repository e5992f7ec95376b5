//! The versions of the wire format and of data directories that this process uses.

use core::ops::RangeInclusive;

use cloudy_proto::wire::WireVersions;

/// The newest format of data directories that this release writes.
pub const DATA_FORMAT_VERSION: u64 = 6;

/// The wire versions that this process speaks. The newest one is also the highest feature level of a group that it
/// supports.
#[must_use]
pub fn wire_versions() -> WireVersions {
    #[cfg(feature = "next-version")]
    if is_next() {
        return WireVersions::NEXT;
    }
    WireVersions::CURRENT
}

/// The formats of data directories that this process can use. A new directory gets the oldest one, and a directory
/// rises to a newer one with the first record of that format.
#[must_use]
pub fn data_formats() -> RangeInclusive<u64> {
    #[cfg(feature = "next-version")]
    if is_next() {
        return DATA_FORMAT_VERSION..=DATA_FORMAT_VERSION + 1;
    }
    DATA_FORMAT_VERSION..=DATA_FORMAT_VERSION
}

/// Whether this process of the test build runs as the next release.
#[cfg(feature = "next-version")]
fn is_next() -> bool {
    static IS_NEXT: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("CLOUDY_NEXT_VERSION").is_some());
    *IS_NEXT
}
