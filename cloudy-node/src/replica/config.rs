//! The configuration of a replica.

use super::snapshot;

/// Bytes of applied payloads between two snapshots, unless the configuration sets another value.
pub const SNAPSHOT_EVERY_BYTES: u64 = 16 << 20;

/// The configuration of a replica at this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaConfig {
    /// A snapshot is taken after this many bytes of payload. Default [`SNAPSHOT_EVERY_BYTES`]. Choose it well below
    /// [`retain_bytes`](crate::GroupConfig::retain_bytes), and the same at all members: they compare digests of snapshots
    /// that they take at the same index.
    pub snapshot_every_bytes: u64,
    /// `submit` at this node waits while the state here is this many messages behind the result here. Default 16,384.
    pub behind_max: u64,
    /// The bound of a snapshot's bytes, which tests lower.
    pub(super) snapshot_bytes_max: usize,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { snapshot_every_bytes: SNAPSHOT_EVERY_BYTES, behind_max: 16_384, snapshot_bytes_max: snapshot::BYTES_MAX }
    }
}

impl ReplicaConfig {
    cloudy_proto::setters! {
        snapshot_every_bytes: u64,
        behind_max: u64,
    }
}
